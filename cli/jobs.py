"""What to generate: options, prompt files and the metadata of earlier clips become a list of jobs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterpoint.recipes.settings import SettingsError, nearest

if TYPE_CHECKING:
    from counterpoint.cli.guides import GuideSpec
    from counterpoint.diffusion.given import Given

TRACKS = ("audio", "video", "sensor")
DEVICES = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Job:
    """One clip to make; None leaves the choice to the model.

    Args:
        isolation: scale of the guidance towards the other tracks, or scales by track, as an earlier clip had them.
        parallel: share of guidance along what is there already, or shares by track, as an earlier clip had them.
        obey: scale of the guidance towards the tempo and key that the prompt names.
        given: the tracks that the clip has already.
        extend: it goes on where what is given ends.
        strength: how much of what is given is made anew; None keeps it.
        best_of: tries, of which the one is kept whose tracks agree best.
    """

    prompt: str
    seed: int
    negative_prompt: str = ""
    steps: int | None = None
    guidance: float | dict[str, float] | None = None
    isolation: float | dict[str, float] | None = None
    parallel: float | dict[str, float] | None = None
    obey: float | None = None
    seconds: float | None = None
    tracks: tuple[str, ...] | None = None
    given: Given | None = None
    extend: bool = False
    loop: bool = False
    strength: float | None = None
    best_of: int = 1
    guides: tuple[GuideSpec, ...] = ()

    @property
    def length(self) -> float:
        """Seconds of a clip of which something is given."""
        return self.given.seconds if self.seconds is None and self.given is not None else self.seconds or 0.0

    @property
    def held(self) -> tuple[str, ...]:
        """The tracks that the clip will have: those made and those given."""
        groups = () if self.given is None else self.given.groups
        return (*(self.tracks or ()), *(group for group in groups if group not in (self.tracks or ())))

    def left(self, default: tuple[str, ...]) -> tuple[str, ...]:
        """The tracks to make where none are named: those of `default` that are not given whole, or that are varied."""
        if self.given is not None and self.strength is not None:
            return tuple(track for track in default if track in self.given.groups)
        finished = () if self.given is None else self.given.finished(self.length)
        return tuple(track for track in default if track not in finished)


def parse_seeds(text: str) -> list[int]:
    """`"7"` → [7], `"0-7"` → [0, …, 7].

    Raises:
        SettingsError: anything else.
    """
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text.strip())
    if not match or (match[2] and int(match[2]) < int(match[1])):
        raise SettingsError(f"--seed {text}: give a number such as 7, or a rising range such as 0-7")
    return list(range(int(match[1]), int(match[2] or match[1]) + 1))


def parse_tracks(text: str) -> tuple[str, ...]:
    """`"audio,video"` → ("audio", "video").

    Raises:
        SettingsError: an unknown track (names the nearest), or none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in TRACKS:
            raise SettingsError(f"--tracks: unknown track '{name}'{nearest(name, TRACKS)}")
    if not names:
        raise SettingsError("--tracks: give at least one of audio, video, sensor")
    return tuple(name for name in TRACKS if name in names)


def parse_guidance(text: str) -> float | dict[str, float]:
    """`"2"` → 2.0, `"audio=3,video=2"` → {"audio": 3.0, "video": 2.0}.

    Raises:
        SettingsError: not a number, or an unknown track.
    """
    if "=" not in text:
        return _number("guidance", text)
    scales = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in TRACKS:
            raise SettingsError(f"--guidance: unknown track '{name}'{nearest(name, TRACKS)}")
        scales[name] = _number("guidance", value)
    return scales


def _number(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SettingsError(f"--{option} {text}: not a number")
    return value


def _positive(option: str, kind: Callable[[str], Any]) -> Callable[[str], Any]:
    needed = "a number above 0" if kind is float else "a whole number above 0"

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < math.inf:
            raise SettingsError(f"--{option} {text}: not {needed}")
        return value

    return parse


INLINE: dict[str, Callable[[str], Any]] = {
    "seed": parse_seeds,
    "negative-prompt": str,
    "steps": _positive("steps", int),
    "guidance": parse_guidance,
    "seconds": _positive("seconds", float),
    "tracks": parse_tracks,
    "best-of": _positive("best-of", int),
}


def parse_line(line: str, without: Sequence[str] = ()) -> dict[str, Any]:
    """`"a block falls --seed 3 --negative-prompt dark, blurred"` → {"prompt": …, "seeds": [3], …}.

    Args:
        line: a prompt, maybe with options.
        without: options that the command does not have.

    Raises:
        SettingsError: an unknown option (names the nearest) or a bad value.
    """
    prompt, *overrides = re.split(r"(?:^|\s)--(?=[a-z])", line.strip())
    if not prompt.strip():
        raise SettingsError("no prompt before the first option")
    values: dict[str, Any] = {"prompt": prompt.strip()}
    for override in overrides:
        name = re.split(r"[\s=]", override, maxsplit=1)[0]
        text = override[len(name) + 1 :]
        known = [option for option in INLINE if option not in without]
        if name not in known:
            raise SettingsError(f"unknown option '--{name}'{nearest(name, known) if known else ''}")
        key = "seeds" if name == "seed" else name.replace("-", "_")
        values[key] = INLINE[name](text.strip().strip("\"'"))
    return values


def read_prompts(path: Path, without: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The prompts of a file, one a line; empty lines and lines that begin with `#` are left out.

    Raises:
        FileNotFoundError: no such file.
        SettingsError: a bad line (says which), or no prompt at all.
    """
    prompts = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            prompts.append(parse_line(line, without))
        except SettingsError as error:
            raise SettingsError(f"{path}, line {number}: {error}") from None
    if not prompts:
        raise SettingsError(f"{path}: no prompt in it; write one a line")
    return prompts


RESTORED = (
    "prompt", "negative_prompt", "steps", "guidance", "seconds", "model",
    "given", "known", "strength", "loop", "guides",
)  # fmt: skip


def read_source(path: Path) -> dict[str, Any]:
    """What a generated file says about itself: prompt, seeds, negative_prompt, steps, guidance, seconds, tracks, model;
    isolation, parallel and obey (1, 1 and 0 where it says nothing); and, where there were some, given (records of
    files), known (stretches), strength, loop and guides (specs).

    Raises:
        FileNotFoundError: no such file.
        ClipError: the file can't be read.
        SettingsError: it says nothing of a prompt.
    """
    if not path.is_file():
        raise FileNotFoundError(2, "No such file", str(path))
    from counterpoint.modalities.clip import Clip

    metadata = Clip.read(path).metadata
    if not isinstance(metadata.get("prompt"), str):
        raise SettingsError(f"{path}: has no prompt in its metadata; only what `counterpoint generate` wrote has")
    values = {key: metadata[key] for key in RESTORED if metadata.get(key) is not None}
    values |= {key: metadata.get(key, 1.0) for key in ("isolation", "parallel")}
    values |= {"seeds": [int(metadata.get("seed", 0))], "obey": float(metadata.get("obey", 0.0))}
    if metadata.get("tracks"):
        values["tracks"] = parse_tracks(",".join(metadata["tracks"]))
    return values


def make_jobs(prompts: list[dict[str, Any]], common: dict[str, Any]) -> list[Job]:
    """One job for every prompt and seed; what a prompt says for itself goes before `common`."""
    jobs = []
    for own in prompts:
        values: dict[str, Any] = {"seeds": [0]} | common | own
        seeds = values.pop("seeds")
        jobs += [Job(seed=seed, **values) for seed in seeds]
    return jobs


def check_machine(device: str, dtype: str) -> None:
    """Raise SettingsError unless device and dtype are ones that a pipeline knows."""
    if not DEVICES.fullmatch(device):
        raise SettingsError(f"--device {device}: give auto, cpu, cuda, cuda:1 or mps")
    if dtype not in DTYPES:
        raise SettingsError(f"--dtype {dtype}: give one of {', '.join(DTYPES)}")
