"""A clip: audio, video and sensor tracks on one clock in seconds.

Shapes: audio `[channels, samples]` float32 in [-1, 1]; video `[frames, height, width, 3]` uint8 RGB;
sensor `[channels, samples]` float32 in physical units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


class ClipError(ValueError):
    """Bad input: the message is one line that names the file or field and says what would be right."""


@dataclass(frozen=True)
class Track:
    """One signal, sampled evenly: sample `i` sits at `start + i / rate` seconds.

    Args:
        values: audio `[channels, samples]` float32, video `[frames, height, width, 3]` uint8,
            sensor `[channels, samples]` float32 in the units of `units`.
        rate: samples (frames) a second.
        start: time of the first sample on the clip's clock, in seconds.
        names: one name per channel (sensor tracks), e.g. `("x", "y", "z")`.
        units: one unit per channel (sensor tracks), e.g. `("m/s²",) * 3`.
        mask: `[channels, samples]` bool, True where the value was measured; None means everywhere.
    """

    values: np.ndarray
    rate: float
    start: float = 0.0
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Clip:
    """Tracks that share one clock.

    Args:
        audio: the sound, or None.
        video: the picture, or None.
        sensor: physical sensors by name, e.g. `{"accelerometer": Track, "gyroscope": Track, "force": Track}`.
        events: known or detected contact times in seconds.
        metadata: JSON-serialisable facts (prompt, seed, settings, model).
    """

    audio: Track | None = None
    video: Track | None = None
    sensor: Mapping[str, Track] = field(default_factory=dict)
    events: tuple[float, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
