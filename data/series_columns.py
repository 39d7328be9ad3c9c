"""The columns of a file as numpy arrays: numbers, dates or text, with units.

Tables (CSV, Parquet, NPZ) are read here; WFDB records and MCAP logs, which have a clock of their own, in
`series_wfdb.py` and `series_mcap.py`. An empty cell (or nan, na, n/a, null, none, -) is missing. Legend: `R` rows.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ..modalities.clip import ClipError

TABLES = (".csv", ".parquet", ".npz")
SUFFIXES = (*TABLES, ".hea", ".mcap")
MISSING = ["", "nan", "NaN", "NAN", "na", "NA", "n/a", "N/A", "null", "NULL", "none", "None", "-"]
SECONDS = {"": 1.0, "s": 1.0, "sec": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0}
_HEADER = re.compile(r"^\s*(?P<name>.*?)\s*(?:\[(?P<unit>[^\[\]]*)\])?\s*$")


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        header: as it stands in the file, `name [unit]`.
        values: `[R]`: numbers (NaN where missing), datetime64 (NaT) or objects of text (None).
        role: `"channel"`; `"group"`: says whose a row is where no other column is named for it; `"extra"`: counts only
            where it is named.
    """

    header: str
    values: np.ndarray
    role: str = "channel"

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


@dataclass(frozen=True)
class Clock(Column):
    """The timestamps.

    Args:
        step: seconds from one row to the next, where the file says so.
        origin: seconds to add to the values, which then keep their precision.
        dates: whether they count from 1970.
    """

    step: float | None = None
    origin: float = 0.0
    dates: bool = False


@dataclass(frozen=True)
class Log:
    """What one file with a clock of its own holds.

    Args:
        group: its name.
        times: `[R]`, in whatever the format counts.
        signals: `{header: numbers [R]}`, NaN where there is no sample.
        extras: `{header: text [R]}`, None where there is none.
        facts: `{name: value}` that hold for the whole file.
    """

    group: str
    times: np.ndarray
    signals: Mapping[str, np.ndarray]
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


def read_columns(path: Path, time: str = "", named: Sequence[str] = (), drop: Sequence[str] = ()) -> list[Column]:
    """All columns of a file, or of a folder of WFDB records or MCAP logs.

    Args:
        path: `.csv`, `.parquet`, `.npz`, `.hea` (or the record's name without it), `.mcap`, or a folder.
        time, named, drop: what will be asked for: the clock; columns of groups, labels and covariates; what is left
            out. Tables don't need to know; records and logs read annotations and skip topics by it.

    Raises:
        ClipError: no such file or one that can't be read, no rows, a name used twice, a missing package.
    """
    path, suffix = _kind_of(path)
    if suffix == ".hea":
        from .series_wfdb import read_wfdb

        columns = read_wfdb(path, named)
    elif suffix == ".mcap":
        from .series_mcap import read_mcap

        columns = read_mcap(path, time, named, drop)
    else:
        columns = _read_table(path, suffix)
    names = [column.name for column in columns]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ClipError(f"{path}: two columns are called '{twice}', expected a name used only once")
    if not columns or len(columns[0].values) == 0:
        raise ClipError(f"{path}: no rows, expected columns with a header")
    return columns


def _kind_of(path: Path) -> tuple[Path, str]:
    """The file or folder to read, and the suffix that says how."""
    if path.is_dir():
        if (path / "RECORDS").is_file() or next(path.glob("*.hea"), None) is not None:
            return path, ".hea"
        if next(path.glob("*.mcap"), None) is not None:
            return path, ".mcap"
        raise ClipError(f"{path}: a folder without .hea or .mcap files; for a table, name the file")
    header = path.with_name(path.name + ".hea")
    if not path.is_file() and header.is_file():
        return header, ".hea"
    if not path.is_file():
        raise ClipError(f"{path}: no such file; data= takes {', '.join(SUFFIXES)}")
    if path.suffix.lower() not in SUFFIXES:
        raise ClipError(f"{path}: unknown kind of file, expected {', '.join(SUFFIXES)}")
    return path, path.suffix.lower()


def required(path: Path, module: str, what: str, package: str, install: str) -> Any:
    """An optional package's module; a ClipError that says how to install it where it is missing."""
    try:
        return import_module(module)
    except ImportError:
        raise ClipError(f"{path}: {what} needs the package {package}: pip install {install}") from None


def first_line(error: Exception) -> str:
    """What a library says of a file, in one line; the kind of error where it says nothing."""
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def stack_logs(path: Path, logs: Sequence[Log], clock: Clock, group: str) -> list[Column]:
    """The clock, the logs' names and their columns, one log below the other; what a log doesn't have is missing there.

    Raises:
        ClipError: a signal in two units.
    """
    lengths = [len(log.times) for log in logs]
    headers: dict[str, str] = {}  # name → header
    for log in logs:
        for column in (Column(header, log.times) for header in log.signals):
            known = headers.setdefault(column.name, column.header)
            if known != column.header:
                raise ClipError(f"{path}: '{log.group}' has '{column.header}', others '{known}', expected one unit")
    columns = [clock, Column(group, np.repeat(np.array([log.group for log in logs]), lengths), "group")]
    for header in headers.values():
        parts = [log.signals.get(header, np.full(len(log.times), np.nan)) for log in logs]
        columns.append(Column(header, np.concatenate(parts)))
    for header in dict.fromkeys(header for log in logs for header in log.extras if header not in headers):
        parts = [log.extras.get(header, np.full(len(log.times), None)) for log in logs]
        columns.append(Column(header, np.concatenate(parts), "extra"))
    taken = {column.name for column in columns}
    for name in dict.fromkeys(name for log in logs for name in log.facts if name not in taken):
        told = _numbers_if_all([log.facts.get(name, "") for log in logs])
        columns.append(Column(name, np.repeat(told, lengths), "extra"))
    return columns


def _numbers_if_all(texts: Sequence[str]) -> np.ndarray:
    try:
        return np.array([np.nan if text in MISSING else float(text) for text in texts])
    except ValueError:
        return np.array([None if text in MISSING else text for text in texts], dtype=object)


def column_named(path: Path, columns: Sequence[Column], name: str, part: str) -> Column:
    """The column of a header or name; a ClipError that suggests the nearest where there is none."""
    for column in columns:
        if name in (column.header, column.name):
            return column
    names = {column.name.lower(): column.name for column in columns}
    near = difflib.get_close_matches(name.lower(), names, 1, 0.4)
    hint = f"did you mean '{names[near[0]]}'?" if near else f"it has {', '.join(names.values())}"
    raise ClipError(f"{path}: {part}={name}: no such column; {hint}")


def columns_under(path: Path, columns: Sequence[Column], name: str, part: str) -> list[Column]:
    """The column of a name, or all below it: `/imu` is `/imu.x`, `/imu.header.seq` and `/imu/left.x`."""
    if not any(name in (column.header, column.name) for column in columns):
        below = [column for column in columns if column.name.startswith((f"{name}.", f"{name}/"))]
        if below:
            return below
    return [column_named(path, columns, name, part)]


def clock_of(path: Path, columns: Sequence[Column], time: str) -> Clock:
    """The file's own clock (`""`, `"auto"` or its name), or the column named."""
    own = next((column for column in columns if isinstance(column, Clock)), None)
    if own is not None and time in ("", "auto", own.name, own.header):
        return own
    if time in ("", "auto") and all(column.name != time for column in columns):
        has = ", ".join(column.name for column in columns)
        raise ClipError(f"{path}: a table has no clock of its own; time= names its column of timestamps, it has {has}")
    column = column_named(path, columns, time, "time")
    return Clock(column.header, column.values)


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
        return column.values * SECONDS[column.unit] + (column.origin if isinstance(column, Clock) else 0.0)
    dates = column.values if kind == "M" else _dates(path, column)
    return np.where(np.isnat(dates), np.nan, dates.astype("datetime64[us]").astype(np.int64) / 1e6)


def texts_of(column: Column) -> np.ndarray:
    """Names of groups or classes `[R]`; whole numbers without a point, missing cells as `""`."""
    if column.values.dtype.kind == "U":
        return column.values
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


def _read_table(path: Path, suffix: str) -> list[Column]:
    try:
        return _read_npz(path) if suffix == ".npz" else _read_arrow(path, suffix)
    except ClipError:
        raise
    except (OSError, ValueError, KeyError) as error:  # pyarrow's own errors are ValueErrors
        raise ClipError(f"{path}: can't be read as a table: {str(error).splitlines()[0]}") from None


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
