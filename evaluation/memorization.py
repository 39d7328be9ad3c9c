"""Memorization: are generated clips closer to the training clips than real unseen clips are?"""

from __future__ import annotations

import numpy as np

from .frechet import squared_distances


def nearest(features: np.ndarray, training: np.ndarray, chunk: int = 4096) -> tuple[np.ndarray, np.ndarray]:
    """Distance `[N]` from each row of `[N, D]` to the nearest row of training `[M, D]`, and that row's index `[N]`."""
    if len(training) == 0:
        raise ValueError("training: no features to compare with")
    best, index = np.full(len(features), np.inf), np.zeros(len(features), int)
    for start in range(0, len(training), chunk):
        distance = squared_distances(features, training[start : start + chunk])  # [N, chunk]
        here = distance.argmin(axis=1)
        closest = distance[np.arange(len(features)), here]
        index = np.where(closest < best, here + start, index)
        best = np.minimum(best, closest)
    return np.sqrt(best), index


def memorization(generated: np.ndarray, real: np.ndarray, training: np.ndarray) -> dict[str, float]:
    """Compare nearest-training distances of generated clips with those of real held-out clips.

    Args:
        generated: features `[N, D]` of generated clips.
        real: features `[R, D]` of held-out clips.
        training: features `[M, D]` of the clips the model was trained on.

    Returns:
        ratio: median generated distance over median held-out distance (1: as far as unseen clips; near 0: copies);
        share_closer: share of generated clips closer than the held-out clips' 1st percentile (about .01 by chance);
        distance and real_distance: the two medians, in standard deviations of the training features.
    """
    scale = training.std(axis=0) + 1e-6  # every dimension counts the same
    ours, _ = nearest(generated / scale, training / scale)
    theirs, _ = nearest(real / scale, training / scale)
    return {
        "ratio": float(np.median(ours) / max(np.median(theirs), 1e-12)),
        "share_closer": float((ours < np.percentile(theirs, 1)).mean()),
        "distance": float(np.median(ours)),
        "real_distance": float(np.median(theirs)),
    }
