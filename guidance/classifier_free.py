"""Classifier-free guidance with a scale per modality (arXiv:2207.12598)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .interface import Contrast, Guidance, Velocities, WalkState

__all__ = ["ClassifierFree", "Guidance", "Velocities", "WalkState"]


@dataclass(frozen=True)
class ClassifierFree(Contrast):
    """Towards the prompt: `v = v_cond + (scale − 1)·(v_cond − v_uncond)`; scale 1 is no guidance.

    The other pass has no prompt, or the negative prompt. Options as in `ScaledGuidance`.
    """

    other: ClassVar[str] = "unconditional"
