"""Key and mode of a recording: the Krumhansl-Kessler profiles against its chroma (librosa), scored as MIREX does.

Legend: `N` samples; pitch classes count from C = 0. Audio is mono, float, `[N]`.
"""

from __future__ import annotations

import numpy as np

from ..modalities.music_terms import FIFTH, KEYS, PROFILES

NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
QUIET = 0.05  # of the loudest frame's largest pitch class: frames below it count less


def mean_chroma(audio: np.ndarray, rate: int) -> np.ndarray:
    """Mean constant-Q chroma `[12]` from C on, every frame but the quiet ones with the same weight; A4 is 440 Hz.

    A part of each pitch class is taken from its fifth, where its third partial lies; without that, keys come out a
    fifth too high.
    """
    import librosa

    chroma = librosa.feature.chroma_cqt(y=audio, sr=rate, hop_length=1024, norm=None, tuning=0.0)  # type: ignore
    loudest = chroma.max(axis=0)  # [frames]
    mean = (chroma / np.maximum(loudest, max(QUIET * loudest.max(), 1e-12))).mean(axis=1)
    return (mean - FIFTH * np.roll(mean, 7)).clip(min=0)


def krumhansl(chroma: np.ndarray) -> tuple[int, str] | None:
    """Tonic and mode whose profile correlates best with a chroma `[12]`; None if the chroma is flat."""
    if chroma.std() < 1e-6:
        return None
    return max(KEYS, key=lambda key: np.corrcoef(np.roll(PROFILES[key[1]], key[0]), chroma)[0, 1])


def pitch_class(tonic: int | str) -> int:
    """0 … 11 of a number or of a name such as `Bb`, `F#`, `E-flat`.

    Raises:
        ValueError: no such note.
    """
    if not isinstance(tonic, str):
        return int(tonic) % 12
    letter, rest = tonic[:1].upper(), tonic[1:].lower().strip(" -")
    shift = {"": 0, "b": -1, "flat": -1, "♭": -1, "#": 1, "sharp": 1, "♯": 1}
    if letter not in "CDEFGAB" or not letter or rest not in shift:
        raise ValueError(f"tonic: {tonic!r} is not a note such as C, F# or Bb")
    return ("C D EF G A B".index(letter) + shift[rest]) % 12


def key_scores(estimate: tuple[int, str] | None, tonic: int | str, mode: str) -> dict[str, float]:
    """Agreement of an estimated key with the asked one; all 0 without an estimate.

    Returns:
        `key`: tonic and mode; `key_mirex`: 1 for the same, .5 for a fifth, .3 for the relative, .2 for the parallel key
        (mir_eval.key); `mode`: major or minor alone.
    """
    if estimate is None:
        return {"key": 0.0, "key_mirex": 0.0, "mode": 0.0}
    import mir_eval

    asked = (pitch_class(tonic), mode)
    names = [f"{NAMES[t]} {m}" for t, m in (asked, estimate)]
    weighted = float(mir_eval.key.weighted_score(*names))
    return {"key": float(estimate == asked), "key_mirex": weighted, "mode": float(estimate[1] == mode)}
