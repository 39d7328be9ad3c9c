"""`--guide KIND…`: what a person types becomes specs that can be written as JSON, and these become guidances.

    classifier:material=glass:2.0    isolation:1.5    classifier-free:audio=3,video=2    auto=small:2
    events=0.5,1.4    loudness=clap.wav    sensor=slow.csv    video=small.mp4    diffusers:AdaptiveProjectedGuidance:3

After the kind and its value come, in any order and each after a colon: a scale (a number, or one per track; tracks
left out are not guided), `interval=0.2-0.8` (noise levels between which it acts), `rescale=0.7` and `parallel=0`.
Nothing heavy is imported before guidances are built.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterpoint.recipes.settings import SettingsError, nearest

if TYPE_CHECKING:
    from counterpoint.guidance.interface import Guidance

TRACKS = ("audio", "video", "sensor")
GUIDERS = (
    "ClassifierFreeGuidance",
    "ClassifierFreeZeroStarGuidance",
    "TangentialClassifierFreeGuidance",
    "AdaptiveProjectedGuidance",
    "AdaptiveProjectedMixGuidance",
    "MagnitudeAwareGuidance",
    "LTX2Guidance",
)
"""Guiders of diffusers that need no pass but those with and without the prompt."""


REPLACES = ("classifier-free", "diffusers")  # kinds that take the place of the model's default guidance


@dataclass(frozen=True)
class GuideSpec:
    """One `--guide`.

    Args:
        kind: one of `KINDS`.
        value: what the kind needs, as typed: a class, times, a file, a model, a guider's name.
        scale: for all tracks; None leaves it to the kind.
        scales: scales of the tracks that are guided; empty: all, by `scale`.
        interval: noise levels between which it acts.
        rescale, parallel: see `counterpoint.guidance.interface.ScaledGuidance`; None leaves the latter to the kind.
    """

    kind: str
    value: str = ""
    scale: float | None = None
    scales: Mapping[str, float] = field(default_factory=dict)
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0
    parallel: float | None = None

    def __str__(self) -> str:
        """What to type for it."""
        separator = "" if not self.value else "=" if KINDS[self.kind].example[len(self.kind)] == "=" else ":"
        parts = [f"{self.kind}{separator}{self.value}"]
        if self.scale is not None:
            parts.append(f"{self.scale:g}")
        if self.scales:
            parts.append(",".join(f"{track}={scale:g}" for track, scale in self.scales.items()))
        if self.interval != (0.0, 1.0):
            parts.append("interval={:g}-{:g}".format(*self.interval))
        if self.rescale:
            parts.append(f"rescale={self.rescale:g}")
        if self.parallel is not None:
            parts.append(f"parallel={self.parallel:g}")
        return ":".join(parts)

    def to_json(self) -> dict[str, Any]:
        """JSON values that `from_json` reads."""
        return {
            "kind": self.kind,
            "value": self.value,
            "scale": self.scale,
            "scales": dict(self.scales),
            "interval": list(self.interval),
            "rescale": self.rescale,
            "parallel": self.parallel,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> GuideSpec:
        """The spec that `to_json` wrote; a SettingsError if it is no such thing."""
        unknown = [key for key in values if key not in cls.__dataclass_fields__]
        if unknown or values.get("kind") not in KINDS:
            name, known = (unknown[0], cls.__dataclass_fields__) if unknown else (str(values.get("kind")), KINDS)
            raise SettingsError(f"guide: unknown '{name}'{nearest(name, known)}")
        return cls(**{**values, "interval": tuple(values.get("interval", (0.0, 1.0)))})


def parse_guides(texts: Iterable[str], seconds: float | None = None) -> list[GuideSpec]:
    """What `--guide` was given, once for each text.

    Args:
        texts: such as `"events=0.5,1.4:2"`.
        seconds: the clip's length, if it is known: events have to lie inside.

    Raises:
        SettingsError: one line that says what is wrong and what would be right.
        FileNotFoundError: a file that is not there.
    """
    return [_parse(text.strip(), seconds) for text in texts]


def _parse(text: str, seconds: float | None) -> GuideSpec:
    name = re.split(r"[:=]", text, maxsplit=1)[0].strip()
    if name not in KINDS:
        raise SettingsError(f"--guide {text}: unknown kind '{name}'{nearest(name, KINDS)}")
    kind = KINDS[name]
    pieces = text[len(name) + 1 :].split(":") if len(text) > len(name) else []
    options: dict[str, Any] = {}
    while len(pieces) > (kind.check is not None):
        option = _option(text, pieces[-1].strip())
        if option is None or option[0] in options:
            break
        options |= [option]
        pieces.pop()
    value = ":".join(pieces).strip()
    if kind.check is None and value:
        known = "a number, or audio=3,video=2; then interval=0.2-0.8, rescale=0.7, parallel=0"
        raise SettingsError(f"--guide {text}: '{value}' is not a scale; give {known}")
    if kind.check is not None and not value:
        raise SettingsError(f"--guide {text}: {kind.needs}; e.g. --guide {kind.example}")
    if kind.check is not None:
        kind.check(text, value, seconds)
    return GuideSpec(name, value, **options)


def _option(text: str, piece: str) -> tuple[str, Any] | None:
    """A scale, scales or another option as (field, value); None for anything else."""
    key, equals, value = (part.strip() for part in piece.partition("="))
    if not equals:
        scale = _number(piece)
        return None if scale is None else ("scale", scale)
    if key in ("rescale", "parallel"):
        share = _number(value)
        if share is None or not 0 <= share <= 1:
            raise SettingsError(f"--guide {text}: {key} is {value}, expected 0 to 1")
        return key, share
    if key == "interval":
        match = re.fullmatch(r"([\d.]+)-([\d.]+)", value)
        low, high = (_number(match[1]), _number(match[2])) if match else (None, None)
        if low is None or high is None or not 0 <= low < high <= 1:
            raise SettingsError(f"--guide {text}: interval is {value}, expected noise levels such as 0.2-0.8")
        return key, (low, high)
    scales = [part.partition("=") for part in piece.split(",")]
    if any(track.strip() not in TRACKS or _number(scale) is None for track, _, scale in scales):
        return None
    return "scales", {track.strip(): _number(scale) for track, _, scale in scales}


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _class(text: str, value: str, _: float | None) -> None:
    if not re.fullmatch(r"[\w-]+=[\w -]+", value):
        raise SettingsError(f"--guide {text}: '{value}' is not attribute=class, e.g. material=glass")


def _times(text: str, value: str, seconds: float | None) -> None:
    for part in value.split(","):
        time = _number(part)
        if time is None or time < 0:
            raise SettingsError(f"--guide {text}: '{part}' is not a time in seconds; give e.g. 0.5,1.4")
        if seconds is not None and time >= seconds:
            raise SettingsError(f"--guide {text}: {time:g} s is outside of the clip of {seconds:g} s")


def _file(_: str, value: str, __: float | None) -> None:
    if not Path(value).is_file():
        raise FileNotFoundError(2, "No such file", value)


def _guider(text: str, value: str, _: float | None) -> None:
    if value not in GUIDERS:
        raise SettingsError(f"--guide {text}: unknown guider '{value}'{nearest(value, GUIDERS)}")


def _any(_: str, __: str, ___: float | None) -> None:
    pass


@dataclass(frozen=True)
class Kind:
    """What a kind looks like, what its value is, and what checks it (None: it takes no value)."""

    example: str
    needs: str = ""
    check: Callable[[str, str, float | None], None] | None = None


KINDS = {
    "classifier-free": Kind("classifier-free:3"),
    "isolation": Kind("isolation:1.5"),
    "auto": Kind("auto=small:2", "name the weaker model", _any),
    "classifier": Kind("classifier:material=glass:2.0", "name the class", _class),
    "events": Kind("events=0.5,1.4", "give the times in seconds", _times),
    "loudness": Kind("loudness=clap.wav", "name a sound file", _file),
    "sensor": Kind("sensor=slow.csv", "name a table of sensors", _file),
    "video": Kind("video=small.mp4", "name a video file", _file),
    "diffusers": Kind("diffusers:AdaptiveProjectedGuidance:3", "name a guider of diffusers", _guider),
}


def build_guides(specs: Iterable[GuideSpec], pipeline: Any, classifier: Any = None) -> list[Guidance]:
    """The guidances of specs, for one pipeline and any of its prompts.

    Args:
        specs: from `parse_guides`.
        pipeline: a `CounterpointPipeline`.
        classifier: a `counterpoint.guidance.classifier.NoiseAwareClassifier`; None: the pipeline's own, if it has one.

    Raises:
        SettingsError: the model lacks what a guide needs.
        ClipError: a file without the track that is needed, or one that can't be read.
    """
    from counterpoint.cli.guide_builders import build

    return [guidance for spec in specs for guidance in build(spec, pipeline, classifier)]  # pyright: ignore


def guidance_of(
    specs: Iterable[GuideSpec],
    scale: float | Mapping[str, float] | None,
    isolation: float | Mapping[str, float] | None,
    parallel: float | Mapping[str, float] | None,
    pipeline: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a pipeline takes as `guidance`, `isolation` and `parallel`, and what metadata keep of it for `--from`.

    Args:
        specs: from `parse_guides`; none leave the scales as they are.
        scale: of `--guidance`; None is the model's, or none at all where a spec takes its place.
        isolation: None is the model's, or none at all where a spec takes its place.
        parallel: of guidance and isolation that no spec takes the place of; None is the model's.
        pipeline: a `CounterpointPipeline`.
    """
    specs = tuple(specs)
    if not specs:
        return {"guidance": scale, "isolation": isolation, "parallel": parallel}, {}
    from counterpoint.diffusion.requests import guidances_of, isolation_of, parallel_of

    defaults, modalities = pipeline.defaults, pipeline.transformer.modalities
    kinds = {spec.kind for spec in specs}
    scale = scale if scale is not None else 1.0 if kinds & {*REPLACES} else defaults["guidance"]
    isolation = 1.0 if "isolation" in kinds else isolation_of(scale, isolation, defaults["isolation"], modalities)
    parallel = parallel_of(scale, parallel, defaults["parallel"], modalities)
    facts = {"guidance": scale, "guides": [spec.to_json() for spec in specs]}
    facts |= {key: x for key, x in (("isolation", isolation), ("parallel", parallel)) if x != 1.0}
    base = guidances_of(scale, modalities, defaults["guidance"], isolation, parallel)
    return {"guidance": [*base, *build_guides(specs, pipeline)]}, facts
