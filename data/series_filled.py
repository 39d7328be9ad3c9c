"""What is generated for a table, in the rows of the table; those have their times and numbers, to the last digit.

    plans = plan_filled(table)                 # or plan_ahead(table, 48); table is of `read_given`
    columns_of(table, plans, made)             # {header: column}; made[i] is [K, L or ahead, C] for plans[i]

Cells of the grid that no row is near are rows of their own. Legend: `L` cells, `C` channels, `K` samples or quantiles,
`M` rows written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from .series_columns import SECONDS, Clock
from .series_given import GivenTable, Stretch
from .series_write import check_names

APART = 0.75  # steps that the middle of a cell is away from every row for the cell to become a row of its own


@dataclass(frozen=True)
class Plan:
    """The rows to write of a stretch.

    Args:
        near: row of the file `[M]` that a row is, or the one before it; `new`: bool `[M]`, whether it is none of these.
        seconds: of the rows `[M]`.
        known: float64 `[M, C]`, NaN where there is nothing; `open`: bool `[M, C]`, what is taken from `made`.
        place: index `[M]` into the steps of `made`.
    """

    near: np.ndarray
    new: np.ndarray
    seconds: np.ndarray
    known: np.ndarray
    open: np.ndarray
    place: np.ndarray


def plan_filled(table: GivenTable) -> list[Plan]:
    """The rows of every stretch, and rows for the cells that none is near; `made` has the stretch's cells."""
    return [_filled(table, own) for own in table.stretches]


def plan_ahead(table: GivenTable, ahead: int) -> list[Plan]:
    """The `ahead` steps behind the last stretch of every group; `made` has just these."""
    plans = []
    for own in last_stretches(table):
        near, new = np.full(ahead, own.rows[-1]), np.ones(ahead, bool)
        steps = np.arange(ahead)
        known = np.full((ahead, len(table.channels)), np.nan)
        seconds = own.start + (len(own.values) + steps) * own.step
        plans.append(Plan(near, new, seconds, known, np.ones(known.shape, bool), steps))
    return plans


def last_stretches(table: GivenTable) -> list[Stretch]:
    """The last one of every group."""
    return list({own.group: own for own in table.stretches}.values())


def columns_of(
    table: GivenTable, plans: Sequence[Plan], made: Sequence[np.ndarray], levels: Sequence[float] | None = None
) -> dict[str, np.ndarray]:
    """The columns to write, `{header: [rows]}`; rows without any value are left out.

    Args:
        made: of every plan `[K, steps, C]`.
        levels: K are these quantiles: columns `name q0.05 [unit]`. None: samples, below one another where there are
            several, with a column `sample`.

    Raises:
        ClipError: a name used twice.
    """
    near, new, seconds, sample, cells = _rows(plans, made, levels is None)
    out = [_stamps(table.clock, near, new, seconds)]
    out += [(column.header, _plain(column.values[near])) for column in table.columns]
    out += [("sample", sample)] if levels is None and len(made[0]) > 1 else []
    for c, channel in enumerate(table.channels):
        kind = np.float32 if table.single[c] else np.float64
        for k, values in enumerate(cells[:, :, c]):
            name = channel if levels is None else replace(channel, name=f"{channel.name} q{levels[k]:g}")
            out.append((name.header, values.astype(kind)))
    check_names(table.path, [name for name, _ in out])
    return dict(out)


def _rows(plans: Sequence[Plan], made: Sequence[np.ndarray], tall: bool) -> tuple[np.ndarray, ...]:
    """`near`, `new`, `seconds` and the sample `[M]` of all rows, and their cells `[K or 1, M, C]`.

    Args:
        tall: samples stand below one another, else side by side.
    """
    parts = []
    for plan, own in zip(plans, made, strict=True):
        whole = np.where(plan.open, _shortest(own)[:, plan.place], plan.known)  # [K, M, C]
        for number, cells in enumerate(whole[:, None] if tall else [whole]):
            kept = ~np.isnan(cells).all(axis=(0, 2)) | ~plan.new
            count = np.full(int(kept.sum()), number)
            parts.append((plan.near[kept], plan.new[kept], plan.seconds[kept], count, cells[:, kept]))
    *rows, cells = zip(*parts, strict=True)
    return *(np.concatenate(own) for own in rows), np.concatenate(cells, axis=1)


def _filled(table: GivenTable, own: Stretch) -> Plan:
    times, grid = table.times[own.rows], own.start + own.step * np.arange(len(own.values))
    after = np.searchsorted(times, grid).clip(1, max(1, len(times) - 1))
    nearest = np.minimum(np.abs(grid - times[after - 1]), np.abs(grid - times[np.minimum(after, len(times) - 1)]))
    cells = _own_cells(table, own)
    free = ~np.isin(np.arange(len(grid)), cells)
    fresh = np.flatnonzero(free & (nearest > APART * own.step))  # cells that become rows
    seconds = np.concatenate([times, grid[fresh]])
    order = np.argsort(seconds, kind="stable")
    new = (np.arange(len(seconds)) >= len(times))[order]
    near = np.concatenate([own.rows, own.rows[np.searchsorted(times, grid[fresh], side="right") - 1]])[order]
    place = np.concatenate([cells, fresh])[order]
    known = np.where(new[:, None], np.nan, table.numbers[near])
    return Plan(near, new, seconds[order], known, np.isnan(known) & np.isnan(own.values[place]), place)


def _own_cells(table: GivenTable, own: Stretch) -> np.ndarray:
    """The cell `[R]` of each row, or the next one, if it is free, where another row has samples of the same channel."""
    cells, given = own.cells.copy(), ~np.isnan(table.numbers[own.rows])
    for row in np.flatnonzero(own.row_of[cells] != np.arange(len(cells))):
        first = own.row_of[cells[row]]
        beside = cells[row] + (1 if row > first else -1)
        free = 0 <= beside < len(own.row_of) and own.row_of[beside] < 0
        cells[row] = beside if free and (given[row] & given[first]).any() else cells[row]
    return cells


def _shortest(values: np.ndarray) -> np.ndarray:
    """float32 → float64 of the same shortest decimals, so that a CSV says 0.13, not 0.12999999523."""
    return values.astype(np.float32).astype("U").astype(np.float64) if values.dtype == np.float32 else values


def _stamps(clock: Clock, near: np.ndarray, new: np.ndarray, seconds: np.ndarray) -> tuple[str, np.ndarray]:
    """Header and times as the file has them: those of its rows unchanged, the others in the same form."""
    kind, own = clock.values.dtype.kind, clock.values[near]
    if clock.origin or clock.dates:  # a log's clock, whose numbers alone say little
        return "time [s]", np.round(seconds + clock.origin, 9)
    if kind == "M":
        dates = np.where(new, np.round(seconds * 1e6).astype("datetime64[us]"), own)
        whole = dates.astype("datetime64[s]")
        return clock.header, whole if (whole == dates).all() else dates
    if kind in "fiu":
        fresh = np.round(np.round(seconds, 9) / SECONDS[clock.unit], 6)
        whole = kind in "iu" and bool((fresh[new] == np.round(fresh[new])).all())
        return clock.header, np.where(new, fresh, own).astype(clock.values.dtype if whole else np.float64)
    first = str(next(text for text in clock.values.tolist() if text)).strip()
    dates = [_date(time, first) if fresh else text for text, fresh, time in zip(own, new, seconds, strict=True)]
    return clock.header, np.array(dates)


def _date(seconds: float, like: str) -> str:
    """An ISO date in the form of another one."""
    zone, mark = datetime.fromisoformat(like).tzinfo, " " if " " in like else "T"
    date = datetime.fromtimestamp(round(float(seconds), 6), UTC)
    text = (date.replace(tzinfo=None) if zone is None else date.astimezone(zone)).isoformat(mark)
    return text[:10] if len(like) == 10 and text.endswith("T00:00:00") else text


def _plain(values: np.ndarray) -> np.ndarray:
    """Text as an array of text, `""` where it is missing."""
    return np.array(["" if v is None else str(v) for v in values.tolist()]) if values.dtype.kind == "O" else values
