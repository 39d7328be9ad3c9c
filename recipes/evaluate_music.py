"""Score a model of music on held-out prompts: generated clips beside real ones, codec round trips and chance.

    counterpoint evaluate music --json docs/scores/music.json

Prompts come from pieces that are never trained on (`data/scores.py`): three quarters of the split "test", one quarter
of "unseen" (an instrument, mode and tempo that never go together in training). Each is asked for in the caption that
states tempo, key and instruments (the structured one where no other does), and only what it states is scored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from counterpoint.data.arrays import read_arrays
from counterpoint.data.scores import Music, generate
from counterpoint.data.scores_corpus import read_scores
from counterpoint.data.scores_split import pieces_of
from counterpoint.diffusion.pipeline import CounterpointPipeline, weights_folder
from counterpoint.evaluation import music
from counterpoint.evaluation.music_judge import MusicJudge
from counterpoint.evaluation.music_melody import Figures, index, melody
from counterpoint.modalities.clip import Clip, ClipError
from counterpoint.recipes.evaluate_joint import BATCH, commit, samples, settings_of, write_scores

HELD_OUT = 10_000_000  # first seed of held-out clips; training counts from 0
WANTED = ("tempo", "key", "instruments")  # what a prompt should state
MEANS = {
    "key": ("tonic", "mode"),
    "instruments": ("instruments", "family"),
    "ending": ("ends",),
}  # facts behind a word of `stated`
CONTROL = 128  # training clips in whose single lines the search for copies must find what it looks for


def evaluate(
    model: str | Path | CounterpointPipeline,
    prompts: int = 256,
    seed: int = 0,
    json_path: Path | None = None,
    data: Path | None = None,
    workers: int = 1,
    say: Callable[[str], None] = print,
    judge: Path | None = None,
    source: Music | None = None,
    guidance: Any = None,
    steps: int | None = None,
    obey: float | None = None,
) -> dict[str, Any]:
    """The scores of a model, also written to `json_path`.

    Args:
        model: a shipped name, a folder, or the pipeline itself.
        prompts: held-out prompts, one generated clip each.
        seed: chooses the held-out clips, and the noise.
        json_path: written whole or not at all.
        data: the training arrays, whose first clips are the control; None: training clips made anew.
        workers: processes that make clips and listen to them.
        say: called with a line at each stage.
        judge: folder of the judge; None: the one that ships.
        source: soundfonts and scores of the held-out clips; None: those of this machine.
        guidance, steps, obey: as a pipeline takes them; None is the model's own.
    """
    start = time.monotonic()
    pipeline = model if isinstance(model, CounterpointPipeline) else CounterpointPipeline.from_pretrained(model)
    settings = settings_of(pipeline, guidance, steps, obey)
    listener = MusicJudge.load(judge or weights_folder() / "music_judge")
    source = replace(source or Music(), rate=pipeline.codecs.audio_rate)
    say(f"{prompts} held-out clips, and as many others for reference")
    first = HELD_OUT + 4 * prompts * seed
    real = held_out(first, prompts, source, workers)
    others = held_out(first + 2 * prompts, prompts, source, workers)
    chosen = [prompt_of(clip.metadata) for clip in real]
    texts, asked = [text for text, _ in chosen], [facts for _, facts in chosen]
    say("generation")
    before = time.monotonic()
    generated = list(samples(pipeline, texts, [seed * prompts + i for i in range(prompts)], guidance, steps, obey))
    seconds = time.monotonic() - before
    say("listening: generated, real, codec, training")

    def hear(clips: Sequence[Clip], facts: Sequence[music.Facts]) -> music.Heard:
        return music.hear([heard(clip) for clip in clips], facts, listener, workers)

    scores = music.evaluate(
        hear(generated, asked),
        hear(real, asked),
        hear(list(round_trips(pipeline, real)), asked),
        asked,
        [clip.metadata["split"] == "unseen" for clip in real],
        hear(others, [{}] * prompts).features,
        known_figures(source),
        [music.read(heard(clip)) for clip in control(data, source, workers)],
        [single_line(clip.metadata) for clip in real],
        model=pipeline.model_name, prompts=prompts, seed=seed, commit=commit(), settings=settings,
        structured=sum(text == clip.metadata["captions"][-1] for (text, _), clip in zip(chosen, real, strict=True)),
        soundfonts=sorted({clip.metadata["facts"]["soundfont"] for clip in real}),
        sampling_seconds_per_clip=round(seconds / prompts, 3),
    )  # fmt: skip
    scores["seconds"] = round(time.monotonic() - start, 1)
    if json_path is not None:
        write_scores(scores, json_path)
    say(music.table(scores))
    return scores


def held_out(first: int, count: int, source: Music, workers: int = 1) -> list[Clip]:
    """`count` held-out clips: every fourth one from combinations never heard in training."""
    rare = count // 4
    seen = generate(range(first, first + count - rare), replace(source, split="test"), workers)
    unseen = range(first + count - rare, first + count)
    return [*seen, *generate(unseen, replace(source, split="unseen"), workers)]


def prompt_of(metadata: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The first caption that states what is `WANTED`, else the one that states the most of it, and the facts stated.

    Args:
        metadata: with `captions`, `stated` (what each states, in the same order) and `facts`.
    """
    stated = metadata["stated"]
    best = max(range(len(stated)), key=lambda i: len(set(WANTED) & set(stated[i])))  # the first of the best
    return metadata["captions"][best], facts_of(metadata["facts"], stated[best])


def facts_of(facts: Mapping[str, Any], stated: Sequence[str]) -> dict[str, Any]:
    """The facts that a caption states, under the names that `evaluation.music` scores."""
    names = [name for word in stated for name in MEANS.get(word, (word,))]
    return {name: facts[name] for name in names if name in facts}


def control(data: Path | None, source: Music, workers: int = 1) -> list[Clip]:
    """Training clips of a single line: of the first ones of `data`, or made anew."""
    if data is None:
        clips = list(generate(range(CONTROL), replace(source, split="train"), workers))
    else:
        arrays = read_arrays(data)
        clips = [arrays.clip(i) for i in range(min(CONTROL, len(arrays)))]
    return [clip for clip in clips if single_line(clip.metadata)]


def single_line(metadata: Mapping[str, Any]) -> bool:
    """Whether a clip is one melody, which a transcription can follow: a solo, or a unison."""
    return metadata["facts"].get("texture") in ("solo", "unison")


def known_figures(source: Music) -> Figures:
    """The interval figures of every part of every training piece, and of the highest notes of its parts together."""
    pieces = pieces_of(read_scores(None if source.scores is None else Path(source.scores)), "train")
    lines = [part for piece in pieces for part in (*piece.parts, np.concatenate(piece.parts))]
    return index(melody(line[:, [0, 2]]) for line in lines)


def sound(clip: Clip) -> np.ndarray:
    """A clip's sound `[N]`.

    Raises:
        ClipError: it has none.
    """
    if clip.audio is None:
        raise ClipError("audio: a clip has no sound")
    return clip.audio.values[0]


def heard(clip: Clip) -> np.ndarray:
    """A clip's sound `[N]` at 16 kHz, as estimators and judge take it."""
    values = sound(clip)
    return values if clip.audio is None else music.at_16_khz(values, clip.audio.rate)


def round_trips(pipeline: CounterpointPipeline, clips: Sequence[Clip]) -> Iterator[Clip]:
    """Each clip encoded and decoded."""
    for i in range(0, len(clips), BATCH):
        audio = torch.from_numpy(np.stack([sound(clip) for clip in clips[i : i + BATCH]]))[:, None]
        yield from pipeline.codecs.decode(pipeline.codecs.encode({"audio": audio}))
