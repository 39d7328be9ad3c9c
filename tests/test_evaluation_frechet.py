"""Fréchet distance against closed forms; precision and recall at their ends."""

import numpy as np
import pytest

from counterpoint.evaluation.frechet import frechet_distance, gaussian_frechet, precision_recall


def test_gaussians_in_closed_form():
    # commuting covariances: |μ₁ − μ₂|² + Σ (σ₁ − σ₂)²
    mean1, mean2 = np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0])
    std1, std2 = np.array([1.0, 2.0, 0.5]), np.array([3.0, 2.0, 0.1])
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    cov1, cov2 = (turn @ np.diag(s**2) @ turn.T for s in (std1, std2))
    assert gaussian_frechet(mean1, cov1, mean2, cov2) == pytest.approx(5 + ((std1 - std2) ** 2).sum())


def test_covariances_that_do_not_commute():
    cov1, cov2 = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[4.0, 0.0], [0.0, 1.0]])
    # in two dimensions tr √(A) = √(tr A + 2 √det A)
    cross = np.sqrt(np.trace(cov1 @ cov2) + 2 * np.sqrt(np.linalg.det(cov1 @ cov2)))
    assert gaussian_frechet(np.zeros(2), cov1, np.zeros(2), cov2) == pytest.approx(4 + 5 - 2 * cross)


def test_samples_with_fewer_clips_than_dimensions():
    a = np.random.default_rng(0).normal(size=(20, 128)).astype(np.float32)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(a, a + 1) == pytest.approx(128, rel=1e-5)


def test_samples_approach_the_closed_form():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(20000, 4)), 2 * rng.normal(size=(20000, 4)) + 1
    assert frechet_distance(a, b) == pytest.approx(4 + 4, rel=0.05)


def test_precision_and_recall():
    rng = np.random.default_rng(2)
    real = rng.normal(size=(100, 8))
    assert precision_recall(real, real) == (1, 1)
    assert precision_recall(real, real + 100) == (0, 0)
    # only one of two modes is generated: precise, but half is missing
    modes = np.concatenate([real, real + 100])
    precision, recall = precision_recall(modes, real)
    assert (precision, recall) == (1, 0.5)


def test_bad_features_are_refused():
    with pytest.raises(ValueError, match="N >= 4"):
        precision_recall(np.zeros((3, 2)), np.zeros((9, 2)))
    with pytest.raises(ValueError, match="NaN"):
        frechet_distance(np.full((4, 2), np.nan), np.zeros((4, 2)))
