"""Modality isolation: what does hearing the other tracks change? More of that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .interface import Contrast


@dataclass(frozen=True)
class Isolation(Contrast):
    """Towards the other tracks: `v = v_cond + (scale − 1)·(v_cond − v_isolated)`; scale 1 is no guidance.

    In the isolated pass attention between modalities is off; training switches it off in a share of its batches, so
    that the network knows the task. Options as in `ScaledGuidance`. Source: the modality guidance of LTX-2
    (arXiv:2601.03233).
    """

    other: ClassVar[str] = "isolated"
