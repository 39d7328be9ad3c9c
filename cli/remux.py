"""Given pictures and sound go into the new file as they are: packets are copied, nothing is encoded again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

MOVIE = {"h264", "hevc", "av1", "vp9", "mpeg4", "aac", "mp3", "alac", "opus", "flac"}
COPIED = {  # what a container takes; Matroska takes everything
    ".mp4": MOVIE,
    ".mov": {"h264", "hevc", "mpeg4", "prores", "mjpeg", "aac", "mp3", "alac", "pcm_s16le", "pcm_s24le", "pcm_f32le"},
    ".webm": {"vp8", "vp9", "av1", "opus", "vorbis"},
}


def copy_streams(path: Path, sources: Mapping[str, Path]) -> list[str]:
    """Replace the video or audio stream of a file by that of another one, packet by packet.

    Args:
        path: a file with video or audio that was just written; it is replaced whole or not at all.
        sources: `{"video" | "audio": file}`.

    Returns:
        A line for each stream that could not be copied, and so stays as it was encoded.
    """
    import av
    from av.error import FFmpegError

    notes: list[str] = []
    part = path.with_name(f".{path.stem}.copied{path.suffix}")
    options = {"movflags": "+faststart"} if path.suffix.lower() in (".mp4", ".mov") else {}
    try:
        with ExitStack() as stack:
            written = stack.enter_context(av.open(str(path)))
            out = stack.enter_context(av.open(str(part), "w", container_options=options))
            out.metadata.update(written.metadata)
            packets = []
            for kind in ("video", "audio"):
                source = written
                if kind in sources:
                    other = stack.enter_context(av.open(str(sources[kind])))
                    name = getattr(other.streams, kind)[0].codec_context.name
                    if name in COPIED.get(path.suffix.lower(), {name}):
                        source = other
                    else:
                        notes.append(f"{kind}: {path.suffix} can't hold {name}, so it was encoded again")
                for stream in getattr(source.streams, kind)[:1]:
                    target = out.add_stream_from_template(stream)
                    target.metadata.update({k: v for k, v in stream.metadata.items() if k.isupper()})
                    packets += [(p, target) for p in source.demux(stream) if p.dts is not None]
            if len(notes) == len(sources):
                return notes
            for packet, target in sorted(packets, key=lambda pair: float(pair[0].dts * pair[0].time_base)):
                packet.stream = target
                out.mux(packet)
        os.replace(part, path)
    except (FFmpegError, ValueError) as error:
        return [*notes, f"{path}: what was given could not be copied into it, and was encoded again: {error}"]
    finally:
        part.unlink(missing_ok=True)
    return notes
