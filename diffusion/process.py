"""What is noise and what is the target: rectified flow (arXiv:2210.02747, arXiv:2209.03003).

    x_σ = (1 − σ)·x0 + σ·ε          σ = 1 is pure noise, σ = 0 is clean
    v   = dx/dσ = ε − x0            what the network predicts

Legend: `B` batch, `T` slots, `S` tokens, `C` channels. Noise levels are `[B, T]`, one per slot.
"""

from __future__ import annotations

from torch import Tensor


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
