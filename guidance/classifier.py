"""Classifier guidance (arXiv:2105.05233): along the gradient of a log-probability; formulas in `guidance.gradients`.

`Classifier` asks a network that was trained on noised latents at every σ: `log p(y | x_σ, σ)`. `CleanScore` takes any
differentiable score of the predicted clean latents. Legend: `B` batch, `T` slots, `S` tokens, `C` channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from .gradients import MAX_FACTOR, CleanPrediction, gradients, leaves, score_factor
from .interface import ScaledGuidance, WalkState


class NoiseAwareClassifier(Protocol):
    """What knows the classes of noised latents."""

    def log_probability(
        self, latents: dict[str, Tensor], sigma: dict[str, Tensor], attribute: str, value: str
    ) -> Tensor:
        """`log p(attribute = value | x_σ)` `[B]` of latents `{modality: [B, T, S, C]}` at σ `{modality: [B, T]}`.

        Raises:
            ValueError: an unknown attribute or class.
        """
        ...


@dataclass(frozen=True)
class Classifier(ScaledGuidance):
    """`v = v_cond − scale·σ/(1 − σ)·∇ log p(y | x_σ, σ)`; scale 1 samples the posterior, 0 is no guidance.

    Towards σ = 1 the factor grows without bound while the gradient vanishes. So the factor is cut at `max_factor`, and
    above the σ at which it is cut the classifier is told that σ, which keeps the product near its limit.

    Args:
        classifier: knows `log p(y | x_σ, σ)`.
        attribute, value: the class to lead to, e.g. `"material"`, `"glass"`.
        max_factor: the most that `σ/(1 − σ)` may be.

    Other options as in `ScaledGuidance`.
    """

    classifier: NoiseAwareClassifier = field(kw_only=True, repr=False)
    attribute: str = field(kw_only=True)
    value: str = field(kw_only=True)
    max_factor: float = field(default=MAX_FACTOR, kw_only=True)

    def direction(self, state: WalkState) -> dict[str, Tensor]:
        """`−σ/(1 − σ)·∇ log p(y | x_σ, σ)`; 0 in cells that are given."""
        most = self.max_factor / (1.0 + self.max_factor)
        told = {name: sigma.clamp_max(most) for name, sigma in state.sigma.items()}
        with torch.enable_grad():
            noised = leaves(state.latents)
            total = self.classifier.log_probability(noised, told, self.attribute, self.value).sum()
            found = gradients(total, noised)
        return {name: -score_factor(told[name], self.max_factor).to(g) * g for name, g in found.items()}


@dataclass(frozen=True)
class CleanScore(ScaledGuidance):
    """Along the gradient of a score of the predicted clean latents, `log p(y | x0)` up to a constant.

    Args:
        score: clean latents `{modality: [B, T, S, C]}` → `[B]`, differentiable.
        through_network: differentiate the prediction too (one more pass, forward and backward), instead of taking the
            Jacobian of a standard normal prior for it.
        max_factor: through the network, the most that `σ/(1 − σ)` may be.

    Other options as in `ScaledGuidance`; scale 0 is no guidance.
    """

    score: Callable[[dict[str, Tensor]], Tensor] = field(kw_only=True, repr=False)
    through_network: bool = field(default=False, kw_only=True)
    max_factor: float = field(default=MAX_FACTOR, kw_only=True)

    def direction(self, state: WalkState) -> dict[str, Tensor]:
        """`−σ/(1 − σ)·Jᵀ·∇ score(x0)`, with the network's Jacobian J or the normal prior's."""
        with torch.enable_grad():
            clean = CleanPrediction.of(state, self.through_network)
            found = gradients(self.score(clean.values).sum(), clean.values)
            return clean.velocity(found, state.sigma, self.max_factor)
