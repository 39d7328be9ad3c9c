"""What is given: tracks from files or from memory, and the stretches of time in which they are known.

A *stretch* is a pair of seconds (from, to) on the clip's clock. A *cell* is a slot of 0.16 s of one modality; it is
known when the track was recorded all through it, inside a known stretch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..modalities.clip import GROUPS, SENSORS, Clip, ClipError, Track
from ..modalities.codecs import SLOT_SECONDS

Stretch = tuple[float, float]
EDGE = SLOT_SECONDS / 2  # a track that begins this late or ends this early still counts as covering the clip
TINY = 1e-6  # seconds


def slots_of(seconds: float) -> int:
    """Whole slots that cover a duration."""
    return max(1, -int(-(seconds - TINY) // SLOT_SECONDS))


@dataclass(frozen=True)
class Given:
    """The given tracks of a clip.

    Args:
        clip: the tracks, at their own rates, sizes and units; time 0 is that of the clip to make.
        files: where they came from: `{"path": …, "tracks": [group or sensor, …], "sha256": …}`.
        known: the stretches in which they are known; None is wherever they were recorded.
    """

    clip: Clip
    files: tuple[Mapping[str, Any], ...] = ()
    known: tuple[Stretch, ...] | None = None

    def __post_init__(self) -> None:
        if not self.clip.tracks:
            raise ClipError("given: no track in it")
        for start, stop in self.known or ():
            if not 0 <= start < stop:
                raise ClipError(f"known: {start:g} to {stop:g} s is no stretch of time")

    @classmethod
    def read(
        cls, source: Given | Clip | str | Path | Mapping[str, Any], known: Sequence[Stretch] | None = None
    ) -> Given:
        """What `given=` of the pipeline takes.

        Args:
            source: a clip, a file with all its tracks, or both by name: `{"video": "in.mp4", "force": Track(…)}`.
            known: replaces the stretches in which the tracks are known.

        Raises:
            ClipError: an unknown track, a file without it, or a track given twice.
        """
        if isinstance(source, str | Path):
            source = cls.of_files([(None, Path(source))])
        elif isinstance(source, Clip):
            source = cls(source)
        elif isinstance(source, Mapping):
            files = [(name, Path(v)) for name, v in source.items() if isinstance(v, str | Path)]
            tracks = {name: value for name, value in source.items() if not isinstance(value, str | Path)}
            source = cls._joined([cls._track(name, track) for name, track in tracks.items()] + cls._read(files))
        return source if known is None else replace(source, known=tuple((float(a), float(b)) for a, b in known))

    @classmethod
    def of_files(cls, files: Sequence[tuple[str | Sequence[str] | None, Path]]) -> Given:
        """Tracks of files: (groups or sensors, path); None instead of a name takes all tracks that the file has."""
        return cls._joined(cls._read(files))

    @classmethod
    def _read(cls, files: Sequence[tuple[str | Sequence[str] | None, Path]]) -> list[Given]:
        return [cls._file(name, path) for name, path in files]

    @classmethod
    def _track(cls, name: str, track: Any) -> Given:
        if not isinstance(track, Track):
            raise ClipError(f"given: {name} is a {type(track).__name__}, expected a Track or a file")
        if name == "sensor":
            raise ClipError('given: "sensor" is a group; name the sensor, e.g. "accelerometer"')
        return cls(clip_of({name: track}))

    @classmethod
    def _file(cls, wanted: str | Sequence[str] | None, path: Path) -> Given:
        names = None if wanted is None else [wanted] if isinstance(wanted, str) else list(wanted)
        groups = names and list(dict.fromkeys(name if name in GROUPS else "sensor" for name in names))
        tracks = Clip.read(path, tracks=groups).tracks
        for name in names or ():
            if name not in GROUPS and name not in tracks:
                raise ClipError(f"{path}: no sensor {name}; it has {', '.join(tracks)}")
        if names is not None:
            tracks = {n: track for n, track in tracks.items() if n in names or group_of(n) in names}
        held = list(dict.fromkeys(group_of(n) for n in tracks)) if names is None else names
        return cls(clip_of(tracks), ({"path": str(path), "tracks": held, "sha256": sha256(path)},))

    @classmethod
    def _joined(cls, parts: Sequence[Given]) -> Given:
        tracks: dict[str, Track] = {}
        for part in parts:
            twice = sorted(set(tracks) & set(part.clip.tracks))
            if twice:
                raise ClipError(f"given: {twice[0]} is given twice")
            tracks |= part.clip.tracks
        if not tracks:
            raise ClipError("given: no track in it")
        return cls(clip_of(tracks), tuple(record for part in parts for record in part.files))

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups (`video`, `audio`, `sensor`) of which something is given."""
        return tuple(dict.fromkeys(group_of(name) for name in self.clip.tracks))

    @property
    def seconds(self) -> float:
        """To the end of the last track; a clip of nearly whole slots counts as whole ones."""
        slots = max(1, round(self.clip.duration / SLOT_SECONDS))
        whole = slots * SLOT_SECONDS
        return round(whole if abs(self.clip.duration - whole) <= 0.02 else self.clip.duration, 6)

    def finished(self, seconds: float) -> tuple[str, ...]:
        """The groups whose given tracks are known all through a clip of this length."""
        known = {n: bool(known_cells(t, seconds, self.known).all()) for n, t in self.clip.tracks.items()}
        return tuple(g for g in self.groups if all(whole for n, whole in known.items() if group_of(n) == g))

    def check(self, tracks: Iterable[str], seconds: float) -> None:
        """Raise ClipError if a track asked for is given whole, as far as that can be told without a model."""
        everything = set(SENSORS) <= set(self.clip.sensor)
        for group in self.finished(seconds):
            if group in tracks and (group != "sensor" or everything):
                raise given_and_made(group)


def given_and_made(group: str) -> ClipError:
    """The error of a track that is given and generated at once."""
    return ClipError(f"tracks: {group} is given, and can't be generated as well; leave it out, or give a part of it")


def group_of(name: str) -> str:
    """`video`, `audio`, or `sensor` for any sensor."""
    return name if name in ("video", "audio") else "sensor"


def clip_of(tracks: Mapping[str, Track]) -> Clip:
    """A clip of tracks by modality."""
    sensor = {name: track for name, track in tracks.items() if group_of(name) == "sensor"}
    return Clip(audio=tracks.get("audio"), video=tracks.get("video"), sensor=sensor)


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def without(stretches: Sequence[Stretch], seconds: float = math.inf) -> tuple[Stretch, ...]:
    """What is left of 0 … `seconds` without the stretches: `without([(0.8, 1.6)])` → (0, 0.8), (1.6, inf)."""
    left, begin = [], 0.0
    for start, stop in sorted(stretches):
        left += [(begin, start)] if start > begin else []
        begin = max(begin, stop)
    return (*left, (begin, seconds)) if begin < seconds else tuple(left)


def known_cells(track: Track, seconds: float, stretches: Sequence[Stretch] | None = None) -> np.ndarray:
    """Which slots of a clip of this length the track tells: bool `[T]`.

    A slot is known if the track was measured all through it and it lies inside one of the stretches. A track that
    begins or ends less than half a slot inside the clip is held there.
    """
    slots = slots_of(seconds)
    edges = np.minimum(np.arange(slots + 1) * SLOT_SECONDS, seconds)  # [T + 1]
    begin = 0.0 if track.start <= EDGE else track.start
    end = seconds if track.end >= seconds - EDGE else track.end
    known = _within(edges, begin, end)
    if stretches is not None:
        known &= np.any([_within(edges, start, stop) for start, stop in stretches], axis=0)
    if track.mask is not None:
        lost = ~(track.mask if track.mask.ndim == 1 else track.mask.all(0))  # [samples]
        cells = np.floor((track.times()[lost] + TINY) / SLOT_SECONDS).astype(int)
        known[cells[(cells >= 0) & (cells < slots)]] = False
    return known


def _within(edges: np.ndarray, start: float, stop: float) -> np.ndarray:
    return (edges[:-1] >= start - TINY) & (edges[1:] <= stop + TINY)


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """The stretches `[start, stop)` of a bool array `[N]` that are True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
