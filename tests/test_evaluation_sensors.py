"""The benchmark's scores on sets whose answer is known."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from counterpoint.evaluation.frechet import frechet_distance
from counterpoint.evaluation.sensors import (
    Effort,
    copies,
    correlational_score,
    correlations,
    evaluate_windows,
    summary,
)


def noise(count, length=6, channels=4, seed=0):
    return np.random.default_rng(seed).random((count, length, channels)).astype(np.float32)


def test_correlational_score_is_zero_for_equal_sets_and_for_scaled_ones():
    real = noise(200)
    assert correlational_score(real, real) == 0.0
    assert correlational_score(real, 3 * real + 1) == pytest.approx(0, abs=1e-9)


def test_correlational_score_of_a_channel_turned_over():
    """Two channels of correlation 1 against two of −1: the one pair differs by 2, over 10."""
    wave = noise(500, channels=1).astype(np.float64)
    together, against = np.concatenate([wave, wave], axis=2), np.concatenate([wave, -wave], axis=2)
    unbiased = (wave.size - 1) / wave.size  # means divide by n, standard deviations by n − 1
    assert correlational_score(together, against) == pytest.approx(0.2 * unbiased)
    np.testing.assert_allclose(correlations(against), np.array([1, -1, 1]) * unbiased)


def test_correlations_of_a_constant_channel_are_zero():
    windows = noise(50, channels=2)
    windows[..., 1] = 0.5
    np.testing.assert_allclose(correlations(windows)[1:], 0, atol=1e-12)


def test_frechet_distance_is_the_published_formula():
    a, b = noise(300, 1, 5).reshape(300, 5), 2 * noise(300, 1, 5, seed=1).reshape(300, 5)
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_summary_is_student_s_interval():
    """Five repeats: t with 4 degrees of freedom is 2.776 at 97.5 %."""
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert summary(values) == {"mean": 3.0, "half_width": pytest.approx(2.7764451 * np.sqrt(2.5 / 5))}


def test_scores_of_the_real_windows_themselves_are_at_the_floor_and_of_shifted_ones_far_above():
    real = noise(300)
    effort = Effort(repeats=3, discriminative=400, predictive=20, ts2vec=4)
    same = evaluate_windows(real, real, seed=1, effort=effort)
    shifted = evaluate_windows(real, real + 1, seed=1, effort=effort, scores=("context_fid", "discriminative"))
    assert same["context_fid"]["mean"] == pytest.approx(0, abs=1e-6)
    assert same["context_fid"]["floor"] > 0
    assert shifted["context_fid"]["mean"] > 10 * same["context_fid"]["floor"]
    assert same["discriminative"]["mean"] < 0.1 + same["discriminative"]["half_width"]
    assert shifted["discriminative"]["mean"] > 0.4
    assert shifted["discriminative"]["floor"] == same["discriminative"]["floor"]  # of real windows alone
    assert same["predictive"]["mean"] == pytest.approx(same["predictive"]["floor"], abs=0.02)
    again = evaluate_windows(real, real, seed=1, effort=effort, scores=("discriminative", "correlational"))
    assert again["discriminative"] == same["discriminative"]
    assert again["correlational"] == same["correlational"]


def test_windows_that_cannot_be_compared_are_refused():
    real = noise(20)
    with pytest.raises(ValueError, match="beside real ones"):
        evaluate_windows(real, noise(20, channels=3))
    with pytest.raises(ValueError, match="19 windows, fewer than the 20"):
        evaluate_windows(real, real[:19])
    with pytest.raises(ValueError, match="NaN"):
        evaluate_windows(real, np.full_like(real, np.nan))


def test_copies_are_found():
    real, fresh = noise(400), noise(400, seed=1)
    assert copies(real, fresh, overlapping=False)["ratio"] == pytest.approx(1, abs=0.1)
    assert copies(real, fresh, overlapping=False)["share_closer"] < 0.05
    stolen = copies(real, real + 1e-3, overlapping=False)
    assert stolen["ratio"] < 0.05
    assert stolen["share_closer"] == 1.0


def test_real_windows_are_not_compared_with_those_they_overlap():
    """A straight line: the nearest window without a step in common lies a window's length away."""
    line = np.arange(200.0)[:, None]
    windows = np.lib.stride_tricks.sliding_window_view(line, 5, axis=0).swapaxes(1, 2)
    deviation = windows.std()
    found = copies(windows, windows[:50] + 0.5, overlapping=True)
    assert found["real_distance"] == pytest.approx(5 / deviation, rel=1e-4)
    assert found["distance"] == pytest.approx(0.5 / deviation, rel=1e-4)


def test_who_is_right_less_than_half_of_the_time_scores_as_who_is_more_often(monkeypatch):
    monkeypatch.setattr("counterpoint.evaluation.sensors.accuracies", lambda *_: np.array([0.4, 0.7, 0.35, 0.45]))
    effort, real = Effort(repeats=2), noise(50)
    found = evaluate_windows(real, real, scores=("discriminative",), effort=effort)["discriminative"]
    own = {key: found[key] for key in ("mean", "accuracy", "floor", "floor_accuracy")}
    assert own == pytest.approx({"mean": 0.15, "accuracy": 0.55, "floor": 0.1, "floor_accuracy": 0.4})
