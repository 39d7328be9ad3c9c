"""Keeps the states of a walk as large as noised data: mean and variance of every number, at every noise level.

A network hears states that it made itself, and errs on them otherwise than on the noised data that it was trained on
(exposure bias, arXiv:2308.15321). What is lost at a step is little, but adds up: the results vary too little. How a
state should be is known exactly: x_σ = (1 − σ)·x0 + σ·ε has the mean M = (1 − σ)·m and the variance
V = (1 − σ)²·s² + σ². So `fit_moments` lets many samples walk together, compares at every level the rate at which the
network changes mean and variance with the rate at which they should change, and keeps the difference as an affine
function of the state. `Moments` adds it to the velocity of any later walk, a guidance like others.

Legend: `N` levels, `B` batch, `T` slots, `S` tokens, `C` channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..guidance.interface import Guidance, WalkState

PULL = 1.0  # how fast what is off already goes back, per radian of atan(σ/(1 − σ))


class Everywhere:
    """What a guidance says that acts at every level and needs no further pass."""

    @property
    def passes(self) -> tuple[str, ...]:
        """None."""
        return ()

    def enabled(self, sigma: float) -> bool:
        """Always."""
        return True


@dataclass(frozen=True)
class Moments(Everywhere):
    """A guidance: `v = v_cond + slope·x_σ + shift`, by the noise level of the walk.

    Args:
        levels: σ, falling, `[N]`; between them is interpolated, beyond them the outermost holds.
        slope, shift: `{modality: [N, T, S, C]}`.
    """

    levels: Tensor
    slope: Mapping[str, Tensor]
    shift: Mapping[str, Tensor]

    def delta(self, state: WalkState) -> dict[str, Tensor]:
        """`slope·x_σ + shift` of the modalities that it knows."""
        after = min(int((self.levels > state.level).sum()), len(self.levels) - 1)
        before = max(after - 1, 0)
        high, low = float(self.levels[before]), float(self.levels[after])
        share = min(max((high - state.level) / (high - low), 0.0), 1.0) if high > low else 0.0

        def at(table: Tensor, x: Tensor) -> Tensor:
            return torch.lerp(table[before], table[after], share).to(x)

        known = [name for name in state.latents if name in self.slope]
        x = state.latents
        return {name: at(self.slope[name], x[name]) * x[name] + at(self.shift[name], x[name]) for name in known}

    def save(self, path: Path) -> None:
        """Writes a safetensors file."""
        tensors = {"levels": self.levels}
        tensors |= {f"slope.{name}": value.contiguous() for name, value in self.slope.items()}
        tensors |= {f"shift.{name}": value.contiguous() for name, value in self.shift.items()}
        save_file(tensors, path)

    @classmethod
    def load(cls, path: Path) -> Moments:
        """Reads what `save` wrote."""
        tensors = load_file(path)

        def table(kind: str) -> dict[str, Tensor]:
            return {key.removeprefix(kind): value for key, value in tensors.items() if key.startswith(kind)}

        return cls(tensors["levels"], table("slope."), table("shift."))


@dataclass(frozen=True)
class Measuring(Everywhere):
    """The guidance that `fit_moments` walks with: it finds slope and shift of a level, and uses them at once.

    Args:
        mean, std: of clean latents, `{modality: [T, S, C]}`.
        found: what it found, `(level, slope, shift)`, filled by the walk.
    """

    mean: Mapping[str, Tensor]
    std: Mapping[str, Tensor]
    found: list[tuple[float, dict[str, Tensor], dict[str, Tensor]]] = field(default_factory=list)

    def delta(self, state: WalkState) -> dict[str, Tensor]:
        """`slope·x_σ + shift` with those of this level."""
        slopes, shifts = {}, {}
        for name, x in state.latents.items():
            start = state.memory.setdefault(name, {})
            mean, std = self.mean[name].to(x), self.std[name].to(x)
            slopes[name], shifts[name] = _rates(x, state.conditional[name], state.level, mean, std, start)
        self.found.append((state.level, slopes, shifts))
        return {name: slopes[name] * x + shifts[name] for name, x in state.latents.items()}


def _rates(
    x: Tensor, v: Tensor, level: float, mean: Tensor, std: Tensor, start: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Slope and shift `[T, S, C]` that give x `[B, T, S, C]` with velocity v the right rates at a level.

    `start` keeps by how much the samples' variance was off when they were noise: it is not to be corrected.
    """
    clean = 1.0 - level
    pull = PULL / (clean**2 + level**2)  # d atan(σ/(1 − σ)) = dσ/((1 − σ)² + σ²)
    m, variance = x.mean(0), x.var(0).clamp_min(1e-8)
    wanted = clean**2 * std.square() + level**2
    covariance = ((x - m) * (v - v.mean(0))).sum(0) / (len(x) - 1)
    off = variance / wanted
    slope = (level - clean * std.square()) / wanted - covariance / variance
    slope = slope + pull * (off / start.setdefault("off", off) - 1.0)
    shift = -mean - v.mean(0) - slope * m + pull * (m - clean * mean)
    return slope, shift


def fit_moments(walk: Callable[[Guidance], object], clean: Mapping[str, Tensor]) -> Moments:
    """What a walk needs to keep mean and variance.

    Args:
        walk: walks many samples from noise to clean in one batch, with the guidance that it is given.
        clean: latents of data, `{modality: [B, T, S, C]}`.
    """
    measuring = Measuring({n: x.mean(0) for n, x in clean.items()}, {n: x.std(0) for n, x in clean.items()})
    walk(measuring)
    levels = torch.tensor([level for level, _, _ in measuring.found])
    slope = {name: torch.stack([own[name].cpu() for _, own, _ in measuring.found]) for name in clean}
    shift = {name: torch.stack([own[name].cpu() for _, _, own in measuring.found]) for name in clean}
    return Moments(levels, slope, shift)
