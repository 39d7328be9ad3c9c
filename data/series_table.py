"""Your own recordings as series on one grid: a table, a WFDB record or an MCAP log, read without editing code.

    table = read_series("walks.csv", time="timestamp", group="subject", label=["activity"], static=["age"])
    table.recordings[0].values    # [L, C], with table.channels[c].name and .unit

    timestamp,subject,activity,age,acc_x [m/s²],acc_y [m/s²],pulse [1/min]
    0,anna,walk,31,0.13,-0.02,
    20,anna,walk,31,0.12,-0.02,71

Every column that is not named is a channel, its unit in brackets. Times are numbers (seconds, or the unit in the
header: `timestamp [ms]`) or ISO dates. Nothing is interpolated: a sample goes into the cell of the grid that its
timestamp lies in, cells without a sample are masked, and the true timestamps are kept. The grid's step is the median
step of the rows, or 1 / `rate`; where the rows are irregular because several regular clocks alternate, it is the step
of the fastest channel. Channels of different rates share the grid, each with a mask of its own.

An NPZ file holds one array `[rows]` per column, named as a header would be. WFDB records (`series_wfdb.py`) and MCAP
logs (`series_mcap.py`) have a clock of their own, `time="auto"`, and a folder of them is one group per record or log.
Legend: `L` cells, `C` channels, `R` rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..modalities.clip import ClipError
from .series_columns import (
    Column,
    clock_of,
    column_named,
    columns_under,
    datelike,
    read_columns,
    seconds_of,
    texts_of,
)

REGULAR = 0.8  # share of steps within 10 % of their median that makes a clock regular
PAUSE = 1024  # a recording is parted where no channel has a sample for more cells than this


@dataclass(frozen=True)
class Channel:
    """One signal.

    Args:
        name, unit: of the header `name [unit]`.
        every: cells from one sample to the next: 1, or more where it is slower than the grid.
    """

    name: str
    unit: str = ""
    every: int = 1

    @property
    def header(self) -> str:
        """`name [unit]`, as it is read and written."""
        return f"{self.name} [{self.unit}]" if self.unit else self.name


@dataclass(frozen=True)
class Recording:
    """What one group recorded without a long pause.

    Args:
        group: its name; `""` where there is no column of groups.
        values: float32 `[L, C]` in the channels' units; 0 where nothing was measured.
        mask: bool `[L, C]`, where a sample lies.
        times: float64 `[L, C]` true timestamps in seconds; NaN where nothing was measured.
        start, step: time of cell 0 and seconds from one cell to the next.
        labels: int64 `[L, labels]`, the class by `SeriesTable.classes`; −1 where none is told.
        static: float32 `[statics]`; NaN where unknown.
    """

    group: str
    values: np.ndarray
    mask: np.ndarray
    times: np.ndarray
    start: float
    step: float
    labels: np.ndarray
    static: np.ndarray


@dataclass(frozen=True)
class SeriesTable:
    """All recordings of a file.

    Args:
        path: the file.
        channels: signals in the order of the columns.
        step: seconds of a cell (or whatever unit a time column without one counts).
        time: the header of the time column; `dates`: whether it holds dates (seconds since 1970 here).
        recordings: in the order of the file.
        classes: `{label column: its classes}`.
        statics: names of the static covariates.
        dropped: samples that fell into a cell already taken by a sample nearer to its middle.
    """

    path: Path
    channels: tuple[Channel, ...]
    step: float
    time: str
    dates: bool
    recordings: tuple[Recording, ...]
    classes: Mapping[str, tuple[str, ...]]
    statics: tuple[str, ...]
    dropped: int = 0

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the groups."""
        return tuple(dict.fromkeys(own.group for own in self.recordings))


def read_series(
    path: str | Path, time: str = "auto", group: str = "", label: Sequence[str] = (), static: Sequence[str] = (),
    drop: Sequence[str] = (), rate: float | None = None, repeats: str = "error",
) -> SeriesTable:  # fmt: skip
    """Reads a table of recordings.

    Args:
        path: `.csv`, `.parquet`, `.npz`, `.hea`, `.mcap`, or a folder of the last two.
        time, group, label, static: columns, by the header or by its name without the unit. Rows of a group are in
            the order of time; groups may alternate. A label is a class per row; a static covariate a number per group.
            `time="auto"` is the clock of a WFDB record or MCAP log; without `group`, each of these is one.
        drop: columns to leave out; where no column has that name, all below it: `/imu` means `/imu.x` and `/imu/raw.x`.
        rate: cells of the grid a second (or per unit of a time column without one); None: from the timestamps.
        repeats: what a timestamp is that a group has twice: `"error"`, or `"merge"`: one sample, each channel's value
            that of the last row that has one.

    Raises:
        ClipError: names the file and the column or group: a missing column (and the nearest name), a text column that
            has no part, a channel that is constant or empty, infinite values, a time that is missing, repeats or runs
            backward (with the row), a group without a value, a covariate that changes within a group.
    """
    path = Path(path)
    if repeats not in ("error", "merge"):
        raise ClipError(f"repeats={repeats}: expected error or merge")
    if rate is not None and not rate > 0:
        raise ClipError(f"rate={rate:g}: expected more than 0, or none")
    columns = read_columns(path, time, [*([group] if group else []), *label, *static], drop)
    clock = clock_of(path, columns, time)
    by_group = next((c for c in columns if c.role == "group"), None)
    by_group = column_named(path, columns, group, "group") if group else by_group
    classes = [column_named(path, columns, name, "label") for name in label]
    traits = [column_named(path, columns, name, "static") for name in static]
    left = [column for name in drop for column in columns_under(path, columns, name, "drop")]
    named = [c.header for c in (clock, *([by_group] if by_group else []), *classes, *traits, *left)]
    twice = next((n for n in named if named.count(n) > 1), None)
    if twice is not None:
        raise ClipError(f"{path}: column '{twice}' is asked for twice, expected one part for each")
    signals = [c for c in columns if c.header not in named and c.role == "channel"]
    if not signals:
        raise ClipError(f"{path}: no channel, expected a column of numbers beside {', '.join(named)}")
    values = np.stack([_numbers(path, c, group="") for c in signals], axis=1)  # [R, C] float64
    for column, own in zip(signals, values.T, strict=True):
        _check_channel(path, column, own)
    times = seconds_of(path, replace(clock, origin=0.0))  # the origin is added at the end: small numbers are exact
    names = np.array([""] * len(times)) if by_group is None else texts_of(by_group)
    if by_group is not None and (names == "").any():
        raise ClipError(f"{path}: column '{by_group.name}', row {int((names == '').argmax()) + 1} names no group")
    turns = np.concatenate([[True], names[1:] != names[:-1]])  # rows where another group begins
    rows = {str(n): np.flatnonzero(names == n) for n in dict.fromkeys(names[turns].tolist())}
    for name, own in rows.items():
        _check_group(path, clock, name, times, values, own, repeats == "merge")
    step = 1 / rate if rate else clock.step or _step(path, times, values, rows)
    every = [_every(times, values[:, c], rows, step) for c in range(len(signals))]
    told = {c.name: _classes(c) for c in classes}
    codes = np.stack([_codes(c, told[c.name]) for c in classes], axis=1) if classes else np.zeros((len(times), 0), int)
    known = [_numbers(path, c, group="static") for c in traits]
    found, dropped = [], 0
    for name, own in rows.items():
        traits_of = np.array([_constant(path, c, name, v[own]) for c, v in zip(traits, known, strict=True)], np.float32)
        for part in _parted(times, values, own, step):
            recording, lost = _on_grid(name, times[part], values[part], codes[part], traits_of, step)
            found.append(replace(recording, times=recording.times + clock.origin, start=recording.start + clock.origin))
            dropped += lost
    channels = tuple(Channel(c.name, c.unit, e) for c, e in zip(signals, every, strict=True))
    statics = tuple(c.name for c in traits)
    dates = clock.dates or datelike(clock)
    return SeriesTable(path, channels, step, clock.header, dates, tuple(found), told, statics, dropped)


def _numbers(path: Path, column: Column, group: str) -> np.ndarray:
    """A column as float64 `[R]`, NaN where a cell is empty; text is a ClipError that shows its first cell."""
    if column.values.dtype.kind in "fiub":
        return column.values.astype(np.float64)
    row = next((i for i, text in enumerate(column.values.tolist()) if text not in (None, "")), 0)
    shown = f"'{column.values[row]}' in row {row + 1}"
    way = "label=" if group == "static" else "label= or group="
    raise ClipError(
        f"{path}: column '{column.name}' holds text or dates ({shown}), expected numbers; "
        f"name it with {way}, or leave it out with drop={column.name}"
    )


def _check_channel(path: Path, column: Column, values: np.ndarray) -> None:
    if np.isinf(values).any():
        row = int(np.flatnonzero(np.isinf(values))[0])
        raise ClipError(f"{path}: column '{column.name}', row {row + 1} is infinite, expected a number or nothing")
    measured = values[~np.isnan(values)]
    if len(measured) == 0:
        raise ClipError(f"{path}: column '{column.name}' has no value; leave it out with drop={column.name}")
    if measured.min() == measured.max():
        raise ClipError(
            f"{path}: column '{column.name}' is constant ({measured[0]:g}), nothing to learn; "
            f"leave it out with drop={column.name}"
        )


def _check_group(
    path: Path, clock: Column, name: str, times: np.ndarray, values: np.ndarray, rows: np.ndarray, merge: bool
) -> None:
    whose = f" of group '{name}'" if name else ""
    missing = np.flatnonzero(np.isnan(times[rows]))
    if len(missing):
        raise ClipError(f"{path}: column '{clock.name}', row {rows[missing[0]] + 1}{whose}: no timestamp")
    steps = np.diff(times[rows])
    wrong = np.flatnonzero(steps < 0 if merge else steps <= 0)
    if len(wrong):
        before, row = rows[wrong[0]], rows[wrong[0] + 1]
        twice = times[row] == times[before]
        how = "repeats the timestamp" if twice else "goes back behind that"
        way = "; repeats=merge takes them as one" if twice else ""
        raise ClipError(
            f"{path}: column '{clock.name}', row {row + 1}{whose} {how} of row {before + 1} "
            f"({clock.values[row]} after {clock.values[before]}), expected times that increase{way}"
        )
    if np.isnan(values[rows]).all():
        raise ClipError(f"{path}: no channel has a value in any row{whose or ' of the file'}; leave these rows out")


def _steps(times: np.ndarray, measured: np.ndarray, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Steps between neighbouring samples of all groups; `measured` `[R]` bool."""
    parts = [np.diff(times[own[measured[own]]]) for own in rows.values()]
    steps = np.concatenate(parts) if parts else np.zeros(0)
    return steps[steps > 0]


def _is_regular(steps: np.ndarray) -> bool:
    if len(steps) == 0:
        return False
    middle = np.median(steps)
    return bool((np.abs(steps - middle) <= 0.1 * middle).mean() >= REGULAR)


def _step(path: Path, times: np.ndarray, values: np.ndarray, rows: Mapping[str, np.ndarray]) -> float:
    every = _steps(times, np.ones(len(times), bool), rows)
    if len(every) == 0:
        raise ClipError(f"{path}: no group has two rows, expected series in the order of time")
    own = [_steps(times, ~np.isnan(values[:, c]), rows) for c in range(values.shape[1])]
    finest = min((float(np.median(steps)) for steps in own if _is_regular(steps)), default=0.0)
    return float(np.median(every)) if finest == 0.0 or _is_regular(every) else finest


def _every(times: np.ndarray, values: np.ndarray, rows: Mapping[str, np.ndarray], step: float) -> int:
    """Cells between a channel's samples; 1 where they come irregularly: those are gaps, not another rate."""
    steps = _steps(times, ~np.isnan(values), rows)
    return max(1, round(float(np.median(steps)) / step)) if _is_regular(steps) else 1


def _classes(column: Column) -> tuple[str, ...]:
    return tuple(sorted({text for text in texts_of(column).tolist() if text}))


def _codes(column: Column, classes: Sequence[str]) -> np.ndarray:
    place = {name: i for i, name in enumerate(classes)}
    return np.array([place.get(text, -1) for text in texts_of(column).tolist()], np.int64)


def _constant(path: Path, column: Column, group: str, values: np.ndarray) -> float:
    told = np.unique(values[~np.isnan(values)])
    if len(told) > 1:
        raise ClipError(
            f"{path}: column '{column.name}' is static, but is {told[0]:g} and {told[1]:g} in group '{group}'; "
            "expected one value a group"
        )
    return float(told[0]) if len(told) else float("nan")


def _parted(times: np.ndarray, values: np.ndarray, rows: np.ndarray, step: float) -> Iterator[np.ndarray]:
    """Rows of a group, without those where nothing was measured, cut at long pauses."""
    rows = rows[~np.isnan(values[rows]).all(axis=1)]
    yield from np.split(rows, np.flatnonzero(np.diff(times[rows]) > PAUSE * step) + 1)


def _on_grid(
    group: str, times: np.ndarray, values: np.ndarray, codes: np.ndarray, static: np.ndarray, step: float
) -> tuple[Recording, int]:
    """Rows of a stretch, `[R]` and `[R, C]`, in their cells; and how many samples found theirs taken."""
    start, cell, off = cells_of(times, step, phase_of(times, step))
    length, channels = int(cell[-1]) + 1, values.shape[1]
    out, stamps = np.zeros((length, channels), np.float32), np.full((length, channels), np.nan)
    dropped = 0
    for c in range(channels):
        own = nearest_last(np.flatnonzero(~np.isnan(values[:, c])), off)
        out[cell[own], c], stamps[cell[own], c] = values[own, c], times[own]
        dropped += len(own) - len(np.unique(cell[own]))
    labels = np.full((length, codes.shape[1]), -1, np.int64)
    labels[cell] = codes
    return Recording(group, out, ~np.isnan(stamps), stamps, start, step, labels, static), dropped


def phase_of(times: np.ndarray, step: float) -> float:
    """Seconds from row 0 to the middle of its cell: the mean phase of the clock, 0 where it has none."""
    turns = np.exp(2j * np.pi * ((times - times[0]) / step)).mean()
    return float(np.angle(turns)) / (2 * np.pi) * step if abs(turns) > 0.1 else 0.0


def cells_of(times: np.ndarray, step: float, phase: float) -> tuple[float, np.ndarray, np.ndarray]:
    """Time of cell 0, the cell of each row, and how far from its middle the row lies, in steps: two `[R]`."""
    place = (times - times[0] - phase) / step
    cell = np.round(place).astype(np.int64)
    return float(times[0] + phase + cell[0] * step), cell - cell[0], np.abs(place - cell)


def nearest_last(rows: np.ndarray, off: np.ndarray) -> np.ndarray:
    """The rows, so that of those written into one cell the nearest to its middle comes last, and stays."""
    return rows[np.argsort(-off[rows], kind="stable")]
