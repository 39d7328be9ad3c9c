"""From the specs of `--guide` to guidances: files are read, models loaded, tracks become modalities."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.backbones.classifier import LatentClassifier
from counterpoint.cli.guides import GuideSpec
from counterpoint.diffusion.model_files import model_folder
from counterpoint.guidance.auto import AutoGuidance
from counterpoint.guidance.classifier import Classifier
from counterpoint.guidance.classifier_free import ClassifierFree
from counterpoint.guidance.diffusers_guiders import DiffusersGuider
from counterpoint.guidance.interface import ScaledGuidance
from counterpoint.guidance.isolation import Isolation
from counterpoint.guidance.measurements import Downsampled, Events, Loudness, LowRate, Masked, loudness_of
from counterpoint.guidance.reconstruction import Reconstruction
from counterpoint.modalities.audio import SoundGrid
from counterpoint.modalities.clip import Clip, ClipError, Clock, Track, resample
from counterpoint.modalities.codecs import FPS, from_frames
from counterpoint.recipes.settings import SettingsError

PIXELS = 16  # a given video is brought down to this height and width


def build(spec: GuideSpec, pipeline: Any, classifier: Any = None) -> list[ScaledGuidance]:
    """The guidances of one spec: one, or for a table of sensors one for each sensor in it."""
    if spec.kind == "classifier-free":
        return [ClassifierFree(**_options(spec, pipeline, ClassifierFree))]
    if spec.kind == "isolation":
        return [Isolation(**_options(spec, pipeline, Isolation))]
    if spec.kind == "auto":
        return [AutoGuidance(**_options(spec, pipeline, AutoGuidance), weak=_weak(spec, pipeline))]
    if spec.kind == "diffusers":
        return [_guider(spec, pipeline)]
    if spec.kind == "classifier":
        return [_classifier(spec, pipeline, classifier)]
    options = _options(spec, pipeline, Reconstruction)
    return [Reconstruction(**options, measurement=measured) for measured in _measurements(spec, pipeline.codecs)]


def _options(spec: GuideSpec, pipeline: Any, kind: type[ScaledGuidance]) -> dict[str, Any]:
    """Scales per modality and what else is typed; tracks without a scale of their own are not guided."""
    options = _shared(spec)
    if spec.scale is not None:
        options["scale"] = spec.scale
    if spec.scales:
        options |= {"scale": kind.neutral if spec.scale is None else spec.scale, "scales": _scales(spec, pipeline)}
    return options


def _shared(spec: GuideSpec) -> dict[str, Any]:
    """The options that are no scales."""
    options: dict[str, Any] = {"interval": spec.interval, "rescale": spec.rescale}
    return options if spec.parallel is None else options | {"parallel": spec.parallel}


def _scales(spec: GuideSpec, pipeline: Any) -> dict[str, float]:
    groups = {name: group for name, (_, _, group) in pipeline.codecs.shapes().items()}
    lost = [track for track in spec.scales if track not in groups.values()]
    if lost:
        raise SettingsError(f"--guide {spec}: this model has no {lost[0]}")
    return {name: spec.scales[group] for name, group in groups.items() if group in spec.scales}


def _classifier(spec: GuideSpec, pipeline: Any, classifier: Any) -> Classifier:
    classifier = _own_classifier(pipeline) if classifier is None else classifier
    if classifier is None:
        raise SettingsError(f"--guide {spec}: this model has no classifier of noised latents")
    attribute, _, value = spec.value.partition("=")
    if isinstance(classifier, LatentClassifier):
        try:
            classifier.number(attribute, value)
        except ValueError as error:
            raise SettingsError(f"--guide {spec}: {error}") from error
    return Classifier(**_options(spec, pipeline, Classifier), classifier=classifier, attribute=attribute, value=value)


def _own_classifier(pipeline: Any) -> Any:
    """The classifier that the pipeline holds, or the one in the folder `classifier/` of its model; None without."""
    if getattr(pipeline, "classifier", None) is not None:
        return pipeline.classifier
    try:
        folder = model_folder(getattr(pipeline, "model_name", "")) / "classifier"
    except ClipError:  # a pipeline that was put together by hand
        return None
    if not (folder / "config.json").is_file():
        return None
    classifier = LatentClassifier.from_pretrained(str(folder), torch_dtype=torch.float32, low_cpu_mem_usage=False)
    return classifier.eval().requires_grad_(False).to(pipeline.device)


def _weak(spec: GuideSpec, pipeline: Any) -> Any:
    from counterpoint.diffusion.pipeline import CounterpointPipeline

    weak = CounterpointPipeline.from_pretrained(spec.value, device=str(pipeline.device))
    own, other = pipeline.codecs.shapes(), weak.codecs.shapes()
    if own != other:
        raise SettingsError(f"--guide {spec}: its latents differ from those of the model ({other}, expected {own})")
    return weak


def _guider(spec: GuideSpec, pipeline: Any) -> DiffusersGuider:
    """Scales are the guiders' own; tracks without one are not guided."""
    import diffusers.guiders

    make = getattr(diffusers.guiders, spec.value)
    scales = _scales(spec, pipeline)
    shared = _shared(spec)
    with _quiet("diffusers.guiders.guider_utils"):
        guider = make() if spec.scale is None else make(guidance_scale=spec.scale)
        guiders = {name: make(guidance_scale=scale) for name, scale in scales.items()}
    if not scales or spec.scale is not None:
        return DiffusersGuider(**shared, guider=guider, guiders=guiders)
    return DiffusersGuider(0.0, dict.fromkeys(scales, 1.0), **shared, guider=guider, guiders=guiders)


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Diffusers says at every guider that guiders are experimental."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _measurements(spec: GuideSpec, codecs: Any) -> list[Any]:
    if spec.kind == "events":
        return [Events(codecs, tuple(float(time) for time in spec.value.split(",")))]
    group = {"loudness": "audio"}.get(spec.kind, spec.kind)
    clip = Clip.read(spec.value, tracks=(group,))
    if spec.kind == "loudness":
        return [Loudness(codecs, _envelope(spec, clip, SoundGrid(codecs.audio_rate)))]
    if spec.kind == "video":
        return [_small_video(spec, clip, codecs)]
    known = [name for name in clip.sensor if codecs.sensor is not None and name in codecs.sensor.channels]
    if not known:
        raise ClipError(f"{spec.value}: no sensor that this model knows, only {', '.join(clip.sensor) or 'none'}")
    return [_sensor(spec, name, clip, codecs) for name in known]


def _envelope(spec: GuideSpec, clip: Clip, grid: SoundGrid) -> Tensor:
    """Loudness of a file's sound `[F]`, as the model's codec hears it."""
    if clip.audio is None:
        raise ClipError(f"{spec.value}: no sound in it")
    sound = resample(clip, Clock(seconds=clip.audio.end, audio_rate=grid.rate)).audio
    wave = torch.zeros(1, 1, 0) if sound is None else torch.from_numpy(sound.values).mean(0)[None, None]  # [1, 1, N]
    if wave.shape[2] < 2 * grid.hop:
        raise ClipError(f"{spec.value}: less than {2 * grid.hop / grid.rate:g} s of sound")
    return loudness_of(wave[..., : wave.shape[2] // grid.hop * grid.hop], grid)[0]


def _small_video(spec: GuideSpec, clip: Clip, codecs: Any) -> Downsampled:
    if clip.video is None:
        raise ClipError(f"{spec.value}: no video in it")
    rate, side = min(clip.video.rate, FPS), min(PIXELS, *clip.video.values.shape[1:3])
    video = resample(clip, Clock(seconds=clip.video.end, fps=rate, size=(side, side))).video
    if video is None or not video.samples:
        raise ClipError(f"{spec.value}: no frame at or after 0 s")
    frames = from_frames(video.values[None])[0]  # [3, f, h, w]
    if video.mask is not None:
        frames[:, ~torch.from_numpy(video.mask)] = torch.nan
    return Downsampled(codecs, frames, rate)


def _sensor(spec: GuideSpec, name: str, clip: Clip, codecs: Any) -> Masked | LowRate:
    codec, track = codecs.sensor, clip.sensor[name]
    names = tuple(channel.name for channel in codec.channels[name])
    if track.names and sorted(track.names) != sorted(names):
        raise ClipError(f"{spec.value}: {name} has channels {', '.join(track.names)}, expected {', '.join(names)}")
    rate = min(track.rate, codec.rate)
    onto = resample(clip, Clock(seconds=track.end, sensor_rate=rate)).sensor.get(name)
    if onto is None:
        raise ClipError(f"{spec.value}: nothing of {name} was measured")
    values = torch.from_numpy(_with_gaps(onto, names))  # [K, n]
    return Masked(codecs, name, values) if rate == codec.rate else LowRate(codecs, name, values, rate)


def _with_gaps(track: Track, names: tuple[str, ...]) -> np.ndarray:
    """Values `[K, n]` in the codec's order of channels, NaN where not measured."""
    values = track.values if track.mask is None else np.where(track.mask, track.values, np.nan)
    order = [track.names.index(name) for name in names] if track.names else range(len(values))
    return np.asarray(values, np.float32)[list(order)]
