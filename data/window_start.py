"""Where a walk of windows begins: noised windows, as far as their mean and covariance tell them from noise.

At a noise level s/α = r the windows x of a set are x + r·ε: a mean of their own, and along the directions in which
whole windows vary most (all slots rise together) more variance than r². A walk that begins with noise alone has to
begin at an r beside which that is nothing. One that begins with both can begin later, and takes fewer steps.

    start = WindowStart.fit(latents)        # [N, T, K], of training windows
    noise = start.draw(points, ratio=5.0)   # standard normal points [B, K, T] → [B, T, K]

The first numbers of a point go along the directions of the greatest variance: points that lie evenly, and most evenly
in their first numbers (`QuasiRandomNoise`), then cover best what windows differ by most.

Legend: `B` batch, `N` windows, `T` slots, `K` numbers of a slot, `D` = K·T, `R` directions.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

MOST = 256  # directions
LEAST = 0.25  # variance of a direction that is kept: a hundredth of the noise's at s/α = 5


class WindowStart:
    """Mean and greatest principal axes of the windows of one set.

    Args:
        tensors: `mean` `[D]` and `variance` `[R]`; `reflectors` `[D, R]` and `tau` `[R]`, of the orthogonal matrix
            whose first columns are the axes (LAPACK's geqrf). Slots lie next to each other in D.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    @classmethod
    def fit(cls, latents: Tensor) -> WindowStart:
        """Fit on the latents `[N, T, K]` of windows."""
        flat = latents.transpose(1, 2).flatten(1).float()
        mean = flat.mean(dim=0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _, size, axes = torch.svd_lowrank(flat - mean, q=min(MOST, *flat.shape), niter=4)
        variance = size.square() / len(flat)
        kept = variance > LEAST  # the greatest come first
        reflectors, tau = torch.geqrf(axes[:, kept].contiguous())
        tensors = {"mean": mean, "variance": variance[kept], "reflectors": reflectors, "tau": tau}
        return cls({key: value.contiguous() for key, value in tensors.items()})

    def draw(self, points: Tensor, ratio: float) -> Tensor:
        """Windows as they are at s/α = `ratio`, over √(1 + ratio²), which is what noise is divided by: `[B, T, K]`.

        Args:
            points: standard normal, `[B, K, T]`.
        """
        own = self.tensors
        flat = points.flatten(1).clone()
        flat[:, : len(own["variance"])] *= (1 + own["variance"] / ratio**2).sqrt()
        flat = torch.ormqr(own["reflectors"], own["tau"], flat.T.contiguous()).T
        noised = (own["mean"] + ratio * flat) / (1 + ratio**2) ** 0.5
        return noised.unflatten(1, points.shape[1:]).transpose(1, 2).contiguous()

    def save(self, path: Path) -> None:
        """Writes one safetensors file."""
        save_file(self.tensors, path)

    @classmethod
    def load(cls, path: Path) -> WindowStart:
        """Reads what `save` wrote."""
        return cls(load_file(path))
