"""Classifier-free guidance with a scale per modality (arXiv:2207.12598).

Every guidance is a frozen dataclass with three members, and nothing else is asked of it:
`enabled(sigma)`, `passes` (the extra passes of the network that it needs, by name), and
`delta(predictions, sigma)`, what it adds to the conditional velocity. Deltas of several guidances add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

Velocities = Mapping[str, Tensor]
"""`{modality: [B, T, S, C]}`."""


class Guidance(Protocol):
    """The interface of every kind of guidance."""

    @property
    def passes(self) -> tuple[str, ...]:
        """Passes needed besides `"conditional"`: `"unconditional"`, `"isolated"`, …"""
        ...

    def enabled(self, sigma: float) -> bool:
        """Whether it acts at this noise level of the walk (1 is noise, 0 is clean)."""
        ...

    def delta(self, predictions: Mapping[str, Velocities], sigma: float) -> dict[str, Tensor]:
        """What it adds to the conditional velocity of each modality, `{modality: [B, T, S, C]}`."""
        ...


@dataclass(frozen=True)
class ClassifierFree:
    """`v = v_cond + (scale − 1)·(v_cond − v_uncond)`; scale 1 is no guidance.

    Args:
        scale: one number for all modalities.
        scales: exceptions per modality, e.g. `{"audio": 3.0}`.
        interval: noise levels between which it acts (arXiv:2404.07724).
        rescale: pulls the result's spread back to the conditional one by this share (arXiv:2305.08891).
    """

    scale: float = 2.0
    scales: Mapping[str, float] = field(default_factory=dict)
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0

    @property
    def passes(self) -> tuple[str, ...]:
        """The pass without a prompt (or with the negative prompt)."""
        return ("unconditional",)

    def enabled(self, sigma: float) -> bool:
        """True inside the interval, where any scale differs from 1."""
        inside = self.interval[0] <= sigma <= self.interval[1]
        return inside and any(scale != 1.0 for scale in (self.scale, *self.scales.values()))

    def delta(self, predictions: Mapping[str, Velocities], sigma: float) -> dict[str, Tensor]:
        """`(scale_m − 1)·(v_cond − v_uncond)` of every modality."""
        conditional, unconditional = predictions["conditional"], predictions["unconditional"]
        return {name: self._delta(name, v, unconditional[name]) for name, v in conditional.items()}

    def _delta(self, name: str, conditional: Tensor, unconditional: Tensor) -> Tensor:
        guided = conditional + (self.scales.get(name, self.scale) - 1.0) * (conditional - unconditional)
        if self.rescale > 0.0:
            dims = tuple(range(1, guided.ndim))
            ratio = conditional.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True).clamp_min(1e-6)
            guided = guided * (self.rescale * ratio + 1.0 - self.rescale)
        return guided - conditional
