"""Is a track in step with the others? Its likelihood given them, at every shift in time.

The track that is judged stays where it is, and the others move the other way: what is probable of it by itself is then
the same at every shift, and only how well the others explain it is left. Slots that some shift leaves without a
recording are left out at every shift.

Legend: `B` shifts, `T` slots of 0.16 s, `S` tokens, `C` channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..modalities.clip import Clip, ClipError
from ..modalities.codecs import SLOT_SECONDS, Codecs
from .conditions import Condition
from .given import Given, clip_of, group_of, runs
from .likelihood import Likelihood, Score, conditional, mutual_information

Tracks = dict[str, Tensor]
TELLING = (1.0, 3.0)
"""Logit of σ (σ from .73 to .95) between which tracks tell most of one another: none is known from itself yet."""


@dataclass(frozen=True)
class Shifted:
    """Latents of a clip, a track against the others at several shifts.

    Args:
        latents: `{modality: [B, T, S, C]}`.
        of: the modalities that are judged, the same at every shift.
        given: the others, which move.
        start: slot of the clip at which these begin.
    """

    latents: Mapping[str, Tensor]
    of: tuple[str, ...]
    given: tuple[str, ...]
    start: int

    @property
    def slots(self) -> int:
        """How many slots are judged."""
        return next(iter(self.latents.values())).shape[1]


def shifted_latents(
    clip: Clip, of: str, given: Sequence[str], shifts: Sequence[float], codecs: Codecs, seconds: float
) -> Shifted:
    """The longest stretch of slots that all tracks tell at every shift.

    Args:
        clip: with all tracks asked for.
        of: the group (`video`, `audio` or `sensor`) that is judged.
        given: the other groups, at least one.
        shifts: in seconds; a positive one has `of` later, so that the others are earlier by as much.
        codecs: of the model.
        seconds: at most so much of the clip, from its beginning.

    Raises:
        ClipError: a shift beyond the clip, a track that the model can't be told, or nothing that all tracks tell.
    """
    tracks, reach = clip.tracks, max(map(abs, shifts))
    length = min(seconds, clip.duration)
    if reach >= length:
        raise ClipError(f"shift: {reach * 1000:g} ms are no less than the {length:g} s that are judged")
    still = {name: track for name, track in tracks.items() if group_of(name) == of}
    moving = {name: track for name, track in tracks.items() if group_of(name) in given}
    judged = Condition.create(Given(clip_of(still)), codecs, seconds)
    moved = []
    for shift in shifts:
        earlier = {name: replace(track, start=track.start - shift) for name, track in moving.items()}
        moved.append(Condition.create(Given(clip_of(earlier)), codecs, seconds))
    parts = [judged, *moved]
    for group in (of, *given):
        if not any(group_of(name) == group for part in parts for name in part.known):
            raise ClipError(f"{group}: this model can't be told it; it knows {', '.join(codecs.shapes())}")
    told = np.all([cells.numpy() for part in parts for cells in part.known.values()], axis=0)  # [T]
    start, stop = max(runs(told), key=lambda run: run[1] - run[0], default=(0, 0))
    if stop == start:
        always = f" at every shift of up to {reach * 1000:g} ms" if reach > 0 else ""
        both = " and ".join((of, *given))
        raise ClipError(f"likelihood: no slot of {SLOT_SECONDS:g} s is recorded in {both}{always}")
    latents = {n: x[start:stop].expand(len(shifts), -1, -1, -1) for n, x in judged.latents.items()}
    latents |= {n: torch.stack([part.latents[n][start:stop] for part in moved]) for n in moved[0].latents}
    return Shifted(latents, tuple(judged.latents), tuple(moved[0].latents), start)


def search(
    score: Score, shifted: Shifted, batch: int = 8, progress: Callable[[int, int], None] | None = None
) -> tuple[Likelihood, Tensor]:
    """log p(track | others) at every shift, and its pointwise mutual information with them in bits, `[B]`."""
    count = next(iter(shifted.latents.values())).shape[0]
    alone = conditional(score, {n: x[:1] for n, x in shifted.latents.items()}, shifted.of)
    pieces = []
    for start in range(0, count, batch):
        own = {n: x[start : start + batch] for n, x in shifted.latents.items()}
        pieces.append(conditional(score, own, shifted.of, shifted.given))
        if progress is not None:
            progress(min(start + batch, count), count)
    errors = [piece.error for piece in pieces if piece.error is not None]
    joined = Likelihood(
        torch.cat([piece.log_prob for piece in pieces]),
        torch.cat([piece.dimensions for piece in pieces]),
        torch.cat(errors) if errors else None,
        sum(piece.evaluations for piece in pieces),
    )
    return joined, mutual_information(joined, alone)
