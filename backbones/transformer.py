"""The one network: a diffusion transformer with factorized space-time attention, shared by all modalities.

The contract (nothing else knows what is inside):

    model(latents {modality: [B, T, S_m, C_m]}, sigma {modality: [B, T]}, text [B, L, text_dim], text_mask [B, L])
        -> velocity {modality: [B, T, S_m, C_m]}

`sigma` runs from 1 (pure noise) to 0 (clean), one level per cell (modality, slot); the velocity is `noise - clean`.
A modality that is not in `latents` contributes no tokens. Legend: `B` batch, `T` slots, `S` tokens per slot of all
modalities present, `M` modalities present, `N = T * S`, `D` width, `L` text tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from .experts import Experts, FeedForward
from .positions import rotary_table
from .text_pooling import TextPooling

FEED_FORWARDS = ("shared", "per_group", "per_modality", "experts")


@dataclass(frozen=True)
class Modality:
    """What the network must know of one signal.

    Args:
        name: key in the dicts of latents, e.g. `"audio"`.
        tokens: tokens per slot, `S_m`.
        channels: channels of a token, `C_m`; not more than the network's width.
        group: what belongs together, e.g. `"sensor"`; modalities of one group may share their feed-forward.
    """

    name: str
    tokens: int
    channels: int
    group: str


@dataclass(frozen=True)
class Layout:
    """Where the tokens of each modality present sit on the axis `S`, and which feed-forward is theirs (`groups`)."""

    names: tuple[str, ...]
    tokens: tuple[int, ...]
    groups: tuple[str, ...]

    def spread(self, cells: Tensor) -> Tensor:
        """What belongs to cells, `[…, M, D]`, given to each of their tokens: `[…, S, D]`.

        A concatenation of expanded views of the unbound cells: its gradient is a stack of sums, where those of indices
        are slow scatters, or as many arrays of zeros as there are cells.
        """
        if all(n == 1 for n in self.tokens):
            return cells
        parts = zip(cells.unbind(dim=-2), self.tokens, strict=True)
        return torch.cat([own[..., None, :].expand(*own.shape[:-1], n, -1) for own, n in parts], dim=-2)

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


class CounterpointBlock(nn.Module):
    """Space attention within a slot, time attention along a token, cross-attention to text, feed-forward.

    One packed sequence `[B, N, D]` goes in and out, as the hooks of diffusers expect. Modulation is adaLN-single
    (PixArt-α, arXiv:2310.00426): one projection for the network, plus a table of the block's own.

    Args:
        width, heads, text_width: of tokens, of attention, of the text's states.
        make_feed_forwards: what makes one for each name of `Layout.groups`, or one for all.
    """

    MODULATIONS = 9  # shift, scale, gate of space attention, time attention, feed-forward

    def __init__(
        self, width: int, heads: int, text_width: int, make_feed_forwards: Callable[[], nn.ModuleDict]
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.space_attn = Attention(width, heads)
        self.time_attn = Attention(width, heads)
        self.text_attn = Attention(width, heads, text_width)
        self.text_norm = nn.LayerNorm(width)
        self.ff = make_feed_forwards()
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
        balance: list[Tensor] | None = None,
    ) -> Tensor:
        """`hidden_states [B, N, D]`, text `[B, L, text_width]`, `modulation [9, B, T, M, D]` → `[B, N, D]`.

        `modulation` may be `[9, 1, 1, M, D]`, one for all slots of all samples.
        `balance` is a list that gets the load-balancing loss of experts.
        """
        tokens = sum(layout.tokens)
        slots = hidden_states.shape[1] // tokens
        x = hidden_states.unflatten(1, (slots, tokens))  # [B, T, S, D]
        own = modulation + self.table.to(modulation.dtype)[:, None, None, None]  # [9, B, T, M, D]
        mod = layout.spread(own).unbind(dim=0)  # 9 of [B, T, S, D]
        x = x + mod[2] * self._space(self._modulate(x, mod[0], mod[1]), layout, isolate)
        x = x + mod[5] * self._time(self._modulate(x, mod[3], mod[4]), rotary)
        text = self.text_attn(self._to_text(x, encoder_hidden_states).flatten(1, 2), encoder_hidden_states)  # [B, N, D]
        x = x + text.unflatten(1, (slots, tokens))
        x = x + mod[8] * self._feed_forward(self._modulate(x, mod[6], mod[7]), layout, balance)
        return x.flatten(1, 2)

    def _modulate(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return torch.addcmul(shift, self.norm(x).to(scale.dtype), 1 + scale)

    def _to_text(self, x: Tensor, context: Tensor) -> Tensor:
        """What asks the text; a context of one token gives all the same, whatever they ask."""
        return x if context.shape[1] == 1 else self.text_norm(x)

    def _space(self, x: Tensor, layout: Layout, isolate: bool) -> Tensor:
        slots = x.shape[1]
        parts = x.split(list(layout.tokens), dim=2) if isolate else (x,)
        outs = [self.space_attn(part.flatten(0, 1)).unflatten(0, (-1, slots)) for part in parts]
        return torch.cat(outs, dim=2) if isolate else outs[0]

    def _time(self, x: Tensor, rotary: Rotary) -> Tensor:
        tokens = x.shape[2]
        out = self.time_attn(x.transpose(1, 2).flatten(0, 1), rotary=rotary)  # [B·S, T, D]
        return out.unflatten(0, (-1, tokens)).transpose(1, 2)

    def _feed_forward(self, x: Tensor, layout: Layout, balance: list[Tensor] | None) -> Tensor:
        if len(self.ff) == 1:
            only = next(iter(self.ff.values()))
            return only(x, balance) if isinstance(only, Experts) else only(x)
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
        feed_forward: `"per_group"` (private to each modality group), `"per_modality"`, `"shared"`, or `"experts"`
            (a router chooses some of many for each token).
        multiple: hidden width of the feed-forward, of a token's active experts together, in units of `width`.
        slot_seconds: duration of a slot.
        process: what is noise and what is predicted, as `diffusion.process` describes it; None is flow and velocity.
        experts, active: with `feed_forward="experts"`, how many there are and how many a token passes.
        text_modulation: the prompt as a whole also modulates every block, beside the noise level.
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
        experts: int = 8,
        active: int = 2,
        text_modulation: bool = False,
    ) -> None:
        super().__init__()
        self.modalities = {m.name: m for m in (Modality(**m) for m in modalities)}
        for m in self.modalities.values():
            if m.channels > width:
                raise ValueError(f"{m.name}: {m.channels} channels a token do not fit a width of {width}")
        if feed_forward not in FEED_FORWARDS:
            raise ValueError(f"feed_forward: {feed_forward!r} is none of {', '.join(FEED_FORWARDS)}")
        self.proj_in = nn.ModuleDict({m.name: nn.Linear(m.channels, width) for m in self.modalities.values()})
        self.token_embedding = nn.ParameterDict(
            {m.name: nn.Parameter(0.02 * torch.randn(m.tokens, width)) for m in self.modalities.values()}
        )
        self.time_embedder = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.modulation = zero_(nn.Linear(width, CounterpointBlock.MODULATIONS * width))
        self.text_proj = nn.Sequential(nn.Linear(text_dim, width), nn.LayerNorm(width))
        self.text_pad = nn.Parameter(torch.randn(width))
        self.text_pool = TextPooling(text_dim, width) if text_modulation else None
        hidden = multiple * width

        def make_feed_forwards() -> nn.ModuleDict:
            if feed_forward == "experts":
                return nn.ModuleDict({"all": Experts(width, hidden, experts, active)})
            owners = dict.fromkeys(map(self._feed_forward_of, self.modalities.values()))
            return nn.ModuleDict({owner: FeedForward(width, hidden) for owner in owners})

        blocks = [CounterpointBlock(width, heads, width, make_feed_forwards) for _ in range(depth)]
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
        owners = tuple(self._feed_forward_of(m) for m in present)
        return Layout(tuple(m.name for m in present), tuple(m.tokens for m in present), owners)

    def _feed_forward_of(self, modality: Modality) -> str:
        """The name of the feed-forward that a modality's tokens pass."""
        kind = self.config["feed_forward"]
        return {"per_group": modality.group, "per_modality": modality.name}.get(kind, "all")

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
        balance: list[Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Velocity of every cell.

        Args:
            latents: `{modality: [B, T, S_m, C_m]}`, noised.
            sigma: `{modality: [B, T]}`, the noise level of every cell; `[1, 1]` where all have the same, which is
                faster.
            text: `[B, L, text_dim]`.
            text_mask: `[B, L]` bool, True where a text token stands.
            isolate: cross-modal attention off (every modality hears only itself and the text).
            balance: a list that gets each block's load-balancing loss; stays empty without experts.
        """
        return self._project_out(*self.hidden(latents, sigma, text, text_mask, isolate, balance))

    def hidden(
        self,
        latents: Mapping[str, Tensor],
        sigma: Mapping[str, Tensor],
        text: Tensor,
        text_mask: Tensor | None = None,
        isolate: bool = False,
        balance: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Layout]:
        """What the blocks make of `forward`'s arguments: tokens [B, T, S, D], embedded levels [B, T, M, D], layout."""
        layout = self.layout(latents)
        dtype = self.dtype
        x = torch.cat([self.proj_in[n](latents[n].to(dtype)) + self.token_embedding[n] for n in layout.names], dim=2)
        slots, tokens = x.shape[1], x.shape[2]
        levels = torch.stack([sigma[n] for n in layout.names], dim=-1)  # [B, T, M]
        embedded = self._embed(levels, text.to(dtype), text_mask)  # [B, T, M, D]
        modulation = self.modulation(embedded).unflatten(-1, (CounterpointBlock.MODULATIONS, -1))  # [B, T, M, 9, D]
        modulation = modulation.movedim(-2, 0).contiguous()  # [9, B, T, M, D]
        context = self.encode_text(text.to(dtype), text_mask)  # [B, L, D]
        seconds = torch.arange(slots, device=x.device) * self.config["slot_seconds"]
        head_dim = self.config["width"] // self.config["heads"]
        rotary = rotary_table(seconds, head_dim, modulation.dtype)
        x = x.flatten(1, 2)  # [B, N, D]
        for block in self.transformer_blocks:
            routed: list[Tensor] = []  # of this block alone: recomputed, it adds to a list that nobody reads any more
            args = (x, context, modulation, rotary, layout, isolate, None if balance is None else routed)
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                checkpoint: Any = self._gradient_checkpointing_func
                x = checkpoint(block, *args)
            else:
                x = block(*args)
            if balance is not None:
                balance.extend(routed)
        return x.unflatten(1, (slots, tokens)), embedded, layout

    def _embed(self, levels: Tensor, text: Tensor, mask: Tensor | None) -> Tensor:
        """What modulates: noise levels `[B, T, M]`, and with `text_modulation` the prompt, → `[B, T, M, D]`."""
        features = timestep_features(levels, 256).to(self.dtype)
        if self.text_pool is None:
            return self.time_embedder(features)
        noise = self.time_embedder[:-1](features)
        return self.time_embedder[-1](noise + self.text_pool(text, mask)[:, None, None])

    def _project_out(self, x: Tensor, embedded: Tensor, layout: Layout) -> dict[str, Tensor]:
        out = {}
        for i, (name, part) in enumerate(zip(layout.names, x.split(list(layout.tokens), dim=2), strict=True)):
            shift, scale = self.modulation_out[name](embedded[:, :, i, None]).chunk(2, dim=-1)  # [B, T, 1, D]
            out[name] = self.proj_out[name](torch.addcmul(shift, self.norm_out(part).to(shift.dtype), 1 + scale))
        return out
