"""What a sentence says as a whole, for the modulation: attention with learned queries over the encoder's states.

Cross-attention lets each token look for what concerns it; tempo, key and loudness concern all tokens alike, and reach
them here directly (pooled text beside the noise level: arXiv:2212.09748, arXiv:2403.03206). The states are read before
the network's own projection and its normalization, which would drown the few channels that say what a number is worth.

Legend: `B` batch, `L` text tokens, `H` heads, `D` width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .attention import zero_


class TextPooling(nn.Module):
    """Text states `[B, L, text_dim]` → one vector `[B, D]` for each prompt; zero at first, whatever it says.

    Args:
        text_dim: channels of a text state.
        width: channels of the result, `D`.
        heads: places of the sentence that are looked at; must divide `width`.
    """

    def __init__(self, text_dim: int, width: int, heads: int = 8) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads: {heads} does not divide the width {width}")
        self.score = nn.Linear(text_dim, heads, bias=False)
        self.value = nn.Linear(text_dim, width, bias=False)
        self.mix = nn.Sequential(nn.Linear(width, width), nn.SiLU(), zero_(nn.Linear(width, width)))

    def forward(self, text: Tensor, mask: Tensor | None = None) -> Tensor:
        """`text [B, L, text_dim]`, `mask [B, L]` True where a token stands; a row without any pools to zeros."""
        score = self.score(text).float()  # [B, L, H]
        if mask is not None:
            score = score.masked_fill(~mask[..., None], torch.finfo(score.dtype).min)
        weight = score.softmax(dim=1).to(text.dtype)
        if mask is not None:
            weight = weight * mask[..., None]
        value = self.value(text).unflatten(-1, (weight.shape[-1], -1))  # [B, L, H, D / H]
        return self.mix((weight[..., None] * value).sum(dim=1).flatten(1))
