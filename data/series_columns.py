"""The columns of a table file, CSV, Parquet or NPZ, as numpy arrays: numbers, dates or text, with units.

An empty cell (or nan, na, n/a, null, none, -) is missing. Legend: `R` rows.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..modalities.clip import ClipError

SUFFIXES = (".csv", ".parquet", ".npz")
MISSING = ["", "nan", "NaN", "NAN", "na", "NA", "n/a", "N/A", "null", "NULL", "none", "None", "-"]
SECONDS = {"": 1.0, "s": 1.0, "sec": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0}
_HEADER = re.compile(r"^\s*(?P<name>.*?)\s*(?:\[(?P<unit>[^\[\]]*)\])?\s*$")


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        header: as it stands in the file, `name [unit]`.
        values: `[R]`: numbers (NaN where missing), datetime64 (NaT) or objects of text (None).
    """

    header: str
    values: np.ndarray

    @property
    def name(self) -> str:
        """The header without the unit."""
        return self._parts()[0]

    @property
    def unit(self) -> str:
        """What stands in brackets, or nothing."""
        return self._parts()[1]

    def _parts(self) -> tuple[str, str]:
        match = _HEADER.match(self.header)
        return (match["name"], (match["unit"] or "").strip()) if match else (self.header, "")


def read_columns(path: Path) -> list[Column]:
    """All columns of a file.

    Raises:
        ClipError: no such file or one that can't be read, no rows, a name used twice.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise ClipError(f"{path}: no such file; data= takes a .csv, .parquet or .npz")
    if suffix not in SUFFIXES:
        raise ClipError(f"{path}: unknown kind of file, expected {', '.join(SUFFIXES)}")
    try:
        columns = _read_npz(path) if suffix == ".npz" else _read_arrow(path, suffix)
    except ClipError:
        raise
    except (OSError, ValueError, KeyError) as error:  # pyarrow's own errors are ValueErrors
        raise ClipError(f"{path}: can't be read as a table: {str(error).splitlines()[0]}") from None
    names = [column.name for column in columns]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ClipError(f"{path}: two columns are called '{twice}', expected a name used only once")
    if not columns or len(columns[0].values) == 0:
        raise ClipError(f"{path}: no rows, expected columns with a header")
    return columns


def column_named(path: Path, columns: Sequence[Column], name: str, part: str) -> Column:
    """The column of a header or name; a ClipError that suggests the nearest where there is none."""
    for column in columns:
        if name in (column.header, column.name):
            return column
    names = {column.name.lower(): column.name for column in columns}
    near = difflib.get_close_matches(name.lower(), names, 1, 0.4)
    hint = f"did you mean '{names[near[0]]}'?" if near else f"it has {', '.join(names.values())}"
    raise ClipError(f"{path}: {part}={name}: no such column; {hint}")


def datelike(column: Column) -> bool:
    """Whether the column holds dates, or text (which may be ISO dates), not numbers."""
    return column.values.dtype.kind in "MO"


def seconds_of(path: Path, column: Column) -> np.ndarray:
    """Timestamps in seconds, float64 `[R]`: numbers in the header's unit, dates since 1970; NaN where missing."""
    kind = column.values.dtype.kind
    if kind in "fiu":
        if column.unit not in SECONDS:
            units = ", ".join(unit for unit in SECONDS if unit)
            raise ClipError(f"{path}: column '{column.header}': no such unit of time, expected {units}")
        return column.values * SECONDS[column.unit]
    dates = column.values if kind == "M" else _dates(path, column)
    return np.where(np.isnat(dates), np.nan, dates.astype("datetime64[us]").astype(np.int64) / 1e6)


def texts_of(column: Column) -> np.ndarray:
    """Names of groups or classes `[R]`; whole numbers without a point, missing cells as `""`."""
    if column.values.dtype.kind == "f":
        return np.array(["" if np.isnan(v) else f"{v:.12g}" for v in column.values.tolist()])
    return np.array(["" if v is None else str(v) for v in column.values.tolist()])


def _dates(path: Path, column: Column) -> np.ndarray:
    out = np.full(len(column.values), np.datetime64("NaT"), "datetime64[us]")
    for i, text in enumerate(column.values.tolist()):
        if text is None or text == "":
            continue
        try:
            date = datetime.fromisoformat(str(text).strip())
            out[i] = date.astimezone(UTC).replace(tzinfo=None) if date.tzinfo else date
        except ValueError:
            raise ClipError(
                f"{path}: column '{column.name}', row {i + 1}: '{text}' is no time, expected a number or an ISO date"
            ) from None
    return out


def _read_arrow(path: Path, suffix: str) -> list[Column]:
    if suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(path)
    else:
        import pyarrow.csv as pc

        with path.open(encoding="utf-8-sig") as lines:
            first = lines.readline()
        mark = max(",;\t", key=first.count)
        options = pc.ConvertOptions(null_values=MISSING, strings_can_be_null=True)
        table = pc.read_csv(path, parse_options=pc.ParseOptions(delimiter=mark), convert_options=options)
    return [Column(name, _array(table.column(i))) for i, name in enumerate(table.column_names)]


def _array(column: Any) -> np.ndarray:
    """A column of pyarrow: numbers as they are (float64 with NaN where some are missing), dates, or objects."""
    import pyarrow.types as types

    kind = column.type
    if types.is_null(kind):
        return np.full(len(column), np.nan)
    if types.is_boolean(kind) or types.is_decimal(kind):
        return np.array([np.nan if v is None else float(v) for v in column.to_pylist()])
    if types.is_integer(kind) or types.is_floating(kind):
        return column.to_numpy()
    if types.is_date(kind) or types.is_timestamp(kind):
        import pyarrow as pa

        return column.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False).to_numpy()
    return np.array([None if v is None else str(v) for v in column.to_pylist()], dtype=object)


def _read_npz(path: Path) -> list[Column]:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    rows = max((array.size for array in arrays.values()), default=0)
    for name, array in arrays.items():
        if array.shape != (rows,):
            raise ClipError(f"{path}: array '{name}' is {list(array.shape)}, expected one value a row, [{rows}]")
    return [Column(name, _plain(array)) for name, array in arrays.items()]


def _plain(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind in "US":
        return np.array([None if v in MISSING else v for v in array.astype(str).tolist()], dtype=object)
    return array.astype(np.float64) if array.dtype.kind == "b" else array
