"""Walks a grid of noise levels back to clean, for several tracks at once, with the schedulers of diffusers.

Legend: `B` batch, `T` slots, `S` tokens, `C` channels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..guidance.interface import Denoiser, Guidance, WalkState
from ..modalities.clip import ClipError
from .conversion import Converted
from .noise_levels import Grid
from .process import per_token
from .solvers import SOLVERS, begin, make_scheduler, set_steps

__all__ = [
    "SOLVERS", "Denoiser", "Tracks", "draw_noise", "guided_velocity", "make_scheduler", "noise_source", "sample",
    "set_steps",
]  # fmt: skip
Tracks = dict[str, Tensor]


def sample(
    denoiser: Denoiser,
    noise: Mapping[str, Tensor],
    scheduler: Any,
    steps: int,
    guidances: Sequence[Guidance] = (),
    grid: Grid | None = None,
    given: Mapping[str, Tensor] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tracks:
    """Generates all tracks of a batch together.

    Args:
        denoiser: the network with its conditions bound; `"conditional"` is always asked for, other passes only if an
            enabled guidance names them.
        noise: what the cells begin with, `{modality: [B, T, S, C]}`: standard normal; where the grid begins below
            σ = 1, clean latents with noise of that level (`process.add_noise`).
        scheduler: of `make_scheduler`, or a flow scheduler of diffusers; it is copied per modality and left untouched.
        steps: steps from the σ at which a cell begins to σ = 0: all cells take as many, and arrive together.
        guidances: their deltas are added to the conditional velocity.
        grid: cells with `known` stay what `given` says, at σ = 0; all others walk from the grid's σ; None: all from 1.
        given: `{modality: [B, T, S, C]}` clean latents of the known cells.
        progress: called with (steps done, steps).

    Returns:
        `{modality: [B, T, S, C]}` clean latents; known cells bit-identical to `given`.

    Raises:
        ClipError: the grid begins below σ = 1, which a solver of another process can't do.
    """
    lead = copy.deepcopy(scheduler)
    set_steps(lead, steps, next(iter(noise.values())).device)
    starts = {name: _starts(name, value, grid) for name, value in noise.items()}
    solvers = {(name, at): _from(lead, at) for name, start in starts.items() for at in _levels(start)}
    timesteps, levels = lead.timesteps, lead.sigmas.tolist()  # some timesteps are cut to integers, the levels are not
    latents = dict(noise)
    for (name, _), own in solvers.items():
        latents[name] = begin(own, noise[name])
    latents = {name: _pin(name, value, grid, given) for name, value in latents.items()}
    highest = max((at for _, at in solvers), default=1.0)
    memories: list[dict[str, Any]] = [{} for _ in guidances]
    for index, t in enumerate(timesteps):
        sigma = {name: start * levels[index] for name, start in starts.items()}
        place = index, len(timesteps)
        v = guided_velocity(denoiser, latents, sigma, highest * levels[index], guidances, place, memories)
        stepped = dict(latents)
        for (name, at), own in solvers.items():
            x = own.step(v[name].float(), t, latents[name], return_dict=False)[0]
            stepped[name] = torch.where(per_token(starts[name] == at), x, stepped[name])
        latents = {name: _pin(name, value, grid, given) for name, value in stepped.items()}
        if progress is not None:
            progress(index + 1, len(timesteps))
    return latents


def guided_velocity(
    denoiser: Denoiser,
    latents: Tracks,
    sigma: Tracks,
    level: float,
    guidances: Sequence[Guidance] = (),
    step: tuple[int, int] = (0, 1),
    memories: Sequence[MutableMapping[str, Any]] | None = None,
) -> Tracks:
    """`v = v_cond + Σ delta_i`, with every pass made once however many guidances ask for it.

    Args:
        denoiser, guidances: as in `sample`.
        latents: noised, `{modality: [B, T, S, C]}`.
        sigma: `{modality: [B, T]}`.
        level: the noise level of the walk.
        step: which step this is, from 0, and of how many.
        memories: what each guidance keeps between the steps of one walk; None: nothing.
    """
    memories = [{} for _ in guidances] if memories is None else memories
    active = [(own, memory) for own, memory in zip(guidances, memories, strict=True) if own.enabled(level)]
    wanted = dict.fromkeys(name for guidance, _ in active for name in guidance.passes)
    predictions = {name: denoiser(name, latents, sigma) for name in dict.fromkeys(("conditional", *wanted))}
    v = dict(predictions["conditional"])
    for guidance, memory in active:
        state = WalkState(predictions, latents, sigma, level, denoiser, *step, memory)
        for name, delta in guidance.delta(state).items():
            v[name] = v[name] + delta
    return v


def _starts(name: str, latents: Tensor, grid: Grid | None) -> Tensor:
    """The σ at which each cell begins, 0 where it is known: `[B, T]`."""
    if grid is None:
        return torch.ones(latents.shape[:2], device=latents.device)
    known, sigma = grid.known[name].to(latents.device), grid.sigma[name].to(latents.device)
    return torch.where(known, torch.zeros_like(sigma), sigma)


def _levels(start: Tensor) -> list[float]:
    """The different σ above 0 at which cells begin."""
    return start[start > 0].unique().tolist()


def _from(lead: Any, start: float) -> Any:
    """The solver of a walk from `start` to 0: its levels are those of the walk from 1, times `start`.

    Its timesteps stay: they only say which step it is, and the network is told the level.
    """
    own = copy.deepcopy(lead)
    if start != 1.0:
        if isinstance(own, Converted):
            raise ClipError("solver: begins at noise, and can't begin at a lower σ; use unipc, dpm++, euler or heun")
        own.sigmas = own.sigmas * start
    return own


def _pin(name: str, latents: Tensor, grid: Grid | None, given: Mapping[str, Tensor] | None) -> Tensor:
    if grid is None or not bool(grid.known[name].any()):
        return latents
    if given is None or name not in given:
        raise ValueError(f"{name}: the grid calls cells known, but no latents are given for them")
    known = per_token(grid.known[name].to(latents.device))
    return torch.where(known, given[name].to(latents), latents)


def draw_noise(shapes: Mapping[str, tuple[int, ...]], seeds: Sequence[int]) -> Tracks:
    """One generator per sample and modality: the same seed gives the same noise in any batch and for any tracks.

    Args:
        shapes: `{modality: (T, S, C)}`.
        seeds: one per sample.

    Returns:
        `{modality: [B, T, S, C]}` float32 on the CPU.
    """
    return {name: torch.stack([_noise(name, shape, seed) for seed in seeds]) for name, shape in shapes.items()}


def _noise(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.from_numpy(noise_source(name, seed).standard_normal(shape, dtype=np.float32))


def noise_source(name: str, seed: int) -> np.random.Generator:
    """What the noise of one sample and modality is drawn from, slot after slot.

    Not a torch.Generator: on the CPU that reads the lowest 32 bits of its seed only, which two keys do not fit into.
    """
    return np.random.default_rng((seed, *name.encode()))
