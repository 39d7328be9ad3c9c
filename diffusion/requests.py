"""What a call of the pipeline asks for, checked and written down as JSON."""

from __future__ import annotations

import importlib.metadata
import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from ..backbones.transformer import Modality
from ..guidance.classifier import CleanScore
from ..guidance.classifier_free import ClassifierFree
from ..guidance.interface import Guidance
from ..guidance.isolation import Isolation
from ..guidance.music import Asked
from ..modalities.clip import GROUPS, ClipError
from ..modalities.codecs import Codecs
from .conditions import Condition
from .given import Given, Stretch, given_and_made, slots_of

if TYPE_CHECKING:
    from .pipeline import CounterpointPipeline

LONGEST = 60  # seconds
Scales = float | Mapping[str, float]
"""A number, or numbers by track or modality."""


@dataclass(frozen=True)
class Request:
    """Everything that decides what comes out of the pipeline.

    Args:
        prompts, seeds: one each per clip of the batch.
        settings: the rest as JSON: what goes into the clips' metadata.
        guidance: as it was asked for: a scale, scales by track, or objects.
        condition: what is given, or None.
        made: the modalities to generate; those given may be among them, where a part of them is missing.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: Mapping[str, Any]
    guidance: Any
    condition: Condition | None
    made: tuple[str, ...]


def request_of(
    pipeline: CounterpointPipeline, prompt: str | Sequence[str] | None, *, given: Any = None,
    known: Sequence[Stretch] | None = None, strength: float | None = None, loop: bool = False,
    negative_prompt: str = "", steps: int | None = None, guidance: Any = None, isolation: Scales | None = None,
    parallel: Scales | None = None, obey: float | None = None, seconds: float | None = None,
    seed: int | Sequence[int] = 0, tracks: Sequence[str] | None = None, say: Callable[[str], None] = warnings.warn,
    endless: bool = False,
) -> Request:  # fmt: skip
    """The arguments of the pipeline checked, what is given encoded, and all of it written down.

    Args:
        endless: infinite `seconds` are allowed. The others are those of `CounterpointPipeline.__call__`.

    Raises:
        ClipError: an argument that cannot be used, by its name.
    """
    prompts = (prompt or "",) if prompt is None or isinstance(prompt, str) else tuple(prompt)
    if not prompts or (given is None and prompt is None):
        raise ClipError("prompt: none given")
    seeds = seeds_of(seed, len(prompts))
    _check_combination(given, known, strength, loop, seconds)
    source = None if given is None else Given.read(given, known)
    if seconds is None and source is not None:
        seconds = source.seconds
    duration = check_seconds(pipeline.defaults["seconds"] if seconds is None else seconds, endless)
    if tracks is None:
        tracks = default_tracks(source, duration) if strength is None or source is None else source.groups
    settings = settings_of(pipeline, negative_prompt, steps, guidance, duration, tracks, isolation, parallel, obey)
    condition = None
    if source is not None:
        if strength is None:
            source.check(tracks, duration)
        condition = Condition.create(source, pipeline.codecs, duration, pipeline.device)
        settings |= {"given": [dict(record) for record in source.files]}
        settings |= {"known": [[a, min(b, duration)] for a, b in source.known]} if source.known is not None else {}
        for note in condition.notes:
            say(note)
    if condition is not None and strength is not None:
        condition = condition.varied(tracks, float(strength))
        settings |= {"strength": float(strength)}
    settings |= {"loop": True} if loop else {}
    made = made_modalities(pipeline.codecs, tracks, condition)
    return Request(prompts, seeds, settings, guidance, condition, made)


def _check_combination(given: Any, known: Any, strength: float | None, loop: bool, seconds: float | None) -> None:
    """Raises a ClipError for arguments that can't go together."""
    if given is None and known is not None:
        raise ClipError("known: nothing is given that could be known")
    if strength is not None and not 0 < strength <= 1:
        raise ClipError(f"strength: {strength:g} is not above 0 and at most 1")
    if strength is not None and given is None:
        raise ClipError("strength: nothing is given that could be varied")
    if strength is not None and (known is not None or (isinstance(given, Given) and given.known is not None)):
        raise ClipError("strength: varies all of a clip, so no stretch of it can be known; leave one of the two out")
    if seconds == math.inf and (given is not None or loop):
        raise ClipError(f"seconds: a stream without an end {'has no loop' if loop else 'can hold nothing given'}")


def settings_of(
    pipeline: CounterpointPipeline, negative_prompt: str, steps: int | None, guidance: Any, seconds: float | None,
    tracks: Sequence[str], isolation: Scales | None = None, parallel: Scales | None = None, obey: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Everything that, beside prompt, seed and what is given, decides what comes out, as JSON.

    Raises:
        ClipError: an argument that cannot be used, by its name.
    """
    defaults, modalities = pipeline.defaults, pipeline.transformer.modalities
    count = int(defaults["steps"] if steps is None else steps)
    if count < 1:
        raise ClipError(f"steps: {steps} is less than 1")
    guidance = defaults["guidance"] if guidance is None else guidance
    guidances_of(guidance, modalities, defaults["guidance"])
    isolation = isolation_of(guidance, isolation, defaults["isolation"], modalities)
    parallel = parallel_of(guidance, parallel, defaults["parallel"], modalities)
    pipeline.codecs.names(tracks)
    obey = obey_of(guidance, obey, defaults["obey"])
    return {
        "negative_prompt": negative_prompt,
        "steps": count,
        "guidance": guidance_spec(guidance),
        **({} if isolation == Isolation.neutral else {"isolation": isolation}),
        **({} if parallel == 1.0 else {"parallel": parallel}),
        **({"obey": obey} if obey else {}),
        "seconds": check_seconds(defaults["seconds"]) if seconds is None else seconds,
        "tracks": list(tracks),
        "model": pipeline.model_name,
        "version": importlib.metadata.version("counterpoint"),
    }


def check_seconds(seconds: float, endless: bool = False) -> float:
    """The duration; a ClipError unless it is above 0 and at most `LONGEST`, or infinite where that is allowed."""
    if not 0 < seconds <= LONGEST and not (endless and seconds == math.inf):
        raise ClipError(f"seconds: {seconds:g} is not between 0 and {LONGEST}")
    return float(seconds)


def seeds_of(seed: int | Sequence[int], count: int) -> tuple[int, ...]:
    """One seed per prompt: s, s + 1, … of a single number."""
    seeds = tuple(seed + i for i in range(count)) if isinstance(seed, int) else tuple(int(s) for s in seed)
    if len(seeds) != count:
        raise ClipError(f"seed: {len(seeds)} seeds for {count} prompts")
    if min(seeds) < 0:
        raise ClipError(f"seed: {min(seeds)} is negative")
    return seeds


def default_tracks(given: Given | None, seconds: float) -> tuple[str, ...]:
    """The tracks that are made when none are named: all that are not given whole.

    Raises:
        ClipError: nothing is left.
    """
    finished = () if given is None else given.finished(seconds)
    left = tuple(group for group in GROUPS if group not in finished)
    if not left:
        raise ClipError("given: nothing is left to generate; leave a track out, or ask for more --seconds")
    return left


def made_modalities(codecs: Codecs, tracks: Sequence[str], condition: Condition | None) -> tuple[str, ...]:
    """The modalities that the tracks asked for, and the gaps of those given, leave to generate.

    Raises:
        ClipError: an unknown track, or one that is given whole.
    """
    asked = codecs.names(tracks)
    if condition is None:
        return asked
    shapes, settled = codecs.shapes(), {*condition.whole, *condition.unused}
    for group in dict.fromkeys(shapes[name][2] for name in asked):
        if all(name in settled for name in asked if shapes[name][2] == group):
            raise given_and_made(group)
    return tuple(name for name in shapes if name not in settled and (name in asked or name in condition.known))


def guidances_of(
    guidance: Any,
    modalities: Mapping[str, Modality],
    default: Scales | Any,
    isolation: Scales = 1.0,
    parallel: Scales = 1.0,
) -> list[Guidance]:
    """Guidance objects of a scale, of scales by track or modality, or of objects, which stay what they are.

    Args:
        guidance: what is asked for.
        modalities: of the model.
        default: the scale of tracks that scales leave out.
        isolation: the scale, or scales, of the isolation guidance that stands beside them; 1 is none, and so is the
            scale of tracks that scales leave out.
        parallel: share, or shares, that both keep along the predicted clean latents (`ScaledGuidance`).

    Raises:
        ClipError: a scale or share for a track that the model does not have.
    """
    if not isinstance(guidance, (Mapping, int, float)):
        return list(guidance)
    kept = _option("parallel", parallel, modalities)
    free = ClassifierFree(**_option("scale", guidance, modalities, default), **kept)
    if isolation == Isolation.neutral or len(modalities) < 2:
        return [free]
    return [free, Isolation(**_option("scale", isolation, modalities), **kept)]


def _option(
    field: str, asked: Scales, modalities: Mapping[str, Modality], default: Scales | Any = 1.0
) -> dict[str, Any]:
    """A number, or numbers by track or modality, as the fields of a guidance."""
    if isinstance(asked, Mapping):
        return {field: 1.0, f"{field}s": _by_modality(asked, modalities, default)}
    return {field: float(asked)}


def walk_guidances(
    pipeline: CounterpointPipeline, settings: Mapping[str, Any], guidance: Any, names: Collection[str]
) -> list[Guidance]:
    """The guidance objects of a walk over the modalities `names`; `guidance` None is what the settings say.

    Raises:
        ClipError: a measurement, where there is more than one window.
    """
    guidance = settings["guidance"] if guidance is None else guidance
    isolation, parallel = settings.get("isolation", Isolation.neutral), settings.get("parallel", 1.0)
    kinds = guidances_of(guidance, pipeline.transformer.modalities, pipeline.defaults["guidance"], isolation, parallel)
    if len(names) == 1:  # no other track to hear: a pass is saved
        kinds = [kind for kind in kinds if not isinstance(kind, Isolation)]
    long = settings["seconds"] == math.inf or slots_of(settings["seconds"]) > pipeline.window
    if long and not settings.get("loop") and any(hasattr(kind, "measurement") for kind in kinds):
        raise ClipError(f"guidance: measurements hold for at most {pipeline.defaults['seconds']:g} s, a single window")
    return kinds


def obedience(
    pipeline: CounterpointPipeline, settings: Mapping[str, Any], prompts: Sequence[str], names: Collection[str]
) -> list[Guidance]:
    """The guidance by the tempo and the key that the prompts name; none where nothing is named or no sound is made."""
    scale = float(settings.get("obey", 0.0))
    if not scale or "audio" not in names or pipeline.codecs.audio is None:
        return []
    asked = Asked(pipeline.codecs, tuple(prompts))
    return [CleanScore(scale=scale, rescale=1.0, score=asked)] if asked.any else []


def obey_of(guidance: Any, obey: float | None, default: float) -> float:
    """The scale of the guidance by what prompts name that goes with `guidance`: with objects 0, unless it is given.

    Raises:
        ClipError: a scale that is no number from 0 on.
    """
    scale = float(obey if obey is not None else default if _of_scales(guidance) else 0.0)
    if not (math.isfinite(scale) and scale >= 0):
        raise ClipError(f"obey: {scale} is no scale from 0 on")
    return scale


def _of_scales(guidance: Any) -> bool:
    """Whether guidance is none, a scale or scales, beside which a model's own defaults hold, and no objects."""
    return isinstance(guidance, (Mapping, int, float, type(None)))


def isolation_of(
    guidance: Any, isolation: Scales | None, default: Scales, modalities: Mapping[str, Modality]
) -> Scales:
    """The scale, or scales, of the isolation guidance that goes with `guidance`: 1 with objects, and for one modality.

    Raises:
        ClipError: a scale beside guidance objects, one that is no number, or one for a track that the model lacks.
    """
    scale = _beside("isolation", guidance, isolation, default, modalities)
    return scale if len(modalities) > 1 else Isolation.neutral


def parallel_of(guidance: Any, parallel: Scales | None, default: Scales, modalities: Mapping[str, Modality]) -> Scales:
    """The share, or shares, that `guidance` and isolation keep along the predicted clean latents: 1 with objects.

    Raises:
        ClipError: a share beside guidance objects, one that is no number, or one for a track that the model lacks.
    """
    return _beside("parallel", guidance, parallel, default, modalities)


def _beside(
    option: str, guidance: Any, asked: Scales | None, default: Scales, modalities: Mapping[str, Modality]
) -> Scales:
    """A number, or numbers by track, that stands beside a scale of guidance; 1 beside guidance objects."""
    if not _of_scales(guidance):
        if asked not in (None, 1.0):
            raise ClipError(f"{option}: guidance objects take its place; say it of one of them")
        return 1.0
    chosen = default if asked is None else asked
    for number in chosen.values() if isinstance(chosen, Mapping) else (chosen,):
        if not isinstance(number, (int, float)) or not math.isfinite(number):
            raise ClipError(f"{option}: {number} is no number")
    if not isinstance(chosen, Mapping):
        return float(chosen)
    _by_modality(chosen, modalities, 1.0, option)  # names the track that is not there
    return guidance_spec(chosen)


def guidance_spec(guidance: Any) -> Any:
    """Guidance as JSON: a number, numbers by track, or a list of `{"kind": class, field: value, …}`."""
    if isinstance(guidance, Mapping):
        return {name: float(scale) for name, scale in guidance.items()}
    if isinstance(guidance, (int, float)):
        return guidance
    return [_spec(kind) for kind in guidance]


def _spec(value: Any) -> Any:
    """Frozen dataclasses by name and fields, plain values as they are, and of anything else what it is."""
    if is_dataclass(value) and not isinstance(value, type):
        return {"kind": type(value).__name__} | {f.name: _spec(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _spec(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_spec(item) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__}{'' if shape is None else list(shape)}"


def _by_modality(
    asked: Mapping[str, float], modalities: Mapping[str, Modality], default: Scales | Any, option: str = "guidance"
) -> dict[str, float]:
    """Numbers per modality from numbers per track or modality; a track left out keeps the default."""
    if isinstance(default, Mapping):
        numbers = _by_modality(default, modalities, 1.0, option)
    else:
        numbers = dict.fromkeys(modalities, float(default) if isinstance(default, (int, float)) else 1.0)
    for name, number in asked.items():
        hit = [n for n, m in modalities.items() if name in (n, m.group)]
        if not hit:
            raise ClipError(f"{option}: no track is called {name!r}; known are {', '.join(GROUPS)}")
        numbers.update(dict.fromkeys(hit, float(number)))
    return numbers
