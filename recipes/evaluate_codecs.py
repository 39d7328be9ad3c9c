"""Round-trip scores of a model's codecs on held-out clips.

    python -m counterpoint.recipes.evaluate_codecs joint docs/scores/codecs.json

PSNR of the video, whole and where something moves; log-mel L1 and multi-scale STFT distance of the vocoder beside
Griffin-Lim (32 iterations, NNLS mel inversion), from true mels and from the codec's; error of the sensors; and, for
each track, how far the detected events move.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from counterpoint.diffusion.pipeline import CounterpointPipeline, weights_folder
from counterpoint.evaluation.events import clip_events
from counterpoint.evaluation.judges import Judges
from counterpoint.evaluation.sync import synchronization
from counterpoint.modalities.audio import log_mel_l1, mel_spectrogram, multi_scale_stft
from counterpoint.modalities.clip import Clip, ClipError
from counterpoint.modalities.codecs import Codecs
from counterpoint.modalities.video import moving_region, psnr
from counterpoint.modalities.vocoder import griffin_lim
from counterpoint.recipes.evaluate_joint import HELD_OUT, commit, held_out, round_trips, rounded, tensors, write_scores

FIRST = HELD_OUT + 50_000_000  # seeds of these clips; no other evaluation uses them


@torch.no_grad()
def evaluate(model: str | Path, clips: int = 64, json_path: Path | None = None, workers: int = 2) -> dict[str, Any]:
    """All scores of a model's codecs on `clips` held-out clips, also written to `json_path`."""
    pipeline = CounterpointPipeline.from_pretrained(model)
    real = held_out(FIRST, clips, workers)
    coded = list(round_trips(pipeline, real))
    before, after = tensors(real), tensors(coded)
    assert pipeline.codecs.sensor is not None
    judges = Judges.load(weights_folder() / "judges")
    scores = {
        "video": _video(before["video"], after["video"]),
        "audio": sound_round_trips(before["audio"], pipeline.codecs)[1],
        "sensor": {name: _sensor(before[name], after[name]) for name in pipeline.codecs.sensor.channels},
        "events": _events(real, coded, judges),
        "clips": clips,
        "first_seed": FIRST,
        "model": str(model),
        "commit": commit(),
    }
    if json_path is not None:
        write_scores(scores, json_path)
    return scores


def _video(video: Tensor, coded: Tensor) -> dict[str, float]:
    moving = torch.cat([moving_region(clip[None]) for clip in video])
    return {"psnr": float(psnr(coded, video).mean()), "moving_psnr": float(psnr(coded, video, moving).nanmean())}


def sound_round_trips(audio: Tensor, codecs: Codecs) -> tuple[dict[str, Tensor], dict[str, dict[str, float]]]:
    """`[B, 1, N]` through vocoder and Griffin-Lim, from its mel and the codec's: sounds and scores by way.

    All sounds are at the codec's rate.

    Raises:
        ClipError: the model has no codec for sound.
    """
    if codecs.audio is None or codecs.vocoder is None:
        raise ClipError("audio: this model has no codec for it")
    vae, grid = codecs.audio, codecs.audio.grid
    true = mel_spectrogram(audio, grid)  # [B, 128, F]
    coded = torch.cat([vae.decode_mel(vae.encode(part)) for part in audio.split(16)])
    sounds = {
        "vocoder": codecs.vocoder(true),
        "griffin_lim": griffin_lim(true, grid=grid),
        "codec_vocoder": codecs.vocoder(coded),
        "codec_griffin_lim": griffin_lim(coded, grid=grid),
    }
    scores = {
        name: {"log_mel_l1": log_mel_l1(s, audio, grid), **multi_scale_stft(s, audio)} for name, s in sounds.items()
    }
    return sounds, {"codec_mel": {"log_mel_l1": float((coded - true).abs().mean())}, **scores}


def _sensor(values: Tensor, coded: Tensor) -> dict[str, float]:
    error = float((coded - values).square().mean().sqrt())
    return {"rmse": error, "std": float(values.std())}


def _events(real: Sequence[Clip], coded: Sequence[Clip], judges: Judges) -> dict[str, dict[str, Any]]:
    """For each track, the events of the round trip against those of the clip itself."""
    found = [[clip_events(clip, judges.backgrounds.numpy()) for clip in clips] for clips in (real, coded)]
    before, after = found
    return {t: synchronization([e[t] for e in before], [e[t] for e in after]) for t in before[0]}


def main(arguments: Sequence[str]) -> None:
    """`MODEL [JSON]`."""
    path = Path(arguments[1]) if len(arguments) > 1 else None
    print(json.dumps(rounded(evaluate(arguments[0], json_path=path)), indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
