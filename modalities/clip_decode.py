"""Decoding the streams of media files: every frame sits where its timestamp says (pts × time_base)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .clip import ClipError, Track
from .clip_resample import nearest, resize
from .clip_table import even_rate

END_TAG = "COUNTERPOINT_END"  # of the audio stream in our Matroska and WebM files: its exact end in seconds
JITTER = 0.0015  # seconds; Matroska rounds its timestamps to milliseconds


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """Opens a media file; every FFmpeg error inside becomes a ClipError that names the file."""
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (FFmpegError, OSError) as error:
        reason = "empty or cut off" if isinstance(error, EOFError) else error.strerror or error
        raise ClipError(f"{path}: can't be read: {reason}") from None
    with container:
        try:
            yield container
        except FFmpegError as error:
            raise ClipError(f"{path}: is damaged: {error.strerror or error}") from None


# Video


def read_video(
    path: Path, index: int, fps: float | None, size: tuple[int, int] | None, window: tuple[float, float]
) -> Track | None:
    """Stream `index` as a track, even in time; None if a bounded `window` (from, to) has no frame. See `read_clip`."""
    with opened(path) as container:
        stream = container.streams[index]
        assert isinstance(stream, VideoStream)
        stream.thread_type = "AUTO"
        if window[0] > 1:
            container.seek(
                int((window[0] - 1) / float(stream.time_base or 1)), stream=stream
            )  # to the key frame before
        nominal = float(stream.average_rate or stream.guessed_rate or 25)
        times, frames = [], []
        for time, frame in _in_window(container, stream, nominal, window):
            image = _rgb(frame)[None]  # [1, H, W, 3]
            times.append(time)
            frames.append(image if size is None else resize(image, size))
    if not times:
        if np.isfinite(window[1]):
            return None
        raise ClipError(f"{path}: no frames in the video stream")
    if any(f.shape != frames[0].shape for f in frames):
        raise ClipError(f"{path}: the size of the frames changes within the video")
    return _on_even_times(np.array(times), np.concatenate(frames), nominal, fps, window[0])


def _in_window(
    container: InputContainer, stream: VideoStream, nominal: float, window: tuple[float, float]
) -> Iterator[tuple[float, VideoFrame]]:
    """Frames with their times, from the one on view when the window opens to the first after it closes."""
    last, held = -np.inf, None
    for frame in container.decode(stream):
        time = last + 1 / nominal if frame.time is None and last > -np.inf else float(frame.time or 0.0)
        if time <= last:
            continue  # a repeated timestamp can't be shown
        last = time
        if time <= window[0]:
            held = (time, frame)
            continue
        if held is not None:
            yield held
            held = None
        yield time, frame
        if time >= window[1]:
            return
    if held is not None and held[0] + 1 / nominal > window[0]:  # the last frame, unless it was over by then
        yield held


def _rgb(frame: VideoFrame) -> np.ndarray:
    """Upright `[H, W, 3]` uint8: a telephone's film says by which angle it must be turned."""
    image = frame.to_ndarray(format="rgb24")
    return np.rot90(image, round(frame.rotation / 90)) if frame.rotation else image


def _on_even_times(times: np.ndarray, frames: np.ndarray, nominal: float, fps: float | None, origin: float) -> Track:
    """Frames at rising `times` → an even track; at `origin + k / fps` if given, so that no time is rounded twice."""
    own = nominal if len(times) == 1 or _fits(times, nominal) else even_rate(times, tolerance=JITTER * nominal)
    if own is not None and (fps is None or (abs(own - fps) < 1e-6 and len(times) > 1)):
        return Track(frames, own, float(times[0]))
    period = float(np.median(np.diff(times))) if len(times) > 1 else 1 / nominal
    rate = min(1 / period, 240.0) if fps is None else fps
    zero = float(times[0]) if fps is None else origin
    first = int(np.ceil((times[0] - zero) * rate - 0.5))
    last = max(first, int(np.ceil((times[-1] + period - zero) * rate - 0.5)) - 1)
    grid = zero + np.arange(first, last + 1) / rate
    return Track(frames[nearest(times, grid)], rate, float(grid[0]))


def _fits(times: np.ndarray, rate: float) -> bool:
    return bool(np.abs(times - times[0] - np.arange(len(times)) / rate).max() <= JITTER)


# Audio


def read_audio(path: Path, window: tuple[float, float]) -> Track | None:
    """The first audio stream as a track `[C, N]`; None if a bounded `window` (from, to) has no sample.

    Decoded from the beginning even for a late window, so that a codec's delay is never mistaken.
    """
    with opened(path) as container:
        stream = container.streams.audio[0]
        rate, pieces, begin, expected, frame = 0, [], 0.0, None, None
        for frame in container.decode(stream):
            if expected is None:
                rate = frame.sample_rate
                # MP3 stamps its first sound after the encoder's delay, which is cut off: it belongs at 0
                begin = float(frame.time or 0.0) if container.format.name == "mp3" else 0.0
                expected = 0.0 if frame.time is None else frame.time - begin
            if frame.sample_rate != rate:
                raise ClipError(f"{path}: the audio rate changes from {rate} to {frame.sample_rate} Hz")
            time = expected if frame.time is None else frame.time - begin
            if abs(time - expected) < 5 * JITTER:
                time = expected  # rounding of the container, not a gap
            expected = time + frame.samples / rate
            if expected > window[0] - 1 and time < window[1] + 1:
                pieces.append((time, _samples(frame)))
            if time > window[1] + 1:
                break
        else:
            pieces = _trimmed(pieces, container, stream, frame)
    if not pieces:
        if np.isfinite(window[1]):
            return None
        raise ClipError(f"{path}: no samples in the audio stream")
    values, mask = _laid_out(pieces, rate)
    if not np.isfinite(values).all():
        raise ClipError(f"{path}: {int((~np.isfinite(values)).sum())} audio samples are NaN or infinite")
    return Track(values, rate, pieces[0][0], mask=mask)


def _trimmed(
    pieces: list[tuple[float, np.ndarray]], container: InputContainer, stream: AudioStream, last: AudioFrame | None
) -> list[tuple[float, np.ndarray]]:
    """AAC ends with padding up to a whole packet: MP4 says how much in its last duration, our Matroska in a tag."""
    if not pieces or last is None:
        return pieces
    time, values = pieces[-1]
    n = values.shape[1]
    if "mp4" in container.format.name and last.duration and last.time_base:
        n = round(float(last.duration * last.time_base) * last.sample_rate)
    elif END_TAG in stream.metadata:
        n = min(n, round((float(stream.metadata[END_TAG]) - time) * last.sample_rate))
    return [*pieces[:-1], (time, values[:, : max(1, n)])]


def _laid_out(pieces: list[tuple[float, np.ndarray]], rate: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Pieces `[C, n]` at their times → values `[C, N]`, mask `[C, N]` or None when there is no gap."""
    places = [round((time - pieces[0][0]) * rate) for time, _ in pieces]
    total = max(p + x.shape[1] for p, (_, x) in zip(places, pieces, strict=True))
    values = np.zeros((pieces[0][1].shape[0], total), np.float32)
    mask = np.zeros(values.shape, bool)
    for place, (_, x) in zip(places, pieces, strict=True):
        x = x[:, max(0, -place) :]
        place = max(0, place)
        values[: len(x), place : place + x.shape[1]] = x[: len(values)]
        mask[:, place : place + x.shape[1]] = True
    return values, None if mask.all() else mask


def _samples(frame: AudioFrame) -> np.ndarray:
    """`[channels, samples]` float32 in [-1, 1] from any sample format."""
    x = frame.to_ndarray()
    if not frame.format.is_planar:  # [1, samples · channels]
        x = x.reshape(-1, len(frame.layout.channels)).T
    if x.dtype == np.uint8:
        return (x.astype(np.float32) - 128) / 128
    if np.issubdtype(x.dtype, np.integer):
        return (x / 2.0 ** (8 * x.itemsize - 1)).astype(np.float32)
    return x.astype(np.float32)
