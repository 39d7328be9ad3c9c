"""Endless music: are the places heard where its pieces are joined, does memory grow, does it keep ahead of the player?

    python -m counterpoint.recipes.evaluate_stream music docs/scores/stream.json --seconds 120

Each prompt is streamed for that long; half-way the next one of the list takes its place. `seams` is the share of joints
that stand out from 95 % of the other times of the same sound (`evaluation/music_seams.py`; 0.05 where nothing is
heard), `change` that of the joints at which the prompt changed, `control` that of as many times between joints.
"""

from __future__ import annotations

import argparse
import math
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.diffusion.pipeline import CounterpointPipeline
from counterpoint.evaluation.music_seams import seam_report, seams
from counterpoint.modalities.clip import Clip, ClipError
from counterpoint.recipes.evaluate_joint import commit, write_scores
from counterpoint.recipes.text_to_music import PROMPTS


@dataclass(frozen=True)
class Streamed:
    """One stream.

    Args:
        sound: `[N]`.
        rate: samples a second.
        joints: seconds at which its pieces were joined.
        change: the joint after which the other prompt was heard; None if it never was.
        speed: seconds of sound a second.
        memory: peak MB after the third piece and after the last one.
    """

    sound: np.ndarray
    rate: int
    joints: tuple[float, ...]
    change: float | None
    speed: float
    memory: tuple[float, float]


def listen(pipeline: CounterpointPipeline, before: str, after: str, seconds: float, seed: int) -> Streamed:
    """A stream of at least `seconds`, whose prompt changes half-way.

    Raises:
        ClipError: a model without sound, or a stream of less than three pieces.
    """
    pieces: list[Clip] = []
    memory: list[float] = []

    def heard() -> float:
        return pieces[-1].duration if pieces else 0.0  # the last one ends there

    began = time.monotonic()
    stream = pipeline.stream(lambda: before if heard() < seconds / 2 else after, seconds=math.inf, seed=seed)
    while heard() < seconds:
        pieces.append(next(stream))
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)  # Linux counts kibibytes
    spent, sounds = time.monotonic() - began, [piece.audio for piece in pieces if piece.audio is not None]
    if len(sounds) < len(pieces):
        raise ClipError("audio: this model makes no sound")
    if len(pieces) < 3:
        raise ClipError(f"seconds: {seconds:g} is less than three pieces")
    later = [one.audio.start for one in pieces if one.metadata["prompt"] == after != before and one.audio is not None]
    return Streamed(
        np.concatenate([sound.values[0] for sound in sounds]),
        int(sounds[0].rate),
        tuple(sound.start for sound in sounds[1:]),
        later[0] if later else None,
        sum(sound.samples / sound.rate for sound in sounds) / spent,
        (memory[2], memory[-1]),
    )


def evaluate(
    model: str | Path, json_path: Path | None = None, seconds: float = 120.0, prompts: Sequence[str] = PROMPTS
) -> dict[str, Any]:
    """Scores of a stream of each prompt, also written to `json_path`."""
    pipeline = CounterpointPipeline.from_pretrained(model)
    streams = [
        listen(pipeline, prompt, prompts[(i + 1) % len(prompts)], seconds, i) for i, prompt in enumerate(prompts)
    ]
    at = {
        "seams": [stream.joints for stream in streams],
        "change": [() if stream.change is None else (stream.change,) for stream in streams],
        "control": [tuple(np.add(stream.joints[:-1], stream.joints[1:]) / 2) for stream in streams],
    }
    scores: dict[str, Any] = {
        name: seam_report([seams(s.sound, s.rate, times) for s, times in zip(streams, each, strict=True)])
        for name, each in at.items()
    }
    scores |= {
        "joints": sum(len(stream.joints) for stream in streams),
        "seconds": seconds,
        "prompts": list(prompts),
        "seconds_of_sound_per_second": min(stream.speed for stream in streams),
        "memory_mb": {"third_piece": streams[0].memory[0], "end": streams[-1].memory[1]},
        "model": str(model),
        "settings": dict(pipeline.defaults),
        "commit": commit(),
    }
    if json_path is not None:
        write_scores(scores, json_path)
    return scores


def main(arguments: Sequence[str] | None = None) -> None:
    """MODEL JSON [--seconds S]."""
    parser = argparse.ArgumentParser(prog="python -m counterpoint.recipes.evaluate_stream")
    parser.add_argument("model")
    parser.add_argument("json", type=Path)
    parser.add_argument("--seconds", type=float, default=120.0)
    chosen = parser.parse_args(arguments)
    for name, value in evaluate(chosen.model, chosen.json, chosen.seconds).items():
        print(f"{name}  {value}")


if __name__ == "__main__":
    main()
