"""Sensors as a table, CSV or Parquet: a time column, then one column per channel, units in the header.

    time [s],accelerometer.x [m/s²],accelerometer.y [m/s²],force.z [N]
    0,0.13,-0.02,
    0.01,0.12,-0.02,19.6

An empty cell (or nan, na, null, -) was not measured.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .clip import Clip, ClipError, Track, from_comment
from .clip_resample import interpolate_channel

SUFFIXES = (".csv", ".parquet")
_HEADER = re.compile(r"^\s*(?P<name>.*?)\s*(?:[\[(](?P<unit>[^\[\]()]*)[\])])?\s*$")
_SECONDS = {"": 1.0, "s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_MISSING = {"", "nan", "na", "n/a", "null", "none", "-"}


def read_table(path: Path) -> Clip:
    """The sensors of a table as a clip, with the metadata and events that a Parquet file carries.

    Timestamps may be irregular: each sensor is then interpolated onto its median rate, with a mask that is False
    where no sample is near.

    Raises:
        ClipError: no time column, a time that doesn't increase, a cell that is no number, no rows.
    """
    header, table, comment = (_parse_csv if path.suffix.lower() == ".csv" else _parse_parquet)(path)
    names = [_split(h) for h in header]
    column = next((i for i, (name, _) in enumerate(names) if _time_scale(*names[i]) is not None), None)
    if column is None:
        raise ClipError(f'{path}: no time column; the first column should be "time [s]", here it is "{header[0]}"')
    if len(table) == 0:
        raise ClipError(f"{path}: no rows below the header")
    times = table[:, column] * (_time_scale(*names[column]) or 1.0)
    _check_times(path, times)
    groups: dict[str, dict[str, int]] = {}  # sensor → channel → column
    for i, (name, _) in enumerate(names):
        if i != column:
            sensor, channel = name.rsplit(".", 1) if "." in name else (name, "value")
            if not sensor or groups.setdefault(sensor, {}).setdefault(channel, i) != i:
                raise ClipError(f'{path}: column {i + 1} is called "{header[i]}", expected a name used only once')
    if not groups:
        raise ClipError(f"{path}: no column beside the time")
    sensors, others = {}, np.array(~np.isnan(np.delete(table, column, axis=1)).all(1))
    for sensor, columns in groups.items():
        values, mask, rate, start = _even(times, table[:, list(columns.values())].T, others)
        units = tuple(names[i][1] for i in columns.values())
        sensors[sensor] = Track(values, rate, start, tuple(columns), units, None if mask.all() else mask)
    metadata, events = from_comment(comment)
    return Clip(sensor=sensors, events=events, metadata=metadata)


def write_table(sensors: Mapping[str, Track], path: Path, kind: str, comment: str) -> None:
    """Writes sensors to `path` as `kind` (".csv" or ".parquet"); sensors of different rates leave cells empty.

    Raises:
        ClipError: a sensor's or channel's name that could not be read back from the header.
    """
    stamps = [np.round(track.times(), 9) for track in sensors.values()]
    times = np.unique(np.concatenate(stamps))
    columns = {"time [s]": times}
    for (sensor, track), own in zip(sensors.items(), stamps, strict=True):
        rows = np.searchsorted(times, own)
        for c in range(track.values.shape[0]):
            name = f"{sensor}.{track.names[c] if track.names else c}"
            unit = track.units[c] if track.units else ""
            head = f"{name} [{unit}]" if unit else name
            if _split(head) != (name, unit) or name.rsplit(".", 1)[0] != sensor or head in columns or not sensor:
                raise ClipError(f'{sensor}: the column name "{head}" can\'t be read back; use plain names and units')
            values = np.full(len(times), np.nan)
            values[rows] = track.values[c] if track.mask is None else np.where(track.mask[c], track.values[c], np.nan)
            columns[head] = values
    (_dump_csv if kind == ".csv" else _dump_parquet)(columns, path, comment)


def _split(header: str) -> tuple[str, str]:
    """`"force.z [N]"` → `("force.z", "N")`."""
    match = _HEADER.match(header)
    return (match["name"], (match["unit"] or "").strip()) if match else (header.strip(), "")


def _time_scale(name: str, unit: str) -> float | None:
    """Seconds per unit of a time column, None for any other column: time, time_s, time [ms], t, timestamp."""
    match = re.fullmatch(r"(time|timestamp|t)(?:_(\w+))?", name.lower())
    return _SECONDS.get((unit or match[2] or "").lower()) if match else None


def _parse_csv(path: Path) -> tuple[list[str], np.ndarray, str | None]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ClipError(f"{path}: can't be read as text in UTF-8: {error}") from None
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#")]
    if not lines:
        raise ClipError(f"{path}: empty file; the first line should name the columns, beginning with time")
    mark = max(",;\t", key=lines[0][1].count)
    rows = csv.reader((line for _, line in lines), delimiter=mark)
    header = next(rows)
    table = np.empty((len(lines) - 1, len(header)))
    for i, row in enumerate(rows):
        number = lines[i + 1][0]
        if len(row) != len(header):
            raise ClipError(f"{path}: line {number} has {len(row)} cells, the header has {len(header)}")
        for j, cell in enumerate(row):
            table[i, j] = _number(path, number, header[j], cell)
    return header, table, None


def _number(path: Path, line: int, column: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        if cell.strip().lower() in _MISSING:
            return np.nan
        raise ClipError(f'{path}: line {line}, column "{column}": "{cell}" is not a number') from None
    if np.isinf(value):
        raise ClipError(f'{path}: line {line}, column "{column}": "{cell}" is not finite')
    return value


def _parse_parquet(path: Path) -> tuple[list[str], np.ndarray, str | None]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise ClipError(f"{path}: can't be read as Parquet: {str(error).splitlines()[0]}") from None
    columns = []
    for name, column in zip(data.column_names, data.columns, strict=True):
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
            raise ClipError(f'{path}: column "{name}" holds {column.type}, expected numbers')
        columns.append(column.to_numpy().astype(np.float64))
        if np.isinf(columns[-1]).any():
            raise ClipError(f'{path}: column "{name}" holds infinite values')
    comment = (data.schema.metadata or {}).get(b"comment")
    return data.column_names, np.stack(columns, axis=1), comment.decode(errors="replace") if comment else None


def _check_times(path: Path, times: np.ndarray) -> None:
    if np.isnan(times).any():
        raise ClipError(f"{path}: row {int(np.argmax(np.isnan(times))) + 1} has no time")
    back = np.flatnonzero(np.diff(times) <= 0)
    if len(back):
        i = int(back[0]) + 1
        raise ClipError(f"{path}: row {i + 1}: time must increase, {times[i]:.9g} comes after {times[i - 1]:.9g}")


def _even(times: np.ndarray, values: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Values `[C, N]` (NaN: not measured) at `times` `[N]` → values, mask `[C, M]`, rate and start on an even grid.

    `others` `[N]` says in which rows anything at all was measured: an empty row is a gap, not a slower sensor's.
    """
    known = ~np.isnan(values)
    rows = known.any(0) | ~others
    if rows.sum() >= 8 and _median_step(times[rows]) > 1.5 * _median_step(times):
        times, values, known = times[rows], values[:, rows], known[:, rows]  # a slower sensor among faster ones
    if len(times) == 1:
        return np.nan_to_num(values).astype(np.float32), known, 1.0, float(times[0])
    rate = even_rate(times, tolerance=0.02)
    if rate is not None:
        return np.nan_to_num(values).astype(np.float32), known, rate, float(times[0])
    period = _median_step(times)
    grid = np.arange(times[0], times[-1] + period / 2, period)
    pairs = [interpolate_channel(times[k], row[k], grid, period) for row, k in zip(values, known, strict=True)]
    return np.stack([v for v, _ in pairs]), np.stack([m for _, m in pairs]), 1 / period, float(times[0])


def even_rate(times: np.ndarray, tolerance: float) -> float | None:
    """The rate of evenly spaced `times` `[N]`, None if one is off by more than `tolerance` periods."""
    mean = (len(times) - 1) / (times[-1] - times[0])
    for rate in (float(round(mean)), round(mean, 2), mean):
        if rate > 0 and np.abs((times - times[0]) * rate - np.arange(len(times))).max() <= tolerance:
            return rate
    return None


def _median_step(times: np.ndarray) -> float:
    return float(np.median(np.diff(times)))


def _dump_csv(columns: dict[str, np.ndarray], path: Path, comment: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        stamps = [f"{t:.12g}" for t in columns["time [s]"]]
        cells = [["" if np.isnan(v) else f"{v:.9g}" for v in c] for n, c in columns.items() if n != "time [s]"]
        writer.writerows(zip(stamps, *cells, strict=True))


def _dump_parquet(columns: dict[str, np.ndarray], path: Path, comment: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})
    pq.write_table(table.replace_schema_metadata({"comment": comment}), path)
