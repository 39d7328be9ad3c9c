"""A piece: notes by part in quarter notes, bars, key, meter and where it comes from; one line of JSON on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

COLLECTIONS = {
    "bach": "Johann Sebastian Bach",
    "oneills": "O'Neill's Music of Ireland",
    "ryans": "Ryan's Mammoth Collection",
}


@dataclass(frozen=True)
class Piece:
    """Music as it is notated, without repeats.

    Args:
        id: collection and name in it, e.g. `bach/bwv104.6`.
        collection: one of `COLLECTIONS`.
        title: as in the file; may be empty.
        composer: as in the file; empty for traditional tunes.
        kind: chorale, reel, jig, slip jig, hornpipe, … or empty where the file doesn't say.
        tonic: pitch class of the notated key (0 is C).
        mode: `major` or `minor`.
        meter: e.g. `6/8`.
        pickup: quarter notes before the first full bar.
        bars: quarter notes at which regular bars begin; the last one may be shorter.
        parts: from the highest to the lowest, float64 `[notes, 3]`: onset and duration in quarter notes, MIDI pitch.
    """

    id: str
    collection: str
    title: str
    composer: str
    kind: str
    tonic: int
    mode: str
    meter: str
    pickup: float
    bars: tuple[float, ...]
    parts: tuple[np.ndarray, ...]

    @property
    def end(self) -> float:
        """Quarter note at which the last note ends."""
        return max(float((part[:, 0] + part[:, 1]).max()) for part in self.parts)

    def runs(self) -> list[tuple[int, int]]:
        """First and last index of `bars` of each stretch in which a bar follows a bar."""
        length, runs = bar_length(self.meter), []
        for i, bar in enumerate(self.bars):
            if runs and abs(bar - self.bars[i - 1] - length) < 1e-3:
                runs[-1][1] = i
            else:
                runs.append([i, i])
        return [(first, last) for first, last in runs]

    def to_line(self) -> str:
        """One line of JSON; `from_entry` is the inverse."""
        numbers = {"bars": [_short(bar) for bar in self.bars], "pickup": _short(self.pickup)}
        parts = [[[_short(on), _short(long), int(pitch)] for on, long, pitch in part] for part in self.parts]
        return json.dumps({**self.__dict__, **numbers, "parts": parts}, separators=(",", ":"), ensure_ascii=False)

    @staticmethod
    def from_entry(entry: dict[str, Any]) -> Piece:
        """The piece of a line's content."""
        parts = tuple(np.array(part, np.float64).reshape(-1, 3) for part in entry["parts"])
        return Piece(**{**entry, "bars": tuple(entry["bars"]), "parts": parts})


def bar_length(meter: str) -> float:
    """Quarter notes in a bar of `6/8`."""
    count, unit = map(int, meter.split("/"))
    return count * 4 / unit


def beat_length(meter: str) -> float:
    """Quarter notes in the beat that is counted: a dotted quarter in 6/8, 9/8 and 12/8, else the meter's unit."""
    count, unit = map(int, meter.split("/"))
    return 1.5 if unit == 8 and count % 3 == 0 else 4 / unit


def monophonic(part: np.ndarray) -> bool:
    """Whether no two notes of a part sound together."""
    order = part[np.argsort(part[:, 0], kind="stable")]
    return bool((order[1:, 0] >= order[:-1, 0] + order[:-1, 1] - 1e-3).all())


def _short(value: float) -> float | int:
    """Four decimals hold triplets to a quarter of a millisecond; whole numbers lose their point."""
    value = round(float(value), 4)
    return int(value) if value == int(value) else value
