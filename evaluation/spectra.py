"""Power spectra and autocorrelations of windows with gaps, one value or curve a window.

    frequencies, power = power_spectra(windows, step=0.02)      # [F], [N, F]
    curves = autocorrelations(windows, lags=32)                 # [N, 33]

Windows are `[N, L]`, NaN where nothing was measured. Legend: `N` windows, `L` steps, `F` frequencies.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

BRIDGE = 2  # missing samples in a row that a straight line replaces, for the spectrum alone
LONGEST, SHORTEST = 256, 8  # steps of a segment of Welch's method


def on_own_clock(windows: np.ndarray, every: int) -> np.ndarray:
    """Windows of a channel that has a sample in every n-th cell, without the cells between: `[N, ⌊L / every⌋]`."""
    if every == 1:
        return windows
    length = windows.shape[1] // every
    cut = windows[:, : length * every].reshape(len(windows), length, every)
    phase = (~np.isnan(cut)).sum(axis=1).argmax(axis=1)  # where most samples lie
    return cut[np.arange(len(windows)), :, phase]


def segment_length(*groups: np.ndarray) -> int:
    """Steps of the segments for Welch's method that suit all groups of windows `[N, L]`.

    The longest power of two up to a window, at most 256, of which at least half of the windows that hold anything have
    a segment without a gap; 8 where there is none.
    """
    length = SHORTEST
    while 2 * length <= min(LONGEST, *(own.shape[1] for own in groups)):
        if not all(_complete(_bridged(own), 2 * length) >= 0.5 for own in groups):
            break
        length *= 2
    return length


def power_spectra(windows: np.ndarray, step: float, segment: int) -> tuple[np.ndarray, np.ndarray]:
    """Power spectral density by Welch's method (Hann, half overlap, means taken off).

    Up to two missing samples in a row are replaced by a straight line; segments with longer gaps are left out.

    Args:
        windows: `[N, L]`.
        step: seconds from one sample to the next.
        segment: steps of a segment, see `segment_length`.

    Returns:
        Frequencies `[F]` in Hz and density `[N, F]` in unit²/Hz; NaN for a window without a whole segment.
    """
    from scipy.signal import periodogram

    parts = _segments(_bridged(windows), segment)  # [N, K, segment]
    frequencies, power = periodogram(np.nan_to_num(parts), 1 / step, "hann", detrend="constant")
    power[np.isnan(parts).any(axis=2)] = np.nan
    return frequencies, _mean(power, axis=1)


def autocorrelations(windows: np.ndarray, lags: int) -> np.ndarray:
    """Autocorrelation `[N, lags + 1]` of each window about its own mean, over the pairs that were measured.

    NaN where a lag has fewer than four pairs, and for a window that does not vary.
    """
    mask = ~np.isnan(windows)
    centred = np.where(mask, windows - _mean(windows, axis=1)[:, None], 0.0)
    size = 2 ** int(np.ceil(np.log2(windows.shape[1] + lags + 1)))
    products, pairs = (_lagged(x.astype(np.float64), size, lags) for x in (centred, mask))
    pairs = np.round(pairs)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(pairs >= 4, products / pairs, np.nan)
        spread = np.where(mean[:, :1] > 1e-12 * np.nanmax(np.abs(windows), initial=0.0) ** 2, mean[:, :1], np.nan)
        return mean / spread


@dataclass(frozen=True)
class Band:
    """Mean, median and the 10 % and 90 % quantiles of curves, `[F]` each; NaN where no curve has a value."""

    mean: np.ndarray
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray


def band(curves: np.ndarray) -> Band:
    """Over the windows of `[N, F]`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of columns without any value
        low, median, high = np.nanquantile(curves, [0.1, 0.5, 0.9], axis=0)
    return Band(_mean(curves, axis=0), median, low, high)


def _lagged(rows: np.ndarray, size: int, lags: int) -> np.ndarray:
    """Σ x_i x_{i+k} `[N, lags + 1]` of rows `[N, L]`."""
    return np.fft.irfft(np.abs(np.fft.rfft(rows, size)) ** 2, size)[:, : lags + 1]


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean of what is no NaN, without a warning where nothing is."""
    count = (~np.isnan(values)).sum(axis=axis)
    return np.where(count > 0, np.nansum(values, axis=axis) / np.maximum(count, 1), np.nan)


def _segments(windows: np.ndarray, length: int) -> np.ndarray:
    """Segments that overlap by half, `[N, K, length]`."""
    if windows.shape[1] < length:
        windows = np.pad(windows, ((0, 0), (0, length - windows.shape[1])), constant_values=np.nan)
    return np.lib.stride_tricks.sliding_window_view(windows, length, axis=1)[:, :: length // 2]


def _complete(windows: np.ndarray, length: int) -> float:
    """Share of the windows that hold anything with a segment of this length without a gap."""
    some = (~np.isnan(windows)).sum(axis=1) > 0
    whole = (np.isnan(_segments(windows, length)).sum(axis=2) == 0).sum(axis=1) > 0
    return float(whole[some].mean()) if some.any() else 1.0


def _bridged(windows: np.ndarray) -> np.ndarray:
    """Short gaps between measured samples as straight lines."""
    out = np.array(windows, np.float64)
    for row in np.flatnonzero(np.isnan(out).any(axis=1)):
        known = np.flatnonzero(~np.isnan(out[row]))
        for before in known[:-1][(np.diff(known) > 1) & (np.diff(known) <= BRIDGE + 1)]:
            after = known[np.searchsorted(known, before, side="right")]
            out[row, before : after + 1] = np.linspace(out[row, before], out[row, after], after - before + 1)
    return out
