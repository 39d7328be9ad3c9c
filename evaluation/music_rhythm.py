"""Tempo and meter of a recording, from the strength of its onsets (librosa).

Legend: `N` samples, `F` frames of 10 ms. Audio is mono, float, `[N]`.
"""

from __future__ import annotations

import numpy as np

TOLERANCE = 0.04  # of tempo: Gouyon et al. 2006, https://doi.org/10.1109/TSA.2005.858509
FRAMES = 100  # a second: at librosa's usual 31-43, one step at 200 bpm is already 8 %
LONGEST = 5.0  # s: the longest multiple of a beat that the period is read from


def onset_envelope(audio: np.ndarray, rate: int) -> np.ndarray:
    """Onset strength `[F]`, 100 frames a second (spectral flux of the log-mel, Böck and Widmer 2013)."""
    import librosa

    return librosa.onset.onset_strength(y=audio, sr=rate, hop_length=rate // FRAMES, n_fft=1024, lag=2, max_size=3)


def tempo(envelope: np.ndarray) -> float:
    """Beats a minute; NaN for silence.

    `librosa.feature.tempo` (autocorrelation under a prior: 120 bpm, a standard deviation of one octave) picks the
    period in whole frames; its multiples up to five seconds make it exact.
    """
    import librosa

    if not np.any(envelope > 1e-3):
        return float("nan")
    coarse = librosa.feature.tempo(onset_envelope=envelope, sr=FRAMES, hop_length=1)[0]
    return 60 * FRAMES / refine(autocorrelation(envelope), 60 * FRAMES / float(coarse))


def autocorrelation(envelope: np.ndarray) -> np.ndarray:
    """`[F / 2]`, 1 at lag 0, unbiased: what does not repeat tends to 0 at every lag."""
    import librosa

    centred = envelope - envelope.mean()
    size = len(centred) // 2
    raw = librosa.autocorrelate(centred, max_size=size) / (len(centred) - np.arange(size))
    return raw / max(float(raw[0]), 1e-12)


def refine(correlation: np.ndarray, period: float, reach: int = 3) -> float:
    """The period near `period` (frames), followed to the peaks at 2, 4, … times it: there an error counts as often."""
    times = 1
    while times * period + reach + 1 < min(len(correlation), LONGEST * FRAMES):
        peak = _peak(correlation, times * period, reach)
        if peak is None:
            break
        period, times = peak / times, 2 * times
    return period


def tempo_scores(estimate: float, asked: float) -> dict[str, float]:
    """1 or 0 for three readings of the same estimate; 0 where there is none (NaN).

    Returns:
        `tempo`: within 4 %; `tempo_octave`: so, or of half or twice the tempo; `tempo_accuracy2`: a third and three
        times count too, which is the field's "accuracy 2" (Gouyon et al. 2006).
    """

    def near(*factors: float) -> float:
        return float(any(abs(estimate / (asked * factor) - 1) <= TOLERANCE for factor in factors))

    octaves = (1.0, 0.5, 2.0)
    return {
        "tempo": near(1.0),
        "tempo_octave": near(*octaves),
        "tempo_accuracy2": near(*octaves, 3.0, 1 / 3),
    }


def meter_strengths(envelope: np.ndarray, bpm: float) -> dict[str, float]:
    """How well accents repeat after 2, 3 and 4 beats of a tempo: autocorrelation, `{"2": …, "3": …, "4": …}`.

    The beat may deviate by 4 % from `bpm`. NaN where a clip is too short to hold the lag twice.
    """
    correlation = autocorrelation(envelope)
    beat = 60 * FRAMES / bpm
    if not np.isfinite(beat):
        return dict.fromkeys("234", float("nan"))
    strengths = {}
    for beats in (2, 3, 4):
        reach = max(2, round(TOLERANCE * beats * beat / 2))
        low, high = round(beats * beat) - reach, round(beats * beat) + reach + 1
        inside = high <= len(correlation)
        strengths[str(beats)] = float(correlation[low:high].max()) if inside else float("nan")
    return strengths


def meter(strengths: dict[str, float]) -> str | None:
    """`duple` or `triple`: whichever of 3 and of 2 or 4 beats repeats the accents better; None if that is unknown."""
    two = np.nanmax([strengths["2"], strengths["4"], -np.inf])
    if np.isnan(strengths["3"]) or np.isinf(two):
        return None
    return "triple" if strengths["3"] > two else "duple"


def meter_class(signature: str) -> str | None:
    """What `meter` should find in `6/8` (beats are dotted quarters in 6/8, 9/8, 12/8): duple, triple, or None (5/4)."""
    count, unit = map(int, signature.split("/"))
    beats = count // 3 if unit >= 8 and count % 3 == 0 and count > 3 else count
    return "triple" if beats % 3 == 0 else "duple" if beats % 2 == 0 else None


def _peak(values: np.ndarray, near: float, reach: int) -> float | None:
    """Place of the highest value within `reach` of `near`, between frames by a parabola; None if it is no peak."""
    low = max(1, round(near) - reach)
    best = low + int(values[low : round(near) + reach + 1].argmax())
    left, top, right = values[best - 1 : best + 2]
    bend = left - 2 * top + right
    if bend >= 0 or top < max(left, right):
        return None
    return best + 0.5 * float(left - right) / float(bend)
