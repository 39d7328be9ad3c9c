"""Clips as memory-mapped arrays: the form in which recipes read a data set.

A folder holds `video.npy` uint8 `[N, F, H, W, 3]`, `audio.npy` float16 `[N, samples]`, `sensor.npy` float32
`[N, channels, samples]` (NaN where nothing was measured) and `clips.json`, one entry per clip (captions, attributes,
events, seed, split). A track that no clip has is absent. `sensors.json` says which tracks there are, the channels,
units and rate of the sensors, and the rate of the sound (`audio_rate`, 16000 where it does not); a folder without it
has all tracks and the sensors of the physics world, `SENSORS`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..modalities.clip import GROUPS, Clip, ClipError, Track

SENSORS: dict[str, tuple[tuple[str, ...], str]] = {
    "accelerometer": (("x", "y", "z"), "m/s²"),
    "gyroscope": (("x", "y", "z"), "rad/s"),
    "force": (("z",), "N"),
}
RATES = {"video": (25.0,), "audio": (16000.0, 24000.0)}  # frames and samples a second that a data set may have
AUDIO_RATE, SENSOR_RATE = 16000, 100.0  # where nothing else is said

Sensors = Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]  # channels and their units by name


@dataclass(frozen=True)
class ClipArrays:
    """A data set on disk, opened without reading it.

    Args:
        folder: where it lies.
        video: uint8 `[N, F, H, W, 3]`, or None.
        audio: float16 `[N, samples]` in [-1, 1], or None.
        sensor: float32 `[N, channels, samples]` in physical units, NaN where nothing was measured, or None; the
            channels are those of `sensors`, one sensor after the other.
        entries: captions, attributes, events, seed and split of each clip.
        sensors: name → (channels, units), a unit per channel.
        sensor_rate: samples a second.
        audio_rate: samples a second.
    """

    folder: Path
    video: np.ndarray | None
    audio: np.ndarray | None
    sensor: np.ndarray | None
    entries: Sequence[dict[str, Any]]
    sensors: Sensors
    sensor_rate: float
    audio_rate: int = AUDIO_RATE

    def __len__(self) -> int:
        return len(self.entries)

    def sensor_values(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Samples `[stop − start, channels, samples]` of each sensor, NaN where nothing was measured."""
        values, row = {}, 0
        for name, (channels, _) in self.sensors.items():
            assert self.sensor is not None
            values[name] = np.array(self.sensor[start:stop, row : row + len(channels)])
            row += len(channels)
        return values

    def clip(self, index: int) -> Clip:
        """One clip with its tracks, masks of its sensors and true contact times."""
        entry = self.entries[index]
        sensor = {}
        for name, (values,) in self.sensor_values(index, index + 1).items():
            channels, units = self.sensors[name]
            mask = ~np.isnan(values)
            kept = None if mask.all() else mask
            sensor[name] = Track(np.where(mask, values, 0), self.sensor_rate, 0.0, channels, units, kept)
        sound = None if self.audio is None else self.audio[index, None].astype(np.float32)
        return Clip(
            audio=None if sound is None else Track(sound, float(self.audio_rate)),
            video=None if self.video is None else Track(np.array(self.video[index]), RATES["video"][0]),
            sensor=sensor,
            events=tuple(entry["events"]),
            metadata={key: value for key, value in entry.items() if key != "events"},
        )

    def __iter__(self) -> Iterator[Clip]:
        return (self.clip(i) for i in range(len(self)))


def read_arrays(folder: Path | str) -> ClipArrays:
    """Opens a folder written by `write_arrays`; what is missing is a ClipError that names the file."""
    folder = Path(folder)
    tracks, sensors, rate, audio_rate = _read_description(folder)
    for name in (*(f"{track}.npy" for track in tracks), "clips.json"):
        if not (folder / name).is_file():
            raise ClipError(f"{folder / name}: no such file; make a data set with: counterpoint data physics {folder}")
    entries = json.loads((folder / "clips.json").read_text())
    arrays = {track: np.load(folder / f"{track}.npy", mmap_mode="r")[: len(entries)] for track in tracks}
    video, audio, sensor = (arrays.get(track) for track in GROUPS)
    rows = sum(len(channels) for channels, _ in sensors.values())
    if sensor is not None and sensor.shape[1] != rows:
        raise ClipError(f"{folder / 'sensor.npy'}: {sensor.shape[1]} channels, sensors.json should describe them")
    return ClipArrays(folder, video, audio, sensor, entries, sensors, rate, audio_rate)


def audio_rate_of(folder: Path | str) -> int:
    """Samples a second of a data set's sound: what `sensors.json` says, 16000 where it doesn't."""
    return _read_description(Path(folder))[3]


def write_arrays(folder: Path | str, clips: Iterable[Clip], count: int) -> ClipArrays:
    """Writes clips, as they come, into a folder of arrays.

    The arrays are made under temporary names and renamed when all clips are in, so an interrupted run leaves no
    folder that looks complete.

    Args:
        folder: made if it does not exist; a finished data set in it is a ClipError.
        clips: `count` clips on one clock (25 fps, 16 or 24 kHz mono, sensors of one rate), all with the same tracks.
            Their captions are `captions` of the metadata, else `prompts`, else `prompt`, else one empty caption.
        count: number of clips.

    Raises:
        ClipError: a clip that doesn't fit the first one, by its number and the recording it comes from.
    """
    folder = Path(folder)
    if (folder / "clips.json").exists():
        raise ClipError(f"{folder}: holds a data set already; remove it or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.memmap] = {}
    entries: list[dict[str, Any]] = []
    first: dict[str, Any] = {}
    for index, clip in enumerate(clips):
        if index == count:
            raise ClipError(f"{folder}: more clips came than the {count} that were announced")
        where = _where(clip, index)
        description = _describe(clip, where)
        first = first or description
        _compare(description, first, where)
        values = _values(clip, first["sensors"])
        if not arrays:
            for name, value in values.items():
                path = folder / f"{name}.npy.part"
                arrays[name] = np.lib.format.open_memmap(path, "w+", value.dtype, (count, *value.shape))
        for name, value in values.items():
            if value.shape != arrays[name].shape[1:]:
                raise ClipError(f"{where}: {name} is {value.shape}, the first clip's is {arrays[name].shape[1:]}")
            arrays[name][index] = value
        entries.append({**clip.metadata, "captions": _captions(clip, where), "events": list(clip.events)})
    if len(entries) != count or not entries:
        raise ClipError(f"{folder}: {len(entries)} clips came, {count} were announced")
    for name, array in arrays.items():
        array.flush()
        os.replace(folder / f"{name}.npy.part", folder / f"{name}.npy")
    for name, content in (("sensors.json", first), ("clips.json", entries)):
        (folder / f"{name}.part").write_text(json.dumps(content))
        os.replace(folder / f"{name}.part", folder / name)
    return read_arrays(folder)


def _read_description(folder: Path) -> tuple[list[str], Sensors, float, int]:
    """Tracks, sensors, their rate and the sound's, from `sensors.json` or as in the physics world."""
    path = folder / "sensors.json"
    if not path.is_file():
        return list(GROUPS), {n: (c, (unit,) * len(c)) for n, (c, unit) in SENSORS.items()}, SENSOR_RATE, AUDIO_RATE
    try:
        content = json.loads(path.read_text())
        sensors = {n: (tuple(s["channels"]), tuple(s["units"])) for n, s in content["sensors"].items()}
        tracks = [track for track in GROUPS if track in content["tracks"]]
        return tracks, sensors, float(content["rate"]), int(content.get("audio_rate", AUDIO_RATE))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClipError(f"{path}: not a description of sensors ({error})") from None


def _where(clip: Clip, index: int) -> str:
    """The clip's number, and the recording and second that `FolderClips` cut it from."""
    source, start = clip.metadata.get("source"), clip.metadata.get("start", 0)
    return f"clip {index}" if source is None else f"clip {index} ({source} from {start} s)"


def _describe(clip: Clip, where: str) -> dict[str, Any]:
    """What all clips of a data set must share: the content of `sensors.json`."""
    for name, track in (("video", clip.video), ("audio", clip.audio)):
        if track is not None and track.rate not in RATES[name]:
            known = " or ".join(f"{rate:g}" for rate in RATES[name])
            raise ClipError(f"{where}: {name} has {track.rate:g} samples a second, expected {known}")
    if clip.audio is not None and len(clip.audio.values) != 1:
        raise ClipError(f"{where}: audio has {len(clip.audio.values)} channels, expected 1")
    sensor = {name: clip.tracks[name] for name in clip.tracks if name not in GROUPS}  # in the fixed order
    for name, track in sensor.items():
        start, one = next(iter(sensor.items()))
        if (track.rate, track.samples) != (one.rate, one.samples):
            raise ClipError(
                f"{where}: {name} has {track.samples} samples at {track.rate:g} a second, "
                f"{start} {one.samples} at {one.rate:g}"
            )
    tracks = [track for track in GROUPS if getattr(clip, track)]
    if not tracks:
        raise ClipError(f"{where}: no video, audio or sensor in it")
    rate = float(next(iter(sensor.values())).rate) if sensor else SENSOR_RATE
    sound = {} if clip.audio is None else {"audio_rate": int(clip.audio.rate)}
    channels = {name: _channels(name, track) for name, track in sensor.items()}
    return {"tracks": tracks, "rate": rate, **sound, "sensors": channels}


def _channels(name: str, track: Track) -> dict[str, list[str]]:
    """Names and units of a sensor's channels; a sensor that says neither is the built-in one of its name."""
    count = len(track.values)
    channels, unit = SENSORS.get(name, ((), ""))
    if len(channels) != count or track.names or track.units:
        channels, unit = tuple(map(str, range(count))), ""
    return {"channels": list(track.names or channels), "units": list(track.units or (unit,) * count)}


def _compare(description: dict[str, Any], first: dict[str, Any], where: str) -> None:
    """A ClipError if a clip has other tracks than the first, or sensors with other channels."""
    own, theirs = ([*(t for t in d["tracks"] if t != "sensor"), *d["sensors"]] for d in (description, first))
    for name in theirs:
        if name not in own:
            raise ClipError(f"{where}: has no {name}, the first clip has; all clips need the same tracks")
    for name in own:
        if name not in theirs:
            raise ClipError(f"{where}: has {name}, the first clip has not; all clips need the same tracks")
    for name, channels in description["sensors"].items():
        if channels != first["sensors"][name]:
            said = [", ".join(map(_label, c["channels"], c["units"])) for c in (channels, first["sensors"][name])]
            raise ClipError(f"{where}: {name} has {said[0]}, the first clip's has {said[1]}")
    for name, kind in (("sensors", "rate"), ("sound", "audio_rate")):
        own, theirs = description.get(kind, 0), first.get(kind, 0)
        if own != theirs:
            raise ClipError(f"{where}: {name} at {own:g} Hz, the first clip's at {theirs:g} Hz")


def _label(channel: str, unit: str) -> str:
    return f"{channel} [{unit}]" if unit else channel


def _captions(clip: Clip, where: str) -> list[str]:
    """The captions that the metadata hold under one of three names; without any, one empty caption."""
    prompt = clip.metadata.get("prompt", "")
    captions = clip.metadata.get("captions") or clip.metadata.get("prompts") or [prompt]
    if not isinstance(captions, (list, tuple)) or not all(isinstance(caption, str) for caption in captions):
        raise ClipError(f"{where}: captions are {captions!r}, expected a list of sentences")
    return list(captions)


def _values(clip: Clip, sensors: Iterable[str]) -> dict[str, np.ndarray]:
    """A clip's row of each array, the sensors in the order given."""
    values: dict[str, np.ndarray] = {}
    if clip.video is not None:
        values["video"] = clip.video.values
    if clip.audio is not None:
        values["audio"] = clip.audio.values[0].astype(np.float16)
    sensor = [clip.sensor[name] for name in sensors]
    if sensor:
        known = [t.values if t.mask is None else np.where(t.mask, t.values, np.nan) for t in sensor]
        values["sensor"] = np.concatenate(known).astype(np.float32)
    return values
