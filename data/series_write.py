"""Windows as a file that `read_series` reads back: names, units, times, classes.

    write_series("made.csv", windows, channels, step=0.02)       # windows [N, L, C], NaN where there is no sample

A table (CSV, Parquet, NPZ) has the windows one below the other. A WFDB record or an MCAP log holds one window; several
become a folder of records with its file RECORDS, or of logs.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..modalities.clip import ClipError
from .series_columns import SECONDS, SUFFIXES, TABLES, Column
from .series_table import Channel


def write_series(
    path: str | Path, windows: np.ndarray, channels: Sequence[Channel], step: float, time: str = "time [s]",
    start: float | Sequence[float] = 0.0, dates: bool = False, group: str = "window",
    told: Mapping[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Writes windows; rows without any value are left out. A file is there as a whole or not at all.

    Args:
        path: `.csv`, `.parquet`, `.npz`, `.hea` or `.mcap`. `made.hea` of several windows is the folder `made`, with
            records `0`, `1`, … in it (or `3s0`, see `group`), and `made.mcap` likewise.
        windows: `[N, L, C]` in the channels' units, or samples of an ensemble `[S, N, L, C]`.
        channels: names and units, for the header.
        step: seconds from one row to the next.
        time: header of the times, which are written in its unit; `.hea` and `.mcap` have a clock of their own.
        start: seconds of the first row, of all windows or of each.
        dates: write times as ISO dates (seconds since 1970), or a record's date.
        group: header of the column that numbers the windows: `3`, or `3s0` for sample 0 of window 3.
        told: further columns, `{header: value of all windows, or one of each}`; comments of a record's header, metadata
            of a log.

    Returns:
        What was written: `path`, or the folder.

    Raises:
        ClipError: an unknown kind of file, windows that don't fit the channels, a name used twice, infinite values in a
            record or log, a folder that is there already, a missing package.
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
    if path.suffix.lower() not in TABLES:
        check_names(path, [*(told or {}), *(channel.header for channel in channels)])
        each = {key: np.broadcast_to(np.asarray(value), count) for key, value in (told or {}).items()}
        begin = np.broadcast_to(np.asarray(start, np.float64), count)
        facts = [{key: str(own[n]) for key, own in each.items()} for n in range(count)]
        logs = [(names[k], own, float(begin[k % count]), facts[k % count])
                for k, own in enumerate(windows.reshape(-1, length, len(channels)))]  # fmt: skip
        return _write_logs(path, logs, channels, step, dates)
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
    check_names(path, [name for name, _ in columns])
    return write_columns(path, dict(columns))


def check_names(path: Path, names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ClipError(f"{path}: two columns would be called '{twice}'")


def _write_logs(
    path: Path, logs: Sequence[tuple[str, np.ndarray, float, dict[str, str]]], channels: Sequence[Channel], step: float,
    dates: bool,
) -> Path:  # fmt: skip
    """One record or log `(name, window [L, C], start, told)` at `path`, or several in a folder of its name."""
    from .series_mcap import write_mcap
    from .series_wfdb import write_wfdb

    wfdb = path.suffix.lower() == ".hea"
    write, target = write_wfdb if wfdb else write_mcap, path.with_suffix("")
    if any(np.isinf(window).any() for _, window, _, _ in logs):
        raise ClipError(f"{path}: infinite values, expected numbers, or NaN where there is no sample")
    if len(logs) > 1 and target.exists():
        raise ClipError(f"{target}: exists; {len(logs)} windows become a folder of that name, expected none there")
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as place:
        if len(logs) == 1:
            _, window, start, told = logs[0]
            files = write(Path(place), path.stem, window, channels, step, start, dates, told)
            for name in files[:-1]:  # a header is there only with its own signals
                (path.parent / files[-1]).unlink(missing_ok=True)
                os.replace(Path(place, name), path.parent / name)
            os.replace(Path(place, files[-1]), path)
            return path
        folder = Path(place, target.name)
        folder.mkdir()
        for name, window, start, told in logs:
            write(folder, name, window, channels, step, start, dates, told)
        if wfdb:
            (folder / "RECORDS").write_text("".join(f"{name}\n" for name, *_ in logs), encoding="utf-8")
        folder.replace(target)
    return target


def _stamps(path: Path, time: str, seconds: np.ndarray, dates: bool) -> np.ndarray:
    if dates:
        return np.datetime_as_string(np.round(seconds * 1e6).astype("datetime64[us]"))
    unit = Column(time, seconds).unit
    if unit not in SECONDS:
        raise ClipError(f"{path}: time={time}: no such unit of time")
    return np.round(seconds / SECONDS[unit], 6)


def write_columns(path: Path, columns: Mapping[str, np.ndarray]) -> Path:
    """Writes `{header: [rows]}` as `.csv`, `.parquet` or `.npz`, which appears only when complete."""
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
    return path
