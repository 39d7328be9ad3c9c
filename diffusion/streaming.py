"""Streams: pieces of a clip as they are made, with an end or without, and a prompt that may change on the way.

A stream without an end holds the newest slots only: a window's overlap, and what the decoders look at around the next
piece. Legend: `B` batch, `T` slots.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from ..modalities.clip import ClipError
from .sampling import noise_source
from .windows import CONTEXT, Sampler, Tracks, window_grid

Tell = Callable[[int, int], None]


class Prompts:
    """The prompts of a batch, read once per window: the same ones always, or what a function says by then.

    Args:
        source: the prompts, or a function without arguments that gives the prompt of now.
    """

    def __init__(self, source: Sequence[str] | Callable[[], str]) -> None:
        self.source = source
        self.reads = 0
        self.changes: list[tuple[int, tuple[str, ...]]] = []  # (first window, prompts)

    def read(self) -> tuple[str, ...]:
        """The prompts of the next window.

        Raises:
            ClipError: the function gives something else than text.
        """
        said = self.source() if callable(self.source) else self.source
        texts = (said,) if isinstance(said, str) else tuple(said or ())
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ClipError(f"prompt: {said!r} is no text")
        if not self.changes or self.changes[-1][1] != texts:
            self.changes.append((self.reads, texts))
        self.reads += 1
        return texts

    def of(self, window: int) -> tuple[str, ...]:
        """What window `window`, from 0, was told; what was told before it is forgotten."""
        if not callable(self.source):
            return tuple(self.source)
        while len(self.changes) > 1 and self.changes[1][0] <= window:
            self.changes.pop(0)
        return self.changes[0][1] if self.changes else ("",)  # all was known until then


def window_of(slot: int, length: int) -> int:
    """The window, from 0, that makes a slot, where windows of `length` slots overlap by half."""
    return max(0, math.ceil((slot + 1 - length) / max(1, length // 2)))


class Noise:
    """Standard normal noise, slot after slot without an end: what `draw_noise` gives for any number of slots.

    Args:
        shapes: `{modality: (S, C)}`.
        seeds: one per sample.
        device: of what is drawn.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, int]], seeds: Sequence[int], device: torch.device | str = "cpu"
    ) -> None:
        self.shapes, self.device = dict(shapes), device
        self.sources = {name: [noise_source(name, seed) for seed in seeds] for name in shapes}

    def draw(self, slots: int) -> Tracks:
        """The next slots, `{modality: [B, slots, S, C]}` float32."""
        drawn = {
            name: np.stack([source.standard_normal((slots, *self.shapes[name]), np.float32) for source in sources])
            for name, sources in self.sources.items()
        }
        return {name: torch.from_numpy(values).to(self.device) for name, values in drawn.items()}


def endless(sampler: Sampler, noise: Noise, length: int) -> Iterator[tuple[int, Tracks]]:
    """Generates window after window, for ever, as `windows.slide` does.

    Args:
        sampler: generates a window.
        noise: of all slots.
        length: slots of a window; windows overlap by half.

    Yields:
        (slots that are final, the latents of the newest of them, `{modality: [B, K, S, C]}`): a window at first, later
        `hop + max(length − hop, hop + 2·CONTEXT)` at most, with `hop = length // 2`.
    """
    hop = max(1, length // 2)
    overlap = length - hop
    keep = max(overlap, hop + 2 * CONTEXT)
    latents, ready = sampler(first := noise.draw(length), None, first), length
    while True:
        yield ready, latents
        latents = {name: x[:, -keep:] for name, x in latents.items()}
        fresh = noise.draw(hop)
        part = {name: torch.cat([x[:, x.shape[1] - overlap :], fresh[name]], dim=1) for name, x in latents.items()}
        known = {name: torch.arange(length) < overlap for name in part}
        batch = next(iter(part.values())).shape[0]
        made = sampler(part, window_grid(known, batch) if overlap else None, part)
        latents = {name: torch.cat([x, made[name][:, overlap:]], dim=1) for name, x in latents.items()}
        ready += hop


def tellers(progress: Tell | None, windows: int | None) -> Iterator[Tell]:
    """A callback for each window's (steps done, steps), which tells `progress` of all `windows` together.

    Without a number of windows each is told of on its own.
    """
    for before in itertools.count():

        def tell(step: int, steps: int, before: int = before) -> None:
            if progress is not None:
                progress(*((step, steps) if windows is None else (before * steps + step, windows * steps)))

        yield tell
