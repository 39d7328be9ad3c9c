"""Your own recordings: a folder with mp4, wav and csv side by side, captions in .txt or .json.

    kitchen/cup.mp4      video, with sound unless there is a cup.wav
    kitchen/cup.csv      sensors: time [s],accelerometer.x [m/s²],…
    kitchen/cup.txt      captions, one a line; or cup.json: {"prompt": "a cup falls"} (or a list of prompts)

Files of one stem are one recording and share a clock. Tracks may be missing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

from ..modalities.clip import Clip, ClipError, Clock, resample
from ..modalities.clip_read import AUDIO, VIDEO, end_time, read_clip
from ..modalities.clip_table import SUFFIXES as TABLES
from ..modalities.clip_table import read_table

_SLACK = 0.1  # seconds that may be missing at the end of a clip: the last frame's, the last packet's


@dataclass(frozen=True)
class Recording:
    """Files of one stem: `video`, `audio` (wins over the sound in the video file) and `sensor`, each optional."""

    name: str
    video: Path | None
    audio: Path | None
    sensor: Path | None
    prompts: tuple[str, ...]
    metadata: dict[str, Any]

    @property
    def files(self) -> list[Path]:
        return [f for f in (self.video, self.audio, self.sensor) if f is not None]


class FolderClips(Sequence[Clip]):
    """The clips of a folder (and of the folders in it), cut and resampled onto a clock.

    A longer recording gives consecutive clips, without its last stretch if that is shorter than a clip; a recording
    shorter than a clip gives one, with masks that are False where there was nothing. Each clip's metadata holds
    `prompt` (the first caption, if there is one), `prompts` (all), `source` (the recording) and `start` (seconds).

    Args:
        root: the folder.
        clock: what clips are resampled onto.

    Raises:
        ClipError: no recording in the folder, or a file that can't be read (named in the message).
    """

    def __init__(self, root: str | Path, clock: Clock | None = None) -> None:
        self.root, self.clock = Path(root), Clock() if clock is None else clock
        if not self.root.is_dir():
            raise ClipError(f"{root}: no such folder")
        self.recordings = _recordings(self.root)
        if not self.recordings:
            raise ClipError(f"{root}: no recordings, expected files such as .mp4, .wav or .csv")
        self._cuts = [(r, i) for r in self.recordings for i in range(self._count(r))]

    def _count(self, recording: Recording) -> int:
        end = max(end_time(file) for file in recording.files)
        return max(1, int((end + _SLACK) / self.clock.seconds))

    def __len__(self) -> int:
        return len(self._cuts)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> list[Clip]: ...
    def __getitem__(self, index: int | slice) -> Clip | list[Clip]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        recording, cut = self._cuts[index]
        return _cut(recording, cut * self.clock.seconds, self.clock)


def _cut(recording: Recording, start: float, clock: Clock) -> Clip:
    clip = Clip()
    window = {"fps": clock.fps, "size": clock.size, "start": start, "seconds": clock.seconds}
    if recording.video is not None:
        clip = read_clip(recording.video, **window)
    if recording.audio is not None:
        sound = read_clip(recording.audio, **window)
        clip = replace(clip, audio=sound.audio, metadata={**sound.metadata, **clip.metadata})
    if recording.sensor is not None:
        clip = replace(clip, sensor=_table(recording.sensor, recording.sensor.stat().st_mtime_ns).sensor)
    prompts = recording.prompts or ((clip.metadata["prompt"],) if "prompt" in clip.metadata else ())
    facts = {**clip.metadata, **recording.metadata, "prompts": list(prompts), "source": recording.name, "start": start}
    return resample(replace(clip, metadata={**facts, **({"prompt": prompts[0]} if prompts else {})}), clock, start)


@lru_cache(maxsize=8)
def _table(path: Path, changed: int) -> Clip:
    """A long table is parsed once for all its clips; `changed` is the file's time stamp."""
    return read_table(path)


def _recordings(root: Path) -> list[Recording]:
    stems: dict[str, dict[str, Path]] = {}
    for file in sorted(root.rglob("*")):
        kind = _kind(file.suffix.lower())
        if kind is None or not file.is_file() or file.name.startswith("."):
            continue
        files = stems.setdefault(file.relative_to(root).with_suffix("").as_posix(), {})
        if kind in files:
            raise ClipError(f"{file}: {files[kind].name} is there too, expected one {kind} file of this name")
        files[kind] = file
    return [_recording(n, f) for n, f in stems.items() if f.keys() & {"video", "audio", "sensor"}]


def _kind(suffix: str) -> str | None:
    groups = {"video": VIDEO, "audio": AUDIO, "sensor": TABLES, "caption": (".txt", ".json")}
    return next((kind for kind, suffixes in groups.items() if suffix in suffixes), None)


def _recording(name: str, files: dict[str, Path]) -> Recording:
    prompts, metadata = _captions(files["caption"]) if "caption" in files else ((), {})
    return Recording(name, files.get("video"), files.get("audio"), files.get("sensor"), prompts, metadata)


def _captions(path: Path) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Captions of a .txt (one a line) or .json (`{"prompt": text or list, …}`), and what else the JSON says."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".txt":
            return tuple(line.strip() for line in text.splitlines() if line.strip()), {}
        content = json.loads(text)
    except (OSError, ValueError) as error:
        raise ClipError(f"{path}: can't be read: {error}") from None
    prompt = content.pop("prompt", None) if isinstance(content, dict) else content
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, list) or not prompts or not all(isinstance(p, str) for p in prompts):
        raise ClipError(f'{path}: no captions, expected {{"prompt": "a sentence"}} or a list of sentences')
    return tuple(prompts), content if isinstance(content, dict) else {}
