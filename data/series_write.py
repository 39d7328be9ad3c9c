"""Windows as a table, CSV, Parquet or NPZ, that `read_series` reads back: names, units, times, classes.

write_series("made.csv", windows, channels, step=0.02)       # windows [N, L, C], NaN where there is no sample
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..modalities.clip import ClipError
from .series_columns import SECONDS, SUFFIXES, Column
from .series_table import Channel


def write_series(
    path: str | Path, windows: np.ndarray, channels: Sequence[Channel], step: float, time: str = "time [s]",
    start: float | Sequence[float] = 0.0, dates: bool = False, group: str = "window",
    told: Mapping[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Writes windows one below the other; rows without any value are left out.

    Args:
        path: `.csv`, `.parquet` or `.npz`.
        windows: `[N, L, C]` in the channels' units, or samples of an ensemble `[S, N, L, C]`.
        channels: names and units, for the header.
        step: seconds from one row to the next.
        time: header of the times, which are written in its unit.
        start: seconds of the first row, of all windows or of each.
        dates: write times as ISO dates (seconds since 1970).
        group: header of the column that numbers the windows: `3`, or `3s0` for sample 0 of window 3.
        told: further columns, `{header: value of all windows, or one of each}`.

    Raises:
        ClipError: an unknown kind of file, windows that don't fit the channels, a name used twice.
    """
    path, windows = Path(path), np.asarray(windows)
    if path.suffix.lower() not in SUFFIXES:
        raise ClipError(f"{path}: unknown kind of file, expected {', '.join(SUFFIXES)}")
    if windows.ndim not in (3, 4) or windows.shape[-1] != len(channels):
        raise ClipError(f"windows: {list(windows.shape)}, expected [windows, steps, {len(channels)}]")
    count, length = windows.shape[-3:-1]
    names = [str(n) for n in range(count)]
    if windows.ndim == 4:
        names = [f"{n}s{s}" for s in range(len(windows)) for n in range(count)]
    flat = windows.reshape(-1, len(channels))
    rows = ~np.isnan(flat).all(axis=1)
    which = np.repeat(np.arange(len(names)), length)[rows]  # the window of each row
    begin = np.broadcast_to(np.asarray(start, np.float64), count)[which % count]
    times = np.round(begin + np.tile(np.arange(length) * step, len(names))[rows], 9)
    columns: list[tuple[str, np.ndarray]] = [(time, _stamps(path, time, times, dates)), (group, np.array(names)[which])]
    for header, value in (told or {}).items():
        each = np.broadcast_to(np.asarray(value), count)
        columns.append((header, each[which % count]))
    columns += [(channel.header, flat[rows, c]) for c, channel in enumerate(channels)]
    twice = next((n for n, _ in columns if [m for m, _ in columns].count(n) > 1), None)
    if twice is not None:
        raise ClipError(f"{path}: two columns would be called '{twice}'")
    _dump(path, dict(columns))
    return path


def _stamps(path: Path, time: str, seconds: np.ndarray, dates: bool) -> np.ndarray:
    if dates:
        return np.datetime_as_string(np.round(seconds * 1e6).astype("datetime64[us]"))
    unit = Column(time, seconds).unit
    if unit not in SECONDS:
        raise ClipError(f"{path}: time={time}: no such unit of time")
    return np.round(seconds / SECONDS[unit], 6)


def _dump(path: Path, columns: dict[str, np.ndarray]) -> None:
    part = path.with_name(path.name + ".part")
    if path.suffix.lower() == ".npz":
        with part.open("wb") as file:
            np.savez_compressed(file, **columns)  # pyright: ignore[reportArgumentType]
    else:
        import pyarrow as pa
        import pyarrow.csv as pc
        import pyarrow.parquet as pq

        table = pa.table({n: pa.array(v, from_pandas=v.dtype.kind == "f") for n, v in columns.items()})
        if path.suffix.lower() == ".csv":
            pc.write_csv(table, part)
        else:
            pq.write_table(table, part)
    part.replace(path)
