"""A walk from noise to clean in the angle between them, in which Gaussian latents stand still.

At s/α = r a channel of deviation d is x = x0 + r·ε, and y = x/√(d² + r²) has variance 1 at every level. In the angle
θ = arctan(r/d) the probability flow is

    dy/dθ = −F

with the F that a network predicts under EDM's preconditioning (arXiv:2206.00364): 0 where latents are Gaussian. (With
one d for all it is TrigFlow, arXiv:2410.11081.) So every channel moves by its own angle, and the solver meets only what
is not Gaussian: Adams and Bashforth's step of second order, which a trapezoid corrects as soon as F is known behind it,
at no pass of its own.

Mean and deviation of y are known too at every level, from the data. A network's mean falls short of the truth, so what
it makes has too little variance, a little more with each step; `LevelMoments` brings both back after each.

Legend: `B` batch, `N` windows, `T` slots, `K` channels, `P` places of a walk, two for each step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

BEND = 0.3  # how much denser than even in log r the levels lie in the middle of a walk, where a window is decided

Predict = Callable[[Tensor, float], Tensor]
Steady = Callable[[int, Tensor], Tensor]


def angle_ratios(steps: int, span: tuple[float, float]) -> Tensor:
    """s/α of the levels of a walk: `steps` of them over `span`, and 0; float64 `[steps + 1]`.

    Raises:
        ValueError: no step, or a span that doesn't fall.
    """
    if steps < 1 or not span[0] > span[1] > 0:
        raise ValueError(f"a walk of {steps} steps over {span}")
    share = torch.linspace(0.0, 1.0, steps, dtype=torch.float64)
    share = share + BEND * torch.sin(2 * math.pi * share) / (2 * math.pi)
    falling = torch.exp(math.log(span[0]) + share * math.log(span[1] / span[0]))
    return torch.cat([falling, falling.new_zeros(1)])


def angle_walk(predict: Predict, y: Tensor, ratios: Tensor, deviation: Tensor, steady: Steady | None = None) -> Tensor:
    """Clean latents `[B, T, K]`.

    Args:
        predict: F `[B, T, K]` from y `[B, T, K]` and s/α.
        y: what the walk begins with: of variance 1, as at the first of `ratios`.
        ratios: falling s/α, the last 0, `[steps + 1]`.
        deviation: d, `[K]`.
        steady: mends y at each of the 2·`steps` places (`LevelMoments`): 0 before the first step; 2·i + 1 behind step
            i, and 2·i + 2 there again when it is corrected. None: nothing is mended.
    """
    mend: Steady = steady or (lambda _, value: value)
    angles = torch.atan(ratios[:, None] / deviation.double()).float()  # [steps + 1, K]
    y = base = mend(0, y)
    earlier: tuple[Tensor, Tensor] | None = None  # −F of the level before, and the step that led from there
    for i, ratio in enumerate(ratios[:-1].tolist()):
        slope = -predict(y, ratio)
        step = angles[i + 1] - angles[i]
        if earlier is None:
            y = base + step * slope
        else:
            last, before = earlier
            base = mend(2 * i, base + before * (slope + last) / 2)
            y = base + step * (slope + step / (2 * before) * (slope - last))
        y = mend(2 * i + 1, y)
        earlier = slope, step
    return deviation * y


class LevelMoments:
    """Brings y to the mean and the deviation that it should have at each place of a walk.

    Args:
        tensors: `scale` and `shift`, `[P, T, K]`, or `[P, 1, K]` where all slots have the same.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def __call__(self, place: int, y: Tensor) -> Tensor:
        """`y [B, T, K]`, mended."""
        return torch.addcmul(self.tensors["shift"][place], y, self.tensors["scale"][place])

    @property
    def steps(self) -> int:
        """Steps of the walk that it belongs to."""
        return len(self.tensors["scale"]) // 2

    @classmethod
    def fit(
        cls, predict: Predict, y: Tensor, ratios: Tensor, deviation: Tensor, data: Tensor, per_slot: bool
    ) -> tuple[LevelMoments, Tensor]:
        """By a walk of many windows at once; they come out too, as `angle_walk` returns them.

        Args:
            predict, y, ratios, deviation: of `angle_walk`.
            data: clean latents `[N, T, K]` that are to be matched.
            per_slot: each slot has its own moments; else all have the same.

        Raises:
            ValueError: fewer than two windows on either side.
        """
        if min(len(data), len(y)) < 2:
            raise ValueError(f"moments of {len(data)} and {len(y)} windows")
        over = 0 if per_slot else (0, 1)
        mean, variance = data.mean(dim=over, keepdim=True)[0], data.var(dim=over, keepdim=True)[0]
        scales, shifts = [], []

        def steady(place: int, value: Tensor) -> Tensor:
            ratio = float(ratios[(place + 1) // 2])
            unit = (deviation.square() + ratio**2).sqrt()
            wanted = (variance + ratio**2).sqrt() / unit
            own = value.std(dim=over, keepdim=True)[0].clamp_min(1e-6)
            scales.append(wanted / own)
            shifts.append(mean / unit - scales[-1] * value.mean(dim=over, keepdim=True)[0])
            return torch.addcmul(shifts[-1], value, scales[-1])

        clean = angle_walk(predict, y, ratios, deviation, steady)
        return cls({"scale": torch.stack(scales), "shift": torch.stack(shifts)}), clean

    def save(self, path: Path) -> None:
        """Writes one safetensors file."""
        save_file(self.tensors, path)

    @classmethod
    def load(cls, path: Path) -> LevelMoments:
        """Reads what `save` wrote."""
        return cls(load_file(path))
