"""Long form: a window of the trained length slides over the grid; and clips that loop.

The windows overlap by half: what one has generated is known to the next, at σ = 0, in all modalities. The network
never sees more than a window, so its memory does not grow with the clip. Legend: `B` batch, `T` slots.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..modalities.clip import Clip, Track
from ..modalities.codecs import SLOT_SECONDS, Codecs
from .given import clip_of
from .noise_levels import Grid, condition_grid

Tracks = dict[str, Tensor]
Denoiser = Callable[[str, Tracks, Tracks], Tracks]
Sampler = Callable[[Tracks, Grid | None, Tracks], Tracks]
"""`sampler(noise, grid, given)` → clean latents, as `sampling.sample` with everything else bound."""
CONTEXT = 4  # slots on both sides that a decoder looks at beside those that are kept
BLEND = 0.01  # seconds in which the sound of one chunk goes over into the next: its decoder hears the whole chunk


def spans(slots: int, length: int, beyond: bool = True) -> list[tuple[int, int]]:
    """Windows (start, stop) of `length` slots that overlap by half and cover `slots`.

    Args:
        slots: of the clip; a clip that is not longer than a window is one.
        length: of a window.
        beyond: the last window runs past the end, so that a longer clip has the same ones; else it ends with the clip.
    """
    if slots <= length:
        return [(0, slots)]
    hop = max(1, length // 2)
    starts = [i * hop for i in range(math.ceil((slots - length) / hop) + 1)]
    if not beyond:
        starts[-1] = slots - length
    return [(start, start + length) for start in starts]


def slide(
    sampler: Sampler, noise: Tracks, known: Mapping[str, Tensor], clean: Mapping[str, Tensor],
    windows: Sequence[tuple[int, int]], start: Mapping[str, Tensor] | None = None,
) -> Iterator[tuple[int, Tracks]]:  # fmt: skip
    """Generates window after window; after each: (slots that are final, latents so far).

    Args:
        sampler: generates a window.
        noise: `{modality: [B, T, S, C]}`, what the cells begin with that are not known.
        known: `{modality: [T]}` bool, the cells that are given.
        clean: `{modality: [B, T, S, C]}` latents of the known cells.
        windows: as of `spans`.
        start: `{modality: [T]}`, the σ at which those cells begin; None: all at 1.
    """
    done = {name: cells.clone() for name, cells in known.items()}
    latents = {name: torch.where(done[name][:, None, None].to(x.device), clean[name], x) for name, x in noise.items()}
    batch = next(iter(noise.values())).shape[0]
    for begin, stop in windows:
        cells = {name: flags[begin:stop] for name, flags in done.items()}
        if not all(bool(flags.all()) for flags in cells.values()):
            part = {name: x[:, begin:stop] for name, x in latents.items()}
            levels = None if start is None else {name: level[begin:stop] for name, level in start.items()}
            told = start is not None or any(bool(flags.any()) for flags in cells.values())
            fresh = sampler(part, window_grid(cells, batch, levels) if told else None, part)
            for name, x in fresh.items():
                latents[name][:, begin:stop] = x
                done[name][begin:stop] = True
        yield stop, latents


def window_grid(known: Mapping[str, Tensor], batch: int, start: Mapping[str, Tensor] | None = None) -> Grid:
    """The grid of a window: `known` cells `{modality: [T]}` stay at σ = 0, others walk from `start`, or 1."""
    grid = condition_grid(known, batch)
    return grid if start is None else Grid({name: start[name] * s for name, s in grid.sigma.items()}, grid.known)


def busy(known: Mapping[str, Tensor], windows: Sequence[tuple[int, int]]) -> int:
    """How many of the windows of `slide` have anything to generate."""
    done, count = torch.stack(list(known.values())).all(0), 0
    for start, stop in windows:
        count += int(not done[start:stop].all())
        done[start:stop] = True
    return count


def decode_chunks(
    codecs: Codecs, progress: Iterator[tuple[int, Tracks]], names: Sequence[str], slots: float, hop: int, loop: bool
) -> Iterator[list[Clip]]:
    """Clips of `hop` slots each, as soon as their latents and those around them are final; one clip per sample.

    Args:
        codecs: decode.
        progress: (slots that are final, latents), as from `slide`; or those of the newest slots, as from `endless`.
        names: the modalities to decode.
        slots: of the whole clip; infinite if it has no end.
        hop: slots of a chunk; `slots` decodes all at once.
        loop: the last slot is followed by the first.
    """
    start, tails, leads = 0, [], []
    for ready, latents in progress:
        wanted = {name: latents[name] for name in names}
        held = next(iter(latents.values())).shape[1]
        first, total = (ready - held, math.inf) if slots == math.inf else (0, held)  # the first slot held, and all
        while start < slots and (ready >= total or min(start + hop, slots) + CONTEXT <= ready):
            stop = int(min(start + hop, slots))
            pieces = _decode(codecs, wanted, start, stop, loop, first)
            clips = [clip for clip, _, _ in pieces]
            if tails:
                clips = [_blended(clip, tail, at_start=True) for clip, tail in zip(clips, tails, strict=True)]
            tails, leads = [tail for _, _, tail in pieces], leads or [lead for _, lead, _ in pieces]
            if loop and stop == slots:
                clips = [_blended(clip, lead, at_start=False) for clip, lead in zip(clips, leads, strict=True)]
            yield clips
            start = stop


Piece = tuple[Clip, np.ndarray, np.ndarray]
"""A clip, and the sound just before and just after it, each `[1, up to BLEND · rate]`."""


def _decode(codecs: Codecs, latents: Tracks, start: int, stop: int, loop: bool, first: int = 0) -> list[Piece]:
    """Slots start … stop of clips, decoded with `CONTEXT` slots around them; `first` is that of the latents."""
    held = next(iter(latents.values())).shape[1]
    low, high = start - CONTEXT, stop + CONTEXT
    low, high = (low, high) if loop else (max(first, low), min(first + held, high))
    index = (torch.arange(low, high) - first) % held
    clips = codecs.decode({name: x[:, index.to(x.device)] for name, x in latents.items()})

    def kept(track: Track) -> Track:
        each = track.samples // (high - low)
        part = slice((start - low) * each, (stop - low) * each)
        values = track.values[part] if track.values.ndim == 4 else track.values[:, part]
        return replace(track, values=values, start=start * SLOT_SECONDS)

    def around(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        sound = np.zeros((1, 0), np.float32) if clip.audio is None else clip.audio.values
        each = sound.shape[1] // (high - low)
        blend = 0 if clip.audio is None else round(BLEND * clip.audio.rate)
        first, last = (start - low) * each, (stop - low) * each
        return sound[:, max(0, first - blend) : first], sound[:, last : last + blend]

    return [(clip_of({name: kept(track) for name, track in clip.tracks.items()}), *around(clip)) for clip in clips]


def _blended(clip: Clip, other: np.ndarray, at_start: bool) -> Clip:
    """The clip whose sound begins as `other` does, or ends as it does."""
    if clip.audio is None:
        return clip
    count = min(other.shape[1], clip.audio.samples)
    share = (np.arange(count, dtype=np.float32) + 1) / (count + 1)  # of the later one
    sound = clip.audio.values.copy()
    if at_start and count:
        sound[:, :count] = (1 - share) * other[:, :count] + share * sound[:, :count]
    elif count:
        sound[:, -count:] = (1 - share) * sound[:, -count:] + share * other[:, -count:]
    return replace(clip, audio=replace(clip.audio, values=sound))


def join(clips: Sequence[Clip]) -> Clip:
    """Clips that follow one another as one."""
    tracks = {}
    for name, first in clips[0].tracks.items():
        parts = [clip.tracks[name].values for clip in clips]
        tracks[name] = replace(first, values=np.concatenate(parts, axis=0 if first.values.ndim == 4 else 1))
    return clip_of(tracks)


def circular(denoiser: Denoiser, slots: int, length: int) -> Denoiser:
    """A denoiser for which the last slot is followed by the first.

    The network looks at windows that lie around the circle, overlapping by half, and their velocities are averaged
    with weights that fall to the ends of each window (MultiDiffusion, arXiv:2302.08113): at every seam of one window
    another one, in whose middle it lies, has the say. Costs at least two passes for one.

    Args:
        denoiser: of at most `length` slots.
        slots: of the clip, `T`.
        length: of a window.
    """
    width = min(slots, length)
    count = max(2, math.ceil(slots / max(1, width // 2)))
    rows = [(round(i * slots / count) + torch.arange(width)) % slots for i in range(count)]
    place = torch.arange(width) + 0.5
    weight = torch.minimum(place, width - place)  # [W]
    total = torch.zeros(slots)
    for row in rows:
        total.index_add_(0, row, weight)

    def denoise(name: str, latents: Tracks, sigma: Tracks) -> Tracks:
        mean = {key: torch.zeros_like(x, dtype=torch.float32) for key, x in latents.items()}
        for row in rows:
            at = row.to(next(iter(latents.values())).device)
            v = denoiser(name, {k: x[:, at] for k, x in latents.items()}, {k: s[:, at] for k, s in sigma.items()})
            for key, value in v.items():
                share = (weight / total[row]).to(value.device)[:, None, None]
                mean[key] = mean[key].index_add(1, at, value.float() * share)
        return mean

    return denoise
