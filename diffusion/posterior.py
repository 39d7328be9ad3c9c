"""What a noised sample can be expected to have been, from all samples there are: targets without noise.

The usual target of denoising is one sample and its own noise. The network learns their mean over everything that could
have been noised to the same state, and where noise is strong that mean is drowned in the spread around it. If the data
are few enough to look at all of them, the mean is known: E[x0 | x_t] = Σ_i w_i·x_i, where w is the softmax of
−|x_t − α·x_i|²/(2s²). Training on it has the same optimum (arXiv:2302.00670, which takes a large batch for the data).

Where noise is weak, a state can only come from its own sample, and nothing is to be computed: another one at distance d
has the weight exp(−(d·α/s)²/2) beside it, which is below 4e-6 where s/α < d/5.

Legend: `B` batch, `N` data, `T` slots, `S` tokens, `C` channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .process import Process, per_token

NEIGHBOURS = 256  # data whose nearest other one is looked up
FAR = 5.0  # a neighbour as many times further than the ratio of noise to signal does not count


class Posterior:
    """All data of a training set, by which `expected` knows the mean of what is behind a noised state.

    Args:
        data: latents `{modality: [N, T, S, C]}`.
        process: how they are noised.
    """

    def __init__(self, data: Mapping[str, Tensor], process: Process) -> None:
        self.data, self.process = {name: x.contiguous() for name, x in data.items()}, process  # slices of all axes else
        self.energy = torch.stack([x.square().sum(dim=(2, 3)) for x in data.values()]).sum(0)  # [N, T]
        self.least = self._least()  # rows whose ratio s/α is below it in some slot keep their own sample

    def _least(self) -> float:
        """The ratio s/α up to which 95 % of the data have no neighbour that counts."""
        rows = torch.randperm(len(self.energy), generator=torch.Generator().manual_seed(0))[:NEIGHBOURS]
        flat = torch.cat([x.flatten(1) for x in self.data.values()], dim=1)  # [N, T·ΣS·C]
        distance = torch.cdist(flat[rows], flat)  # [R, N]
        distance[torch.arange(len(rows)), rows] = torch.inf
        return float(distance.min(dim=1).values.quantile(0.05)) / FAR

    @torch.no_grad()
    def expected(
        self, clean: Mapping[str, Tensor], noise: Mapping[str, Tensor], t: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Mean of x0 and of ε given x_t = α·x0 + s·ε, in float32.

        Args:
            clean, noise: `{modality: [B, T, S, C]}`, the draw that made the state.
            t: `[B, T]`, the same for all modalities.
        """
        self._move(t.device)
        alpha, s = self.process.coefficients(t)  # [B, T]
        rows = (s >= self.least * alpha).all(dim=1)  # [B]
        alpha, s = per_token(alpha[rows]), per_token(s[rows])  # [b, T, 1, 1]
        out = {name: x.float().clone() for name, x in clean.items()}, {n: x.float().clone() for n, x in noise.items()}
        state = {name: self.process.add_noise(out[0][name][rows], out[1][name][rows], t[rows]) for name in self.data}
        with torch.autocast(t.device.type, enabled=False):  # differences of large numbers decide
            weight = self._weights(state, alpha, s)
            for name, data in self.data.items():
                mean = (weight @ data.flatten(1)).unflatten(1, data.shape[1:])
                out[0][name][rows] = mean
                out[1][name][rows] = (state[name] - alpha * mean) / s
        return out

    def _move(self, device: torch.device) -> None:
        if self.energy.device != device:
            self.data = {name: x.to(device) for name, x in self.data.items()}
            self.energy = self.energy.to(device)

    def _weights(self, state: Mapping[str, Tensor], alpha: Tensor, s: Tensor) -> Tensor:
        """How probable it is that each of the data was noised to each state: `[B, N]`."""
        scores = -0.5 * (alpha / s).square().flatten(1) @ self.energy.T  # [B, N]
        for name, data in self.data.items():
            scores = torch.addmm(scores, (alpha / s.square() * state[name]).flatten(1), data.flatten(1).T)
        return scores.softmax(dim=1)
