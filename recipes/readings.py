"""What the evaluations of any-to-any, long form and guidance share: clips that are read once, batches with any tracks
given.

Legend: `N` clips, `B` of a batch, `T` slots, `S` tokens, `C` channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.diffusion.conditions import Condition
from counterpoint.diffusion.pipeline import CounterpointPipeline, weights_folder
from counterpoint.diffusion.requests import made_modalities
from counterpoint.evaluation import report
from counterpoint.evaluation.events import clip_events
from counterpoint.evaluation.judges import TRACKS, Judges
from counterpoint.modalities.clip import Clip
from counterpoint.recipes.evaluate_joint import BATCH, HELD_OUT, held_out, tensors
from counterpoint.recipes.resumable import Arrays, Say, Store, store_of


@dataclass(frozen=True)
class Reading:
    """What was found in N clips, track by track.

    Args:
        events: times in seconds, `{track: [an array of each clip]}`.
        features: of the judges, `{track: [N, 128]}`.
    """

    events: Mapping[str, Sequence[np.ndarray]]
    features: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, clips: Sequence[Clip], judges: Judges) -> Reading:
        """Reads clips that have the same tracks."""
        backgrounds = judges.backgrounds.numpy() if judges.backgrounds.any() else None
        found = [clip_events(clip, backgrounds) for clip in clips]
        return cls({t: [one[t] for one in found] for t in TRACKS if t in found[0]}, report.features(clips, judges))

    @classmethod
    def joined(cls, parts: Sequence[Reading]) -> Reading:
        """Readings of other clips, one after the other."""
        events = {t: [times for part in parts for times in part.events[t]] for t in parts[0].events}
        return cls(events, {t: np.concatenate([part.features[t] for part in parts]) for t in parts[0].features})

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Reading:
        """What `arrays` wrote."""
        held = [t for t in TRACKS if f"features.{t}" in arrays]
        events = {t: np.split(arrays[f"times.{t}"], np.cumsum(arrays[f"counts.{t}"])[:-1]) for t in held}
        return cls(events, {t: arrays[f"features.{t}"] for t in held})

    def arrays(self) -> Arrays:
        """The reading as arrays, for a file."""
        arrays = {f"features.{t}": values for t, values in self.features.items()}
        for track, times in self.events.items():
            arrays[f"times.{track}"] = np.concatenate([np.zeros(0), *times])
            arrays[f"counts.{track}"] = np.array([len(one) for one in times])
        return arrays

    def only(self, tracks: Iterable[str]) -> Reading:
        """The reading of some of the tracks."""
        return Reading({t: self.events[t] for t in tracks}, {t: self.features[t] for t in tracks})

    def beside(self, other: Reading) -> Reading:
        """The same clips with the other reading's tracks as well."""
        return Reading({**self.events, **other.events}, {**self.features, **other.features})

    def chosen(self, index: Sequence[int]) -> Reading:
        """The reading of some of the clips."""
        events = {t: [times[i] for i in index] for t, times in self.events.items()}
        return Reading(events, {t: values[list(index)] for t, values in self.features.items()})

    def by_clip(self) -> list[dict[str, np.ndarray]]:
        """Events as the reports take them."""
        return [dict(zip(self.events, times, strict=True)) for times in zip(*self.events.values(), strict=True)]


@dataclass(frozen=True)
class HeldOut:
    """The held-out clips of `evaluate_joint` (the same ones for the same number and seed), and what is read in them.

    Args:
        pipeline, judges: what encodes and what reads.
        store: keeps what was read.
        prompts, seed: how many clips, and which.
        workers: processes that make them.
        say: called with a line before what takes long.
    """

    pipeline: CounterpointPipeline
    judges: Judges
    store: Store
    prompts: int
    seed: int
    workers: int = 2
    say: Say = print

    @classmethod
    def create(
        cls, pipeline: CounterpointPipeline, work: Path, facts: Mapping[str, Any], workers: int = 2, say: Say = print
    ) -> HeldOut:
        """With the shipped judges; `facts` are those of `resumable.begin`, and all evaluations share what is read."""
        chosen = {key: facts[key] for key in ("weights", "prompts", "seed")}
        judges = Judges.load(weights_folder() / "judges")
        return cls(
            pipeline,
            judges,
            store_of(work, "held-out", chosen),
            workers=workers,
            say=say,
            prompts=facts["prompts"],
            seed=facts["seed"],
        )

    @cached_property
    def clips(self) -> list[Clip]:
        """The clips themselves, made anew in every run."""
        self.say(f"{self.prompts} held-out clips")
        return held_out(HELD_OUT + 4 * self.prompts * self.seed, self.prompts, self.workers)

    @property
    def seeds(self) -> list[int]:
        """Of the noise, one for each clip."""
        return [self.seed * self.prompts + i for i in range(self.prompts)]

    @cached_property
    def captions(self) -> list[str]:
        """The prompts."""
        return [clip.metadata["prompt"] for clip in self.clips]

    @cached_property
    def real(self) -> Reading:
        """The clips, read."""
        return Reading.of_arrays(self.store.arrays("real", lambda: Reading.of(self.clips, self.judges).arrays()))

    @cached_property
    def codec(self) -> Reading:
        """The clips, encoded and decoded, read: what the codecs leave of them."""

        def make() -> Arrays:
            self.say("codec round trips")
            parts = []
            for i in range(0, self.prompts, BATCH):
                made = {name: x[i : i + BATCH].to(self.pipeline.device) for name, x in self.latents.items()}
                parts.append(Reading.of(self.pipeline.codecs.decode(made), self.judges))
            return Reading.joined(parts).arrays()

        return Reading.of_arrays(self.store.arrays("codec", make))

    @cached_property
    def others(self) -> Arrays:
        """Features of as many other held-out clips, against which realism is measured."""

        def make() -> Arrays:
            self.say(f"{self.prompts} other held-out clips for reference")
            first = HELD_OUT + 4 * self.prompts * self.seed + 2 * self.prompts
            return report.features(held_out(first, self.prompts, self.workers), self.judges)

        return self.store.arrays("others", make)

    @cached_property
    def latents(self) -> dict[str, Tensor]:
        """The clips encoded, `{modality: [N, T, S, C]}`."""
        return as_tensors(self.store.arrays("latents", lambda: as_arrays(encoded(self.pipeline, self.clips))))

    def adherence(self, ours: Reading, tracks: Iterable[str]) -> dict[str, Any]:
        """`report.adherence_report` of the clips in `ours`, read in these tracks alone."""
        tracks = list(tracks)
        stated = [clip.metadata["attributes"] for clip in self.clips]
        unseen = [clip.metadata["split"] == "unseen" for clip in self.clips]
        features = ours.only(tracks).features, self.real.only(tracks).features
        return report.adherence_report(*features, self.judges, stated, unseen)

    def realism(self, ours: Reading, tracks: Iterable[str]) -> dict[str, Any]:
        """`report.realism_report` of these tracks."""
        return report.realism_report(ours.only(tracks).features, self.real.features, self.others)


def walk(
    pipeline: CounterpointPipeline, prompts: Sequence[str], seeds: Sequence[int], tracks: Sequence[str],
    given: Mapping[str, Tensor] | None = None, guidance: Any = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Latents of the tracks that are made for a batch, `{modality: [B, T, S, C]}`.

    Args:
        pipeline: with its own number of steps and length.
        prompts, seeds: one of each per clip.
        tracks: the groups to make.
        given: latents of other tracks, known whole, each clip's own: `{modality: [B, T, S, C]}`.
        guidance: as for the pipeline; None is its own.
    """
    condition = None
    if given:
        known = {name: torch.ones(x.shape[1], dtype=torch.bool) for name, x in given.items()}
        condition = Condition(Clip(), pipeline.defaults["seconds"], None, known, given, {})
    settings = {"negative_prompt": "", "tracks": list(tracks)}
    settings |= {key: pipeline.defaults[key] for key in ("steps", "guidance", "isolation", "parallel", "seconds")}
    latents = pipeline.generate_latents(prompts, seeds, settings, guidance, condition=condition)
    return {name: latents[name] for name in made_modalities(pipeline.codecs, tracks, condition)}


def encoded(pipeline: CounterpointPipeline, clips: Sequence[Clip]) -> dict[str, Tensor]:
    """Latents `{modality: [N, T, S, C]}` (CPU) of clips on the model's clock, in batches."""
    parts = []
    for i in range(0, len(clips), BATCH):
        values = {name: x.to(pipeline.device) for name, x in of_clips(clips[i : i + BATCH]).items()}
        parts.append({name: x.cpu() for name, x in pipeline.codecs.encode(values).items()})
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def of_clips(clips: Sequence[Clip]) -> dict[str, Tensor]:
    """`evaluate_joint.tensors` of clips that may lack tracks."""
    first = clips[0]
    if first.video is not None and first.audio is not None and first.sensor:
        return tensors(clips)
    values: dict[str, Tensor] = {}
    if first.video is not None:
        values["video"] = report.to_tensors([Clip(video=clip.video) for clip in clips])["video"]
    if first.audio is not None:
        values["audio"] = report.to_tensors([Clip(audio=clip.audio) for clip in clips])["audio"]
    names = list(first.sensor)
    return values | {n: torch.from_numpy(np.stack([clip.sensor[n].values for clip in clips])) for n in names}


def as_arrays(latents: Mapping[str, Tensor]) -> Arrays:
    """Latents for a file, in 16 bits: they are of the size of 1."""
    return {f"latents.{name}": x.half().numpy() for name, x in latents.items()}


def as_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """What `as_arrays` wrote, `{modality: [N, T, S, C]}` float32."""
    named = {key.removeprefix("latents."): x for key, x in arrays.items() if key.startswith("latents.")}
    return {name: torch.from_numpy(x).float() for name, x in named.items()}


def sync_summary(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A pair of `report.synchronization_report` in brief: the clips' own score, and the F1 that it is read beside."""
    own = {key: rows["generated"][key] for key in ("f1", "precision", "recall", "median_ms", "reference_events")}
    own["predicted_events"] = rows["generated"]["predicted_events"]
    beside = {"chance": "mismatched", "codec": "codec", "real": "real", "real_chance": "real_mismatched"}
    return own | {name: rows[key]["f1"] for name, key in beside.items() if key in rows}
