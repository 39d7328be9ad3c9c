"""Realism of music in the judge's features: Fréchet and kernel distance beside those of real clips (the floor)."""

from __future__ import annotations

import numpy as np

from .frechet import frechet_distance, precision_recall


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy of features `[N, D]` and `[M, D]` with the kernel (x·y / D + 1)³.

    The KID of Bińkowski et al. 2018 (https://arxiv.org/abs/1801.01401, eq. 4) on all samples at once. 0 on average for
    two samples of one distribution, at any N; so it may be negative.

    Raises:
        ValueError: not two sets of at least two vectors of the same length.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"features: {list(a.shape)} and {list(b.shape)}, expected [N, D] and [M, D] with N, M >= 2")

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def apart(x: np.ndarray) -> float:
        own = kernel(x, x)
        return float(own.sum() - np.trace(own)) / (len(x) * (len(x) - 1))

    return apart(a) + apart(b) - 2 * float(kernel(a, b).mean())


def realism(generated: np.ndarray, real: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Distances of generated and of real clips from the same number of other real clips, all features `[N, D]`.

    Features are divided by the reference's standard deviation, so that each dimension counts alike.

    Returns:
        `frechet`, `kernel`, `precision`, `recall` of the generated clips, each with a `_floor` of the real ones; `n`.
    """
    n = min(len(generated), len(real), len(reference))
    scale = reference.std(axis=0) + 1e-3 * reference.std() + 1e-9
    ours, theirs, others = (x[:n] / scale for x in (generated, real, reference))
    scores: dict[str, float] = {}
    for suffix, made in (("", ours), ("_floor", theirs)):
        precision, recall = precision_recall(others, made)
        scores |= {
            f"frechet{suffix}": frechet_distance(made, others),
            f"kernel{suffix}": kernel_distance(made, others),
            f"precision{suffix}": precision,
            f"recall{suffix}": recall,
        }
    return {**scores, "n": n}
