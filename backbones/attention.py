"""Multi-head attention as a diffusers attention module: processors and backends (xFormers, flash, flex, SDPA) plug in.

No masks anywhere: what must not be seen is not passed in (see `docs/design.md`).
Legend: `B` batch, `N` sequence, `L` context, `D` width, `H` heads, `E = D / H`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import Tensor, nn

from .positions import apply_rotary

Rotary = tuple[Tensor, Tensor]
FEW = 4  # keys, up to which products of pairs are faster than those of matrices on a CPU


class CounterpointAttnProcessor:
    """Scaled dot-product attention through diffusers' dispatcher."""

    _attention_backend = None
    _parallel_config = None

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None, rotary: Rotary | None
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if context.shape[1] == 1:  # the softmax over one key is 1: queries and keys would change nothing
            return attn.to_out(attn.to_v(context)).expand_as(hidden_states)
        query = attn.norm_q(attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1)))  # [B, N, H, E]
        key = attn.norm_k(attn.to_k(context).unflatten(-1, (attn.heads, -1)))  # [B, L, H, E]
        value = attn.to_v(context).unflatten(-1, (attn.heads, -1))  # [B, L, H, E]
        if rotary is not None:
            query, key = apply_rotary(query, rotary), apply_rotary(key, rotary)
        query, key = query.to(value.dtype), key.to(value.dtype)
        plain = self._attention_backend is None and self._parallel_config is None
        short = query.dtype == torch.bfloat16 or key.shape[1] <= FEW
        if plain and query.device.type == "cpu" and short:
            out = short_attention(query, key, value)
        else:
            out = dispatch_attention_fn(
                query, key, value, backend=self._attention_backend, parallel_config=self._parallel_config
            )
        return attn.to_out(out.flatten(2, 3))  # [B, N, D]


def short_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention for CPUs: `[B, N, H, E]`, `[B, L, H, E]` twice → `[B, N, H, E]`.

    Factorized sequences are short. With a few keys (`FEW`) every pair of query and key is multiplied on its own, in one
    array `[B, N, L, H, E]`: no matrix is so small that calling for its product takes longer than the product. With
    more keys, tens of them, it is two batched products; in bf16 PyTorch's fused kernel takes 4 to 8 times as long, most
    of it in the backward pass. In fp32 that kernel is then the faster one (`python benchmarks/attention.py`).
    """
    query = query * query.shape[-1] ** -0.5
    if key.shape[1] <= FEW:
        scores = (query[:, :, None] * key[:, None]).sum(dim=-1)  # [B, N, L, H]
        return (scores.softmax(dim=2).to(value.dtype)[..., None] * value[:, None]).sum(dim=2)
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)  # [B, H, N | L, E]
    scores = query @ key.transpose(-1, -2)  # [B, H, N, L]
    return (scores.softmax(dim=-1).to(value.dtype) @ value).transpose(1, 2)


class Attention(nn.Module, AttentionModuleMixin):
    """Self- or cross-attention with normalized queries and keys (QK-norm, arXiv:2302.05442).

    Args:
        width: channels of the queries' sequence, `D`.
        heads: number of heads; must divide `width`.
        context_width: channels of the context; None for self-attention.
    """

    _default_processor_cls = CounterpointAttnProcessor
    _available_processors: ClassVar[list[type]] = [CounterpointAttnProcessor]

    def __init__(self, width: int, heads: int, context_width: int | None = None) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads: {heads} does not divide the width {width}")
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_width or width, width, bias=False)
        self.to_v = nn.Linear(context_width or width, width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        self.norm_q = nn.LayerNorm(width // heads, bias=False)
        self.norm_k = nn.LayerNorm(width // heads, bias=False)
        processor: Any = self._default_processor_cls()
        self.set_processor(processor)

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, rotary: Rotary | None = None
    ) -> Tensor:
        """`[B, N, D]` attends to itself, or to `encoder_hidden_states [B, L, context_width]`."""
        processor: Any = self.processor  # diffusers types it as one of its own
        return processor(self, hidden_states, encoder_hidden_states, rotary)


def zero_(linear: nn.Linear) -> nn.Linear:
    """Zeroes a projection in place, so that what follows it starts as the identity of a residual branch."""
    nn.init.zeros_(linear.weight)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    return linear


def timestep_features(sigma: Tensor, features: int) -> Tensor:
    """Fourier features of noise levels: `[...]` in [0, 1] → `[..., features]` (arXiv:2006.10739)."""
    half = features // 2
    frequencies = torch.exp(torch.linspace(0.0, 6.9, half, device=sigma.device))  # 1 … 1000 radians over [0, 1]
    angles = sigma.float()[..., None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
