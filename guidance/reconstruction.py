"""Reconstruction guidance: the clip has to agree with a measurement of it (DPS, arXiv:2209.14687).

A measurement is a differentiable function of the predicted clean latents that returns a residual, what is measured less
what should be, `{modality: [B, T, S, C]}` → `[B, …]`; entries that are NaN are not asked for. Several residuals that
share no scale come as a list, and each gets a step of its own. `guidance.measurements` has ready-made ones.

Legend: `B` batch, `T` slots, `S` tokens, `C` channels, `M` numbers measured.

With the residual `r`, the gradient `g = ∇ ½‖r‖²` and the variance `ω = σ²/D` of the clean latents given the noised ones
(`guidance.gradients`), the log-likelihood along the residual is normal with variance

    q = Σ ω·g² / ‖r‖² + noise²          ∇ log p(y | x_σ) ∝ −g / q

which for one number measured by a linear operator A is `A ω Aᵀ + noise²`, ΠGDM's likelihood for flows
(arXiv:2310.04432). So the step does not depend on the measurement's units, and scale 1 moves the predicted clean
latents onto a noiseless linear measurement, at any number of solver steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .gradients import MAX_FACTOR, CleanPrediction, clean_variance, gradients
from .interface import ScaledGuidance, WalkState

Residual = Callable[[dict[str, Tensor]], Tensor | Sequence[Tensor]]


@dataclass(frozen=True)
class Measured:
    """A residual from a function and its target: `measure(decode(x0)) − target`.

    Args:
        measure: `decode`'s result → `[B, M]`, differentiable.
        target: `[M]` or `[B, M]`; NaN is not asked for.
        decode: clean latents `{modality: [B, T, S, C]}` → whatever `measure` takes; None: the latents themselves.
    """

    measure: Callable[..., Tensor] = field(repr=False)
    target: Tensor = field(repr=False)
    decode: Callable[[dict[str, Tensor]], object] | None = field(default=None, repr=False)

    def __call__(self, clean: dict[str, Tensor]) -> Tensor:
        """The residual `[B, M]`."""
        measured = self.measure(clean if self.decode is None else self.decode(clean))
        return measured - self.target.to(measured)


@dataclass(frozen=True)
class Reconstruction(ScaledGuidance):
    """Towards latents whose measurement has no residual; scale 1 is the likelihood's own weight, 0 is no guidance.

    Args:
        measurement: clean latents → residual `[B, …]`, or several of them.
        noise: standard deviation of the measurement's error, in the residual's units.
        limit: the most that the predicted clean latents are moved in a step, in units of their own uncertainty √ω
            (root mean square over what is moved; an exact measurement of everything moves them by about 1).
        through_network: differentiate the prediction too (one more pass, forward and backward), instead of taking the
            Jacobian of a standard normal prior for it.
        max_factor: through the network, the most that `σ/(1 − σ)` may be.

    Other options as in `ScaledGuidance`.
    """

    measurement: Residual = field(kw_only=True)
    noise: float = field(default=0.0, kw_only=True)
    limit: float = field(default=2.0, kw_only=True)
    through_network: bool = field(default=False, kw_only=True)
    max_factor: float = field(default=MAX_FACTOR, kw_only=True)

    def direction(self, state: WalkState) -> dict[str, Tensor]:
        """The velocity of `−g/q`, at most `limit`; 0 where the measurement does not look, and in given cells."""
        with torch.enable_grad():
            clean = CleanPrediction.of(state, self.through_network)
            residual = self.measurement(clean.values)
            parts = [residual] if isinstance(residual, Tensor) else residual
            steps = [self._step(part, clean, state.sigma) for part in parts]
        return {name: torch.stack([step[name] for step in steps]).sum(dim=0) for name in steps[0]}

    def _step(self, residual: Tensor, clean: CleanPrediction, sigma: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The velocity of one part of the residual, `[B, …]`."""
        omega = {name: clean_variance(level) for name, level in sigma.items()}  # [B, T, 1, 1]
        residual = torch.where(residual.isnan(), torch.zeros_like(residual), residual).flatten(1)  # [B, M]
        g = gradients(0.5 * residual.square().sum(), clean.values)
        square = residual.detach().square().sum(dim=1)  # [B]
        gain = _total({n: omega[n].to(x) * x.square() for n, x in g.items()})  # [B]: Σ ω·g²
        q = (gain / square.clamp_min(1e-20) + self.noise**2).clamp_min(1e-12)  # [B]
        pull = {n: -x / q.to(x)[:, None, None, None] for n, x in g.items()}
        v = clean.velocity(pull, sigma, self.max_factor)
        moved = _total({n: (sigma[n][:, :, None, None].to(x) * x).square() for n, x in v.items()})  # [B]: ‖Δx0‖²
        room = _total({n: omega[n].to(x) * (x != 0) for n, x in g.items()})
        share = (self.limit * (room / moved.clamp_min(1e-20)).sqrt()).nan_to_num().clamp_max(1.0)  # [B]
        return {name: share.to(x)[:, None, None, None] * x for name, x in v.items()}


def _total(parts: Mapping[str, Tensor]) -> Tensor:
    """Sum over modalities, slots, tokens and channels: `[B]`."""
    return torch.stack([part.float().flatten(1).sum(dim=1) for part in parts.values()]).sum(dim=0)
