"""Where clips go: one file, or a folder of files named by prompt and seed; nothing is written over silently."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from counterpoint.cli.jobs import TRACKS, Job
from counterpoint.recipes.settings import SettingsError

VIDEO = (".mp4", ".mov", ".mkv", ".webm")
SUFFIXES = {"video": VIDEO, "audio": (".wav", ".flac", ".mp3"), "sensor": (".csv", ".parquet")}
HOLDS = {
    suffix: track for track, suffixes in SUFFIXES.items() for suffix in suffixes
}  # the track that a file is made for


def plan(jobs: Sequence[Job], output: Path | None, default: tuple[str, ...], overwrite: bool) -> list[tuple[Job, Path]]:
    """Each job with its tracks and the path that its clip is saved to.

    Args:
        jobs: the clips to make; tracks None takes those of `default` that the file can hold.
        output: a file (one clip) or a folder; None is the current folder.
        default: the tracks that the command makes.
        overwrite: whether files may be there already.

    Raises:
        SettingsError: a file for several clips, of an unknown kind, or one that can't hold the tracks.
        FileExistsError: a file that would be written is there, and `overwrite` is False.
    """
    if output is not None and _is_file(output):
        planned = [(_fit(_one(jobs, output), output, default), output)]
    else:
        planned = _in_folder([replace(job, tracks=job.tracks or _left(job, default)) for job in jobs], output or Path())
    given = {Path(file["path"]).resolve() for job in jobs if job.given is not None for file in job.given.files}
    for path in [path for job, target in planned for path in written(target, job.held)]:
        if path.resolve() in given:
            raise SettingsError(f"{path}: is given, and would be written over; name another file with -o")
        if path.exists() and not overwrite:
            raise FileExistsError(17, "is there already; give --overwrite, or another -o", str(path))
    return planned


def written(path: Path, tracks: Sequence[str]) -> list[Path]:
    """What a clip of these tracks is saved to: `path`, sensors as CSV beside video or audio, a PNG beside video."""
    sensors = [".csv"] if "sensor" in tracks and HOLDS[path.suffix.lower()] != "sensor" else []
    overview = [".png"] if path.suffix.lower() in VIDEO else []
    return [path, *(path.with_suffix(suffix) for suffix in sensors + overview)]


def slug(prompt: str, longest: int = 48) -> str:
    """A prompt as a file name: `"A glass ball, dropped!"` → `a-glass-ball-dropped`."""
    words = re.sub(r"[^\w]+", "-", prompt.lower()).strip("-")
    return words if len(words) <= longest else (words[:longest].rpartition("-")[0] or words[:longest])


def _is_file(output: Path) -> bool:
    """Whether `-o` names a file; SettingsError for a kind of file that we can't write."""
    if output.is_dir() or not output.suffix:
        return False
    if output.suffix.lower() not in HOLDS:
        raise SettingsError(f"{output}: unknown kind of file; use {' '.join(HOLDS)}, or the name of a folder")
    return True


def _one(jobs: Sequence[Job], output: Path) -> Job:
    if len(jobs) == 1:
        return jobs[0]
    quotes = "; put quotes around the prompt" if all(len(job.prompt.split()) == 1 for job in jobs) else ""
    raise SettingsError(f"{output}: one file can't hold {len(jobs)} clips{quotes or '; name a folder'}")


def _fit(job: Job, output: Path, default: tuple[str, ...]) -> Job:
    """The job with its tracks settled: those asked for, or given, must include what the file is made for."""
    holds = HOLDS[output.suffix.lower()]
    if job.tracks is None:
        left = _left(job, default)
        job = replace(job, tracks=left if holds == "video" else tuple(t for t in left if t == holds) or left)
    if holds not in (job.held if holds == "video" else job.tracks or ()):
        raise SettingsError(f"{output}: is made for {holds}, but the tracks are {', '.join(job.tracks or ())}")
    return job


def _left(job: Job, default: tuple[str, ...]) -> tuple[str, ...]:
    """The tracks to make where none are named; SettingsError if nothing is left to make."""
    left = job.left(default)
    if not left and job.strength is not None:
        raise SettingsError(f"--vary: the clip has no {' or '.join(default)}, only {' and '.join(job.held)}")
    if not left:
        raise SettingsError(f"nothing is left to generate: {' and '.join(job.held)} are given whole")
    return left


def _in_folder(jobs: Sequence[Job], folder: Path) -> list[tuple[Job, Path]]:
    """Names from prompt and seed; a name that comes twice is numbered."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(20, "is not a folder", str(folder))
    planned, taken = [], set()
    for job in jobs:
        tracks = job.held or TRACKS
        suffix = ".mp4" if "video" in tracks else ".wav" if "audio" in tracks else ".csv"
        stem = f"{slug(job.prompt) or 'clip'}-{job.seed}"
        number = next(n for n in range(1, len(jobs) + 1) if (stem, n) not in taken)
        taken.add((stem, number))
        planned.append((job, folder / f"{stem}{f'-{number}' if number > 1 else ''}{suffix}"))
    return planned
