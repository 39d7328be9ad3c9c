"""Realism in a feature space: Fréchet distance between Gaussians, and precision and recall by nearest neighbours.

Both depend on the number of samples, so they are read beside the same score of real clips against other real
clips at the same number (the floor).
"""

from __future__ import annotations

import numpy as np


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance of the Gaussians fitted to two sets of features `[N, D]` and `[M, D]` (Heusel et al. 2017).

    d² = |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁^½ Σ₂ Σ₁^½)^½), in double precision; the roots come from symmetric
    eigendecompositions, which stay real where covariances are singular (fewer samples than dimensions).
    """
    a, b = _checked(a, "a", 2), _checked(b, "b", 2)
    return gaussian_frechet(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))


def gaussian_frechet(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """Squared Fréchet distance between two Gaussians: means `[D]`, covariances `[D, D]`."""
    cov1, cov2 = np.atleast_2d(cov1).astype(np.float64), np.atleast_2d(cov2).astype(np.float64)
    values, vectors = np.linalg.eigh(cov1)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = root @ cov2 @ root
    cross = np.sqrt(np.linalg.eigvalsh((product + product.T) / 2).clip(min=0)).sum()
    distance = np.sum((np.asarray(mean1) - np.asarray(mean2)) ** 2) + np.trace(cov1) + np.trace(cov2) - 2 * cross
    return float(max(distance, 0.0))


def precision_recall(real: np.ndarray, generated: np.ndarray, neighbours: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991, eq. 1-2).

    Args:
        real: features `[N, D]`.
        generated: features `[M, D]`.
        neighbours: each point's ball reaches its k-th nearest neighbour in its own set.

    Returns:
        precision: share of generated points inside some real point's ball;
        recall: share of real points inside some generated point's ball.
    """
    real, generated = _checked(real, "real", neighbours + 1), _checked(generated, "generated", neighbours + 1)
    between = squared_distances(real, generated)  # [N, M]
    precision = (between <= _radii(real, neighbours)[:, None]).any(axis=0).mean()
    recall = (between <= _radii(generated, neighbours)[None]).any(axis=1).mean()
    return float(precision), float(recall)


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances `[N, M]` of features `[N, D]` and `[M, D]`, in double precision."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    center = a.mean(0)  # the expansion below loses least near the origin
    a, b = a - center, b - center
    return ((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T).clip(min=0)


def _radii(points: np.ndarray, neighbours: int) -> np.ndarray:
    """Squared distance `[N]` to the k-th nearest other point (column 0 is the point itself)."""
    return np.partition(squared_distances(points, points), neighbours, axis=1)[:, neighbours] + 1e-9


def _checked(features: np.ndarray, name: str, least: int) -> np.ndarray:
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < least:
        raise ValueError(f"{name}: features must be [N, D] with N >= {least}, not {list(features.shape)}")
    if not np.isfinite(features).all():
        raise ValueError(f"{name}: features contain NaN or infinity")
    return features
