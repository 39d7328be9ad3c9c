"""Noise that lies more evenly than chance, for samples that are to stand for a law together.

Every point alone is standard normal, as an independent draw is. But a set of them covers the space without clumps and
gaps, so that what is averaged over the samples made of it (means, covariances, histograms) is nearer to what the model
knows than as many independent samples would bring it: randomized quasi-Monte Carlo (Owen 1998,
doi:10.1006/jcom.1998.0487) with Sobol' points of good two-dimensional projections (Joe and Kuo 2008,
doi:10.1137/070709359).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

CELL = 2.0**-30  # what two of the engine's numbers differ by at least


class QuasiRandomNoise:
    """A sequence of points `[size]` that cover the space evenly; point i depends on `seed`, `size` and i alone.

    Args:
        size: numbers of a point. The sequence is most even in the first ones; beyond 21,201 they are independent.
        seed: scrambles the sequence.
        first: number of the first point that is drawn.
    """

    def __init__(self, size: int, seed: int, first: int = 0) -> None:
        self.engine = SobolEngine(min(size, SobolEngine.MAXDIM), scramble=True, seed=seed)
        self.rest = size - self.engine.dimension
        self.generator = torch.Generator().manual_seed(seed)
        if first:
            self.engine.fast_forward(first)
            self._rest(first)

    def draw(self, count: int) -> Tensor:
        """The next `count` points, `[count, size]` float32."""
        even = torch.special.ndtri(self.engine.draw(count, dtype=torch.float64) + CELL / 2)  # never of 0 or 1
        if not self.rest:
            return even.float()
        return torch.cat([even.float(), self._rest(count)], dim=1)

    def _rest(self, count: int) -> Tensor:
        """What the sequence has no numbers for, `[count, rest]`: the same in any batch."""
        return torch.stack([torch.randn(self.rest, generator=self.generator) for _ in range(count)])
