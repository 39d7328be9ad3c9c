"""The grid of noise levels: one σ per cell (modality, slot). A task is nothing but a choice of grid.

Legend: `B` batch, `T` slots, `M` modalities present.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GridMixture:
    """How training draws grids: the shares need not add up to 1, they are normalized.

    Args:
        shared: one σ for all cells of a clip (joint generation).
        per_modality: one σ per modality (MoNL, arXiv:2405.13762).
        per_segment: one σ before and one after a random time.
        clean_rows: some modalities are conditions, at σ = 0 (any-to-any).
        clean_segment: a prefix, a suffix or both are conditions, in all modalities (continuation, fill, loop).
        condition_noise: half of the conditions are noised up to this σ, so that a perfect one is not the only one seen.
        location: mean of the logit of σ; positive values favour noise.
        scale: standard deviation of the logit of σ (arXiv:2403.03206, logit-normal).
        uniform: share of clips whose σ is uniform on [0, 1] instead, so that both ends are seen.
    """

    shared: float = 0.6
    per_modality: float = 0.12
    per_segment: float = 0.08
    clean_rows: float = 0.12
    clean_segment: float = 0.08
    condition_noise: float = 0.1
    location: float = 0.0
    scale: float = 1.0
    uniform: float = 0.2

    @property
    def shares(self) -> Tensor:
        """The five shares in the order of the fields above, `[5]`."""
        return torch.tensor(
            [self.shared, self.per_modality, self.per_segment, self.clean_rows, self.clean_segment], dtype=torch.float32
        )


@dataclass(frozen=True)
class Grid:
    """Noise levels and roles of all cells.

    Args:
        sigma: `{modality: [B, T]}` in [0, 1].
        known: `{modality: [B, T]}` bool; True where the cell is a condition and is not learned or generated.
    """

    sigma: Mapping[str, Tensor]
    known: Mapping[str, Tensor]


def draw_grid(names: Sequence[str], batch: int, slots: int, mixture: GridMixture, generator: torch.Generator) -> Grid:
    """Draws a training grid for each clip of a batch, on the CPU, from `generator` alone."""
    kind = torch.multinomial(mixture.shares, batch, replacement=True, generator=generator)  # [B]
    modalities = len(names)
    level = _levels((batch, modalities, 2), mixture, generator)  # [B, M, 2]: before and after a boundary
    level[kind != 1] = level[kind != 1][:, :1].expand(-1, modalities, -1)  # only kind 1 parts the modalities
    time = torch.arange(slots)
    boundary = torch.randint(1, max(slots, 2), (batch,), generator=generator)  # [B]
    after = time >= boundary[:, None]  # [B, T]
    parted = (kind == 2)[:, None] & after  # [B, T]
    sigma = torch.where(parted[:, None], level[:, :, 1:], level[:, :, :1])  # [B, M, T]
    known = torch.zeros(batch, modalities, slots, dtype=torch.bool)
    known |= ((kind == 3)[:, None] & _some_rows(batch, modalities, generator))[..., None]
    known |= ((kind == 4)[:, None] & _some_segment(batch, slots, generator))[:, None]
    lightly = torch.rand(batch, modalities, 1, generator=generator) * mixture.condition_noise
    lightly *= (torch.rand(batch, 1, 1, generator=generator) < 0.5).float()
    sigma = torch.where(known, lightly.expand_as(sigma), sigma)
    return Grid(
        {name: sigma[:, i] for i, name in enumerate(names)},
        {name: known[:, i] for i, name in enumerate(names)},
    )


def _levels(shape: tuple[int, ...], mixture: GridMixture, generator: torch.Generator) -> Tensor:
    """Logit-normal noise levels, for a share of the clips uniform ones: `[B, …]`."""
    normal = torch.sigmoid(mixture.location + mixture.scale * torch.randn(shape, generator=generator))
    flat = torch.rand(shape, generator=generator)
    choose = torch.rand(shape[0], *[1] * (len(shape) - 1), generator=generator) < mixture.uniform
    return torch.where(choose, flat, normal)


def _some_rows(batch: int, modalities: int, generator: torch.Generator) -> Tensor:
    """A random subset of rows `[B, M]`, never all of them and, where there are two or more, never none."""
    order = torch.rand(batch, modalities, generator=generator).argsort(dim=1)
    count = torch.randint(1, max(modalities, 2), (batch, 1), generator=generator)
    return (order < count) & (modalities > 1)


def _some_segment(batch: int, slots: int, generator: torch.Generator) -> Tensor:
    """A prefix, a suffix, or both, `[B, T]`; at least one slot stays unknown."""
    time = torch.arange(slots)
    cut = torch.randint(0, slots, (batch, 2), generator=generator).sort(dim=1).values  # [B, 2]
    start, end = cut[:, :1], cut[:, 1:]
    unknown = (time >= start) & (time <= end)
    which = torch.randint(0, 3, (batch, 1), generator=generator)
    unknown |= ((which == 0) & (time > end)) | ((which == 1) & (time < start))
    return ~unknown


def generation_grid(names: Sequence[str], batch: int, slots: int) -> Grid:
    """Joint generation: nothing is known, every cell starts at σ = 1."""
    return Grid(
        {name: torch.ones(batch, slots) for name in names},
        {name: torch.zeros(batch, slots, dtype=torch.bool) for name in names},
    )


def condition_grid(known: Mapping[str, Tensor], batch: int) -> Grid:
    """Generation from conditions: cells that are known stay at σ = 0, all others start at σ = 1.

    Args:
        known: `{modality: [T]}` bool, the same for every clip of the batch.
        batch: clips, `B`.
    """
    cells = {name: flags.bool().expand(batch, -1) for name, flags in known.items()}
    return Grid({name: (~flags).float() for name, flags in cells.items()}, cells)
