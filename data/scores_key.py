"""Keys: names of tonics, and the key that notes suggest.

The estimator is Krumhansl's: the durations of the twelve pitch classes are correlated with the Krumhansl-Kessler
profiles of all 24 keys (Krumhansl, Cognitive Foundations of Musical Pitch, 1990, p. 30).
"""

from __future__ import annotations

import numpy as np

from ..modalities.music_terms import KEYS, PROFILES

TONICS = {  # spelled with the fewest accidentals
    "major": ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B"),
    "minor": ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B"),
}
SECOND_TONICS = {  # the other usual spelling
    "major": {1: "C#", 6: "F#"},
    "minor": {3: "D#", 8: "Ab", 10: "A#"},
}


def krumhansl(weights: np.ndarray) -> tuple[int, str]:
    """The key that twelve weights (durations, or a mean chroma) suggest.

    Args:
        weights: `[12]`, of the pitch classes from C on; not all alike.

    Returns:
        tonic (0 is C) and mode.
    """
    return _ranked(weights)[0][1]


def key_of_notes(pitches: np.ndarray, durations: np.ndarray, margin: float = 0.0) -> tuple[int, str] | None:
    """The key of notes by duration; None for fewer than three pitch classes, or where another key is as likely.

    Args:
        pitches: MIDI numbers `[n]`.
        durations: in any unit `[n]`.
        margin: by which the best correlation must exceed the second best.
    """
    weights = np.bincount(np.asarray(pitches, np.int64) % 12, np.asarray(durations, np.float64), 12)
    if np.count_nonzero(weights) < 3:
        return None
    (best, key), (second, _) = _ranked(weights)[:2]
    return key if best - second >= margin else None


def _ranked(weights: np.ndarray) -> list[tuple[float, tuple[int, str]]]:
    """Correlations with the 24 profiles, the best first."""
    profiles = [np.roll(PROFILES[mode], tonic) for tonic, mode in KEYS]
    correlations = np.corrcoef(np.array([weights, *profiles]))[0, 1:].tolist()
    return sorted(zip(correlations, KEYS, strict=True), key=lambda ranked: -ranked[0])


def short_name(tonic: int, mode: str) -> str:
    """`Dm`, `Eb`: tonic, with an m for minor."""
    return TONICS[mode][tonic] + ("m" if mode == "minor" else "")


def spoken_names(tonic: int, mode: str) -> list[str]:
    """`Eb major`, `E-flat major`, `E flat major`, …: the ways to write a key."""
    names = []
    for name in (TONICS[mode][tonic], SECOND_TONICS[mode].get(tonic)):
        if name is not None:
            long = {"b": "flat", "#": "sharp"}.get(name[1:])
            names += [name] if long is None else [name, f"{name[0]}-{long}", f"{name[0]} {long}"]
    return [f"{name} {mode}" for name in names]
