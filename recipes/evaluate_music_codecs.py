"""Round-trip scores of a music model's codec beside Griffin-Lim, by the kind of sound.

    python -m counterpoint.recipes.evaluate_music_codecs music docs/scores/music_codecs.json

Log-mel L1 and multi-scale STFT distance of the vocoder and of Griffin-Lim (32 iterations, NNLS mel inversion), from
true mels and from the codec's, for held-out renderings of chords (several parts), plucked, sustained and percussive
instruments; and what becomes of the estimated tempo and key, of clicks, hiss and wobble, which are listened for at
16 kHz whatever the codec's rate.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.data.scores import Music, generate
from counterpoint.diffusion.pipeline import CounterpointPipeline
from counterpoint.evaluation import music
from counterpoint.modalities.clip import Clip, ClipError
from counterpoint.modalities.codecs import Codecs
from counterpoint.recipes.evaluate_codecs import sound_round_trips
from counterpoint.recipes.evaluate_joint import commit, rounded, write_scores
from counterpoint.recipes.evaluate_music import HELD_OUT

FIRST = HELD_OUT + 50_000_000  # seeds of these clips; no other evaluation uses them
SEARCHED = 400  # seeds looked through for enough clips of every kind
FAMILIES = {
    "strings": "sustained", "winds": "sustained", "brass": "sustained", "organ": "sustained", "choir": "sustained",
    "plucked": "plucked", "mallets": "percussive",
}  # fmt: skip
KINDS = ("chords", "plucked", "sustained", "percussive")


def kind_of(facts: Mapping[str, Any]) -> str | None:
    """`chords`: several parts of one instrument or of several; otherwise by the family; None: a single-line keyboard.

    A clip with drums is percussive whatever plays to them.
    """
    if facts.get("drums"):
        return "percussive"
    if facts.get("voices", 1) > 1 and facts.get("texture") != "unison":
        return "chords"
    return FAMILIES.get(facts["family"])


def clips_by_kind(source: Music, each: int) -> dict[str, list[Clip]]:
    """`each` held-out clips of every kind.

    Raises:
        ClipError: some kind is too rare.
    """
    found: dict[str, list[Clip]] = {kind: [] for kind in KINDS}
    for clip in generate(range(FIRST, FIRST + SEARCHED), replace(source, split="test")):
        kind = kind_of(clip.metadata["facts"])
        if kind is not None and len(found[kind]) < each:
            found[kind].append(clip)
        if all(len(clips) == each for clips in found.values()):
            return found
    rare = min(found, key=lambda kind: len(found[kind]))
    raise ClipError(f"{rare}: only {len(found[rare])} clips among {SEARCHED}, {each} are needed")


@torch.no_grad()
def audio_scores(audio: Tensor, facts: Sequence[music.Facts], codecs: Codecs) -> dict[str, dict[str, float]]:
    """`[B, 1, N]` at the codec's rate through vocoder and Griffin-Lim, from its mel and the codec's.

    Returns:
        `{way: {score: value}}`.

    Raises:
        ClipError: the model has no codec for sound.
    """
    sounds, scores = sound_round_trips(audio, codecs)
    for way, made in {"original": audio, **sounds}.items():
        readings = [music.read(one) for one in music.at_16_khz(made[:, 0].numpy(), codecs.audio_rate)]
        scores.setdefault(way, {}).update(heard(readings, facts))
    return scores


def heard(readings: Sequence[music.Reading], facts: Sequence[music.Facts]) -> dict[str, float]:
    """Tempo and key found again, clicks a second, hiss and wobble: means over the clips that have them."""
    each = [{**reading["sound"], **music.obeyed(reading, true)} for reading, true in zip(readings, facts, strict=True)]
    names = ("tempo_octave", "key", "clicks", "hiss_db", "wobble_cents")
    return {name: float(np.nanmean([one.get(name, np.nan) for one in each])) for name in names}


def evaluate(
    model: str | Path, each: int = 12, json_path: Path | None = None, source: Music | None = None
) -> dict[str, Any]:
    """Scores of a model's codec on `each` held-out clips of every kind, also written to `json_path`."""
    codecs = CounterpointPipeline.from_pretrained(model).codecs
    source, kinds = replace(source or Music(), rate=codecs.audio_rate), {}
    for kind, clips in clips_by_kind(source, each).items():
        audio = torch.from_numpy(np.stack([clip.tracks["audio"].values for clip in clips])).float()  # [B, 1, N]
        kinds[kind] = audio_scores(audio, [clip.metadata["facts"] for clip in clips], codecs)
    facts = {"rate": source.rate, "clips_each": each, "first_seed": FIRST, "model": str(model), "commit": commit()}
    scores = {**kinds, **facts}
    if json_path is not None:
        write_scores(scores, json_path)
    return scores


if __name__ == "__main__":
    path = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    print(json.dumps(rounded(evaluate(sys.argv[1], json_path=path)), indent=1))
