"""Two files of series, real and generated, as windows of the same channels and step; called by `draw_series`.

Legend: `N` windows, `L` steps, `C` channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from counterpoint.data.series_columns import Clock, Column, clock_of, read_columns, seconds_of, texts_of
from counterpoint.data.series_given import GivenTable, Stretch, read_given
from counterpoint.data.series_table import Channel
from counterpoint.data.series_windows import PURE
from counterpoint.modalities.clip import ClipError

LONGEST = 1024  # steps that recordings are cut into
TIMES = ("time", "timestamp", "date", "datetime", "t")
GROUPS = ("group", "window", "subject", "recording", "sample")
Pair = tuple[np.ndarray, np.ndarray, tuple[Channel, ...], float | None]


def read_pair(real: Path, made: Path, told: Mapping[str, str], step: float | None = None) -> Pair:
    """Windows `[N, L, C]` of both, their channels and step (None: not known).

    Args:
        real, made: tables, or `.npy` arrays `[N, L, C]`.
        told: `time`, `group` and `drop`, columns, where they are told.
        step: seconds of a step; None: the median step of the real table, or else of the other.

    Raises:
        ClipError: what can't be read, no channel in common, an array of other channels than the table.
    """
    arrays = [_array(path) if path.suffix.lower() == ".npy" else None for path in (real, made)]
    tables = [path for path, own in zip((real, made), arrays, strict=True) if own is None]
    if not tables:
        channels = tuple(Channel(f"channel {c}") for c in range(max(own.shape[2] for own in arrays if own is not None)))
    else:
        channels = _shared(tables, told)
        step = step or _step(tables[0], told)
    for path, own in zip((real, made), arrays, strict=True):
        if own is not None and own.shape[2] != len(channels):
            raise ClipError(f"{path}: {own.shape[2]} channels, but the other file has {len(channels)}")
    read = [None if own is not None else _table(path, channels, step or 1.0, told) for path, own in
            zip((real, made), arrays, strict=True)]  # fmt: skip
    channels = tuple(Channel(c.name, c.unit, _every(read, i)) for i, c in enumerate(channels))
    lengths = [own.shape[1] for own in arrays if own is not None]
    lengths += [max(len(part.values) for part in table.stretches) for table in read if table is not None]
    length = min(LONGEST, *lengths)
    windows = [cut(table.stretches, length) if table is not None else own for own, table in
               zip(arrays, read, strict=True)]  # fmt: skip
    assert windows[0] is not None
    assert windows[1] is not None
    return windows[0], windows[1], channels, step


def cut(stretches: Sequence[Stretch], length: int, classes: Mapping[int, str] | None = None) -> np.ndarray:
    """Windows `[N, length, C]` one behind the other; a rest shorter than half a window only where it is all there is.

    Args:
        classes: the class that at least 90 % of a window's labelled rows must have, by the number of the label.
    """
    out = []
    for own in stretches:
        for begin in range(0, max(1, len(own.values) - length // 2), length):
            part, told = own.values[begin : begin + length], own.labels[begin : begin + length]
            if all(_is_pure(told[:, i], name) for i, name in (classes or {}).items()):
                out.append(np.pad(part, ((0, length - len(part)), (0, 0)), constant_values=np.nan))
    channels = stretches[0].values.shape[1] if stretches else 0
    return np.stack(out) if out else np.zeros((0, length, channels), np.float32)


def _is_pure(told: np.ndarray, name: str) -> bool:
    told = told[told != ""]
    return len(told) > 0 and bool((told == name).mean() >= PURE)


def _array(path: Path) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ClipError(f"{path}: can't be read as an array: {error}") from None
    if values.ndim != 3 or values.dtype.kind not in "fiu":
        raise ClipError(f"{path}: {values.dtype} {list(values.shape)}, expected numbers [windows, steps, channels]")
    return values.astype(np.float32)


def _shared(paths: Sequence[Path], told: Mapping[str, str]) -> tuple[Channel, ...]:
    """The columns of numbers that all tables have, in the order of the first."""
    each = []
    for path in paths:
        columns = read_columns(path)
        clock, groups = _parts(path, columns, told)
        left = {clock.name, *(own.name for own in groups), *told.get("drop", "").split(",")}
        each.append({c.name: c for c in columns if c.name not in left and _is_signal(c)})
    names = [name for name in each[0] if all(name in own for own in each)]
    if not names:
        raise ClipError(f"{paths[-1]}: has no channel of {paths[0]}, which has {', '.join(each[0])}")
    return tuple(Channel(name, each[0][name].unit) for name in names)


def _is_signal(column: Column) -> bool:
    return column.role == "channel" and column.values.dtype.kind in "fiub"


def _parts(path: Path, columns: Sequence[Column], told: Mapping[str, str]) -> tuple[Clock, list[Column]]:
    """The timestamps and the columns of groups, as told or guessed."""
    named = {column.name.lower(): column for column in columns}
    guess = next((column.name for column in columns if isinstance(column, Clock)), None)
    guess = guess or next((named[name].name for name in TIMES if name in named), columns[0].name)
    clock = clock_of(path, columns, told.get("time", guess))
    own = told.get("group")
    groups = [column for column in columns if own in (column.name, column.header)]
    groups = groups or [column for column in columns if column.role == "group"]
    groups += [named[name] for name in GROUPS if name in named and (name == "sample" or not groups)]
    return clock, [column for column in groups if column.header != clock.header]


def _step(path: Path, told: Mapping[str, str]) -> float:
    """The median step of the rows of a group, in seconds."""
    columns = read_columns(path)
    clock, groups = _parts(path, columns, told)
    times = seconds_of(path, clock)
    names = np.array([" ".join(row) for row in zip(*(texts_of(own).tolist() for own in groups), strict=True)])
    same = names[1:] == names[:-1] if len(names) else np.ones(len(times) - 1, bool)
    steps = np.diff(times)[same]
    steps = steps[steps > 0]
    if len(steps) == 0:
        raise ClipError(f"{path}: column '{clock.name}': no two rows of a group, expected times that increase")
    return float(np.median(steps))


def _table(path: Path, channels: Sequence[Channel], step: float, told: Mapping[str, str]) -> GivenTable:
    columns = read_columns(path)
    clock, groups = _parts(path, columns, told)
    used = {clock.name, *(own.name for own in groups), *(channel.name for channel in channels)}
    drop = [column.name for column in columns if column.name not in used and column.role == "channel"]
    return read_given(path, channels, step, clock.header, [own.header for own in groups], drop=drop)


def _every(tables: Sequence[GivenTable | None], channel: int) -> int:
    """Cells from one sample of a channel to the next; 1 where they come irregularly."""
    parts = [own.values[:, channel] for table in tables if table is not None for own in table.stretches]
    steps = np.concatenate([np.diff(np.flatnonzero(~np.isnan(part))) for part in parts] or [np.ones(1)])
    middle = np.median(steps) if len(steps) else 1
    return max(1, int(middle)) if len(steps) and (steps == middle).mean() >= 0.8 else 1
