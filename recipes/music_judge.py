"""Train the judge that hears instruments, family, mode, dynamics and drums (`evaluation/music_judge.py`).

    counterpoint train music_judge data=FOLDER run=FOLDER [minutes=5] [key=value …]

The data folder holds `audio.npy` float16 [N, samples] and `clips.json`, whose entries have `facts` (`data/scores.py`).
Use other pieces and another soundfont than those of the clips that are judged. The same command resumes.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from counterpoint.data.arrays import read_arrays
from counterpoint.evaluation.music_judge import ATTRIBUTES, INSTRUMENTS, MusicJudge, instrument_scores
from counterpoint.modalities.audio import RATE
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes.audio_codec import rows
from counterpoint.recipes.codec_training import FitSettings, batch_indices, fit, parse_settings


@dataclass(frozen=True)
class MusicJudgeSettings(FitSettings):
    """How the judge is trained; every augmentation is a stand-in for what a generator smears."""

    validation: float = 0.1  # share of clips that are scored for the log
    shortest: float = 0.5  # share of a clip's length that a crop has at least
    noise: float = 0.15  # largest standard deviation of noise on the log-mel, in units of 4 nepers
    blur: float = 0.5  # share of clips whose mel is blurred
    gain: float = 0.05  # largest change of level, in units of 4 nepers: 1.7 dB, so that soft stays soft


def tiny() -> MusicJudgeSettings:
    """For tests: a few steps."""
    return MusicJudgeSettings(max_steps=4, batch=4, checkpoint_every=4, log_every=1, measure=1, warmup=1)


def small() -> MusicJudgeSettings:
    """What ships."""
    return MusicJudgeSettings(minutes=20.0, batch=32, lr=2e-3, ema=0.99, weight_decay=0.02, checkpoint_every=100)


class MusicClips:
    """The sound of a data folder and its facts; the last clips are for validation."""

    def __init__(self, folder: Path, validation: float) -> None:
        clips = read_arrays(folder)
        if clips.audio is None:
            raise ClipError(f"{folder / 'audio.npy'}: no such file; the judge needs sound")
        if clips.audio_rate != RATE:
            raise ClipError(f"{folder}: sound of {clips.audio_rate} Hz, the judge listens at {RATE} Hz")
        self.audio = clips.audio
        try:
            self.facts = [entry["facts"] for entry in clips.entries]
        except KeyError as error:
            raise ClipError(f"{folder / 'clips.json'}: an entry has no facts") from error
        self.count = len(self.facts) - max(1, round(validation * len(self.facts)))

    def classes(self) -> dict[str, list[str]]:
        """Every attribute's values, sorted; attributes that never change are left out."""
        found: dict[str, set[str]] = {name: set() for name in ATTRIBUTES}
        for facts in self.facts:
            for name in (name for name in ATTRIBUTES if facts.get(name) is not None):
                found[name] |= {str(v) for v in facts[name]} if name == INSTRUMENTS else {str(facts[name])}
        return {name: sorted(values) for name, values in found.items() if len(values) > 1}


def augment(mel: Tensor, settings: MusicJudgeSettings, draws: torch.Generator) -> Tensor:
    """Crop in time, blur, gain and noise of `MusicJudge.prepare`'s `[B, 1, 128, F]`; but for the crop each its own."""
    B, frames = len(mel), mel.shape[-1]

    def uniform() -> Tensor:
        return torch.rand((B, 1, 1, 1), generator=draws)

    length = round(frames * (settings.shortest + (1 - settings.shortest) * float(torch.rand((), generator=draws))))
    start = int(torch.randint(0, frames - length + 1, (), generator=draws))
    mel = mel[..., start : start + length]
    smooth = functional.avg_pool2d(mel, 3, 1, 1, count_include_pad=False)
    mel = mel.lerp(smooth, uniform() * (uniform() < settings.blur)) + settings.gain * (2 * uniform() - 1)
    return mel + settings.noise * uniform() ** 2 * torch.randn(mel.shape, generator=draws)


@torch.no_grad()
def validate(judge: MusicJudge, clips: MusicClips, batch: int = 32) -> dict[str, float]:
    """Accuracy on the validation clips, by attribute; of the instruments, all of a clip's at once and their share."""
    held = np.arange(clips.count, len(clips.facts))
    parts = [judge.features(rows(clips.audio, held[i : i + batch])) for i in range(0, len(held), batch)]
    verdict, scores = judge.verdict(torch.cat(parts)), {}
    for name, ranked in verdict.items():
        pairs = [(ranks, clips.facts[i][name]) for ranks, i in zip(ranked, held, strict=True)]
        if name == INSTRUMENTS:
            each = [instrument_scores(ranks, true) for ranks, true in pairs]
            scores |= {key: float(np.mean([one[key] for one in each])) for key in each[0]}
        else:
            scores[name] = float(np.mean([ranks[0] == str(true) for ranks, true in pairs]))
    return scores


def train(settings: MusicJudgeSettings, data: Path, run: Path) -> Path:
    """Train within `settings.minutes` and return the folder of the judge (`run/music_judge`).

    Raises:
        ClipError: the data folder is incomplete, or the run folder was started with other settings.
    """
    clips = MusicClips(data, settings.validation)
    torch.manual_seed(settings.seed)
    judge = MusicJudge(clips.classes())

    def batch(step: int, draws: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        chosen = batch_indices(clips.count, settings.batch, step, settings.seed)
        mel = judge.prepare(rows(clips.audio, chosen))
        return augment(mel, settings, draws), judge.targets([clips.facts[i] for i in chosen])

    def loss(model: nn.Module, made: tuple[Tensor, dict[str, Tensor]], _: torch.Generator):
        assert isinstance(model, MusicJudge)
        return model.loss(model.body(made[0]), made[1]), {}

    averaged = fit(judge, loss, batch, settings, run, lambda model, _: validate(model, clips))  # pyright: ignore
    assert isinstance(averaged, MusicJudge)
    averaged.save(run / "music_judge")
    scores = {"validation": validate(averaged, clips), "clips": clips.count}
    (run / "music_judge" / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")
    return run / "music_judge"


if __name__ == "__main__":
    try:
        chosen, paths = parse_settings(small(), sys.argv[1:])
        print(train(chosen, **paths))
    except ClipError as error:
        sys.exit(f"error: {error}")
