"""Score a model on held-out prompts: generated clips beside real ones, codec round trips and chance.

    counterpoint evaluate joint --json docs/scores/joint.json

Held-out clips have seeds from `HELD_OUT` on, so none was trained on; three quarters are of the split "test" (known
combinations), one quarter of "unseen" (a material, shape and floor that were never together in training).
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.data.arrays import SENSORS, read_arrays
from counterpoint.data.physics import generate
from counterpoint.diffusion.pipeline import CounterpointPipeline, weights_folder
from counterpoint.diffusion.requests import guidance_spec, isolation_of, obey_of, parallel_of
from counterpoint.evaluation import report
from counterpoint.evaluation.judges import Judges
from counterpoint.modalities.clip import Clip
from counterpoint.modalities.codecs import from_frames
from counterpoint.recipes.best_of import best, tries

HELD_OUT = 10_000_000  # first seed of held-out clips; training counts from 0, the judges' clips from 20,000,000
MEMORY = 512  # training clips searched for copies when no data folder is given
BATCH = 16


def evaluate(
    model: str | Path | CounterpointPipeline,
    prompts: int = 256,
    seed: int = 0,
    json_path: Path | None = None,
    data: Path | None = None,
    workers: int = 2,
    say: Callable[[str], None] = print,
    guidance: Any = None,
    steps: int | None = None,
    obey: float | None = None,
    best_of: int = 1,
) -> dict[str, Any]:
    """The scores of a model, also written to `json_path`.

    Args:
        model: a shipped name, a folder, or the pipeline itself.
        prompts: held-out prompts, one generated clip each.
        seed: chooses the held-out clips, and the noise.
        json_path: written whole or not at all.
        data: the training arrays, all of which are then searched for copies; None: `MEMORY` training clips, made anew.
        workers: processes that make clips.
        say: called with a line at each stage.
        guidance, steps, obey: as a pipeline takes them; None is the model's own.
        best_of: tries at each prompt, of which the one is scored whose tracks agree best (`recipes.best_of`).
    """
    start = time.monotonic()
    pipeline = model if isinstance(model, CounterpointPipeline) else CounterpointPipeline.from_pretrained(model)
    settings = settings_of(pipeline, guidance, steps, obey) | ({"best_of": best_of} if best_of > 1 else {})
    judges = Judges.load(weights_folder() / "judges")
    say(f"{prompts} held-out clips, and as many others for reference")
    real = held_out(HELD_OUT + 4 * prompts * seed, prompts, workers)
    others = report.features(held_out(HELD_OUT + 4 * prompts * seed + 2 * prompts, prompts, workers), judges)
    say("codec round trips")
    codec = list(round_trips(pipeline, real))
    say("generation")
    captions = [clip.metadata["prompt"] for clip in real]
    before = time.monotonic()
    seeds = [seed * prompts + i for i in range(prompts)]
    generated = list(samples(pipeline, captions, seeds, guidance, steps, obey, best_of))
    seconds = time.monotonic() - before
    say("training clips, for the search of copies")
    training = report.features(
        list(read_arrays(data)) if data else list(generate(range(MEMORY), "train", workers)), judges
    )
    scores = report.evaluate(
        generated, real, codec, judges, training, others,
        model=pipeline.model_name, prompts=prompts, seed=seed, commit=commit(), settings=settings,
        training_clips=len(next(iter(training.values()))), sampling_seconds_per_clip=round(seconds / prompts, 3),
    )  # fmt: skip
    scores["seconds"] = round(time.monotonic() - start, 1)
    if json_path is not None:
        write_scores(scores, json_path)
    say(report.table(scores))
    return scores


def held_out(first: int, count: int, workers: int = 1) -> list[Clip]:
    """`count` held-out clips: every fourth one from combinations never seen in training."""
    rare = count // 4
    seen = generate(range(first, first + count - rare), "test", workers)
    return [*seen, *generate(range(first + count - rare, first + count), "unseen", workers)]


def settings_of(
    pipeline: CounterpointPipeline, guidance: Any = None, steps: int | None = None, obey: float | None = None
) -> dict[str, Any]:
    """What `samples` are made with, as JSON: the model's defaults, and what replaces them."""
    defaults = pipeline.defaults
    return {
        **defaults,
        "obey": obey_of(guidance, obey, defaults["obey"]),
        "steps": defaults["steps"] if steps is None else steps,
        "guidance": guidance_spec(defaults["guidance"] if guidance is None else guidance),
        "isolation": isolation_of(guidance, None, defaults["isolation"], pipeline.transformer.modalities),
        "parallel": parallel_of(guidance, None, defaults["parallel"], pipeline.transformer.modalities),
    }


def samples(
    pipeline: CounterpointPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    guidance: Any = None,
    steps: int | None = None,
    obey: float | None = None,
    best_of: int = 1,
) -> Iterator[Clip]:
    """A generated clip per prompt, the best of several tries; what is not given is the model's own."""
    options: dict[str, Any] = {"guidance": guidance, "steps": steps, "obey": obey}
    for i in range(0, len(prompts), BATCH):
        seeds_of = zip(*(tries(seed, best_of) for seed in seeds[i : i + BATCH]), strict=True)
        made = [pipeline(prompts[i : i + BATCH], seed=list(own), **options) for own in seeds_of]
        yield from made[0] if best_of == 1 else (best(clips) for clips in zip(*made, strict=True))


def tensors(clips: Sequence[Clip]) -> dict[str, Tensor]:
    """A batch of clips with all tracks, as `Codecs.encode` wants them."""
    video = np.stack([clip.video.values for clip in clips if clip.video is not None])
    audio = np.stack([clip.audio.values for clip in clips if clip.audio is not None])
    sensors = {n: torch.from_numpy(np.stack([clip.sensor[n].values for clip in clips])) for n in SENSORS}
    return {"video": from_frames(video), "audio": torch.from_numpy(audio), **sensors}


def round_trips(pipeline: CounterpointPipeline, clips: Sequence[Clip]) -> Iterator[Clip]:
    """Each clip encoded and decoded."""
    for i in range(0, len(clips), BATCH):
        yield from pipeline.codecs.decode(pipeline.codecs.encode(tensors(clips[i : i + BATCH])))


def commit() -> str:
    """The commit of the checkout this runs from, or an empty string."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def write_scores(scores: dict[str, Any], path: Path) -> None:
    """Writes the scores as JSON, rounded; the file is there whole or not at all."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(rounded(scores), indent=1) + "\n")
    os.replace(partial, path)


def rounded(value: Any) -> Any:
    """Numbers with five significant digits, for a file that people read."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
