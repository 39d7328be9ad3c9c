"""Forecast scores against what is known of Gaussians."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from counterpoint.evaluation.forecast import coverage, crps, forecast_scores, interval, quantiles
from counterpoint.modalities.clip import ClipError


def gaussian_crps(mean, std, truth):
    """Gneiting & Raftery 2007, eq. 21."""
    z = (truth - mean) / std
    return std * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / math.sqrt(math.pi))


@pytest.mark.parametrize("truth", [-1.0, 2.0, 7.0])
def test_crps_of_many_gaussian_samples_is_the_closed_form(truth):
    samples = 2.0 + 3.0 * np.random.default_rng(0).standard_normal(20_000)
    assert crps(samples, np.array(truth)) == pytest.approx(gaussian_crps(2.0, 3.0, truth), rel=0.02)


@pytest.mark.parametrize("count", [2, 5, 50])
def test_the_mean_does_not_depend_on_the_size_of_the_ensemble(count):
    rng = np.random.default_rng(1)
    cells = 100_000 if count < 50 else 20_000
    scores = crps(rng.standard_normal((count, cells)), rng.standard_normal(cells))
    assert scores.mean() == pytest.approx(1 / math.sqrt(math.pi), abs=0.01)


def test_crps_is_the_double_sum_over_pairs():
    rng = np.random.default_rng(2)
    samples, truth = rng.standard_normal((7, 3, 2)), rng.standard_normal((3, 2))
    pairs = np.abs(samples[:, None] - samples[None]).sum(axis=(0, 1)) / (7 * 6)
    np.testing.assert_allclose(crps(samples, truth), np.abs(samples - truth).mean(axis=0) - pairs / 2)


@pytest.mark.parametrize(("count", "level"), [(9, 0.8), (19, 0.9), (40, 0.5)])
def test_a_perfect_forecast_is_covered_as_often_as_it_says(count, level):
    rng = np.random.default_rng(3)
    covered = coverage(rng.standard_normal((count, 40_000)), rng.standard_normal(40_000), level)
    assert covered.mean() == pytest.approx(level, abs=0.012)


def test_intervals_are_those_of_the_gaussian():
    low, high = interval(np.random.default_rng(4).standard_normal(100_000), 0.9)
    assert (low, high) == pytest.approx((-1.645, 1.645), abs=0.03)
    assert quantiles(np.array([3.0, 1.0, 2.0]), [0.25, 0.5, 0.75]).tolist() == [1, 2, 3]


def test_a_forecast_too_narrow_or_displaced_scores_worse_and_covers_less():
    rng = np.random.default_rng(5)
    truth, samples = rng.standard_normal(5000), rng.standard_normal((40, 5000))
    right, narrow, moved = (forecast_scores(s, truth) for s in (samples, 0.3 * samples, samples + 1))
    assert right["crps"] < min(narrow["crps"], moved["crps"])
    assert narrow["coverage"]["0.9"] < 0.6
    assert moved["coverage"]["0.9"] < right["coverage"]["0.9"] - 0.1
    assert right["width"]["0.9"] == pytest.approx(2 * 1.645, abs=0.25)


def test_only_cells_that_count_are_scored():
    rng = np.random.default_rng(6)
    truth, samples = rng.standard_normal((4, 5)), rng.standard_normal((6, 4, 5))
    mask = rng.random((4, 5)) < 0.5
    told = forecast_scores(samples, truth, mask)
    spoiled = np.where(mask, truth, np.nan)
    samples[:, ~mask] = 1e6
    assert forecast_scores(samples, spoiled) == told
    assert told["cells"] == mask.sum()
    assert set(told["coverage"]) == {"0.5"}  # six samples tell no more
    with pytest.raises(ClipError, match="no cell"):
        forecast_scores(samples, np.full((4, 5), np.nan))
    with pytest.raises(ClipError, match="expected 19 or more"):
        interval(samples[:, 0, 0], 0.9)
    with pytest.raises(ClipError, match="2 or more"):
        crps(samples[:1], truth)
