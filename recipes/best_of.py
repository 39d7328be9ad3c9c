"""The best of several tries: the clip whose own tracks agree best on when something happens.

Only the clip is looked at, by the detectors of `evaluation.events`: no prompt, no network, no real clip. The tries of a
seed have seeds of their own, so the clip that is kept can be made again, alone, from the seed in its metadata.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from counterpoint.evaluation.events import clip_events
from counterpoint.evaluation.sync import agreement
from counterpoint.modalities.clip import Clip, ClipError, Clock, resample

APART = 1_000_003  # between the seeds of two tries: beyond the ranges of seeds that people ask for


def tries(seed: int, count: int) -> list[int]:
    """The seeds of `count` tries; the first is `seed` itself."""
    return [seed + APART * k for k in range(count)]


def events_of(clip: Clip, given: bool = False) -> dict[str, np.ndarray]:
    """The events of each track of a generated clip.

    Args:
        given: some track has a rate and a size of its own: events are looked for on the model's clock.
    """
    return clip_events(resample(clip, Clock(seconds=clip.duration)) if given else clip)


def agreement_of(clip: Clip, given: bool = False) -> float:
    """How well the tracks of a clip keep time with one another, 0 … 1 (`evaluation.sync.agreement`).

    Raises:
        ClipError: the clip has fewer than two of sound, video and sensors.
    """
    if sum((clip.audio is not None, clip.video is not None, bool(clip.sensor))) < 2:
        raise ClipError("best of several: a clip of one track has nothing to agree with; make two tracks or more")
    return agreement(events_of(clip, given))


def best(clips: Sequence[Clip], given: bool = False) -> Clip:
    """The clip whose tracks agree best, the first of them where several do."""
    return max(clips, key=lambda clip: agreement_of(clip, given))
