"""Are melodies copied from the training pieces? Interval n-grams of a transcription, looked up in an index.

An n-gram is eight successive intervals in semitones between different pitches: it does not change with key, tempo,
rhythm or repeated notes. The transcription errs, so its share of known n-grams is read beside that of held-out pieces
(what two tunes of one style share by chance) and of training pieces (what would be found if everything were copied).
On 16 solo renderings half of the n-grams were right and one in a hundred was in another piece; it is for single lines:
of chorales nothing was right.

Legend: `N` samples, `F` frames of 20 ms, `P` semitones from `LOWEST` on. Audio is mono, float, `[N]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

FIGURE = 8  # intervals in an n-gram
LOWEST, HIGHEST = 36, 98  # MIDI pitches that are looked for: C2 to D7
HOP = 0.02  # s
PARTIALS = (0, 12, 19, 24, 28)  # semitones of the first five partials above the first
DECAY = 0.7  # of their weights
QUIET = 0.02  # of the clip's greatest salience: below it nothing sounds

Figures = set[tuple[int, ...]]


def transcribe(audio: np.ndarray, rate: int) -> list[int]:
    """MIDI pitches of the loudest line, one after the other, repeated ones once.

    Constant-Q magnitudes (librosa, quarter tones) → `harmonic_salience` → in each frame the pitch that stands out most
    → median over 60 ms → notes of at least 60 ms.
    """
    salience = harmonic_salience(audio, rate)  # [P, F]
    peak = salience.max(axis=0, initial=0.0)
    if not peak.size or peak.max() < 1e-6:
        return []
    line = np.where(peak > QUIET * peak.max(), salience.argmax(axis=0), -1)  # [F], -1: nothing
    return notes_of(_median(line, 3), least=3)


def harmonic_salience(audio: np.ndarray, rate: int) -> np.ndarray:
    """`[P, F]`: how loudly each pitch sounds with its first five partials, less what lower pitches explain of that.

    The fundamentals an octave and a twelfth below are subtracted, the latter by half: without, a pitch's second and
    third partial are taken for notes.
    """
    import librosa

    count, low = HIGHEST - LOWEST + 1, librosa.midi_to_hz(LOWEST)
    bins = min(2 * (count + PARTIALS[-1]), int(24 * np.log2(0.95 * rate / 2 / low)))  # below half the sample rate
    hop = max(32, round(HOP * rate / 32) * 32)  # seven octaves halve the rate
    levels = np.abs(librosa.cqt(audio, sr=rate, hop_length=hop, fmin=low, n_bins=bins, bins_per_octave=24, tuning=0.0))  # type: ignore
    root = np.sqrt(levels[::2])
    root = np.pad(root, ((0, max(0, count + PARTIALS[-1] - len(root))), (0, 0)))
    summed = sum(DECAY**i * root[step : step + count] for i, step in enumerate(PARTIALS))
    octave, twelfth = (np.pad(root[:count], ((step, 0), (0, 0)))[:count] for step in PARTIALS[1:3])
    return root[:count] * (summed - octave - 0.5 * twelfth).clip(min=0)


def notes_of(line: np.ndarray, least: int) -> list[int]:
    """A pitch track `[F]` (index of a semitone from `LOWEST`, -1: none) → MIDI pitches held for `least` frames."""
    edges = np.flatnonzero(np.diff(line)) + 1
    runs = np.split(line, edges)
    pitches = [LOWEST + int(run[0]) for run in runs if len(run) >= least and run[0] >= 0]
    return [pitch for i, pitch in enumerate(pitches) if i == 0 or pitch != pitches[i - 1]]


def melody(notes: Iterable[Sequence[float]]) -> list[int]:
    """The highest pitch of every onset, in time, repeated ones once, of notated or rendered notes.

    Args:
        notes: (onset, pitch) of each; onsets less than 30 ms apart are one.
    """
    line: list[tuple[float, int]] = []
    for onset, pitch in sorted((float(n[0]), round(n[1])) for n in notes):
        if line and onset - line[-1][0] < 0.03:
            line[-1] = (line[-1][0], max(line[-1][1], pitch))
        else:
            line.append((onset, pitch))
    return [pitch for i, (_, pitch) in enumerate(line) if i == 0 or pitch != line[i - 1][1]]


def figures(pitches: Sequence[int]) -> list[tuple[int, ...]]:
    """Every run of eight intervals of a melody, in order."""
    steps = [b - a for a, b in pairwise(pitches) if a != b]
    return [tuple(steps[i : i + FIGURE]) for i in range(len(steps) - FIGURE + 1)]


def index(melodies: Iterable[Sequence[int]]) -> Figures:
    """The figures of all training melodies."""
    return {figure for pitches in melodies for figure in figures(pitches)}


def copied(melodies: Sequence[Sequence[int]], known: Figures) -> dict[str, float | int | None]:
    """How much of some melodies is in an index.

    Returns:
        `share`: of their figures, None without any; `longest`: notes of the longest stretch that is known (piece by
        piece, eight intervals at a time); `figures`: how many there were.
    """
    hits = [[figure in known for figure in figures(pitches)] for pitches in melodies]
    longest = 0
    for clip in hits:
        run = 0
        for hit in clip:
            run = run + 1 if hit else 0
            longest = max(longest, run + FIGURE if run else 0)
    total = sum(map(len, hits))
    return {"share": sum(map(sum, hits)) / total if total else None, "longest": longest, "figures": total}


def _median(line: np.ndarray, width: int) -> np.ndarray:
    padded = np.pad(line, width // 2, mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1).astype(int)
