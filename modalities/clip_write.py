"""Writing clips: media files through PyAV, sensors as a table, the overview as a picture.

Everything is written under a temporary name in the target's folder first, then renamed together.
"""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from .clip import Clip, ClipError, Track, comment
from .clip_decode import END_TAG
from .clip_resample import to_rate
from .clip_table import SUFFIXES as TABLES
from .clip_table import write_table

# crf 16: visually lossless; no B-frames, so that Matroska needs no shift of the timestamps
_X264 = {"crf": "16", "preset": "medium", "bf": "0"}
_VP9 = {"crf": "18", "b": "0", "deadline": "good", "cpu-used": "4"}
_FAST = {"movflags": "+faststart"}
# suffix: format, video codec and its options, audio codec, options of the container
_VIDEO = {
    ".mp4": ("mp4", "libx264", _X264, "aac", _FAST),
    ".mov": ("mov", "libx264", _X264, "aac", _FAST),
    ".mkv": ("matroska", "libx264", _X264, "aac", {}),
    ".webm": ("webm", "libvpx-vp9", _VP9, "libopus", {}),
}
_AUDIO = {".wav": ("wav", "pcm_s16le"), ".flac": ("flac", "flac"), ".mp3": ("mp3", "libmp3lame")}


def write_clip(clip: Clip, path: str | Path, overwrite: bool = False) -> list[Path]:
    """Writes `clip`; see `Clip.save`. Returns the files written, the one asked for first."""
    path = Path(path)
    jobs = _jobs(clip, path)
    if not path.parent.is_dir():
        raise ClipError(f"{path}: there is no folder {path.parent}")
    taken = [target for target in jobs if target.exists()]
    if taken and not (overwrite and all(t.is_file() for t in taken)):
        raise ClipError(f"{taken[0]}: exists already; choose another name or ask to overwrite")
    comment(clip)  # metadata that is no JSON is found before anything is written
    temporary = {t: t.with_name(f".{t.stem}.{uuid.uuid4().hex[:8]}{t.suffix}") for t in jobs}
    created = []
    try:
        for target, write in jobs.items():
            write(temporary[target])
        for target in jobs:
            os.replace(temporary[target], target)
            created += [target] if target not in taken else []
    except BaseException as error:
        for file in (*temporary.values(), *created):
            file.unlink(missing_ok=True)
        if isinstance(error, FFmpegError | OSError):
            raise ClipError(f"{path}: can't be written: {error.strerror or error}") from None
        raise
    return list(jobs)


def _jobs(clip: Clip, path: Path) -> dict[Path, Callable[[Path], object]]:
    """Target → the function that writes it to a given place."""
    kind = path.suffix.lower()
    if kind in TABLES and clip.sensor:
        return {path: lambda to: _table(clip, to, kind)}
    if kind == ".png" and clip.tracks:
        return {path: lambda to: _picture(clip, to)}
    if kind in _AUDIO and clip.audio is not None:
        return {path: lambda to: write_media(clip, to, kind)}
    if kind in _VIDEO and (clip.video is not None or clip.audio is not None):
        jobs: dict[Path, Callable[[Path], object]] = {path: lambda to: write_media(clip, to, kind)}
        if clip.sensor:
            jobs[path.with_suffix(".csv")] = lambda to: _table(clip, to, ".csv")
        jobs[path.with_suffix(".png")] = lambda to: _picture(clip, to)
        return jobs
    needs = dict.fromkeys(_VIDEO, "video or audio") | dict.fromkeys(_AUDIO, "audio") | {".png": "single"}
    needs |= dict.fromkeys(TABLES, "sensor")
    if kind in needs:
        raise ClipError(f"{path}: the clip has no {needs[kind]} track to write")
    raise ClipError(f'{path}: unknown kind of file "{path.suffix}", expected one of {" ".join(needs)}')


def _table(clip: Clip, to: Path, kind: str) -> None:
    sensors = {name: track for name, track in clip.tracks.items() if name in clip.sensor}
    write_table(sensors, to, kind, comment(clip))


def _picture(clip: Clip, to: Path) -> None:
    from .overview import overview

    overview(clip, to)


def write_media(clip: Clip, to: Path, kind: str) -> None:
    """Video and audio of `clip` into one file of `kind` (".mp4", ".wav", …), whatever its name; overwrites."""
    if kind in _AUDIO:
        name, audio_codec = _AUDIO[kind]
        video_codec, options, container_options = "", {}, {}
    else:
        name, video_codec, options, audio_codec, container_options = _VIDEO[kind]
    for track, what in ((clip.video if video_codec else None, "video"), (clip.audio, "audio")):
        if track is not None and track.start < 0:
            raise ClipError(f"{what}: starts at {track.start:.9g} s; a file begins at 0")
    with av.open(str(to), "w", format=name, container_options=container_options) as container:
        container.metadata["comment"] = comment(clip)
        writers = []
        if video_codec and clip.video is not None:
            writers.append((_video_stream(container, clip.video, video_codec, options), clip.video, _encode_video))
        if clip.audio is not None:
            writers.append((_audio_stream(container, clip.audio, audio_codec), clip.audio, _encode_audio))
        for stream, track, encode in writers:  # all streams must be there before the first packet
            for packet in encode(stream, track):
                container.mux(packet)


# Video


def _exact(rate: float) -> Fraction:
    """29.97… → 30000/1001, 25.0 → 25."""
    return Fraction(rate).limit_denominator(1001)


def _video_stream(container: OutputContainer, track: Track, codec: str, options: dict[str, str]) -> VideoStream:
    rate = _exact(track.rate)
    stream = container.add_stream(codec, rate=rate, options=options)
    assert isinstance(stream, VideoStream)
    _, height, width, _ = track.values.shape
    stream.width, stream.height = width + width % 2, height + height % 2  # 4:2:0 needs even sizes
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.colorspace, context.color_range = 6, 1  # BT.601 of limited range, as swscale converts
    # ticks of at most 1/90000 s that hold every frame's time exactly
    context.time_base = Fraction(1, rate.numerator * math.ceil(90000 / rate.numerator))
    return stream


def _encode_video(stream: VideoStream, track: Track) -> Iterator[av.Packet]:
    tick = stream.codec_context.time_base
    step, first = 1 / (_exact(track.rate) * tick), round(track.start / tick)
    _, height, width, _ = track.values.shape
    for i, image in enumerate(track.values):
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = first + round(i * step), tick
        yield from stream.encode(frame)
    yield from stream.encode(None)


# Audio


def _audio_stream(container: OutputContainer, track: Track, codec: str) -> AudioStream:
    rate = round(track.rate)
    allowed = sorted(av.Codec(codec, "w").audio_rates or [rate])
    if rate not in allowed:
        rate = next((r for r in allowed if r >= rate), allowed[-1])
    channels = track.values.shape[0]
    if channels > 2:
        raise ClipError(f"audio: {channels} channels, expected 1 or 2")
    stream = container.add_stream(codec, rate=rate, layout=("mono", "stereo")[channels - 1])
    assert isinstance(stream, AudioStream)
    # the most that AAC (6 bit a sample) and MP3 (160 kbit/s up to 24 kHz, 320 above) allow
    most = {"aac": 6 * rate * channels, "libmp3lame": 160_000 if rate <= 24000 else 320_000, "libopus": 128_000}
    if codec in most:
        stream.bit_rate = min(most[codec], 192_000 * channels)
    stream.codec_context.time_base = Fraction(1, rate)
    stream.metadata[END_TAG] = f"{round(track.end * rate) / rate:.9f}"
    return stream


def _encode_audio(stream: AudioStream, track: Track) -> Iterator[av.Packet]:
    """Sound that begins late is written with silence before it: some formats can't say it otherwise."""
    rate = stream.codec_context.sample_rate
    sound = to_rate(track.values, track.rate, rate)  # [channels, samples]
    sound = np.pad(sound, ((0, 0), (round(track.start * rate), 0)))
    layout = stream.codec_context.layout.name
    frame = av.AudioFrame.from_ndarray(_integers(sound), format="s16p", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    frames = av.AudioResampler(
        stream.codec_context.format.name, layout, rate, frame_size=stream.codec_context.frame_size or 1024
    )
    for piece in (*frames.resample(frame), *frames.resample(None)):
        yield from stream.encode(piece)
    yield from stream.encode(None)


def _integers(sound: np.ndarray) -> np.ndarray:
    """[-1, 1] → 16 bit; rounding here, once, keeps 1.0 from wrapping."""
    return np.ascontiguousarray(np.clip(np.round(sound * 32768.0), -32768, 32767).astype(np.int16))
