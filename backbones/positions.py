"""Rotary positions in seconds, so that rates, gaps and offsets are real (RoFormer, arXiv:2104.09864).

Legend: `B` batch, `T` slots, `N` sequence, `H` heads, `E` channels of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rotary_angles(seconds: Tensor, head_dim: int, shortest: float = 0.25, longest: float = 60.0) -> Tensor:
    """Angles of the rotary embedding at given times.

    The periods are spaced geometrically between `shortest` and `longest` seconds: the shortest is a little under
    two slots of 0.16 s (their Nyquist period), the longest is far beyond a training clip.

    Args:
        seconds: times `[T]`.
        head_dim: channels of one attention head, an even number.

    Returns:
        `[T, head_dim / 2]` float32 angles in radians.
    """
    if head_dim % 2:
        raise ValueError(f"head_dim: {head_dim} is odd; rotary positions need an even number")
    steps = torch.linspace(0.0, 1.0, head_dim // 2, device=seconds.device)
    periods = shortest * (longest / shortest) ** steps  # [E/2]
    return 2.0 * math.pi * seconds.float()[:, None] / periods  # [T, E/2]


def rotary_table(seconds: Tensor, head_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and (signed) sine of `rotary_angles`, laid out for `apply_rotary`: two tensors `[1, T, 1, E]`."""
    angles = rotary_angles(seconds, head_dim)
    cos, sin = angles.cos(), angles.sin()
    cos = torch.cat([cos, cos], dim=-1)[None, :, None, :]
    sin = torch.cat([-sin, sin], dim=-1)[None, :, None, :]
    return cos.to(dtype), sin.to(dtype)


def apply_rotary(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates channel pairs `(e, e + E/2)` of `x [B, T, H, E]` by the angles of `table`."""
    cos, sin = table
    half = x.shape[-1] // 2
    return x * cos + torch.cat([x[..., half:], x[..., :half]], dim=-1) * sin
