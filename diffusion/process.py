"""What is noise and what is the target, for every process of the family.

    x_t = α(t)·x0 + s(t)·ε          t = 1 is noise, t = 0 is clean

Flow matching (arXiv:2210.02747, arXiv:2209.03003) is the default: α = 1 − σ, s = σ, and the network predicts the
velocity v = dx/dσ = ε − x0. `t` is what the network hears, in [0, 1]; in the flow process it is σ itself.

Legend: `B` batch, `T` slots, `S` tokens, `C` channels. Noise levels are `[B, T]`, one per slot.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

PROCESSES = ("flow", "cosine", "linear", "edm")
PREDICTIONS = ("velocity", "epsilon", "sample", "v_prediction", "edm")
BETA_START, BETA_END = 0.1, 20.0  # of the linear schedule in continuous time (arXiv:2011.13456, appendix C)
NOISIEST = {"cosine": 160.0, "linear": 160.0, "edm": 80.0}  # largest s/α; the linear schedule ends at 152


def per_token(sigma: Tensor) -> Tensor:
    """Noise levels `[B, T]` shaped for latents: `[B, T, 1, 1]`."""
    return sigma[:, :, None, None]


def add_noise(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """`x_σ` from `x0 [B, T, S, C]`, `ε` of the same shape and `σ [B, T]`."""
    level = per_token(sigma).to(clean.dtype)
    return (1 - level) * clean + level * noise


def velocity(clean: Tensor, noise: Tensor) -> Tensor:
    """`v = ε − x0`, the training target."""
    return noise - clean


def predict_clean(noised: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
    """`x0 = x_σ − σ·v`."""
    return noised - per_token(sigma).to(noised.dtype) * v


def predict_noise(noised: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
    """`ε = x_σ + (1 − σ)·v`."""
    return noised + (1 - per_token(sigma).to(noised.dtype)) * v


@dataclass(frozen=True)
class Process:
    """How a network is trained to see noise, and what it predicts; every pair of the two can be had.

    Args:
        kind: `flow` (α = 1 − t, s = t); variance-preserving DDPM with α² + s² = 1: `cosine` (α = cos(πt/2),
            arXiv:2102.09672) and `linear` (β from 0.1 to 20, arXiv:2006.11239 in continuous time);
            `edm` (α = 1, s = t/(1 − t) up to 80, input scaled by c_in, arXiv:2206.00364): a logit-normal t of location
            −1.2 and scale 1.2 is then the log-normal σ that EDM trains with.
        prediction: a sum a·x0 + b·ε: `velocity` (ε − x0), `epsilon` (ε), `sample` (x0), `v_prediction` (α·ε − s·x0,
            arXiv:2202.00512), or `edm`, the F of x0 = c_skip·x + c_out·F.
        sigma_data: standard deviation of the latents that EDM's preconditioning reckons with. Where it differs from
            channel to channel, the methods take it as `deviation` `[C]` instead; they then scale the input to variance
            1 in every process, and only the prediction `edm` has such targets.

    Raises:
        ValueError: an unknown kind or prediction, or a standard deviation that is not positive.
    """

    kind: str = "flow"
    prediction: str = "velocity"
    sigma_data: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in PROCESSES:
            raise ValueError(f"process: {self.kind!r} is not one of {', '.join(PROCESSES)}")
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction: {self.prediction!r} is not one of {', '.join(PREDICTIONS)}")
        if not self.sigma_data > 0:
            raise ValueError(f"sigma_data: {self.sigma_data} is not more than 0")

    @property
    def is_default(self) -> bool:
        """Whether the network speaks flow and velocity, which is what everything else here speaks."""
        return self.kind == "flow" and self.prediction == "velocity"

    @property
    def last(self) -> float:
        """The noisiest t; above it, the network hears this one. 1 for flow, unless ε is predicted, where α = 0."""
        if self.kind == "flow":
            return 160 / 161 if self.prediction == "epsilon" else 1.0
        return min(1.0, float(self.level(torch.tensor(NOISIEST[self.kind], dtype=torch.float64))))

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`α(t)` and `s(t)`, of the shape of `t`."""
        if self.last < 1.0:
            t = t.clamp_max(self.last)
        if self.kind == "flow":
            return 1 - t, t
        if self.kind == "cosine":
            return torch.cos(t * (math.pi / 2)), torch.sin(t * (math.pi / 2))
        if self.kind == "linear":
            log = -0.25 * t.square() * (BETA_END - BETA_START) - 0.5 * t * BETA_START
            return log.exp(), (-torch.expm1(2 * log)).sqrt()
        return torch.ones_like(t), t / (1 - t)

    def level(self, ratio: Tensor) -> Tensor:
        """The `t` at which s/α is `ratio` (infinite is allowed): the inverse of `coefficients`."""
        if self.kind in ("flow", "edm"):
            return torch.where(ratio.isinf(), torch.ones_like(ratio), ratio / (1 + ratio.nan_to_num(posinf=0.0)))
        if self.kind == "cosine":
            return torch.atan(ratio) * (2 / math.pi)
        rest = torch.log1p(ratio.clamp_max(1e6).square()) / 2  # −log α, of which t is the positive root
        return 2 * rest / (BETA_START / 2 + (BETA_START**2 / 4 + (BETA_END - BETA_START) * rest).sqrt())

    def add_noise(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """`x_t` from `x0 [B, T, S, C]`, `ε` of the same shape and `t [B, T]`; at t = 0 it is x0, bit for bit."""
        if self.kind == "flow" and self.last == 1.0:
            return add_noise(clean, noise, t)
        alpha, s = self._per_token(t, clean)
        return alpha * clean + s * noise

    def target(self, clean: Tensor, noise: Tensor, t: Tensor, deviation: Tensor | None = None) -> Tensor:
        """What the network learns to predict, `[B, T, S, C]`."""
        if self.prediction == "velocity":
            return velocity(clean, noise)
        a, b = self._combination(*self._per_token(t, clean), deviation)
        return a * clean + b * noise

    def scale_input(self, noised: Tensor, t: Tensor, deviation: Tensor | None = None) -> Tensor:
        """What the network is given: EDM's c_in·x, for all others x itself unless the deviations are known."""
        if self.kind != "edm" and deviation is None:
            return noised
        alpha, s = self._per_token(t, noised)
        own = self.sigma_data if deviation is None else deviation
        return noised / (s.square() + (own * alpha).square()).sqrt()

    def predict_clean(self, noised: Tensor, prediction: Tensor, t: Tensor, deviation: Tensor | None = None) -> Tensor:
        """`x0 [B, T, S, C]` from `x_t` (not scaled) and what the network said of it."""
        if self.prediction == "sample":
            return prediction
        alpha, s = self._per_token(t, noised)
        a, b = self._combination(alpha, s, deviation)
        return (b * noised - s * prediction) / (alpha * b - s * a)

    def predict_noise(self, noised: Tensor, prediction: Tensor, t: Tensor, deviation: Tensor | None = None) -> Tensor:
        """`ε [B, T, S, C]` from `x_t` and the prediction; at t = 0 a network that predicts x0 can't know it."""
        if self.prediction == "epsilon":
            return prediction
        alpha, s = self._per_token(t, noised)
        a, b = self._combination(alpha, s, deviation)
        return (alpha * prediction - a * noised) / _away_from_zero(alpha * b - s * a)

    def _per_token(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alpha, s = self.coefficients(t)
        return per_token(alpha).to(like.dtype), per_token(s).to(like.dtype)

    def _combination(self, alpha: Tensor, s: Tensor, deviation: Tensor | None) -> tuple[Tensor, Tensor]:
        """`a` and `b` of the prediction a·x0 + b·ε."""
        one, zero = torch.ones_like(s), torch.zeros_like(s)
        if self.prediction == "velocity":
            return -one, one
        if self.prediction == "epsilon":
            return zero, one
        if self.prediction == "sample":
            return one, zero
        if self.prediction == "v_prediction":
            return -s, alpha
        own = self.sigma_data if deviation is None else deviation
        # F = (x0 − c_skip·x)/c_out with c_skip, c_out of table 1, written for any α
        root = (s.square() + (own * alpha).square()).sqrt()
        return s / own / root, -own * alpha / root


def _away_from_zero(value: Tensor) -> Tensor:
    return torch.where(value.abs() < 1e-6, torch.full_like(value, 1e-6), value)


def process_of(config: Any) -> Process:
    """What a saved network says that it predicts: flow and velocity where it says nothing."""
    return Process(**(config.get("process") or {}))


def describe(process: Process) -> dict[str, Any]:
    """The process as JSON, for a network's config."""
    return asdict(process)
