"""A table with something to fill or to go on from: its rows on the grid of a model.

    table = read_given("gaps.csv", channels, step=0.02, time="timestamp", group="subject")
    table.stretches[0].values                  # [L, C], NaN where there is no sample

`read_series` reads what is trained on and refuses channels, groups and rows without a value; here these are what is
wanted. What is generated is put into the table's rows by `series_filled`. Legend: `R` rows, `L` cells, `C` channels.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..modalities.clip import ClipError
from .series_columns import Clock, Column, clock_of, columns_under, read_columns, seconds_of, texts_of
from .series_table import PAUSE, Channel, cells_of, nearest_last, phase_of

SHARED = 0.2  # share of samples that may find their cell taken before the rows count as too close


@dataclass(frozen=True)
class Stretch:
    """Rows of a group without a long pause, on the grid.

    Args:
        group: its name; `""` where there is no column of groups.
        rows: `[R]` of the file, in the order of time; `cells`: the cell `[R]` of each.
        start, step: seconds of cell 0, after the clock's origin, and from one cell to the next.
        values: float32 `[L, C]`; NaN where there is no sample.
        row_of: the row `[L]` (of `rows`) nearest to the middle of a cell; −1 where there is none.
        labels: `[L, labels]` names of classes, `""` where none is told.
        static: float64 `[statics]`, NaN where unknown.
    """

    group: str
    rows: np.ndarray
    cells: np.ndarray
    start: float
    step: float
    values: np.ndarray
    row_of: np.ndarray
    labels: np.ndarray
    static: np.ndarray


@dataclass(frozen=True)
class GivenTable:
    """A file's columns and stretches.

    Args:
        channels: in the model's order; `numbers`: float64 `[R, C]` as they stand in the file; `single`: whether they
            are float32 there.
        columns: of groups and conditions, which are written again.
        clock: the timestamps; `times`: in seconds after its origin, `[R]`.
    """

    path: Path
    channels: tuple[Channel, ...]
    columns: tuple[Column, ...]
    clock: Clock
    times: np.ndarray
    numbers: np.ndarray
    single: tuple[bool, ...]
    stretches: tuple[Stretch, ...]


def read_given(
    path: str | Path, channels: Sequence[Channel], step: float, time: str, group: str | Sequence[str] = "",
    label: Sequence[str] = (), static: Sequence[str] = (), drop: Sequence[str] = (), spare: Sequence[str] = (),
    window: int | None = None, finer: bool = False,
) -> GivenTable:  # fmt: skip
    """Reads a table for a model.

    Args:
        channels: of the model; each needs a column of that name and unit, which may be empty.
        step: seconds of a cell.
        time: name of the times' column; group (one or several together), label, static: of others, which the file may
            lack.
        drop: columns to leave out; spare: others, which the file may lack.
        window: steps of the model's window, which rows must not be further apart than.
        finer: rows may be closer than the cells, as in training; of those in one cell the nearest to its middle counts.

    Raises:
        ClipError: names the file and the column or row: a channel that is missing or has another unit, a column that
            the model doesn't know, text or infinity in a channel, a time that is missing or goes back, rows that are
            much closer than the model's step or too far apart.
    """
    path = Path(path)
    groups = [group] if isinstance(group, str) else group
    columns = read_columns(path, "auto", [name for name in (*groups, *label, *static) if name], drop)
    left = {column.header for name in drop for column in columns_under(path, columns, name, "drop")}
    columns = [column for column in columns if column.header not in left]
    clock = next((own for own in columns if isinstance(own, Clock)), None) or clock_of(path, columns, _bare(time))
    named = {column.name: column for column in columns}
    whose, classes, traits = ([named.get(_bare(name)) for name in names] for names in (groups, label, static))
    whose = [own for own in whose if own is not None] or [own for own in columns if own.role == "group"]
    signals = [_signal(path, columns, channel) for channel in channels]
    used = {own.header for own in (clock, *whose, *classes, *traits, *signals) if own is not None}
    for column in columns:
        if column.header not in used and column.role == "channel" and not {column.header, column.name} & set(spare):
            raise ClipError(f"{path}: column '{column.name}': no such channel in the model; leave it out with drop")
    own = {clock.header, *(column.header for column in signals)}
    others = tuple(column for column in columns if column.header in used - own)
    times = seconds_of(path, replace(clock, origin=0.0))
    table = GivenTable(
        path, tuple(channels), others, clock, times,
        np.stack([_numbers(path, column) for column in signals], axis=1),
        tuple(own.values.dtype == np.float32 for own in signals), (),
    )  # fmt: skip
    names = [" ".join(row) for row in zip(*(texts_of(own).tolist() for own in whose), strict=True)]
    told = _matrix([own and texts_of(own) for own in classes], len(times), "")
    facts = _matrix([own and _numbers(path, own) for own in traits], len(times), np.nan)
    each = np.array(names if names else [""] * len(times))
    return replace(table, stretches=_stretches(table, each, told, facts, step, window, finer))


def _stretches(
    table: GivenTable,
    names: np.ndarray,
    told: np.ndarray,
    facts: np.ndarray,
    step: float,
    window: int | None,
    finer: bool,
) -> tuple[Stretch, ...]:
    """Groups by their names `[R]`, parted at long pauses, on the grid."""
    found, lost = [], 0
    for name in dict.fromkeys(names.tolist()):
        rows = np.flatnonzero(names == name)
        times = table.times[rows]
        _check_times(table, name, rows, window and window * step)
        for part in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(times) > PAUSE * step) + 1):
            stretch, dropped = _on_grid(times[part], table.numbers[rows[part]], told[rows[part]], step)
            found.append(replace(stretch, group=name, rows=rows[part], static=_first(facts[rows])))
            lost += dropped
    if not finer and lost > SHARED * (~np.isnan(table.numbers)).sum():
        raise ClipError(f"{table.path}: rows are closer than the step of {step:g} s, {lost} samples share a cell")
    return tuple(found)


def _bare(header: str) -> str:
    return Column(header, np.zeros(0)).name


def _signal(path: Path, columns: Sequence[Column], channel: Channel) -> Column:
    for column in columns:
        if column.name == channel.name:
            if column.unit != channel.unit:
                raise ClipError(f"{path}: column '{column.header}', expected '{channel.header}'")
            return column
    names = {column.name.lower(): column.name for column in columns}
    near = difflib.get_close_matches(channel.name.lower(), names, 1, 0.6)
    hint = f"did you mean '{names[near[0]]}'?" if near else "it may be empty"
    raise ClipError(f"{path}: no column '{channel.header}'; {hint}")


def _numbers(path: Path, column: Column) -> np.ndarray:
    """`[R]` float64, NaN where empty."""
    if column.values.dtype.kind not in "fiub":
        kept = [(i, text) for i, text in enumerate(column.values.tolist()) if text not in (None, "")]
        if kept:
            raise ClipError(f"{path}: column '{column.name}', row {kept[0][0] + 1}: '{kept[0][1]}' is no number")
        return np.full(len(column.values), np.nan)
    values = column.values.astype(np.float64)
    if np.isinf(values).any():
        raise ClipError(f"{path}: column '{column.name}', row {int(np.isinf(values).argmax()) + 1} is infinite")
    return values


def _matrix(columns: Sequence[np.ndarray | None], rows: int, empty: float | str) -> np.ndarray:
    """`[R, columns]`, `empty` where there is no column."""
    each = [np.full(rows, empty) if column is None else column for column in columns]
    return np.stack(each, axis=1) if each else np.full((rows, 0), empty)


def _check_times(table: GivenTable, name: str, rows: np.ndarray, furthest: float | None) -> None:
    times, whose = table.times[rows], f" of group '{name}'" if name else ""
    where = f"{table.path}: column '{table.clock.name}', row"
    if np.isnan(times).any():
        raise ClipError(f"{where} {rows[np.isnan(times).argmax()] + 1}{whose}: no timestamp")
    steps = np.diff(times)
    if (steps < 0).any():
        row = rows[(steps < 0).argmax() + 1]
        raise ClipError(f"{where} {row + 1}{whose} goes back to {table.clock.values[row]}")
    apart = float(np.median(steps)) if len(steps) else 0.0
    if furthest and apart > furthest:
        raise ClipError(f"{table.path}: rows{whose} are {apart:g} s apart, a window of the model is {furthest:g} s")


def _on_grid(times: np.ndarray, values: np.ndarray, told: np.ndarray, step: float) -> tuple[Stretch, int]:
    """Rows of a stretch in their cells, as in `series_table`; and how many samples found theirs taken."""
    phase = phase_of(times, step)
    start, cell, off = cells_of(times, step, 0.0 if abs(phase) < 1e-6 * step else phase)
    length = int(cell[-1]) + 1
    grid = np.full((length, values.shape[1]), np.nan, np.float32)
    lost = 0
    for c in range(values.shape[1]):
        own = nearest_last(np.flatnonzero(~np.isnan(values[:, c])), off)
        grid[cell[own], c] = values[own, c]
        lost += len(own) - len(np.unique(cell[own]))
    nearest, labels = np.full(length, -1), np.full((length, told.shape[1]), "", object)
    order = nearest_last(np.arange(len(off)), off)
    nearest[cell[order]] = order
    labels[cell] = told
    return Stretch("", np.arange(0), cell, start, step, grid, nearest, labels, np.zeros(0)), lost


def _first(values: np.ndarray) -> np.ndarray:
    """The first number of each column `[R, statics]`, NaN where there is none."""
    return np.array([next((v for v in own if not np.isnan(v)), np.nan) for own in values.T.tolist()], np.float64)
