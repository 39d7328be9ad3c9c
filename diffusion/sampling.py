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
from .noise_levels import Grid
from .process import per_token
from .solvers import SOLVERS, begin, make_scheduler, set_steps

__all__ = ["SOLVERS", "Denoiser", "Tracks", "draw_noise", "guided_velocity", "make_scheduler", "sample", "set_steps"]
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
        noise: `{modality: [B, T, S, C]}`, standard normal.
        scheduler: of `make_scheduler`, or a flow scheduler of diffusers; it is copied per modality and left untouched.
        steps: steps from σ = 1 to σ = 0.
        guidances: their deltas are added to the conditional velocity.
        grid: cells with `known` stay what `given` says, at σ = 0; all others walk from 1; None: all are generated.
        given: `{modality: [B, T, S, C]}` clean latents of the known cells.
        progress: called with (steps done, steps).

    Returns:
        `{modality: [B, T, S, C]}` clean latents; known cells bit-identical to `given`.
    """
    schedulers = {name: copy.deepcopy(scheduler) for name in noise}
    for own in schedulers.values():
        set_steps(own, steps, next(iter(noise.values())).device)
    lead = next(iter(schedulers.values()))
    timesteps, levels = lead.timesteps, lead.sigmas.tolist()  # some timesteps are cut to integers, the levels are not
    latents = {name: _pin(name, begin(schedulers[name], value), grid, given) for name, value in noise.items()}
    memories: list[dict[str, Any]] = [{} for _ in guidances]
    for index, t in enumerate(timesteps):
        level = levels[index]
        sigma = {name: _levels(name, value, level, grid) for name, value in latents.items()}
        v = guided_velocity(denoiser, latents, sigma, level, guidances, (index, len(timesteps)), memories)
        for name, own in schedulers.items():
            stepped = own.step(v[name].float(), t, latents[name], return_dict=False)[0]
            latents[name] = _pin(name, stepped, grid, given)
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


def _levels(name: str, latents: Tensor, level: float, grid: Grid | None) -> Tensor:
    shared = torch.full(latents.shape[:2], level, device=latents.device)  # [B, T]
    if grid is None:
        return shared
    known = grid.known[name].to(latents.device)
    return torch.where(known, torch.zeros_like(shared), shared)


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
    # not a torch.Generator: on the CPU that reads the lowest 32 bits of its seed only, which two keys do not fit into
    values = np.random.default_rng((seed, *name.encode())).standard_normal(shape, dtype=np.float32)
    return torch.from_numpy(values)
