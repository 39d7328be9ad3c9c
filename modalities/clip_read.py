"""Reading clips from media files (PyAV) and tables.

Every frame sits where its timestamp says (pts × time_base): variable frame rates become even, gaps in the sound
become silence with mask False, and a track that begins late keeps its start.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from av.stream import Disposition

from .clip import GROUPS, Clip, ClipError, from_comment
from .clip_decode import opened, read_audio, read_video
from .clip_table import SUFFIXES as TABLES
from .clip_table import read_table

VIDEO = (".mp4", ".mov", ".mkv", ".webm", ".m4v")
AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")


def read_clip(
    *paths: str | Path,
    tracks: Iterable[str] | None = None,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
    start: float = 0.0,
    seconds: float | None = None,
) -> Clip:
    """Reads one clip from files that share a clock; time 0 is the files' own.

    Args:
        paths: media files and tables; together they may hold each track once.
        tracks: which of "video", "audio", "sensor" to read; those must be there. None reads all there are.
        fps: frames a second of the video, straight from its timestamps; None keeps the file's own rate
            (the median one if it varies).
        size: height and width to crop and scale frames to while reading; None keeps the file's.
        start, seconds: read only this stretch of video and audio (roughly: cut exactly with `resample`).

    Raises:
        ClipError: see `Clip.read`.
    """
    if not paths:
        raise ClipError("no file to read a clip from")
    wanted = None if tracks is None else tuple(tracks)
    for name in wanted or ():
        if name not in GROUPS:
            raise ClipError(f'tracks: unknown "{name}", expected video, audio or sensor')
    window = (start, np.inf if seconds is None else start + seconds)
    clip = Clip()
    for path in map(Path, paths):
        found = read_table(check(path)) if path.suffix.lower() in TABLES else _media(path, wanted, fps, size, window)
        clip = _merge(clip, _only(found, wanted), path)
    for name in wanted or ():
        if not getattr(clip, name):
            what = "sensor track; sensors are read from .csv or .parquet" if name == "sensor" else f"{name} stream"
            raise ClipError(f"{', '.join(map(str, paths))}: no {what}")
    if wanted is None and seconds is None and not clip.tracks:
        raise ClipError(f"{paths[0]}: no video and no audio stream")
    return clip


def check(path: Path) -> Path:
    """The path, if it is a file of a kind that can be read; raises ClipError otherwise."""
    if path.suffix.lower() not in VIDEO + AUDIO + TABLES:
        kinds = " ".join(VIDEO + AUDIO + TABLES)
        raise ClipError(f'{path}: unknown kind of file "{path.suffix}", expected one of {kinds}')
    if not path.is_file():
        raise ClipError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
    return path


def end_time(path: Path) -> float:
    """Seconds from time 0 to the end of the last track of a file, as its header declares."""
    if check(path).suffix.lower() in TABLES:
        return read_table(path).duration
    with opened(check(path)) as container:
        ends = [(container.start_time or 0) / 1e6 + container.duration / 1e6] if container.duration else []
    return ends[0] if ends else read_clip(path).duration


def _media(path: Path, wanted: tuple[str, ...] | None, fps: float | None, size: Any, window: Any) -> Clip:
    with opened(check(path)) as container:
        tags = {key.lower(): text for key, text in container.metadata.items()}
        metadata, events = from_comment(tags.get("comment"))
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        video_index = streams[0].index if streams else None
        has_audio = bool(container.streams.audio)
    video = audio = None
    if video_index is not None and (wanted is None or "video" in wanted):
        video = read_video(path, video_index, fps, size, window)
    if has_audio and (wanted is None or "audio" in wanted):
        audio = read_audio(path, window)
    return Clip(audio=audio, video=video, events=events, metadata=metadata)


def _only(clip: Clip, wanted: tuple[str, ...] | None) -> Clip:
    kept = {name: getattr(clip, name) for name in GROUPS if wanted is None or name in wanted}
    return Clip(**kept, events=clip.events, metadata=clip.metadata)


def _merge(one: Clip, other: Clip, path: Path) -> Clip:
    both = sorted(set(one.tracks) & set(other.tracks))
    if both:
        raise ClipError(f"{path}: {both[0]} is in another of the files already")
    return Clip(
        audio=other.audio if one.audio is None else one.audio,
        video=other.video if one.video is None else one.video,
        sensor={**one.sensor, **other.sensor},
        events=one.events or other.events,
        metadata={**other.metadata, **one.metadata},
    )
