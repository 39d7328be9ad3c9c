"""From the gradient of a log-probability to a velocity.

With the score `s = ∇ log p(x_σ)`, Tweedie's formula gives `E[ε | x_σ] = −σ·s`, so that

    v = E[ε − x0 | x_σ] = −(x_σ + σ·s) / (1 − σ)          dv/ds = −σ / (1 − σ)

A condition y adds `∇ log p(y | x_σ)` to the score, hence `−σ/(1 − σ)·∇ log p(y | x_σ)` to the velocity.

Where only the gradient by the *predicted clean* latents `x0 = E[x0 | x_σ]` is known, the chain rule needs the Jacobian
of that prediction. Latents have mean 0 and variance 1 per channel; for a standard normal prior the Jacobian is
`(1 − σ)/D` and the variance of x0 given x_σ is `σ²/D`, with `D = (1 − σ)² + σ²` (arXiv:2310.04432). Then the factor
is `−σ/D`, finite everywhere, and no gradient has to go through the network.

Legend: `B` batch, `T` slots, `S` tokens, `C` channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .interface import WalkState

MAX_FACTOR = 20.0
"""Where `σ/(1 − σ)` is cut: at σ = 20/21 = 0.952."""


def score_factor(sigma: Tensor, limit: float = MAX_FACTOR) -> Tensor:
    """`−dv/ds = σ/(1 − σ)`, at most `limit`: `[B, T]` → `[B, T, 1, 1]`."""
    return (sigma / (1.0 - sigma).clamp_min(1e-12)).clamp_max(limit)[:, :, None, None]


def clean_factor(sigma: Tensor) -> Tensor:
    """`σ/D`: `[B, T]` → `[B, T, 1, 1]`."""
    return (sigma / _spread(sigma))[:, :, None, None]


def clean_variance(sigma: Tensor) -> Tensor:
    """`σ²/D`, the variance of x0 given x_σ under a standard normal prior: `[B, T]` → `[B, T, 1, 1]`."""
    return (sigma.square() / _spread(sigma))[:, :, None, None]


def _spread(sigma: Tensor) -> Tensor:
    return (1.0 - sigma).square() + sigma.square()


def leaves(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that gradients end at."""
    return {name: x.detach().clone().requires_grad_() for name, x in tensors.items()}


def gradients(total: Tensor, of: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of a number by tensors; 0 where it does not depend on them. The graph can be used again.

    Raises:
        ValueError: it depends on none of them, e.g. because it was computed under `torch.no_grad`.
    """
    if not total.requires_grad:
        raise ValueError("guidance: the score has no gradient (computed under torch.no_grad, or from no track)")
    found = torch.autograd.grad(total, list(of.values()), retain_graph=True, allow_unused=True)
    return {n: torch.zeros_like(x) if g is None else g for (n, x), g in zip(of.items(), found, strict=True)}


@dataclass(frozen=True)
class CleanPrediction:
    """The predicted clean latents, for functions of them that are differentiated. Make it under `torch.enable_grad`.

    Args:
        values: `x0`, `{modality: [B, T, S, C]}`, with gradients.
        noised: the noised latents that `values` were computed from through the network; None: `values` are leaves.
    """

    values: dict[str, Tensor]
    noised: dict[str, Tensor] | None

    @classmethod
    def of(cls, state: WalkState, through_network: bool) -> CleanPrediction:
        """The prediction under the prompt; through the network, this is one more pass, with gradients.

        Raises:
            ValueError: the denoiser gives no gradients.
        """
        if not through_network:
            return cls(leaves(state.clean()), None)
        noised = leaves(state.latents)
        v = state.denoiser("conditional", noised, dict(state.sigma))
        if not all(value.requires_grad for value in v.values()):
            raise ValueError("guidance: through_network, but the denoiser gives no gradients")
        return cls(state.clean(noised, v), noised)

    def velocity(self, gradient: Mapping[str, Tensor], sigma: Mapping[str, Tensor], limit: float) -> dict[str, Tensor]:
        """What a gradient of log p by `values` adds to the velocity, `{modality: [B, T, S, C]}`."""
        if self.noised is None:
            return {name: -clean_factor(sigma[name]).to(g) * g for name, g in gradient.items()}
        total = torch.stack([(gradient[name].detach() * x).sum() for name, x in self.values.items()]).sum()
        return {n: -score_factor(sigma[n], limit).to(g) * g for n, g in gradients(total, self.noised).items()}
