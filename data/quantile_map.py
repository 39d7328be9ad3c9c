"""Quantile mapping: each channel's values replaced by those that the data have at the same quantiles.

A sum of many axes that are each right is nearly Gaussian, so a channel that is exactly .6 a third of the time comes out
as a bell around .6, and one whose levels were drawn a little too close together stays so. A monotone map of each
channel alone mends both, and leaves the order of its values, and what it has to do with other channels, as they are:
the quantile mapping by which climate models are corrected (Cannon, Sobie and Murdock 2015,
https://doi.org/10.1175/JCLI-D-14-00754.1).

Windows that are cut from one recording anywhere have the same distribution at each of their steps. Runs that all begin
the same way have not: there each step of a channel gets a map of its own.

Legend: `N` windows, `L` steps, `C` channels, `K` maps (`C`, or `L·C`), `Q` knots.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from .normal_scores import fit_scores, from_scores, to_scores

KNOTS = 1025  # even in normal scores, so that the ends are told as closely as the middle


class QuantileMap:
    """From the values of a generator to those of its training data, channel by channel.

    Args:
        tensors: of what was made `made_scores` `[Q]` and the values that have them `made` `[K, Q]`; of the data
            `data_scores` and `data`.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    @classmethod
    def fit(cls, made: Tensor, data: Tensor, per_step: bool = False) -> QuantileMap:
        """From samples of the generator `[M, L, C]` and training data `[N, L, C]`.

        Args:
            per_step: whether each step has a map of its own.

        Raises:
            ValueError: the windows differ in steps or channels.
        """
        if made.shape[1:] != data.shape[1:]:
            raise ValueError(f"quantiles of windows {list(made.shape[1:])} and of {list(data.shape[1:])}")
        tensors = {}
        for name, windows in (("made", made), ("data", data)):
            values = windows.flatten(1) if per_step else windows.flatten(0, 1)
            scores, knots = fit_scores(values.double(), KNOTS)
            tensors |= {f"{name}_scores": scores.float(), name: knots.float()}
        return cls(tensors)

    def apply(self, windows: Tensor) -> Tensor:
        """Windows `[B, L, C]` of the generator, mapped; a value that many share goes where the middle of them goes."""
        own = self.tensors
        values = windows if len(own["made"]) == windows.shape[2] else windows.flatten(1)  # […, K]
        scores = to_scores(values, own["made"], own["made_scores"])
        return from_scores(scores, own["data"], own["data_scores"]).view(windows.shape)

    def save(self, path: Path) -> None:
        """As one safetensors file."""
        save_file(self.tensors, path)

    @classmethod
    def load(cls, path: Path) -> QuantileMap:
        """What `save` wrote."""
        return cls(load_file(path))
