"""Train the vocoder: log-mel → sound of 16 or 24 kHz, as the data are.

    python -m counterpoint.recipes.vocoder data=FOLDER run=FOLDER minutes=12 codec=RUN/audio_codec

`data` holds `audio.npy`, float16 [clips, samples] in [-1, 1]; the last `held_out` clips are never trained on. With
`codec`, a share of the mels comes from that codec's reconstructions. The run folder gets the model (`vocoder/`),
`log.jsonl` and previews; the same command goes on where it stopped.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from counterpoint.modalities.audio import (
    GRID,
    AudioCodec,
    SoundGrid,
    log_mel_l1,
    magnitudes,
    mel_spectrogram,
    multi_scale_stft,
)
from counterpoint.modalities.vocoder import Vocoder, griffin_lim
from counterpoint.recipes.audio_codec import check_rate, draw_mels, load_audio, rows, sound_grid
from counterpoint.recipes.codec_training import FitSettings, batch_indices, fit, parse_settings


@dataclass(frozen=True)
class VocoderSettings(FitSettings):
    lr: float = 2e-3  # after 300 steps spectral convergence .262 (1e-3: .304; Griffin-Lim: .272)
    width: int = 192
    hidden: int = 576
    layers: int = 6
    slots: int = 8  # length of a training crop, in slots of 0.16 s
    sizes: tuple[int, ...] = (64, 512, 2048)  # of the loss's STFTs; 64 samples = 4 ms keep the onset in place
    mel: float = 0.5  # weight of the log-mel L1
    codec: str = ""  # folder of an AudioCodec whose reconstructions are trained on too
    share: float = 0.5  # of the crops that go through the codec
    start_from: str = ""  # folder of a Vocoder whose weights and size are taken; empty: from scratch
    held_out: int = 32  # clips at the end of the data, for the log and the previews
    bf16: bool = True  # the backbone in bfloat16


def tiny() -> VocoderSettings:
    """For tests: two steps, 0.1 M parameters."""
    return VocoderSettings(
        max_steps=2, batch=2, width=16, hidden=32, layers=1, slots=2, held_out=2, warmup=1, log_every=1, bf16=False
    )


def small() -> VocoderSettings:
    """What ships: 1.8 M parameters, 2,200 steps, with Muon on all kernels."""
    return VocoderSettings(minutes=60.0, max_steps=2200, muon=0.02, checkpoint_every=100)


def crop(audio: Tensor, slots: int, draws: torch.Generator, slot: int = GRID.slot) -> Tensor:
    """A stretch of each clip [B, 1, N] → [B, 1, slots · slot], the louder the likelier: most of a clip is silence."""
    starts = audio.shape[-1] // slot - slots + 1
    power = audio.unflatten(-1, (-1, slot)).square().mean(-1)[:, 0]  # [B, T]
    loudness = power.unfold(1, slots, 1).mean(-1).sqrt() + 1e-4  # [B, starts]
    first = torch.multinomial(loudness[:, :starts].sqrt(), 1, generator=draws)[:, 0] * slot
    return torch.stack([clip[:, i : i + slots * slot] for clip, i in zip(audio, first.tolist(), strict=True)])


def spectral_loss(prediction: Tensor, target: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Log-magnitude L1 and spectral convergence of audio [B, 1, N], averaged over resolutions."""
    logs, convergence = [], []
    for size in sizes:
        x, y = magnitudes(prediction, size), magnitudes(target, size)
        logs.append((x.clamp_min(1e-4).log() - y.clamp_min(1e-4).log()).abs().mean())
        convergence.append(((x - y).flatten(1).norm(dim=1) / y.flatten(1).norm(dim=1).clamp_min(1e-2)).mean())
    return torch.stack(logs).mean(), torch.stack(convergence).mean()


def vocoder_loss(settings: VocoderSettings, codec: AudioCodec | None, grid: SoundGrid = GRID):
    """The loss that `fit` takes, for sound of a grid."""

    def loss(vocoder: nn.Module, audio: Tensor, draws: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        target = mel = mel_spectrogram(audio, grid)
        if codec is not None:
            rebuilt = torch.rand(len(audio), 1, 1, generator=draws).to(audio.device) < settings.share
            mel = torch.where(rebuilt, codec.decode_mel(codec.encode(audio)), target)
        with torch.autocast(audio.device.type, torch.bfloat16, enabled=settings.bf16):
            prediction = vocoder(mel)
        logs, convergence = spectral_loss(prediction, audio, settings.sizes)
        mel_l1 = (mel_spectrogram(prediction, grid) - target).abs().mean()
        numbers = {"log_magnitude": logs.item(), "convergence": convergence.item(), "mel": mel_l1.item()}
        return logs + convergence + settings.mel * mel_l1, numbers

    return loss


def scores(audio: Tensor, reference: Tensor, grid: SoundGrid = GRID) -> dict[str, float]:
    """The published scores of a vocoder: see `counterpoint.modalities.audio`."""
    return {"log_mel_l1": log_mel_l1(audio, reference, grid), **multi_scale_stft(audio, reference)}


def train(settings: VocoderSettings, data: Path, run: Path) -> Path:
    """Train and return the folder of the model.

    Raises:
        ClipError: the data are incomplete, or of another rate than the codec or what is gone on with.
    """
    for model in filter(None, (run / "vocoder", settings.start_from, settings.codec)):
        check_rate(model, data)
    audio, grid = load_audio(data, settings.held_out), sound_grid(data)
    known, unseen = audio[: -settings.held_out], rows(audio, slice(-settings.held_out, None))
    options = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    if settings.start_from:
        vocoder = Vocoder.from_pretrained(settings.start_from, **options)
    else:
        torch.manual_seed(settings.seed)  # the weights' start
        vocoder = Vocoder(settings.width, settings.hidden, settings.layers, rate=grid.rate)
    codec = AudioCodec.from_pretrained(settings.codec, **options) if settings.codec else None
    baseline = griffin_lim(mel_spectrogram(unseen, grid), grid=grid)

    def batch(step: int, draws: torch.Generator) -> Tensor:
        clips = rows(known, batch_indices(len(known), settings.batch, step, settings.seed))
        return crop(clips, settings.slots, draws, grid.slot)

    @torch.no_grad()
    def preview(averaged: nn.Module, step: int) -> dict[str, float]:
        assert isinstance(averaged, Vocoder)
        averaged.save_pretrained(run / "vocoder")
        sound = averaged(mel_spectrogram(unseen, grid))
        pictures = {"original": unseen, "griffin-lim": baseline, f"vocoder, step {step}": sound}
        draw_mels(run / f"preview-{step:06d}.png", {k: mel_spectrogram(v[:4], grid) for k, v in pictures.items()})
        numbers = {f"held_out_{k}": v for k, v in scores(sound, unseen, grid).items()}
        return numbers | {f"griffin_lim_{k}": v for k, v in scores(baseline, unseen, grid).items()}

    fit(vocoder, vocoder_loss(settings, codec, grid), batch, settings, run, preview)
    return run / "vocoder"


if __name__ == "__main__":
    chosen, paths = parse_settings(small(), sys.argv[1:])
    print(train(chosen, paths["data"], paths["run"]))
