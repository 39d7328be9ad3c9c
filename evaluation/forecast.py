"""Scores of forecasts and imputations that come as samples: CRPS, coverage of central intervals, median error.

    scores = forecast_scores(samples, truth, mask)     # samples [S, …], truth and mask […]

Only cells that are measured and were not given count. Legend: `S` samples of the ensemble.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..modalities.clip import ClipError

LEVELS = (0.5, 0.8, 0.9)


def crps(samples: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score of every cell `[…]`, in the unit of the values; lower is better.

    E|X − y| − ½·E|X − X'|, the second term over pairs of different samples (the fair score of Ferro 2014,
    https://doi.org/10.1002/qj.2270): its mean does not depend on `S`, so ensembles of different sizes compare. Of a
    perfect Gaussian forecast the mean is σ/√π.

    Args:
        samples: `[S, …]`, at least two.
        truth: `[…]`.
    """
    samples, truth = _checked(samples, truth)
    count = len(samples)
    rank = (2 * np.arange(count) - count + 1).reshape(-1, *[1] * truth.ndim)
    pairs = (rank * np.sort(samples, axis=0)).sum(axis=0)  # Σ |x_i − x_j| over i < j
    return np.abs(samples - truth).mean(axis=0) - pairs / (count * (count - 1))


def quantiles(samples: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Quantiles `[levels, …]` of samples `[S, …]`, such that of new draws just that share lies below (Weibull's).

    The k-th smallest of S samples is the quantile k/(S + 1), without the bias to the middle of the usual ones. Levels
    below 1/(S + 1) and above S/(S + 1) are a ClipError: nothing is known of them.
    """
    count = len(samples)
    edge = 1 / (count + 1)
    for level in levels:
        if not edge - 1e-9 <= level <= 1 - edge + 1e-9:
            least = int(np.ceil(1 / max(min(level, 1 - level), 1e-9) - 1e-9)) - 1
            raise ClipError(f"samples: {count} can't tell the quantile {level:g}, expected {least} or more")
    return np.quantile(np.asarray(samples, np.float64), list(levels), axis=0, method="weibull")


def interval(samples: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end `[…]` of the central interval that `level` of new draws lie in."""
    low, high = quantiles(samples, [(1 - level) / 2, (1 + level) / 2])
    return low, high


def coverage(samples: np.ndarray, truth: np.ndarray, level: float) -> np.ndarray:
    """Whether each cell `[…]` lies in the central interval of `level`; of a calibrated forecast, that share does."""
    samples, truth = _checked(samples, truth)
    low, high = interval(samples, level)
    return (truth >= low) & (truth <= high)


def forecast_scores(
    samples: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None, levels: Sequence[float] = LEVELS
) -> dict[str, Any]:
    """Means over the cells that count.

    Args:
        samples: `[S, …]`.
        truth: `[…]`; NaN where nothing was measured.
        mask: `[…]` bool, the cells that count; None: all with a truth.
        levels: of the intervals; those that need more samples than there are are left out.

    Returns:
        `crps` and `mae` (of the median) in the unit of the values, `coverage` and `width` by level, `cells`, `samples`.

    Raises:
        ClipError: fewer than two samples, shapes that don't fit, or no cell that counts.
    """
    truth = np.asarray(truth, np.float64)
    counts = np.isfinite(truth) if mask is None else np.asarray(mask, bool) & np.isfinite(truth)
    if counts.shape != np.shape(samples)[1:]:
        raise ClipError(f"samples: {list(np.shape(samples))} do not fit truth {list(truth.shape)}, expected [S, …]")
    if not counts.any():
        raise ClipError("truth: no cell that was measured and not given")
    ensemble, told = np.asarray(samples, np.float64)[:, counts], truth[counts]  # [S, n], [n]
    possible = [level for level in levels if (1 - level) / 2 >= 1 / (len(ensemble) + 1) - 1e-9]
    ends = {level: interval(ensemble, level) for level in possible}
    return {
        "crps": float(crps(ensemble, told).mean()),
        "mae": float(np.abs(np.median(ensemble, axis=0) - told).mean()),
        "coverage": {f"{k:g}": float(((told >= low) & (told <= high)).mean()) for k, (low, high) in ends.items()},
        "width": {f"{k:g}": float((high - low).mean()) for k, (low, high) in ends.items()},
        "cells": int(counts.sum()),
        "samples": len(ensemble),
    }


def _checked(samples: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    samples, truth = np.asarray(samples, np.float64), np.asarray(truth, np.float64)
    if samples.shape[1:] != truth.shape or len(samples) < 2:
        raise ClipError(f"samples: {list(samples.shape)}, expected 2 or more of {list(truth.shape)}")
    return samples, truth
