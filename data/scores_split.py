"""Splits: pieces that are never heard in training, and combinations that are never heard in training.

`train`: training pieces. `test`: held-out pieces in combinations that training has. `unseen`: held-out pieces in
combinations of instrument, mode and tempo band that training never has.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ..modalities.music_terms import MODES
from .scores_instruments import INSTRUMENTS
from .scores_piece import Piece

SPLITS = ("train", "test", "unseen")
HELD_OUT_PIECES = 10  # one family of tunes in ten
BANDS = {"slow": (0, 80), "medium": (80, 120), "fast": (120, 1000)}  # beats a minute, the upper bound excluded
SHARED = 0.3  # of the shorter melody's figures: then two pieces are versions of one tune
FIGURE = 8  # intervals


def tempo_band(tempo: float) -> str:
    """`slow` below 80 bpm, `fast` from 120 on."""
    return next(band for band, (low, high) in BANDS.items() if low <= tempo < high)


@lru_cache(maxsize=1)
def held_out() -> frozenset[tuple[str, str, str]]:
    """(instrument, mode, band) that never occur in training: one for every second instrument.

    Every pair of two of the three stays in training, with several instruments and tempos.
    """
    combinations = [(mode, band) for mode in MODES for band in BANDS]
    return frozenset(
        (name, *combinations[_hash(f"combination {name}") % len(combinations)])
        for number, name in enumerate(INSTRUMENTS)
        if number % 2
    )


def is_held_out(instruments: Sequence[str], mode: str, tempo: float) -> bool:
    """Whether any of the instruments is in a held-out combination."""
    return any((name, mode, tempo_band(tempo)) in held_out() for name in instruments)


def pieces_of(pieces: Sequence[Piece], split: str) -> list[Piece]:
    """The pieces of a split.

    Versions of one tune (of a chorale melody, of a reel in both collections) stay on one side.

    Raises:
        ValueError: no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"split: '{split}' is not one of {', '.join(SPLITS)}")
    families = tune_families(pieces)
    held = [_hash(families[piece.id]) % HELD_OUT_PIECES == 0 for piece in pieces]
    return [piece for piece, out in zip(pieces, held, strict=True) if out == (split != "train")]


def tune_families(pieces: Sequence[Piece]) -> dict[str, str]:
    """Identity of the first piece of each piece's family: those whose melodies share three figures in ten.

    A figure is eight intervals of the top part; notes that are repeated count once.
    """
    figures = {piece.id: _figures(piece.parts[0]) for piece in pieces}
    where = defaultdict(list)
    for name, own in figures.items():
        for figure in own:
            where[figure].append(name)
    shared: dict[tuple[str, str], int] = defaultdict(int)
    for names in where.values():
        for i, one in enumerate(names):
            for other in names[i + 1 :]:
                shared[one, other] += 1
    parent = {piece.id: piece.id for piece in pieces}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name] = parent[parent[name]]
        return name

    for (one, other), count in shared.items():
        if count >= SHARED * min(len(figures[one]), len(figures[other])):
            first, second = sorted((root(one), root(other)))
            parent[second] = first
    return {name: root(name) for name in parent}


def _figures(part: np.ndarray) -> set[tuple[int, ...]]:
    """Interval n-grams of the highest notes of a part, in time."""
    order = part[np.lexsort((-part[:, 2], part[:, 0]))]
    first = np.concatenate([[True], np.diff(order[:, 0]) > 1e-3])
    pitches = order[first, 2].astype(int)
    steps = np.diff(pitches)
    steps = steps[steps != 0].tolist()
    return {tuple(steps[i : i + FIGURE]) for i in range(len(steps) - FIGURE + 1)}


def _hash(text: str) -> int:
    """The same on every machine and in every process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
