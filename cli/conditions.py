"""`--given`, `--continue`, `--fill`, `--vary`: what a clip has is read and checked before any model is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterpoint.cli.jobs import TRACKS, Job
from counterpoint.recipes.settings import SettingsError, nearest

if TYPE_CHECKING:
    from counterpoint.diffusion.given import Given

STRENGTH = 0.5  # of --vary


def parse_given(texts: Sequence[str]) -> list[tuple[str | None, Path]]:
    """`["video=in.mp4", "all.mp4"]` → [("video", in.mp4), (None, all.mp4)]; None is all tracks of the file.

    Raises:
        SettingsError: an unknown track (names the nearest).
    """
    files: list[tuple[str | None, Path]] = []
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or Path(text).is_file():
            files.append((None, Path(text)))
            continue
        if name not in TRACKS:
            raise SettingsError(f"--given {text}: unknown track '{name}'{nearest(name, TRACKS)}")
        files.append((name, Path(path)))
    return files


def parse_fill(text: str) -> tuple[tuple[float, float], ...]:
    """`"0.8-1.6"` → ((0.8, 1.6),); several stretches are parted by commas.

    Raises:
        SettingsError: anything else.
    """
    stretches = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d*\.?\d+)\s*-\s*(\d*\.?\d+)\s*", part)
        if not match or float(match[1]) >= float(match[2]):
            raise SettingsError(f"--fill {text}: give a stretch of seconds such as 0.8-1.6")
        stretches.append((float(match[1]), float(match[2])))
    return tuple(stretches)


def read_strength(
    strength: float | None, vary: object, others: Mapping[str, Any], source: Mapping[str, Any]
) -> float | None:
    """How much of what is given is to change; None keeps it.

    Args:
        strength, vary: what `--strength` and `--vary` say.
        others: what the options say that `--vary` can't go with, by their names.
        source: `strength` of the clip of `--from`, where there is one.

    Raises:
        SettingsError: `--strength` without `--vary`, or out of range; `--vary` with one of the others.
    """
    used = [option for option, value in others.items() if value]
    if vary and used:
        raise SettingsError(f"--vary: changes all of a clip, so it can't go with {used[0]}; leave one out")
    if strength is not None and not 0 < strength <= 1:
        raise SettingsError(f"--strength {strength:g}: give a share above 0, up to 1 (nothing is kept)")
    default = STRENGTH if vary else None if used else source.get("strength")
    if default is None and strength is not None:
        raise SettingsError("--strength: is for --vary; name the clip to vary, e.g. --vary in.wav")
    return default if strength is None else strength


def read_given(
    given: Sequence[str] | None, files: Sequence[Path] | None, fill: str | None, source: Mapping[str, Any]
) -> Given | None:
    """The tracks of all files named, or else those that an earlier clip was made from.

    Args:
        given, fill: what `--given` and `--fill` say.
        files: what `--continue` and `--vary` say: files with all their tracks.
        source: `given` (records of files) and `known` of the clip of `--from`, where there are some.

    Raises:
        SettingsError: `--fill` without a clip, or a file of the earlier clip that is gone or another one by now.
        ClipError: a file that can't be read or lacks the track.
    """
    named: list[tuple[str | Sequence[str] | None, Path]] = [*parse_given(given or ())]
    named += [(None, path) for path in files or ()]
    stretches = None if fill is None else parse_fill(fill)
    if not named and source.get("given") is not None:
        named += _files_again(source["given"])
    if not named:
        if stretches is not None:
            raise SettingsError(f"--fill {fill}: give the clip as well, e.g. --given in.mp4")
        return None
    from counterpoint.diffusion.given import Given, without

    read = Given.of_files(named)
    if stretches is not None:
        last = max(stop for _, stop in stretches)
        if last > read.seconds + 1e-6:
            raise SettingsError(f"--fill {fill}: the clip given is only {read.seconds:g} s long")
        return Given.read(read, without(stretches, read.seconds))
    return Given.read(read, source["known"]) if source.get("known") is not None else read


def _files_again(records: Sequence[Mapping[str, Any]]) -> list[tuple[Sequence[str], Path]]:
    """The files that an earlier clip was made from, if they still are what they were."""
    from counterpoint.diffusion.given import sha256

    if not records:
        raise SettingsError("--from: that clip was made from tracks that came from no file; give them with --given")
    files: list[tuple[Sequence[str], Path]] = []
    for record in records:
        path, tracks = Path(record["path"]), record["tracks"]
        if not path.is_file():
            raise SettingsError(f"--from: {path}, which was given for that clip, is not there; name it with --given")
        if sha256(path) != record["sha256"]:
            raise SettingsError(f"--from: {path}, which was given for that clip, has changed; name it with --given")
        files.append((tracks, path))
    return files


def check(job: Job) -> Job:
    """The job itself, if what is given fits what is asked for.

    Raises:
        SettingsError: nothing would be added by `--continue`, or changed by `--vary`.
        ClipError: a track that is given and generated at once.
    """
    if job.given is None:
        return job
    if job.extend and (job.seconds is None or job.seconds <= job.given.seconds):
        asked = "" if job.seconds is None else f", not --seconds {job.seconds:g}"
        raise SettingsError(f"--continue: the clip is {job.given.seconds:g} s long already; give a longer one{asked}")
    if job.strength is None:
        job.given.check(job.tracks or (), job.length)
    elif job.tracks and not set(job.tracks) & set(job.given.groups):
        groups = " and ".join(job.given.groups)
        raise SettingsError(f"--vary: the clip has no {' or '.join(job.tracks)}, only {groups}")
    return job
