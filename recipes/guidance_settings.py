"""The settings of guidance that `evaluate_guidance` compares, each by what is typed after `--guide`.

`score`, the classifier asked about the predicted clean clip, is Python's alone.

Where the target is each clip's own, it stands in braces: `classifier:material={material}:2` leads every clip to the
material that its prompt states, `events={contacts}` to the times at which things meet in the real clip of that prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from counterpoint.backbones.classifier import LatentClassifier
from counterpoint.diffusion.model_files import model_folder
from counterpoint.diffusion.pipeline import CounterpointPipeline
from counterpoint.guidance.auto import AutoGuidance
from counterpoint.guidance.classifier import Classifier, CleanScore
from counterpoint.guidance.classifier_free import ClassifierFree
from counterpoint.guidance.diffusers_guiders import DiffusersGuider
from counterpoint.guidance.interface import Guidance
from counterpoint.guidance.isolation import Isolation
from counterpoint.guidance.measurements import Downsampled, Events, Loudness, LowRate, loudness_of
from counterpoint.guidance.reconstruction import Reconstruction
from counterpoint.modalities.clip import Clip, ClipError
from counterpoint.modalities.codecs import Codecs, from_frames

BASE = "classifier-free:2"
"""What all others are added to or compared with."""
PIXELS, SLOW = 16, 25.0  # height and width of the small video, readings a second of the slow sensor
GUIDERS = ("AdaptiveProjectedGuidance", "ClassifierFreeZeroStarGuidance")
Make = Callable[[CounterpointPipeline, Sequence[Clip]], list[Guidance]]
Measurement = Callable[[Codecs, Sequence[Clip]], Callable[[dict[str, Tensor]], Any]]


@dataclass(frozen=True)
class Setting:
    """Guidances for a batch.

    Args:
        name: as typed; several `--guide` are parted by blanks.
        guidances: `(pipeline, real clips of the batch's prompts)` → guidances.
        measurement: what the guidance measures, of a batch; None for other kinds.
    """

    name: str
    guidances: Make
    measurement: Measurement | None = None

    @property
    def kind(self) -> str:
        """The last guide's kind."""
        return re.split(r"[:=]", self.name.split()[-1])[0]

    @property
    def file(self) -> str:
        """The name as that of a file."""
        return re.sub(r"[^\w.-]+", "_", self.name)


def settings_of(pipeline: CounterpointPipeline, weak: str | None = None) -> dict[str, Setting]:
    """All settings that a model can be asked for, by name; those of its classifier only if it has one."""
    made = [Setting(name, lambda _, __, own=own: list(own)) for name, own in fixed().items()]
    made += [_measured(name, measurement) for name, measurement in MEASUREMENTS.items()]
    made += [Setting(f"diffusers:{name}:3", lambda _, __, name=name: [_guider(name, 3.0)]) for name in GUIDERS]
    classifier = classifier_of(pipeline)
    if classifier is not None:
        made += [_classified(classifier, "material", scale) for scale in (1.0, 2.0, 4.0)]
        made.append(_scored(classifier, "material", 2.0))
    if weak is not None:
        other = CounterpointPipeline.from_pretrained(weak, device=str(pipeline.device))
        if other.codecs.shapes() != pipeline.codecs.shapes():
            raise ClipError(f"{weak}: its latents differ from those of the model that it is to guide")
        for scale in (1.5, 2.0):
            guides = [AutoGuidance(scale, weak=other)]
            made.append(Setting(f"auto={weak}:{scale:g}", lambda _, __, own=guides: list(own)))
    return {setting.name: setting for setting in made}


def fixed() -> dict[str, list[Guidance]]:
    """Settings that are the same for every clip; a test holds their names against `--guide`."""
    free = ClassifierFree(2.0)
    return {
        BASE: [free],
        "classifier-free:1": [ClassifierFree(1.0)],
        "classifier-free:1.5": [ClassifierFree(1.5)],
        "classifier-free:3": [ClassifierFree(3.0)],
        "classifier-free:5": [ClassifierFree(5.0)],
        "classifier-free:2:interval=0.2-0.8": [ClassifierFree(2.0, interval=(0.2, 0.8))],
        "classifier-free:3:interval=0.2-0.8": [ClassifierFree(3.0, interval=(0.2, 0.8))],
        "classifier-free:3:rescale=0.7": [ClassifierFree(3.0, rescale=0.7)],
        "isolation:2": [Isolation(2.0)],
        "classifier-free:2 isolation:1.5": [free, Isolation(1.5)],
        "classifier-free:2 isolation:2": [free, Isolation(2.0)],
        "classifier-free:2 isolation:3": [free, Isolation(3.0)],
        "classifier-free:2 isolation:2:interval=0.2-0.8": [free, Isolation(2.0, interval=(0.2, 0.8))],
    }


def _guider(name: str, scale: float) -> DiffusersGuider:
    import diffusers.guiders

    return DiffusersGuider(guider=getattr(diffusers.guiders, name)(guidance_scale=scale))


def classifier_of(pipeline: CounterpointPipeline) -> LatentClassifier | None:
    """The classifier of noised latents in the folder of a pipeline's model, if there is one."""
    folder = model_folder(pipeline.model_name) / "classifier"
    if not (folder / "config.json").is_file():
        return None
    classifier = LatentClassifier.from_pretrained(str(folder), torch_dtype=torch.float32, low_cpu_mem_usage=False)
    torch.nn.Module.to(classifier, pipeline.device)
    return classifier.eval().requires_grad_(False)


@dataclass(frozen=True)
class ByClip:
    """A classifier that leads every clip of a batch to a value of its own; None leaves a clip alone."""

    classifier: LatentClassifier
    values: tuple[str | None, ...]

    def log_probability(
        self, latents: dict[str, Tensor], sigma: dict[str, Tensor], attribute: str, value: str
    ) -> Tensor:
        """`log p(attribute = values[i] | x_σ)` of clip i, `[B]`; `value` is not looked at."""
        said = self.classifier(latents, sigma)[attribute]  # [B, A]
        targets = [None if own is None else self.classifier.number(attribute, own) for own in self.values]
        stated = torch.tensor([number is not None for number in targets], device=said.device)
        chosen = torch.tensor([number or 0 for number in targets], device=said.device)
        return said.gather(1, chosen[:, None])[:, 0] * stated

    @classmethod
    def of(cls, classifier: LatentClassifier, clips: Sequence[Clip], attribute: str) -> ByClip:
        """To what is true of each real clip."""
        stated = [clip.metadata["attributes"].get(attribute) for clip in clips]
        return cls(classifier, tuple(None if value is None else str(value) for value in stated))

    def score(self, attribute: str) -> Callable[[dict[str, Tensor]], Tensor]:
        """The same of clean latents: a score for `CleanScore`."""

        def score(clean: dict[str, Tensor]) -> Tensor:
            return self.log_probability(clean, {n: x.new_zeros(x.shape[:2]) for n, x in clean.items()}, attribute, "")

        return score


def _classified(classifier: LatentClassifier, attribute: str, scale: float) -> Setting:
    def make(_: CounterpointPipeline, clips: Sequence[Clip]) -> list[Guidance]:
        own = ByClip.of(classifier, clips, attribute)
        return [ClassifierFree(2.0), Classifier(scale, classifier=own, attribute=attribute, value="")]

    return Setting(f"{BASE} classifier:{attribute}={{{attribute}}}:{scale:g}", make)


def _scored(classifier: LatentClassifier, attribute: str, scale: float) -> Setting:
    """The same classifier as a score of the predicted clean clip."""

    def make(_: CounterpointPipeline, clips: Sequence[Clip]) -> list[Guidance]:
        score = ByClip.of(classifier, clips, attribute).score(attribute)
        return [ClassifierFree(2.0), CleanScore(scale, score=score)]

    return Setting(f"{BASE} score:{attribute}={{{attribute}}}:{scale:g}", make)


@dataclass(frozen=True)
class EachOwn:
    """Measurements of which each looks at one clip of a batch."""

    measurements: Sequence[Callable[[dict[str, Tensor]], Sequence[Tensor]]]

    def __call__(self, clean: dict[str, Tensor]) -> list[Tensor]:
        """Residuals `[B, M]`, as many as each measurement has."""
        each = [
            measure({name: x[i : i + 1] for name, x in clean.items()}) for i, measure in enumerate(self.measurements)
        ]
        return [torch.cat(parts) for parts in zip(*each, strict=True)]


def _measured(name: str, measurement: Measurement) -> Setting:
    def make(pipeline: CounterpointPipeline, clips: Sequence[Clip]) -> list[Guidance]:
        return [ClassifierFree(2.0), Reconstruction(measurement=measurement(pipeline.codecs, clips))]

    return Setting(f"{BASE} {name}", make, measurement)


def _events(codecs: Codecs, clips: Sequence[Clip]) -> EachOwn:
    return EachOwn([Events(codecs, clip.events) for clip in clips])


def _loudness(codecs: Codecs, clips: Sequence[Clip]) -> Loudness:
    sound = torch.from_numpy(np.stack([_values(clip.audio) for clip in clips]))  # [B, 1, N]
    return Loudness(codecs, loudness_of(sound))


def _sensor(codecs: Codecs, clips: Sequence[Clip]) -> LowRate:
    track = clips[0].sensor["accelerometer"]
    values = torch.from_numpy(np.stack([clip.sensor["accelerometer"].values for clip in clips]))  # [B, 3, n]
    ratio = round(track.rate / SLOW)  # samples of a reading, which lies in their middle; the first has half of them
    first = values[..., : ratio // 2].mean(2, keepdim=True)
    readings = torch.cat([first, functional.avg_pool1d(values[..., ratio // 2 :], ratio)], dim=2)
    return LowRate(codecs, "accelerometer", readings, SLOW)


def _video(codecs: Codecs, clips: Sequence[Clip]) -> Downsampled:
    frames = from_frames(np.stack([_values(clip.video) for clip in clips]))  # [B, 3, F, H, W]
    return Downsampled(codecs, functional.adaptive_avg_pool3d(frames, (frames.shape[2], PIXELS, PIXELS)))


def _values(track: Any) -> np.ndarray:
    return track.values


MEASUREMENTS: Mapping[str, Measurement] = {
    "events={contacts}": _events,
    "loudness={sound}": _loudness,
    "sensor={slow_accelerometer}": _sensor,
    "video={small_video}": _video,
}
