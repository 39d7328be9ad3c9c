"""Quantile mapping: each channel's values replaced by those that the data have at the same quantiles.

A sum of many axes that are each right is nearly Gaussian, so a channel that is exactly .6 a third of the time comes out
as a bell around .6, and one whose levels were drawn a little too close together stays so. A monotone map of each
channel alone mends both, and leaves the order of its values, and what it has to do with other channels, as they are:
the quantile mapping by which climate models are corrected (Cannon, Sobie and Murdock 2015,
https://doi.org/10.1175/JCLI-D-14-00754.1).

Windows that are cut from one recording anywhere have the same distribution at each of their steps. Runs that all begin
the same way have not: there each step of a channel gets a map of its own.

A map that is fitted on samples learns their chance too. Where there are several draws of samples, what these differ by
tells how much of the way between the two distributions chance explains, and values go the rest of the way alone (James
and Stein 1961).

Legend: `N` windows, `L` steps, `C` channels, `K` maps (`C`, or `L·C`), `Q` knots.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .normal_scores import NORMAL, fit_scores, from_scores, to_scores

KNOTS = 1025  # even in normal scores, so that the ends are told as closely as the middle
COMPARED = torch.linspace(0.002, 0.998, 250, dtype=torch.float64)  # quantiles at which draws are compared


class QuantileMap:
    """From the values of a generator to those of its training data, channel by channel.

    Args:
        tensors: of what was made `made_scores` `[Q]` and the values that have them `made` `[K, Q]`; of the data
            `data_scores` and `data`; `share` `[K]` of the way from the one to the other that values go.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    @classmethod
    def fit(cls, made: Tensor, data: Tensor, per_step: bool = False, draws: int = 1) -> QuantileMap:
        """From samples of the generator `[M, L, C]` and training data `[N, L, C]`.

        Args:
            per_step: whether each step has a map of its own.
            draws: of as many windows each that `made` holds, one after another; 1: chance is not known, and left in.

        Raises:
            ValueError: the windows differ in steps or channels, or are no whole number of draws.
        """
        if made.shape[1:] != data.shape[1:]:
            raise ValueError(f"quantiles of windows {list(made.shape[1:])} and of {list(data.shape[1:])}")
        if len(made) % draws:
            raise ValueError(f"{len(made)} windows are not {draws} draws of as many each")
        (made_scores, own), (data_scores, wanted) = (_fit(windows, per_step) for windows in (made, data))
        share = torch.ones(len(own))
        if draws > 1:
            apart = (_compared(made_scores, own) - _compared(data_scores, wanted)).square().mean(0)  # [K]
            each = torch.stack(
                [_compared(*_fit(draw, per_step)) for draw in made.chunk(draws)]
            )  # [draws, quantiles, K]
            share = (1 - each.var(0).mean(0) / draws / apart.clamp_min(1e-12)).clamp(0, 1)
        tensors = {"made_scores": made_scores, "made": own, "data_scores": data_scores, "data": wanted, "share": share}
        return cls({name: tensor.float() for name, tensor in tensors.items()})

    def apply(self, windows: Tensor) -> Tensor:
        """Windows `[B, L, C]` of the generator, mapped; a value that many share goes where the middle of them goes."""
        own = self.tensors
        values = windows if len(own["made"]) == windows.shape[2] else windows.flatten(1)  # […, K]
        scores = to_scores(values, own["made"], own["made_scores"])
        mapped = from_scores(scores, own["data"], own["data_scores"])
        return torch.lerp(values, mapped, own["share"]).view(windows.shape)

    def save(self, path: Path) -> None:
        """As one safetensors file."""
        save_file(self.tensors, path)

    @classmethod
    def load(cls, path: Path) -> QuantileMap:
        """What `save` wrote."""
        return cls(load_file(path))


def _fit(windows: Tensor, per_step: bool) -> tuple[Tensor, Tensor]:
    """Scores `[Q]` and, of what each map is of, the values that have them `[K, Q]`; in float64."""
    return fit_scores((windows.flatten(1) if per_step else windows.flatten(0, 1)).double(), KNOTS)


def _compared(scores: Tensor, knots: Tensor) -> Tensor:
    """Values at the quantiles `COMPARED`: `[quantiles, K]`."""
    return from_scores(NORMAL.icdf(COMPARED)[:, None].expand(-1, len(knots)), knots, scores)
