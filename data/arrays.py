"""Clips as memory-mapped arrays: the form in which recipes read a data set.

A folder holds `video.npy` uint8 `[N, F, H, W, 3]`, `audio.npy` float16 `[N, samples]`, `sensor.npy` float32
`[N, channels, samples]` and `clips.json`, one entry per clip (captions, attributes, events, seed, split).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..modalities.clip import Clip, ClipError, Track

SENSORS: dict[str, tuple[tuple[str, ...], str]] = {
    "accelerometer": (("x", "y", "z"), "m/s²"),
    "gyroscope": (("x", "y", "z"), "rad/s"),
    "force": (("z",), "N"),
}
RATES = {"video": 25.0, "audio": 16000.0, "sensor": 100.0}


@dataclass(frozen=True)
class ClipArrays:
    """A data set on disk, opened without reading it.

    Args:
        folder: where it lies.
        video: uint8 `[N, F, H, W, 3]`.
        audio: float16 `[N, samples]` in [-1, 1].
        sensor: float32 `[N, channels, samples]` in physical units, channels as in `SENSORS`.
        entries: captions, attributes, events, seed and split of each clip.
    """

    folder: Path
    video: np.ndarray
    audio: np.ndarray
    sensor: np.ndarray
    entries: Sequence[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.entries)

    def clip(self, index: int) -> Clip:
        """One clip with its tracks and true contact times."""
        entry = self.entries[index]
        sensor, row = {}, 0
        for name, (channels, unit) in SENSORS.items():
            values = np.array(self.sensor[index, row : row + len(channels)])
            sensor[name] = Track(values, RATES["sensor"], names=channels, units=(unit,) * len(channels))
            row += len(channels)
        return Clip(
            audio=Track(self.audio[index, None].astype(np.float32), RATES["audio"]),
            video=Track(np.array(self.video[index]), RATES["video"]),
            sensor=sensor,
            events=tuple(entry["events"]),
            metadata={key: value for key, value in entry.items() if key != "events"},
        )

    def __iter__(self) -> Iterator[Clip]:
        return (self.clip(i) for i in range(len(self)))


def read_arrays(folder: Path | str) -> ClipArrays:
    """Opens a folder written by `write_arrays`; what is missing is a ClipError that names the file."""
    folder = Path(folder)
    for name in ("video.npy", "audio.npy", "sensor.npy", "clips.json"):
        if not (folder / name).is_file():
            raise ClipError(f"{folder / name}: no such file; make a data set with: counterpoint data physics {folder}")
    video, audio, sensor = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("video", "audio", "sensor"))
    entries = json.loads((folder / "clips.json").read_text())
    return ClipArrays(folder, video[: len(entries)], audio[: len(entries)], sensor[: len(entries)], entries)


def write_arrays(folder: Path | str, clips: Iterable[Clip], count: int) -> ClipArrays:
    """Writes clips, as they come, into a folder of arrays.

    The arrays are made under temporary names and renamed when all clips are in, so an interrupted run leaves no
    folder that looks complete.

    Args:
        folder: made if it does not exist; a finished data set in it is a ClipError.
        clips: `count` clips on one clock, each with audio, video and all of `SENSORS`.
        count: number of clips.
    """
    folder = Path(folder)
    if (folder / "clips.json").exists():
        raise ClipError(f"{folder}: holds a data set already; remove it or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.memmap] = {}
    entries: list[dict[str, Any]] = []
    for index, clip in enumerate(clips):
        if index == count:
            raise ClipError(f"{folder}: more clips came than the {count} that were announced")
        values = _values(clip, index)
        if not arrays:
            for name, value in values.items():
                path = folder / f"{name}.npy.part"
                arrays[name] = np.lib.format.open_memmap(path, "w+", value.dtype, (count, *value.shape))
        for name, value in values.items():
            if value.shape != arrays[name].shape[1:]:
                raise ClipError(f"clip {index}: {name} is {value.shape}, the first clip's is {arrays[name].shape[1:]}")
            arrays[name][index] = value
        entries.append({**clip.metadata, "events": list(clip.events)})
    if len(entries) != count:
        raise ClipError(f"{folder}: {len(entries)} clips came, {count} were announced")
    for name, array in arrays.items():
        array.flush()
        os.replace(folder / f"{name}.npy.part", folder / f"{name}.npy")
    part = folder / "clips.json.part"
    part.write_text(json.dumps(entries))
    os.replace(part, folder / "clips.json")
    return read_arrays(folder)


def _values(clip: Clip, index: int) -> dict[str, np.ndarray]:
    missing = [name for name in SENSORS if name not in clip.sensor]
    if clip.video is None or clip.audio is None or missing:
        raise ClipError(f"clip {index}: needs video, audio and {', '.join(SENSORS)}")
    return {
        "video": clip.video.values,
        "audio": clip.audio.values[0].astype(np.float16),
        "sensor": np.concatenate([clip.sensor[name].values for name in SENSORS]).astype(np.float32),
    }
