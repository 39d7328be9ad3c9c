"""Mean and covariance over time of what a generator makes, brought channel by channel to those of its training data.

A network that denoises each patch well can still leave a step where two patches meet: little in the values, but much in
the differences from one sample to the next, of which a smooth channel has hardly any. Over all windows a step is too
much variance in directions of the channel's `L` numbers in which the data have hardly any. On the data's principal
axes, from the greatest to the smallest, a linear map takes it out: each axis is freed of what it should not have to do
with the greater ones, and what is left of it scaled to the variance that it should have,

    y_i = (x_i − Σ_{j<i} b_ij·x_j) / d_i,    x in units of the data's deviations,

where b and d are the coefficients and the residual deviation of a regression over the windows that were made (the
Cholesky factor of their covariance). So y has the data's mean and covariance, and what is great in a window is changed
by no more than its own deviation is wrong; the transport that moves least, or one along eigenvectors, would mend small
directions by moving great ones. A coefficient, or a mean or a deviation that is off, which chance could have made of so
many windows counts as none (thresholds on the Cholesky factor: Rothman, Levina and Zhu 2010,
https://doi.org/10.1093/biomet/asq022).

Legend: `N` training windows, `M` samples, `B` batch, `L` steps, `C` channels.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

FLOOR = 1e-8  # least variance of the data on an axis, in units of the channel's greatest
SURE = 4.0  # standard errors from which on something is not put down to chance


class ChannelMoments:
    """The map from what is made to what has the data's mean and covariance, of each channel alone.

    Args:
        made, mended: means `[C, L]`, before and after.
        map: of a centred channel `[C, L, L]`, from its steps (rows) to the new ones.
    """

    def __init__(self, made: Tensor, mended: Tensor, map: Tensor) -> None:
        self.made, self.mended, self.map = made, mended, map

    @classmethod
    def fit(cls, made: Tensor, data: Tensor) -> ChannelMoments:
        """From samples of the generator `[M, L, C]` and training data `[N, L, C]`.

        Raises:
            ValueError: the windows differ in steps or channels, or there are fewer than two.
        """
        if made.shape[1:] != data.shape[1:] or min(len(made), len(data)) < 2:
            raise ValueError(f"moments of windows {list(made.shape)} and of {list(data.shape)}")
        (own_mean, own), (mean, covariance) = _moments(made), _moments(data)
        variance, axes = (x.flip(-1) for x in torch.linalg.eigh(covariance))  # [C, L], [C, L, L], the greatest first
        deviation = variance.clamp_min(1e-12).maximum(FLOOR * variance[:, :1]).sqrt()[:, None]  # [C, 1, L]
        turned = (axes / deviation).mT @ own @ (axes / deviation)
        one = torch.eye(made.shape[1], dtype=torch.float64)
        factor = torch.linalg.cholesky(turned + 1e-9 * one)  # [C, L, L]
        raw = factor.diagonal(dim1=1, dim2=2)[..., None]  # [C, L, 1]
        inverse = torch.linalg.solve_triangular(factor, one.expand_as(factor), upper=False)
        coefficients = one - raw * inverse  # x = coefficients · x + raw · (white noise)
        free = (len(made) - 1 - torch.arange(made.shape[1]).double()).clamp_min(1)[:, None]  # degrees of freedom
        residual = raw * (len(made) / free).sqrt()
        error = residual / free.sqrt()  # beside axes of about unit variance
        error = torch.where(free > len(made) / 2, error, torch.inf)
        coefficients = coefficients * (coefficients.abs() > SURE * error)
        residual = torch.where((residual - 1).abs() > SURE * error / 2**0.5, residual, 1.0)
        mend = ((one - coefficients) / residual).mT  # [C, L, L], from the axes (rows) to the new ones
        to, back = axes / deviation @ mend, (axes * deviation).mT
        off = (own_mean - mean)[:, None] @ to  # [C, 1, L]
        chance = off * (off.abs() < SURE / len(made) ** 0.5)
        return cls(own_mean.float(), (mean + (chance @ back)[:, 0]).float(), (to @ back).float().contiguous())

    def apply(self, windows: Tensor) -> Tensor:
        """Windows `[B, L, C]` of the generator, corrected, in float32."""
        centred = windows.float().permute(2, 0, 1) - self.made[:, None]  # [C, B, L]
        return (self.mended[:, None] + centred @ self.map).permute(1, 2, 0)

    def save(self, path: Path) -> None:
        """As one safetensors file."""
        save_file({"made": self.made, "mended": self.mended, "map": self.map}, path)

    @classmethod
    def load(cls, path: Path) -> ChannelMoments:
        """What `save` wrote."""
        return cls(**load_file(path))


def _moments(windows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean `[C, L]` and covariance `[C, L, L]` of windows `[N, L, C]`, in float64."""
    channels = windows.permute(2, 0, 1).double()  # [C, N, L]
    mean = channels.mean(dim=1)
    centred = channels - mean[:, None]
    return mean, centred.mT @ centred / len(windows)
