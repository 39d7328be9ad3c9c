"""A clip: audio, video and sensor tracks on one clock in seconds.

Shapes: audio `[channels, samples]` float32 in [-1, 1]; video `[frames, height, width, 3]` uint8 RGB;
sensor `[channels, samples]` float32 in physical units. Reading, writing, resampling and drawing live in
`clip_read`, `clip_write`, `clip_resample` and `overview`, and are imported where they are used.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

GROUPS = ("video", "audio", "sensor")
SENSORS = ("accelerometer", "gyroscope", "force")  # in this order, then any other


class ClipError(ValueError):
    """Bad input: the message is one line that names the file or field and says what would be right."""


@dataclass(frozen=True)
class Clock:
    """The times at which a model samples a clip.

    Args:
        seconds: length.
        fps: video frames a second.
        audio_rate: audio samples a second (mono).
        sensor_rate: samples a second of every sensor.
        size: height and width of a frame in pixels.
    """

    seconds: float = 2.56
    fps: float = 25
    audio_rate: int = 16000
    sensor_rate: float = 100
    size: tuple[int, int] = (64, 64)

    def __post_init__(self) -> None:
        for name in ("seconds", "fps", "audio_rate", "sensor_rate"):
            if not getattr(self, name) > 0:
                raise ClipError(f"clock: {name} is {getattr(self, name)}, expected more than 0")
        if min(self.size) < 1:
            raise ClipError(f"clock: size is {self.size}, expected height and width of at least 1")

    def count(self, rate: float) -> int:
        """Samples in the clip at `rate` a second."""
        return round(self.seconds * rate)


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
        mask: `[channels, samples]` (video: `[frames]`) bool, True where the value was measured; None means
            everywhere. What was not measured is silence, the nearest frame, or 0.

    Raises:
        ClipError: a rate that is not positive, or a mask, names or units that don't fit the values.
    """

    values: np.ndarray
    rate: float
    start: float = 0.0
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.rate) and self.rate > 0):
            raise ClipError(f"track: rate is {self.rate}, expected samples a second, more than 0")
        if not np.isfinite(self.start):
            raise ClipError(f"track: start is {self.start}, expected seconds")
        if self.values.ndim not in (2, 4):
            raise ClipError(f"track: shape is {self.values.shape}, expected [channels, samples] or [frames, H, W, 3]")
        expected = self.values.shape if self.values.ndim == 2 else self.values.shape[:1]
        if self.mask is not None and (self.mask.shape != expected or self.mask.dtype != np.bool_):
            raise ClipError(f"track: mask is {self.mask.dtype} {self.mask.shape}, expected bool {expected}")
        for what in ("names", "units"):
            if len(getattr(self, what)) not in (0, self.values.shape[0]):
                raise ClipError(f"track: {len(getattr(self, what))} {what} for {self.values.shape[0]} channels")

    @property
    def samples(self) -> int:
        """Samples per channel, or frames."""
        return self.values.shape[0] if self.values.ndim == 4 else self.values.shape[1]

    @property
    def duration(self) -> float:
        """Seconds from the first sample to the end of the last."""
        return self.samples / self.rate

    @property
    def end(self) -> float:
        """Time on the clip's clock at which the last sample ends."""
        return self.start + self.duration

    def times(self) -> np.ndarray:
        """Time of every sample on the clip's clock, float64 `[samples]`."""
        return self.start + np.arange(self.samples) / self.rate


@dataclass(frozen=True)
class Clip:
    """Tracks that share one clock.

    Args:
        audio: the sound, or None.
        video: the picture, or None.
        sensor: physical sensors by name, e.g. `{"accelerometer": Track, "gyroscope": Track, "force": Track}`.
        events: known or detected contact times in seconds.
        metadata: JSON-serialisable facts (prompt, seed, settings, model).

    Raises:
        ClipError: a track of the wrong shape or type, or with values that are not finite.
    """

    audio: Track | None = None
    video: Track | None = None
    sensor: Mapping[str, Track] = field(default_factory=dict)
    events: tuple[float, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.video is not None:
            _check_video(self.video)
        if self.audio is not None:
            _check_signal("audio", self.audio, "samples")
        for name, track in self.sensor.items():
            if name in GROUPS:
                raise ClipError(f"sensor: {name!r} can't be the name of a sensor")
            _check_signal(name, track, "values")

    @property
    def tracks(self) -> dict[str, Track]:
        """Every track that is there, by modality, in the order video, audio, sensors."""
        named = {"video": self.video, "audio": self.audio}
        order = [*(s for s in SENSORS if s in self.sensor), *(s for s in self.sensor if s not in SENSORS)]
        return {k: t for k, t in named.items() if t is not None} | {s: self.sensor[s] for s in order}

    @property
    def duration(self) -> float:
        """Seconds from 0 on the clock to the end of the last track."""
        return max((t.end for t in self.tracks.values()), default=0.0)

    @classmethod
    def read(cls, *paths: str | Path, tracks: Iterable[str] | None = None) -> Clip:
        """Reads one clip from files that share a clock, e.g. `Clip.read("drop.mp4", "drop.csv")`.

        Args:
            paths: mp4, mov, mkv, webm, wav, flac, mp3, ogg, csv or parquet.
            tracks: which of "video", "audio" and "sensor" to read; those must be there. None reads all there are.

        Raises:
            ClipError: a file that is missing, of an unknown kind, corrupt or empty, or lacks a track asked for.
        """
        from .clip_read import read_clip

        return read_clip(*paths, tracks=tracks)

    def save(self, path: str | Path, overwrite: bool = False) -> list[Path]:
        """Writes the clip; all files appear together or not at all.

        `drop.mp4` (mov, mkv, webm) writes drop.mp4, drop.csv (sensors) and drop.png (overview); `drop.wav` (flac,
        mp3) the audio alone; `drop.csv` (parquet) the sensors alone; `drop.png` the overview alone.

        Returns:
            The files written, the one asked for first.

        Raises:
            ClipError: a file is there already and `overwrite` is False, or the clip has nothing for this kind of file.
        """
        from .clip_write import write_clip

        return write_clip(self, path, overwrite=overwrite)


def resample(clip: Clip, clock: Clock | None = None, start: float = 0.0) -> Clip:
    """The part of `clip` from `start` on, sampled on `clock`: see `clip_resample.resample`."""
    from .clip_resample import resample

    return resample(clip, Clock() if clock is None else clock, start)


def comment(clip: Clip) -> str:
    """Metadata and events as one line of JSON: what files carry under `comment`.

    Raises:
        ClipError: metadata that JSON can't hold.
    """
    events = {"events": [float(t) for t in clip.events]} if clip.events else {}
    try:
        return json.dumps({**clip.metadata, **events}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ClipError(f"metadata: can't be kept as JSON: {error}") from None


def from_comment(text: str | None) -> tuple[dict[str, Any], tuple[float, ...]]:
    """What `comment` wrote → metadata and events; any other text becomes `{"comment": text}`."""
    if text is None:
        return {}, ()
    try:
        metadata = json.loads(text)
        events = tuple(float(t) for t in metadata.pop("events", ()))
    except (ValueError, TypeError, AttributeError):
        return {"comment": text}, ()
    return metadata, events


def _check_video(track: Track) -> None:
    v = track.values
    if v.ndim != 4 or v.shape[-1] != 3 or v.dtype != np.uint8:
        raise ClipError(f"video: values are {v.dtype} {v.shape}, expected uint8 [frames, height, width, 3]")
    if v.size == 0:
        raise ClipError(f"video: shape is {v.shape}, expected at least one frame")


def _check_signal(name: str, track: Track, noun: str) -> None:
    """Audio must be finite everywhere, a sensor wherever its mask says that it was measured."""
    v = track.values
    if v.ndim != 2 or not np.issubdtype(v.dtype, np.floating):
        raise ClipError(f"{name}: values are {v.dtype} {v.shape}, expected float32 [channels, samples]")
    if v.size == 0:
        raise ClipError(f"{name}: shape is {v.shape}, expected at least one sample")
    if np.isfinite(v).all():
        return
    bad = ~np.isfinite(v) if name == "audio" or track.mask is None else ~np.isfinite(v) & track.mask
    for kind, found in (("NaN", np.isnan(v) & bad), ("infinite", np.isinf(v) & bad)):
        n = int(found.sum())
        if n:
            hint = "" if name == "audio" or kind != "NaN" else "; the mask must be False where nothing was measured"
            raise ClipError(f"{name}: {n} {noun if n > 1 else noun[:-1]} {'are' if n > 1 else 'is'} {kind}{hint}")
