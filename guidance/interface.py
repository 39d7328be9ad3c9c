"""What a guidance is: a frozen dataclass that says which way the walk from noise to clean is bent.

    v = v_cond + Σ delta_i

Three members, and nothing else is asked of it: `enabled(level)`, `passes` (the extra passes of the network that it
needs, by name) and `delta(state)`, what it adds to the conditional velocity. Deltas of several guidances add up. A
guidance holds no state: what it may look at, and the one place where it may leave a note for the next step of the same
walk, is the `WalkState`.

The process is the flow `x_σ = (1 − σ)·x0 + σ·ε` with velocity `v = ε − x0`. Legend: `B` batch, `T` slots, `S` tokens,
`C` channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from torch import Tensor

Velocities = Mapping[str, Tensor]
"""`{modality: [B, T, S, C]}`."""
Denoiser = Callable[[str, dict[str, Tensor], dict[str, Tensor]], dict[str, Tensor]]
"""`denoiser(pass_name, latents {modality: [B, T, S, C]}, sigma {modality: [B, T]})` → velocities like the latents."""


@dataclass(frozen=True)
class WalkState:
    """Where the walk stands when a guidance is asked.

    Args:
        predictions: velocities of every pass made at this step, `{pass: {modality: [B, T, S, C]}}`.
        latents: the noised latents `x_σ`, `{modality: [B, T, S, C]}`.
        sigma: the noise level of every cell, `{modality: [B, T]}`; 0 where a cell is given.
        level: the noise level of the walk (1 is noise, 0 is clean).
        denoiser: makes further passes, also with gradients.
        step, steps: which step this is, from 0, and of how many.
        memory: what this guidance keeps between the steps of this walk; empty at the start of every walk.
    """

    predictions: Mapping[str, Velocities]
    latents: Mapping[str, Tensor]
    sigma: Mapping[str, Tensor]
    level: float
    denoiser: Denoiser
    step: int = 0
    steps: int = 1
    memory: MutableMapping[str, Any] = field(default_factory=dict)

    @property
    def conditional(self) -> Velocities:
        """The velocity under the prompt, to which deltas are added."""
        return self.predictions["conditional"]

    def clean(self, latents: Velocities | None = None, v: Velocities | None = None) -> dict[str, Tensor]:
        """The predicted clean latents `x0 = x_σ − σ·v`, of this step or of other latents and velocities."""
        latents, v = self.latents if latents is None else latents, self.conditional if v is None else v
        return {name: x - self.sigma[name].to(x)[:, :, None, None] * v[name] for name, x in latents.items()}


class Guidance(Protocol):
    """The interface of every kind of guidance."""

    @property
    def passes(self) -> tuple[str, ...]:
        """Passes needed besides `"conditional"`: `"unconditional"`, `"isolated"`, `"weak"`, …"""
        ...

    def enabled(self, sigma: float) -> bool:
        """Whether it acts at this noise level of the walk (1 is noise, 0 is clean)."""
        ...

    def delta(self, state: WalkState) -> dict[str, Tensor]:
        """What it adds to the conditional velocity of each modality, `{modality: [B, T, S, C]}`."""
        ...


@dataclass(frozen=True)
class ScaledGuidance(ABC):
    """The options that all kinds share; a kind adds `direction`.

    Args:
        scale: one number for all modalities.
        scales: exceptions per modality, e.g. `{"audio": 3.0}`.
        interval: noise levels between which it acts (arXiv:2404.07724).
        rescale: pulls the spread of `v_cond + delta` back to the conditional one by this share (arXiv:2305.08891).
        parallel: share that is kept of what the delta says along the predicted clean latents of a slot: more of the
            same, which overshoots at large scales, where the rest says what is to be otherwise (η of arXiv:2410.02416).
        parallels: exceptions per modality, e.g. `{"video": 0.0}`.
    """

    scale: float = 1.0
    scales: Mapping[str, float] = field(default_factory=dict)
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0
    parallel: float = 1.0
    parallels: Mapping[str, float] = field(default_factory=dict)
    neutral: ClassVar[float] = 0.0
    """The scale at which nothing is added."""

    @property
    def passes(self) -> tuple[str, ...]:
        """The extra passes; none unless the kind names some."""
        return ()

    def enabled(self, sigma: float) -> bool:
        """True inside the interval, where any scale adds something."""
        inside = self.interval[0] <= sigma <= self.interval[1]
        return inside and any(scale != self.neutral for scale in (self.scale, *self.scales.values()))

    def delta(self, state: WalkState) -> dict[str, Tensor]:
        """`(scale_m − neutral)·direction_m` of every modality, turned and rescaled."""
        deltas, kept = {}, {name: self.parallels.get(name, self.parallel) for name in state.latents}
        clean = state.clean() if any(share != 1.0 for share in kept.values()) else {}
        for name, direction in self.direction(state).items():
            delta = (self.scales.get(name, self.scale) - self.neutral) * direction
            if kept[name] != 1.0:
                delta = _turned(delta, clean[name], kept[name])
            deltas[name] = _rescaled(state.conditional[name], delta, self.rescale)
        return deltas

    @abstractmethod
    def direction(self, state: WalkState) -> dict[str, Tensor]:
        """The delta at a scale of one more than neutral, `{modality: [B, T, S, C]}`."""


@dataclass(frozen=True)
class Contrast(ScaledGuidance):
    """Away from a worse pass: `v = v_cond + (scale − 1)·(v_cond − v_other)`; scale 1 is no guidance."""

    scale: float = 2.0
    neutral: ClassVar[float] = 1.0
    other: ClassVar[str]
    """The name of the other pass."""

    @property
    def passes(self) -> tuple[str, ...]:
        """The other pass."""
        return (self.other,)

    def direction(self, state: WalkState) -> dict[str, Tensor]:
        """`v_cond − v_other` of every modality."""
        other = state.predictions[self.other]
        return {name: v - other[name] for name, v in state.conditional.items()}


def _turned(delta: Tensor, clean: Tensor, share: float) -> Tensor:
    """`delta` `[B, T, S, C]` with a `share` of its component along `clean` of the same slot."""
    along = (delta * clean).sum(dim=(2, 3), keepdim=True) / clean.square().sum(dim=(2, 3), keepdim=True).clamp_min(1e-6)
    return delta - (1.0 - share) * along * clean


def _rescaled(conditional: Tensor, delta: Tensor, share: float) -> Tensor:
    """`delta` such that the spread of `conditional + delta` over `T, S, C` goes back by `share`."""
    if share == 0.0:
        return delta
    guided = conditional + delta
    dims = tuple(range(1, guided.ndim))
    ratio = conditional.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True).clamp_min(1e-6)
    return guided * (share * ratio + 1.0 - share) - conditional
