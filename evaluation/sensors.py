"""The benchmark's four scores of generated windows against real ones, each beside its floor, and a search for copies.

The protocol is that of TimeGAN (https://papers.nips.cc/paper/8789) as Diffusion-TS (https://arxiv.org/abs/2403.01742)
runs it: windows scaled to [0, 1], as many generated as real ones, five repeats, the mean and the half-width of its 95 %
interval by Student's t. Lower is better everywhere.

The floor of a score is the same score of real windows drawn anew, with replacement, from the set itself. A model that
copies its training data would reach it, so `copies` is read beside it.

Legend: `N` real windows, `M` generated ones, `L` length, `C` channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from .frechet import frechet_distance, squared_distances
from .sensors_gru import Drawn, Windows, accuracies, guessed_score, predictive_scores
from .sensors_ts2vec import encode, fit_ts2vec

REPEATS = 5
SCORES = ("context_fid", "discriminative", "correlational", "predictive")


@dataclass(frozen=True)
class Effort:
    """How long the judges are trained; the published numbers unless a test wants less.

    Args:
        repeats: of every score.
        discriminative, predictive: steps of the recurrent networks.
        ts2vec: steps of the encoder; None: 200 or 600 by the amount of data.
    """

    repeats: int = REPEATS
    discriminative: int = 2000
    predictive: int = 5000
    ts2vec: int | None = None


def evaluate_windows(
    real: np.ndarray,
    generated: np.ndarray,
    seed: int = 0,
    scores: tuple[str, ...] = SCORES,
    effort: Effort | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, dict[str, float]]:
    """`{score: {"mean", "half_width", "floor", "floor_half_width"}}` of generated windows; `discriminative` also has
    `chance`, the score of a network that guesses, and the mean `accuracy` and `floor_accuracy`.

    Args:
        real: `[N, L, C]` in [0, 1].
        generated: `[M, L, C]`, M ≥ N: the first N are compared, as the protocol does.
        seed: keys every draw.
        scores: which of `SCORES`.
        effort: None for the published one.
        say: called with a line before each score.

    Raises:
        ValueError: windows of another shape than real ones, too few, or with values that are not finite.
    """
    effort = Effort() if effort is None else effort
    generated = _checked(real, generated)
    seeds = [int(s) for s in np.random.SeedSequence((seed, 7)).generate_state(effort.repeats)]
    again = [np.random.default_rng((s, 3)).integers(len(real), size=len(real)) for s in seeds]
    results = {}
    for name in scores:
        say(name)
        ours, floor = _JUDGES[name](real, generated, again, seeds, effort)
        more = {}
        if name == "discriminative":
            more = {
                "chance": guessed_score(len(real), len(generated)),
                "accuracy": ours.mean().item(),
                "floor_accuracy": floor.mean().item(),
            }
            ours, floor = np.abs(ours - 0.5), np.abs(floor - 0.5)
        spread = summary(floor)
        results[name] = {**summary(ours), "floor": spread["mean"], "floor_half_width": spread["half_width"], **more}
    return results


def summary(values: np.ndarray) -> dict[str, float]:
    """Mean and half-width of its 95 % interval (Student's t with R − 1 degrees of freedom) of repeats `[R]`."""
    count = len(values)
    if count < 2:
        return {"mean": float(np.mean(values)), "half_width": float("nan")}
    error = np.std(values, ddof=1) / np.sqrt(count)
    return {"mean": float(np.mean(values)), "half_width": float(error * student.ppf(0.975, count - 1))}


def correlations(windows: np.ndarray) -> np.ndarray:
    """Correlation of every pair of channels (each with itself too) over all windows and times, `[C·(C + 1)/2]`."""
    x = np.asarray(windows, np.float64)
    mean, deviation = x.mean(axis=(0, 1)), x.reshape(-1, x.shape[2]).std(axis=0, ddof=1)
    x = ((x - mean) / np.where(deviation > 0, deviation, 1.0)).reshape(-1, x.shape[2])  # constant: correlated with none
    return (x.T @ x / len(x))[np.tril_indices(x.shape[1])]


def correlational_score(real: np.ndarray, generated: np.ndarray) -> float:
    """Sum of the absolute differences between the channels' correlations in the two sets, over 10."""
    return float(np.abs(correlations(real) - correlations(generated)).sum() / 10)


def copies(
    real: np.ndarray, generated: np.ndarray, overlapping: bool, queries: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Are generated windows closer to real ones than real windows are to one another?

    The protocol keeps no window unseen. Instead, real windows are compared with all other real windows that share no
    step with them (with all others where windows do not overlap), as if those alone had been trained on.

    Args:
        real: `[N, L, C]`, every window trained on, in the order of time if they overlap.
        generated: `[M, L, C]`.
        overlapping: whether window i + 1 is window i moved by one step.
        queries: windows of each kind that are looked up.
        seed: chooses them.

    Returns:
        ratio: median distance of generated windows to the nearest real one over that of real ones (near 0: copies);
        share_closer: share of generated windows closer than real windows' 1st percentile (about .01 by chance).
        Distances are root-mean-square in units of each channel's standard deviation.
    """
    draws = np.random.default_rng((seed, 5))
    apart = real.shape[1] if overlapping else 1
    flat = _flat(real)
    scale = 1.0 / (np.tile(np.asarray(real).std(axis=(0, 1)), real.shape[1]) + 1e-6)
    rows = draws.permutation(len(real))[:queries]
    chosen = draws.permutation(len(generated))[:queries]
    ours = _nearest(_flat(generated[chosen]) * scale, flat, scale)
    theirs = _nearest(flat[rows] * scale, flat, scale, rows, apart)
    size = np.sqrt(flat.shape[1])
    return {
        "ratio": float(np.median(ours) / max(np.median(theirs), 1e-12)),
        "share_closer": float((ours < np.percentile(theirs, 1)).mean()),
        "distance": float(np.median(ours) / size),
        "real_distance": float(np.median(theirs) / size),
    }


def _nearest(
    queries: np.ndarray, training: np.ndarray, scale: np.ndarray, own: np.ndarray | None = None, apart: int = 1
) -> np.ndarray:
    """Distance of each query to the nearest training row that is `apart` or more rows from its `own`."""
    best = np.full(len(queries), np.inf)
    for start in range(0, len(training), 2048):
        part = training[start : start + 2048] * scale
        distance = squared_distances(queries, part)  # [Q, chunk]
        if own is not None:
            gap = np.abs(own[:, None] - np.arange(start, start + len(part)))
            distance = np.where(gap < apart, np.inf, distance)
        best = np.minimum(best, distance.min(axis=1))
    return np.sqrt(best)


def _flat(windows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(windows).reshape(len(windows), -1)


def _checked(real: np.ndarray, generated: np.ndarray) -> np.ndarray:
    if generated.ndim != 3 or generated.shape[1:] != real.shape[1:]:
        raise ValueError(f"generated: {list(generated.shape)} windows beside real ones of {list(real.shape)}")
    if len(generated) < len(real):
        raise ValueError(f"generated: {len(generated)} windows, fewer than the {len(real)} real ones")
    if not np.isfinite(generated).all():
        raise ValueError("generated: windows contain NaN or infinity")
    return generated[: len(real)].astype(np.float32, copy=False)


Again = list[np.ndarray]  # rows of the real windows, drawn anew for each repeat
Repeats = tuple[np.ndarray, np.ndarray]  # of the generated windows, and of the real ones drawn anew; [R] each


def _context_fid(real: np.ndarray, made: np.ndarray, again: Again, seeds: list[int], effort: Effort) -> Repeats:
    ours, floor = [], []
    for rows, seed in zip(again, seeds, strict=True):
        encoder = fit_ts2vec(real, seed, effort.ts2vec)
        features = encode(encoder, real)
        ours.append(frechet_distance(features, encode(encoder, made)))
        floor.append(frechet_distance(features, features[rows]))
    return np.array(ours), np.array(floor)


def _discriminative(real: np.ndarray, made: np.ndarray, again: Again, seeds: list[int], effort: Effort) -> Repeats:
    both = accuracies(_pairs(real, made, again), seeds + seeds, effort.discriminative)
    return both[: len(seeds)], both[len(seeds) :]


def _pairs(real: np.ndarray, made: np.ndarray, again: Again) -> list[tuple[Windows, Windows]]:
    """The generated windows, as often as there are repeats, and the real ones drawn anew, side by side."""
    return [*((real, made) for _ in again), *((real, Drawn(real, rows)) for rows in again)]


def _predictive(real: np.ndarray, made: np.ndarray, again: Again, seeds: list[int], effort: Effort) -> Repeats:
    both = predictive_scores(_pairs(real, made, again), seeds + seeds, effort.predictive)
    return both[: len(seeds)], both[len(seeds) :]


def _correlational(real: np.ndarray, made: np.ndarray, again: Again, seeds: list[int], effort: Effort) -> Repeats:
    """Each repeat compares a fifth of the windows of each set, drawn with replacement."""
    ours, floor = [], []
    for seed in seeds:
        draws = np.random.default_rng((seed, 4))
        first, second, third = (draws.integers(len(real), size=len(real) // len(seeds)) for _ in range(3))
        ours.append(correlational_score(real[first], made[second]))
        floor.append(correlational_score(real[first], real[third]))
    return np.array(ours), np.array(floor)


_JUDGES: dict[str, Callable[[np.ndarray, np.ndarray, Again, list[int], Effort], Repeats]] = {
    "context_fid": _context_fid,
    "discriminative": _discriminative,
    "correlational": _correlational,
    "predictive": _predictive,
}
