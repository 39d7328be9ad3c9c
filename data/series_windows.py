"""Windows of recordings with their masks, split by group or by time, scaled by what the training part measured.

    train, test = split_groups(table.recordings, share=0.2, seed=0)      # held-out subjects
    scale = Scale.fit(train, table.channels)                             # saved as JSON with the model
    windows = Windows(train, length=64, stride=16)
    batch = windows.batch([0, 1], scale)                                 # values [2, 64, C], mask, labels, static

A window never reaches from one group, or over a long pause, into the next. Legend: `B` batch, `L` length, `C` channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase

import numpy as np

from ..modalities.clip import ClipError
from .series_table import Channel, Recording

PURE = 0.9  # share of a window's labelled cells that must be of one class for it to have that label


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of the measured samples of each channel.

    Args:
        channels: names, units and rates, kept with the numbers.
        mean, std: `[C]`, in the channels' units.
    """

    channels: tuple[Channel, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def fit(cls, recordings: Sequence[Recording], channels: Sequence[Channel]) -> Scale:
        """Over the measured samples of the training part; a channel that does not vary there is a ClipError."""
        mean, std = [], []
        for c, channel in enumerate(channels):
            own = [r.values[r.mask[:, c], c].astype(np.float64) for r in recordings]
            values = np.concatenate(own) if own else np.zeros(0)
            if len(values) == 0 or values.min() == values.max():
                what = "has no value" if len(values) == 0 else f"is constant ({values[0]:g})"
                raise ClipError(f"channel '{channel.name}' {what} in the training part; leave it out with drop=")
            mean.append(float(values.mean()))
            std.append(float(values.std()))
        return cls(tuple(channels), tuple(mean), tuple(std))

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Units → mean 0 and variance 1, `[…, C]` float32."""
        return ((values - np.array(self.mean)) / np.array(self.std)).astype(np.float32)

    def undo(self, values: np.ndarray) -> np.ndarray:
        """Mean 0 and variance 1 → units, `[…, C]` float32."""
        return (values * np.array(self.std) + np.array(self.mean)).astype(np.float32)

    def to_dict(self) -> dict:
        """As JSON: `{"channels": [{"name", "unit", "every", "mean", "std"}, …]}`."""
        rows = zip(self.channels, self.mean, self.std, strict=True)
        return {"channels": [{**asdict(c), "mean": m, "std": s} for c, m, s in rows]}

    @classmethod
    def from_dict(cls, content: dict) -> Scale:
        """What `to_dict` wrote."""
        rows = content["channels"]
        channels = tuple(Channel(row["name"], row["unit"], row["every"]) for row in rows)
        return cls(channels, tuple(row["mean"] for row in rows), tuple(row["std"] for row in rows))


@dataclass(frozen=True)
class WindowBatch:
    """Windows of one length.

    Args:
        values: float32 `[B, L, C]`, scaled if a scale was given; 0 where nothing was measured.
        mask: bool `[B, L, C]`, where a sample lies.
        labels: int64 `[B, labels]`; −1 where a window has none, or several.
        static: float32 `[B, statics]`; NaN where unknown.
    """

    values: np.ndarray
    mask: np.ndarray
    labels: np.ndarray
    static: np.ndarray


class Windows:
    """All windows of recordings.

    Args:
        recordings: of one part of a split.
        length: steps of a window. A shorter recording is one window, masked behind its end.
        stride: steps from one window to the next; the last one of a recording ends with it.
        least: windows with a smaller share of the samples that full ones have are left out.

    Raises:
        ClipError: a length below 2, a stride below 1, or no window at all.
    """

    def __init__(self, recordings: Sequence[Recording], length: int, stride: int = 1, least: float = 0.1) -> None:
        if length < 2 or stride < 1:
            raise ClipError(f"length={length}, stride={stride}: a window has 2 steps or more, a stride 1 or more")
        self.recordings, self.length, self.stride = tuple(recordings), length, stride
        self.index: list[tuple[int, int]] = []  # recording, start
        full = max((_share(r.mask) for r in self.recordings), default=0.0)
        for number, own in enumerate(self.recordings):
            last = max(0, len(own.values) - length)
            starts = sorted({*range(0, last + 1, stride), last})
            counts = np.concatenate([[0], own.mask.sum(axis=1).cumsum()])
            for start in starts:
                measured = counts[min(start + length, len(own.values))] - counts[start]
                if measured > 0 and measured >= least * full * length * own.mask.shape[1]:
                    self.index.append((number, start))
        if not self.index:
            raise ClipError(f"length={length}: no window with samples in {len(self.recordings)} recordings")

    def __len__(self) -> int:
        return len(self.index)

    @property
    def groups(self) -> list[str]:
        """The group of every window."""
        return [self.recordings[number].group for number, _ in self.index]

    @property
    def labels(self) -> np.ndarray:
        """The labels of every window, int64 `[N, labels]`; −1 where it has none, or several."""
        return np.stack([_label(self.recordings[n].labels[at : at + self.length]) for n, at in self.index])

    def batch(self, rows: Sequence[int], scale: Scale | None = None) -> WindowBatch:
        """Some windows, in the order asked for."""
        parts = [self._window(*self.index[row], scale) for row in rows]
        return WindowBatch(*(np.stack(column) for column in zip(*parts, strict=True)))

    def times(self, row: int) -> np.ndarray:
        """True timestamps of a window, float64 `[L, C]` in seconds; NaN where nothing was measured."""
        number, start = self.index[row]
        return _padded(self.recordings[number].times[start : start + self.length], self.length, np.nan)

    def _window(
        self, number: int, start: int, scale: Scale | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        own, part = self.recordings[number], slice(start, start + self.length)
        mask = _padded(own.mask[part], self.length, False)
        values = _padded(own.values[part], self.length, 0.0)
        if scale is not None:
            values = np.where(mask, scale.apply(values), np.float32(0))
        return values, mask, _label(own.labels[part]), own.static


def split_groups(
    recordings: Sequence[Recording], share: float = 0.2, seed: int = 0, hold: Sequence[str] = ()
) -> tuple[list[Recording], list[Recording]]:
    """(training, held out), whole groups each.

    Args:
        share: of the groups to hold out, rounded, at least one; where `hold` names none.
        hold: the groups to hold out, by name or by pattern (`s17_*`).

    Raises:
        ClipError: an unknown group in `hold`, or nothing left on one of the sides.
    """
    groups = list(dict.fromkeys(own.group for own in recordings))
    held: set[str] = set()
    for name in hold:
        found = [name] if name in groups else [group for group in groups if fnmatchcase(group, name)]
        if not found:
            raise ClipError(f"hold={name}: no such group; there are {', '.join(groups)}")
        held.update(found)
    if not hold:
        order = np.random.default_rng((seed, 5)).permutation(len(groups))
        held = {groups[i] for i in order[: max(1, round(share * len(groups)))]}
    if len(held) >= len(groups):
        raise ClipError(f"hold: holding {len(held)} of {len(groups)} groups out leaves none to train on")
    return [r for r in recordings if r.group not in held], [r for r in recordings if r.group in held]


def split_time(recordings: Sequence[Recording], share: float = 0.2) -> tuple[list[Recording], list[Recording]]:
    """(first part, last part) of each group's cells, for forecasting; no window lies in both.

    Raises:
        ClipError: a share that is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ClipError(f"share: {share:g} is not between 0 and 1")
    train, test = [], []
    for group in dict.fromkeys(own.group for own in recordings):
        parts = [own for own in recordings if own.group == group]
        left = round((1 - share) * sum(len(own.values) for own in parts))  # cells of the first part
        for own in parts:
            cut = min(max(left, 0), len(own.values))
            left -= len(own.values)
            train += [_part(own, 0, cut)] if own.mask[:cut].any() else []
            test += [_part(own, cut, len(own.values))] if own.mask[cut:].any() else []
    return train, test


def _part(own: Recording, first: int, stop: int) -> Recording:
    """Cells first … stop of a recording."""
    part = slice(first, stop)
    return replace(
        own, values=own.values[part], mask=own.mask[part], times=own.times[part], labels=own.labels[part],
        start=own.start + first * own.step,
    )  # fmt: skip


def _share(mask: np.ndarray) -> float:
    return float(mask.mean()) if mask.size else 0.0


def _padded(values: np.ndarray, length: int, fill: float | bool) -> np.ndarray:
    short = length - len(values)
    return values if short <= 0 else np.pad(values, ((0, short), (0, 0)), constant_values=fill)


def _label(codes: np.ndarray) -> np.ndarray:
    """The class of most of a window's labelled cells `[L, labels]`, −1 where no class has `PURE` of them."""
    out = np.full(codes.shape[1], -1, np.int64)
    for i, own in enumerate(codes.T):
        told = own[own >= 0]
        if len(told):
            counts = np.bincount(told)
            out[i] = int(counts.argmax()) if counts.max() >= PURE * len(told) else -1
    return out
