"""The one network: a diffusion transformer with factorized space-time attention, shared by all modalities.

The contract (nothing else knows what is inside):

    model(latents {modality: [B, T, S_m, C_m]}, sigma {modality: [B, T]}, text [B, L, text_dim], text_mask [B, L])
        -> velocity {modality: [B, T, S_m, C_m]}

`sigma` runs from 1 (pure noise) to 0 (clean), one level per cell (modality, slot); the velocity is `noise - clean`.
A modality that is not in `latents` contributes no tokens. Legend: `B` batch, `T` slots, `S` tokens per slot of all
modalities present, `M` modalities present, `N = T * S`, `D` width, `L` text tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.attention import AttentionMixin
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from .attention import Attention, Rotary, timestep_features, zero_
from .positions import rotary_table


@dataclass(frozen=True)
class Modality:
    """What the network must know of one signal.

    Args:
        name: key in the dicts of latents, e.g. `"audio"`.
        tokens: tokens per slot, `S_m`.
        channels: channels of a token, `C_m`; not more than the network's width.
        group: modalities of one group share their feed-forward, e.g. `"sensor"`.
    """

    name: str
    tokens: int
    channels: int
    group: str


@dataclass(frozen=True)
class Layout:
    """Where the tokens of each modality present sit on the axis `S`."""

    names: tuple[str, ...]
    tokens: tuple[int, ...]
    groups: tuple[str, ...]

    def spread(self, cells: Tensor) -> Tensor:
        """What belongs to cells, `[…, M, D]`, given to each of their tokens: `[…, S, D]`.

        A concatenation of expanded views: its gradient is a sum, where that of an index is a slow scatter on CPUs.
        """
        shape = cells.shape[:-2]
        parts = [cells[..., i, None, :].expand(*shape, n, cells.shape[-1]) for i, n in enumerate(self.tokens)]
        return torch.cat(parts, dim=-2)

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Neighbouring modalities of one group merged: (group, tokens) in order."""
        merged: list[tuple[str, int]] = []
        for group, tokens in zip(self.groups, self.tokens, strict=True):
            if merged and merged[-1][0] == group:
                merged[-1] = (group, merged[-1][1] + tokens)
            else:
                merged.append((group, tokens))
        return merged


class FeedForward(nn.Module):
    """Two-layer perceptron with a tanh-approximated GELU."""

    def __init__(self, width: int, multiple: int) -> None:
        super().__init__()
        self.proj_in = nn.Linear(width, multiple * width)
        self.proj_out = zero_(nn.Linear(multiple * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.proj_out(nn.functional.gelu(self.proj_in(x), approximate="tanh"))


class CounterpointBlock(nn.Module):
    """Space attention within a slot, time attention along a token, cross-attention to text, feed-forward.

    One packed sequence `[B, N, D]` goes in and out, as the hooks of diffusers expect. Modulation is adaLN-single
    (PixArt-α, arXiv:2310.00426): one projection for the network, plus a table of the block's own.
    """

    MODULATIONS = 9  # shift, scale, gate of space attention, time attention, feed-forward

    def __init__(self, width: int, heads: int, text_width: int, groups: tuple[str, ...], multiple: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.space_attn = Attention(width, heads)
        self.time_attn = Attention(width, heads)
        self.text_attn = Attention(width, heads, text_width)
        self.text_norm = nn.LayerNorm(width)
        self.ff = nn.ModuleDict({group: FeedForward(width, multiple) for group in groups})
        self.table = nn.Parameter(torch.randn(self.MODULATIONS, width) / width**0.5)
        zero_(self.text_attn.to_out)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        modulation: Tensor,
        rotary: Rotary,
        layout: Layout,
        isolate: bool = False,
    ) -> Tensor:
        """`hidden_states [B, N, D]`, text `[B, L, text_width]`, `modulation [9, B, T, M, D]` → `[B, N, D]`."""
        slots, tokens = modulation.shape[2], sum(layout.tokens)
        x = hidden_states.unflatten(1, (slots, tokens))  # [B, T, S, D]
        own = modulation + self.table.to(modulation.dtype)[:, None, None, None]  # [9, B, T, M, D]
        mod = layout.spread(own).unbind(dim=0)  # 9 of [B, T, S, D]
        x = x + mod[2] * self._space(self._modulate(x, mod[0], mod[1]), layout, isolate)
        x = x + mod[5] * self._time(self._modulate(x, mod[3], mod[4]), rotary)
        text = self.text_attn(self.text_norm(x).flatten(1, 2), encoder_hidden_states)  # [B, N, D]
        x = x + text.unflatten(1, (slots, tokens))
        x = x + mod[8] * self._feed_forward(self._modulate(x, mod[6], mod[7]), layout)
        return x.flatten(1, 2)

    def _modulate(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return torch.addcmul(shift, self.norm(x).to(scale.dtype), 1 + scale)

    def _space(self, x: Tensor, layout: Layout, isolate: bool) -> Tensor:
        slots = x.shape[1]
        parts = x.split(list(layout.tokens), dim=2) if isolate else (x,)
        outs = [self.space_attn(part.flatten(0, 1)).unflatten(0, (-1, slots)) for part in parts]
        return torch.cat(outs, dim=2) if isolate else outs[0]

    def _time(self, x: Tensor, rotary: Rotary) -> Tensor:
        tokens = x.shape[2]
        out = self.time_attn(x.transpose(1, 2).flatten(0, 1), rotary=rotary)  # [B·S, T, D]
        return out.unflatten(0, (-1, tokens)).transpose(1, 2)

    def _feed_forward(self, x: Tensor, layout: Layout) -> Tensor:
        if len(self.ff) == 1:
            return next(iter(self.ff.values()))(x)
        runs = layout.runs
        parts = x.split([tokens for _, tokens in runs], dim=2)
        return torch.cat([self.ff[group](part) for (group, _), part in zip(runs, parts, strict=True)], dim=2)


class CounterpointTransformer(ModelMixin, ConfigMixin, AttentionMixin, PeftAdapterMixin, CacheMixin):
    """Denoises video, audio and sensors together.

    Args:
        modalities: one mapping per signal with the fields of `Modality`.
        width: channels of a token inside the network, `D`.
        depth: number of blocks.
        heads: attention heads.
        text_dim: channels of the text encoder's token states.
        feed_forward: `"per_group"` (private to each modality group) or `"shared"`.
        multiple: hidden width of the feed-forward in units of `width`.
        slot_seconds: duration of a slot.
        process: what is noise and what is predicted, as `diffusion.process` describes it; None is flow and velocity.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["CounterpointBlock"]  # noqa: RUF012 (diffusers reads plain lists)
    _repeated_blocks = ["CounterpointBlock"]  # noqa: RUF012
    _skip_layerwise_casting_patterns = ["norm", "table"]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        modalities: list[dict[str, Any]],
        width: int = 256,
        depth: int = 6,
        heads: int = 4,
        text_dim: int = 384,
        feed_forward: str = "per_group",
        multiple: int = 4,
        slot_seconds: float = 0.16,
        process: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.modalities = {m.name: m for m in (Modality(**m) for m in modalities)}
        for m in self.modalities.values():
            if m.channels > width:
                raise ValueError(f"{m.name}: {m.channels} channels a token do not fit a width of {width}")
        if feed_forward not in ("per_group", "shared"):
            raise ValueError(f"feed_forward: {feed_forward!r} is not 'per_group' or 'shared'")
        all_groups = tuple(dict.fromkeys(m.group for m in self.modalities.values()))
        groups = all_groups if feed_forward == "per_group" else ("all",)
        self.proj_in = nn.ModuleDict({m.name: nn.Linear(m.channels, width) for m in self.modalities.values()})
        self.token_embedding = nn.ParameterDict(
            {m.name: nn.Parameter(0.02 * torch.randn(m.tokens, width)) for m in self.modalities.values()}
        )
        self.time_embedder = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.modulation = zero_(nn.Linear(width, CounterpointBlock.MODULATIONS * width))
        self.text_proj = nn.Sequential(nn.Linear(text_dim, width), nn.LayerNorm(width))
        self.text_pad = nn.Parameter(torch.randn(width))
        blocks = [CounterpointBlock(width, heads, width, groups, multiple) for _ in range(depth)]
        self.transformer_blocks = nn.ModuleList(blocks)
        self.norm_out = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation_out = nn.ModuleDict(
            {m.name: zero_(nn.Linear(width, 2 * width)) for m in self.modalities.values()}
        )
        self.proj_out = nn.ModuleDict({m.name: zero_(nn.Linear(width, m.channels)) for m in self.modalities.values()})
        self.gradient_checkpointing = False

    @staticmethod
    def describe(modalities: list[Modality]) -> list[dict[str, Any]]:
        """The `modalities` argument as JSON."""
        return [asdict(m) for m in modalities]

    def layout(self, latents: Mapping[str, Tensor]) -> Layout:
        """Order and sizes of the modalities present; unknown names are a ValueError."""
        unknown = set(latents) - set(self.modalities)
        if unknown or not latents:
            known = ", ".join(self.modalities)
            raise ValueError(f"latents: {sorted(unknown) or 'none given'}; this model knows {known}")
        present = [m for m in self.modalities.values() if m.name in latents]
        return Layout(*(tuple(getattr(m, key) for m in present) for key in ("name", "tokens", "group")))

    def encode_text(self, text: Tensor, mask: Tensor | None) -> Tensor:
        """Text states `[B, L, text_dim]` → `[B, L, D]`; where `mask` is False a learned padding token stands.

        A prompt that is absent is a row of padding: no attention mask is needed, and L is whatever was padded to.
        """
        states = self.text_proj(text)
        return states if mask is None else torch.where(mask[..., None], states, self.text_pad.to(states.dtype))

    def forward(
        self,
        latents: Mapping[str, Tensor],
        sigma: Mapping[str, Tensor],
        text: Tensor,
        text_mask: Tensor | None = None,
        isolate: bool = False,
    ) -> dict[str, Tensor]:
        """Velocity of every cell.

        Args:
            latents: `{modality: [B, T, S_m, C_m]}`, noised.
            sigma: `{modality: [B, T]}`, the noise level of every cell.
            text: `[B, L, text_dim]`.
            text_mask: `[B, L]` bool, True where a text token stands.
            isolate: cross-modal attention off (every modality hears only itself and the text).
        """
        return self._project_out(*self.hidden(latents, sigma, text, text_mask, isolate))

    def hidden(
        self,
        latents: Mapping[str, Tensor],
        sigma: Mapping[str, Tensor],
        text: Tensor,
        text_mask: Tensor | None = None,
        isolate: bool = False,
    ) -> tuple[Tensor, Tensor, Layout]:
        """What the blocks make of `forward`'s arguments: tokens [B, T, S, D], embedded levels [B, T, M, D], layout."""
        layout = self.layout(latents)
        dtype = self.dtype
        x = torch.cat([self.proj_in[n](latents[n].to(dtype)) + self.token_embedding[n] for n in layout.names], dim=2)
        slots, tokens = x.shape[1], x.shape[2]
        levels = torch.stack([sigma[n] for n in layout.names], dim=-1)  # [B, T, M]
        embedded = self.time_embedder(timestep_features(levels, 256).to(dtype))  # [B, T, M, D]
        modulation = self.modulation(embedded).unflatten(-1, (CounterpointBlock.MODULATIONS, -1))  # [B, T, M, 9, D]
        modulation = modulation.movedim(-2, 0).contiguous()  # [9, B, T, M, D]
        context = self.encode_text(text.to(dtype), text_mask)  # [B, L, D]
        seconds = torch.arange(slots, device=x.device) * self.config["slot_seconds"]
        head_dim = self.config["width"] // self.config["heads"]
        rotary = rotary_table(seconds, head_dim, modulation.dtype)
        x = x.flatten(1, 2)  # [B, N, D]
        for block in self.transformer_blocks:
            args = (x, context, modulation, rotary, layout, isolate)
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                checkpoint: Any = self._gradient_checkpointing_func
                x = checkpoint(block, *args)
            else:
                x = block(*args)
        return x.unflatten(1, (slots, tokens)), embedded, layout

    def _project_out(self, x: Tensor, embedded: Tensor, layout: Layout) -> dict[str, Tensor]:
        out = {}
        for i, (name, part) in enumerate(zip(layout.names, x.split(list(layout.tokens), dim=2), strict=True)):
            shift, scale = self.modulation_out[name](embedded[:, :, i, None]).chunk(2, dim=-1)  # [B, T, 1, D]
            out[name] = self.proj_out[name](torch.addcmul(shift, self.norm_out(part).to(shift.dtype), 1 + scale))
        return out
