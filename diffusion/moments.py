"""Mean and covariance of what a generator makes, brought to those of what it was trained on.

A network that denoises each part well can still get the second moments of the whole a little wrong: parts that should
meet leave a step between them, and small directions vary too much or too little. Over all samples that is one linear
map, and it can be undone by another, which costs nothing when sampling:

    y = m_data + (x − m_made)·(I + V·g·Vᵀ, in coordinates in which the data's covariance is the identity)

where V are directions in which the covariance of what was made, in those coordinates, has an eigenvalue λ that so many
samples would not show by chance, and g = λ^(−1/2) − 1. Chance alone spreads the eigenvalues of M samples of D numbers
over [(1 − √γ)², (1 + √γ)²], γ = D/M (Marchenko and Pastur 1967), and moves those beyond it outwards, which is taken
back (Baik and Silverstein 2006, https://arxiv.org/abs/math/0408165). With all eigenvalues this would be the optimal
transport between two Gaussians in these coordinates. The difference of the means is shortened by what chance adds to it
(James and Stein 1961).

Legend: `N` training data, `M` samples, `D` numbers of each, `Q` directions that are corrected.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

FLOOR = 1e-6  # least variance of the data in a direction, in units of the greatest
LEAST = 0.05  # least eigenvalue that is believed: nothing is stretched by more than its inverse root


class Moments:
    """The map from what is made to what has the data's mean and covariance.

    Args:
        made, data: means `[D]`.
        hear, say: `[Q, D]` and `[Q, D]`: x − made is changed by (hear·(x − made))ᵀ·say.
    """

    def __init__(self, made: Tensor, data: Tensor, hear: Tensor, say: Tensor) -> None:
        self.made, self.data, self.hear, self.say = made, data, hear, say

    @classmethod
    def fit(cls, data: Tensor, made: Tensor) -> Moments:
        """From training data `[N, D]` and independent samples of the generator `[M, D]`.

        Raises:
            ValueError: other numbers of columns, or fewer than two rows.
        """
        if data.shape[1] != made.shape[1] or min(len(data), len(made)) < 2:
            raise ValueError(f"moments of data {list(data.shape)} and samples {list(made.shape)}")
        (mean, covariance), (own_mean, own) = _moments(data), _moments(made)
        variance, axes = torch.linalg.eigh(covariance)
        variance = variance.clamp_min(FLOOR * float(variance[-1]))
        white = axes / variance.sqrt()  # [D, D], from centred rows to rows of the identity's covariance
        values, directions = torch.linalg.eigh(white.T @ own @ white)
        true = unbiased_spikes(values, made.shape[1] / len(made))
        beyond = true != 1
        directions, gain = directions[:, beyond], true[beyond].clamp_min(LEAST).rsqrt() - 1
        apart = own_mean - mean
        chance = len(mean) / len(made) / (white.T @ apart).square().sum().clamp_min(1e-12)
        own_mean = mean + apart * (1 - chance).clamp_min(0)
        hear, say = (white @ directions).T, (gain * ((axes * variance.sqrt()) @ directions)).T
        return cls(*(x.float().contiguous() for x in (own_mean, mean, hear, say)))

    def apply(self, samples: Tensor) -> Tensor:
        """Samples `[B, D]` of the generator, corrected, in float32."""
        centred = samples.float() - self.made.to(samples.device)
        return self.data.to(centred) + centred + centred @ self.hear.to(centred).T @ self.say.to(centred)

    def save(self, path: Path) -> None:
        """As one safetensors file."""
        save_file({"made": self.made, "data": self.data, "hear": self.hear, "say": self.say}, path)

    @classmethod
    def load(cls, path: Path) -> Moments:
        """What `save` wrote."""
        return cls(**load_file(path))


def unbiased_spikes(values: Tensor, ratio: float) -> Tensor:
    """Eigenvalues of a population behind those of a sample covariance whose bulk has the population value 1; 1 where
    chance explains them.

    Args:
        values: eigenvalues of the sample covariance `[D]`.
        ratio: numbers over samples, γ.
    """
    low, high = max(0.0, 1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2
    values = values.clamp_min(0)  # some are 0 but for rounding where there are fewer samples than numbers
    middle = (values + 1 - ratio) / 2
    root = (middle.square() - values).clamp_min(0).sqrt()
    ones = torch.ones_like(values)
    return torch.where(values > high, middle + root, torch.where(values < low, middle - root, ones))


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean `[D]` and covariance `[D, D]` in float64."""
    rows = rows.double()
    mean = rows.mean(dim=0)
    centred = rows - mean
    return mean, centred.T @ centred / len(rows)
