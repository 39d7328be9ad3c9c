"""What listeners complain of in generated music: loudness, clipping, silence, clicks, hiss, wobble. Without reference.

Legend: `N` samples, `F` frames, `K` bins. Audio is mono, float in [-1, 1], `[N]`.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import maximum_filter1d, uniform_filter1d

SILENT = 1e-3  # RMS of 50 ms: -60 dBFS
CLICK = 12.0  # times the curvature on both sides; the test's music stays below 6
LEAST = 2e-3  # curvature below which nothing is heard as a click
HISS_ABOVE = 2000.0  # Hz


def sound_scores(audio: np.ndarray, rate: int) -> dict[str, float]:
    """All scores of this file for one clip; NaN where a score has nothing to look at.

    Returns:
        `loudness_lufs`, `clipped` and `silent` (shares), `clicks` (a second, inside), `start_click` and `end_click`
        (1 or 0), `end_db` (level of the last 50 ms against the clip's), `hiss_db`, `wobble_cents`.
    """
    start, inside, end = clicks(audio, rate)
    return {
        "loudness_lufs": loudness(audio, rate),
        "clipped": clipped(audio),
        "silent": silent(audio, rate),
        "clicks": len(inside) * rate / len(audio),
        "start_click": float(start),
        "end_click": float(end),
        "end_db": end_level(audio, rate),
        "hiss_db": hiss(audio, rate),
        "wobble_cents": wobble(audio, rate),
    }


def loudness(audio: np.ndarray, rate: int) -> float:
    """Integrated loudness in LUFS (ITU-R BS.1770-4, pyloudnorm); NaN for silence and for less than 0.4 s."""
    import pyloudnorm

    if len(audio) < 0.4 * rate or not np.any(audio):
        return float("nan")
    value = pyloudnorm.Meter(rate).integrated_loudness(audio.astype(np.float64))
    return float(value) if np.isfinite(value) else float("nan")


def clipped(audio: np.ndarray) -> float:
    """Share of samples at full scale."""
    return float((np.abs(audio) >= 0.999).mean())


def silent(audio: np.ndarray, rate: int) -> float:
    """Share of windows of 50 ms below -60 dBFS."""
    return float((_levels(audio, rate) < SILENT).mean())


def end_level(audio: np.ndarray, rate: int) -> float:
    """Level of the last 50 ms against the whole clip's RMS, in dB: near 0 is cut off, below -30 has ended."""
    whole = np.sqrt(np.square(audio, dtype=np.float64).mean())
    last = np.sqrt(np.square(audio[-rate // 20 :], dtype=np.float64).mean())
    return float(20 * np.log10((last + 1e-6) / (whole + 1e-6)))


def clicks(audio: np.ndarray, rate: int) -> tuple[bool, np.ndarray, bool]:
    """Clicks at the clip's start, inside (samples), and at its end.

    A click is a sample whose curvature (second difference) stands out from the 8 ms before it and from the 8 ms after
    it. An attack stands out only from what was before. Silence is put around the clip, so that a cut waveform shows.
    """
    pad = rate // 50
    ratio, curve = standing_out(np.pad(audio.astype(np.float64), pad), rate)
    found = (ratio > CLICK) & (curve > LEAST)
    found &= curve >= maximum_filter1d(curve, rate * 8 // 1000)  # one sample a click
    places = np.flatnonzero(found) - pad
    start, end = places <= 1, places >= len(audio) - 2
    return bool(start.any()), places[~start & ~end], bool(end.any())


def standing_out(audio: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Curvature of each sample over the larger of its means 8 ms before and after; and the curvature: `[N]` each."""
    width = rate * 8 // 1000
    curve = np.abs(np.diff(audio.astype(np.float64), 2, prepend=0, append=0))  # of the sample in the middle
    mean, shift = uniform_filter1d(curve, width, mode="constant"), width // 2 + 3  # a click is up to 3 samples wide
    before, after = np.roll(mean, shift), np.roll(mean, -shift)
    return curve / (np.maximum(before, after) + 1e-6), curve


def hiss(audio: np.ndarray, rate: int) -> float:
    """Noise between notes and partials above 2 kHz, as the dBFS of a white noise of that density.

    Minimum statistics: each bin's 10th percentile over time, and of those the median over bins. The level of an
    exponential variable's 10th percentile is .105 of its mean. Frames of digital silence are left out; NaN if all are.
    """
    power, _ = _spectrum(audio, 1024, 512)  # [K, F]
    heard = power.mean(axis=0) > 1e-11
    if not heard.any():
        return float("nan")
    high = power[int(np.ceil(HISS_ABOVE / rate * 1024)) :, heard]
    floor = np.median(np.quantile(high, 0.1, axis=1)) / -np.log(0.9)
    return float(10 * np.log10(floor + 1e-12))


def wobble(audio: np.ndarray, rate: int) -> float:
    """How far the pitch of everything that sounds drifts together, standard deviation in cents; NaN without partials.

    The frequencies of a frame's ten loudest partials, as distances from the nearest semitone, give the frame's common
    detuning (a mean on the circle of one semitone). Tape wobble moves it; so does the vibrato of a solo: read it beside
    real clips.
    """
    n_fft, hop, partials = 4096, 1024, 10
    power, _ = _spectrum(audio, n_fft, hop)
    low = int(np.ceil(200 / rate * n_fft))
    log = np.log(power[low - 1 : n_fft // 4 + 1] + 1e-12)
    left, top, right = log[:-2], log[1:-1], log[2:]
    peak = (top > left) & (top > right) & (top > log.max() - 9.0)  # within 39 dB of the loudest
    place = np.arange(low, low + len(top))[:, None] + 0.5 * (left - right) / np.minimum(left - 2 * top + right, -1e-9)
    angle = 2 * np.pi * 12 * np.log2(np.maximum(place, 1) * rate / n_fft / 440)  # a semitone is a turn
    loudest = np.sort(np.where(peak, top, -np.inf), axis=0)[-partials]
    turns = np.where(peak & (top >= loudest), np.exp(1j * angle), 0).sum(axis=0)  # [F]
    enough = peak.sum(axis=0) >= 1
    if enough.sum() < 4:
        return float("nan")
    mean = turns[enough].sum()
    away = np.angle(turns[enough] * np.conj(mean / max(abs(mean), 1e-12))) / (2 * np.pi) * 100
    return float(away.std())


def _levels(audio: np.ndarray, rate: int) -> np.ndarray:
    """RMS of windows of 50 ms."""
    size = rate // 20
    whole = np.pad(audio, (0, -len(audio) % size)) if len(audio) < size else audio[: len(audio) // size * size]
    return np.sqrt(np.square(whole.reshape(-1, size), dtype=np.float64).mean(axis=1))


def _spectrum(audio: np.ndarray, n_fft: int, hop: int) -> tuple[np.ndarray, np.ndarray]:
    """Power and phase `[K, F]` of Hann windows; white noise of variance s² has a mean power of s² in every bin."""
    from scipy.signal import get_window

    window = get_window("hann", n_fft)
    padded = np.pad(audio, (0, max(0, n_fft - len(audio)))).astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
    spectrum = np.fft.rfft(frames * window, axis=1).T
    return np.abs(spectrum) ** 2 / np.square(window).sum(), np.angle(spectrum)
