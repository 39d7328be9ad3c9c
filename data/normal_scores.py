"""Normal scores: values replaced by those that a Gaussian variable has at the same quantiles, and back.

A value that many share (a lamp that is off) stands for an interval of scores. `to_scores` gives it the middle;
`draw_scores` draws what may be behind it, from a Gaussian process with the windows' own memory that is known to lie in
each step's interval: the rank likelihood of a Gaussian copula (Hoff 2007, arXiv:math/0610413), by Gibbs sampling. Then
the scores of such a channel are Gaussian too, and a model of them has no gaps and spikes to learn.

Legend: `n` values, `K` columns, `Q` knots, `N` windows, `L` steps, `M` levels.
"""

from __future__ import annotations

import torch
from torch import Tensor

SWEEPS = 40  # of Gibbs sampling; twice as many while the process is not known yet
FITTED = 4000  # windows that the process is fitted on
NORMAL = torch.distributions.Normal(0.0, 1.0)


def fit_scores(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`count` scores `[Q]`, even from the least to the greatest that `n` values have, and of each column of `[n, K]`
    the quantiles `[K, Q]` that belong to them."""
    n = len(values)
    end = NORMAL.icdf(torch.tensor(1 - 0.5 / n, dtype=torch.float64))
    scores = torch.linspace(-1, 1, count, dtype=torch.float64) * end
    place = (NORMAL.cdf(scores) * n - 0.5).clamp(0, n - 1)  # among the sorted values
    ordered, before = values.sort(dim=0).values, place.long()
    share = (place - before)[:, None]
    knots = ordered[before] * (1 - share) + ordered[(before + 1).clamp_max(n - 1)] * share  # [Q, K]
    return scores, knots.T.contiguous()


def to_scores(z: Tensor, knots: Tensor, scores: Tensor) -> Tensor:
    """Values `[…, K]` → their normal scores; one that many values share has the middle of theirs."""
    z = z.movedim(-1, 0)  # [K, …]
    flat, last = z.flatten(1).contiguous(), len(scores) - 1
    near = 1e-6 * (knots[:, -1:] - knots[:, :1])  # one value may come out a rounding away from its knots
    first = torch.searchsorted(knots, flat - near)  # knots before it are smaller
    after = torch.searchsorted(knots, flat + near, right=True)  # from here on they are greater
    high = first.clamp(1, last)
    below, above = knots.gather(1, high - 1), knots.gather(1, high)
    share = ((flat - below) / (above - below).clamp_min(1e-12)).clamp(0, 1)
    between = torch.lerp(scores[high - 1], scores[high], share)
    shared = (scores[first.clamp_max(last)] + scores[(after - 1).clamp_min(0)]) / 2
    return torch.where(after > first, shared, between).view_as(z).movedim(0, -1)


def from_scores(scored: Tensor, knots: Tensor, scores: Tensor) -> Tensor:
    """The inverse of `to_scores`; beyond the outermost scores stand the least and the greatest value."""
    place = ((scored / scores[-1] + 1) / 2 * (len(scores) - 1)).clamp(0, len(scores) - 1).movedim(-1, 0)  # [K, …]
    flat = place.flatten(1)
    low = flat.long().clamp_max(len(scores) - 2)
    return torch.lerp(knots.gather(1, low), knots.gather(1, low + 1), flat - low).view_as(place).movedim(0, -1)


def fit_drawn_scores(index: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Of a channel's levels `[N, L]` (numbers from 0 to M − 1, each of them there): the edges `[M − 1]` between their
    intervals of scores, and the precision matrix `[L, L]` of the process behind them, in float64.

    Args:
        index: which level each value is.
        floor: variance added to that of each step.
    """
    share = index.flatten().bincount().double() / index.numel()
    edges = NORMAL.icdf(share.cumsum(0)[:-1])
    generator, one = torch.Generator().manual_seed(0), torch.eye(index.shape[1], dtype=torch.float64)
    low, high = _intervals(index[torch.randperm(len(index), generator=generator)[:FITTED]], edges)
    scores, precision = _middle(low, high), one
    for _ in range(2 * SWEEPS):  # what is drawn tells the process, and the process what is drawn
        _sweep(scores, low, high, precision, generator)
        precision = torch.linalg.inv(scores @ scores.T / scores.shape[1] + floor * one)
    return edges, precision


def draw_scores(index: Tensor, edges: Tensor, precision: Tensor) -> Tensor:
    """Scores `[N, L]` in float64 that the levels `[N, L]` may stand for; the same levels give the same draws.

    Args:
        index: which level each value is.
        edges: between the levels' intervals, `[M − 1]`.
        precision: of the process, whose mean is 0, `[L, L]`.
    """
    generator = torch.Generator().manual_seed(0)
    low, high = _intervals(index, edges.double())
    scores = _middle(low, high)
    for _ in range(SWEEPS):
        _sweep(scores, low, high, precision.double(), generator)
    return scores.T.contiguous()


def _intervals(index: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper ends of the scores of levels `[N, L]`, both `[L, N]`: a sweep goes from step to step."""
    bounds = torch.cat([edges.new_tensor([-torch.inf]), edges, edges.new_tensor([torch.inf])])
    index = index.T.contiguous()
    return bounds[index], bounds[index + 1]


def _middle(low: Tensor, high: Tensor) -> Tensor:
    """The median of each interval."""
    return NORMAL.icdf((NORMAL.cdf(low) + NORMAL.cdf(high)) / 2)


def _sweep(scores: Tensor, low: Tensor, high: Tensor, precision: Tensor, generator: torch.Generator) -> None:
    """Draws every step anew, given all others, in place; scores and ends `[L, N]`."""
    for step, (own, row) in enumerate(zip(precision.diagonal(), precision, strict=True)):
        mean = scores[step] - row @ scores / own
        spread = own.rsqrt()
        drawn = _truncated((low[step] - mean) / spread, (high[step] - mean) / spread, generator)
        scores[step] = mean + spread * drawn


def _truncated(low: Tensor, high: Tensor, generator: torch.Generator) -> Tensor:
    """Draws of a Gaussian variable between two bounds, by the inverse of its distribution, on the side where that is
    exact: the lower."""
    upper = low > 0
    low, high = torch.where(upper, -high, low), torch.where(upper, -low, high)
    below, above = torch.special.ndtr(low), torch.special.ndtr(high)
    place = below + (above - below) * torch.rand(low.shape, generator=generator, dtype=low.dtype)
    drawn = torch.special.ndtri(place).clamp(low, high)
    drawn = torch.where(drawn.isfinite(), drawn, torch.where(low.isfinite(), low, high))
    return torch.where(upper, -drawn, drawn)
