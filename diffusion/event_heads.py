"""When does something happen? Asked of the tokens inside the network, as a second thing to learn.

A contact, a stroke or a beat is in all tracks at once. Denoising alone teaches a network this agreement slowly, since
an event is a small part of a clip; heads that must read the times of events from each group's own tokens, at every
noise level, make the network carry these times from the tracks where they are clear to those where they are not yet.
The idea of a second target for the middle of a diffusion transformer is that of REPA (arXiv:2410.06940), whose targets
are another network's features. The heads are used in training alone.

Legend: `B` batch, `T` slots, `S` tokens of all modalities, `D` width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..backbones.transformer import CounterpointTransformer, Layout

BINS = 4  # of a slot: 40 ms each
RARE = 3.0  # weight of a bin with an event: most have none
DEPTH = 2 / 3  # of the blocks that the tokens have passed where they are read


def event_bins(times: Sequence[float], slots: int, slot_seconds: float) -> Tensor:
    """Where events are, `[T, BINS]` of 0 and 1; times in seconds, those outside the slots are left out."""
    bins = torch.zeros(slots * BINS)
    for time in times:
        index = math.floor(time / slot_seconds * BINS)
        if 0 <= index < len(bins):
            bins[index] = 1.0
    return bins.unflatten(0, (slots, BINS))


class EventHeads(nn.Module):
    """One head for each group of modalities, which reads the mean of the group's tokens in a slot.

    Args:
        network: whose tokens are read.
    """

    def __init__(self, network: CounterpointTransformer) -> None:
        super().__init__()
        width = network.config["width"]
        self.groups = {m.name: m.group for m in network.modalities.values()}
        self.block = max(0, round(DEPTH * len(network.transformer_blocks)) - 1)
        self.heads = nn.ModuleDict(
            {
                group: nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, BINS))
                for group in dict.fromkeys(self.groups.values())
            }
        )

    def forward(self, tokens: Tensor, layout: Layout) -> dict[str, Tensor]:
        """Logits `{group: [B, T, BINS]}` of the groups present, from tokens `[B, T, S, D]`."""
        parts: dict[str, list[Tensor]] = {}
        for name, part in zip(layout.names, tokens.split(list(layout.tokens), dim=2), strict=True):
            parts.setdefault(self.groups[name], []).append(part)
        return {group: self.heads[group](torch.cat(own, dim=2).mean(dim=2)) for group, own in parts.items()}

    def loss(self, tokens: Tensor, layout: Layout, events: Tensor) -> Tensor:
        """Mean cross-entropy over groups and bins; events `[B, T, BINS]` of 0 and 1."""
        rare = torch.tensor(RARE, device=events.device)
        losses = [
            functional.binary_cross_entropy_with_logits(logits.float(), events, pos_weight=rare)
            for logits in self(tokens, layout).values()
        ]
        return torch.stack(losses).mean()
