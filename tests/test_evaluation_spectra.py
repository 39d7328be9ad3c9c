"""Spectra and autocorrelations of windows with gaps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import welch

from counterpoint.evaluation.spectra import (
    autocorrelations,
    band,
    on_own_clock,
    power_spectra,
    segment_length,
)


@pytest.fixture
def windows():
    return np.random.default_rng(0).standard_normal((6, 256)).cumsum(axis=1)


def test_the_spectrum_is_scipys_welch(windows):
    frequencies, power = power_spectra(windows, 0.02, 64)
    expected, densities = welch(windows, 50.0, "hann", 64, detrend="constant")
    np.testing.assert_allclose(frequencies, expected)
    np.testing.assert_allclose(power, densities, rtol=1e-9)


def test_short_gaps_are_bridged_and_long_ones_leave_their_segments_out(windows):
    line = np.arange(256.0)[None]
    holes = line.copy()
    holes[0, [10, 11, 90]] = np.nan
    np.testing.assert_allclose(power_spectra(holes, 1.0, 64)[1], power_spectra(line, 1.0, 64)[1], atol=1e-12)
    windows[0, 100:110] = np.nan
    _, power = power_spectra(windows[:1], 1.0, 64)
    whole = [power_spectra(windows[:1, at : at + 64], 1.0, 64)[1] for at in (0, 32, 128, 160, 192)]  # 64, 96: a gap
    np.testing.assert_allclose(power, np.mean(whole, axis=0), rtol=1e-9)
    assert np.isnan(power_spectra(np.full((1, 64), np.nan), 1.0, 32)[1]).all()


def test_segments_are_as_long_as_the_gaps_allow(windows):
    assert segment_length(windows, windows[:, :100]) == 64
    windows[:4, 5::40] = windows[:4, 6::40] = windows[:4, 7::40] = np.nan
    assert segment_length(windows) == 32


def test_autocorrelation_is_that_of_the_measured_pairs(windows):
    lags, own = 20, windows[0] - windows[0].mean()
    expected = [np.mean(own[: 256 - k] * own[k:]) for k in range(lags + 1)]
    np.testing.assert_allclose(autocorrelations(windows, lags)[0], np.array(expected) / expected[0], rtol=1e-9)
    rng = np.random.default_rng(1)
    wave = np.sin(2 * np.pi * np.arange(512) / 32)[None].repeat(4, 0)
    wave[rng.random(wave.shape) < 0.3] = np.nan
    np.testing.assert_allclose(autocorrelations(wave, 32)[:, [8, 16, 32]], [[0, -1, 1]] * 4, atol=0.12)
    assert np.isnan(autocorrelations(np.ones((1, 50)), 3)).all()


def test_a_slower_channel_is_put_on_its_own_clock():
    windows = np.full((2, 12), np.nan)
    windows[0, 1::4], windows[1, 3::4] = [1, 2, 3], [4, np.nan, 6]
    np.testing.assert_array_equal(on_own_clock(windows, 4), [[1, 2, 3], [4, np.nan, 6]])


def test_a_band_ignores_windows_without_a_value():
    curves = np.array([[0.0, np.nan], [10.0, np.nan], [np.nan, np.nan]])
    found = band(curves)
    np.testing.assert_allclose([found.mean[0], found.median[0], found.low[0], found.high[0]], [5, 5, 1, 9])
    assert np.isnan(found.mean[1])
