"""What a call of the pipeline asks for, checked and written down as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from ..backbones.transformer import Modality
from ..guidance.classifier_free import ClassifierFree
from ..guidance.interface import Guidance
from ..modalities.clip import GROUPS, ClipError
from ..modalities.codecs import Codecs
from .conditions import Condition
from .given import Given, given_and_made

LONGEST = 60  # seconds


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


def check_seconds(seconds: float) -> float:
    """The duration; a ClipError unless it is above 0 and at most `LONGEST`."""
    if not 0 < seconds <= LONGEST:
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
    guidance: Any, modalities: Mapping[str, Modality], default: float | Mapping[str, float] | Any
) -> list[Guidance]:
    """Guidance objects of a scale, of scales by track or modality, or of objects.

    Raises:
        ClipError: a scale for a track that the model does not have.
    """
    if isinstance(guidance, Mapping):
        return [ClassifierFree(scale=1.0, scales=_scales(guidance, modalities, default))]
    if isinstance(guidance, (int, float)):
        return [ClassifierFree(scale=float(guidance))]
    return list(guidance)


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


def _scales(
    guidance: Mapping[str, float], modalities: Mapping[str, Modality], default: float | Mapping[str, float] | Any
) -> dict[str, float]:
    """Scales per modality from scales per track or modality; a track left out keeps the default scale."""
    scales = dict.fromkeys(modalities, float(default) if isinstance(default, (int, float)) else 1.0)
    for name, scale in guidance.items():
        hit = [n for n, m in modalities.items() if name in (n, m.group)]
        if not hit:
            raise ClipError(f"guidance: no track is called {name!r}; known are {', '.join(GROUPS)}")
        scales.update(dict.fromkeys(hit, float(scale)))
    return scales
