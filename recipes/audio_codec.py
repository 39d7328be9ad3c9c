"""Train the audio codec: sound of 16 or 24 kHz → 25 latents a second of 32 channels → log-mel.

    python -m counterpoint.recipes.audio_codec data=FOLDER run=FOLDER minutes=8

`data` holds `audio.npy`, float16 [clips, samples] in [-1, 1]; the last `held_out` clips are never trained on. Its rate,
which `sensors.json` tells (16 kHz where there is none), becomes the codec's. The run folder gets the model
(`audio_codec/`), `log.jsonl` and previews; the same command goes on where it stopped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from counterpoint.data.arrays import audio_rate_of
from counterpoint.modalities.audio import FLOOR, RATE, AudioCodec, SoundGrid, mel_spectrogram
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes.codec_training import FitSettings, batch_indices, fit, parse_settings


@dataclass(frozen=True)
class AudioCodecSettings(FitSettings):
    batch: int = 8
    hidden_channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 1)  # as good per step as (1, 2) with one layer, 1.4 times as fast
    layers_per_block: int = 2
    channels: int = 32  # of a latent
    linear: bool = True  # begin with principal components of the mel; the network learns what they miss
    kl: float = 1e-3  # weight of the KL divergence per latent dimension
    onsets: float = 2.0  # extra weight of frames where the sound sets in
    held_out: int = 64  # clips at the end of the data, for the log and the previews
    start_from: str = ""  # folder of an AudioCodec whose weights and configuration are taken; empty: from scratch
    statistics: int = 512  # clips that the means and deviations of mel and latents are read from
    bf16: bool = True  # 1-D convolutions in bfloat16


def tiny() -> AudioCodecSettings:
    """For tests: two steps, 0.1 M parameters."""
    return AudioCodecSettings(
        max_steps=2, batch=2, hidden_channels=16, held_out=2, statistics=4, warmup=1, log_every=1, bf16=False
    )


def small() -> AudioCodecSettings:
    """What ships: 4.0 M parameters, 10 minutes of one core, with Muon on all kernels."""
    return AudioCodecSettings(
        minutes=10.0, batch=16, lr=2e-3, muon=0.02, channel_multipliers=(1, 2), layers_per_block=1
    )


def load_audio(data: Path, held_out: int) -> np.ndarray:
    """`data/audio.npy`, mapped, not read: float16 [clips, samples].

    Raises:
        ClipError: no such file, wrong shape, or too few clips.
    """
    path, slot = data / "audio.npy", sound_grid(data).slot
    if not path.exists():
        raise ClipError(f"{path}: no such file (float16 [clips, samples] at 16 or 24 kHz)")
    audio = np.load(path, mmap_mode="r")
    if audio.ndim != 2 or audio.shape[1] % slot:
        raise ClipError(f"{path}: shape {list(audio.shape)}, expected [clips, a multiple of {slot} samples]")
    if len(audio) <= held_out:
        raise ClipError(f"{path}: {len(audio)} clips, expected more than held_out={held_out}")
    return audio


def sound_grid(data: Path) -> SoundGrid:
    """The grid of a data set's sound, by its rate."""
    return SoundGrid(audio_rate_of(data))


def check_rate(model: str | Path, data: Path) -> None:
    """Raise ClipError if `model` is the folder of an audio codec or vocoder of another rate than the data."""
    config, rate = Path(model) / "config.json", audio_rate_of(data)
    own = int(json.loads(config.read_text()).get("rate", RATE)) if config.is_file() else rate
    if own != rate:
        raise ClipError(f"{data}: sound of {rate} Hz, {model} is for {own} Hz")


def rows(audio: np.ndarray, indices: np.ndarray | slice) -> Tensor:
    """Rows of the mapped array as audio [B, 1, N] float32."""
    return torch.from_numpy(np.asarray(audio[indices], dtype=np.float32))[:, None]


def level(log_mel: Tensor) -> Tensor:
    """0 at the mel's floor, 1 at a magnitude of 1: what is loud counts more."""
    return (1.0 - log_mel / np.log(FLOOR)).clamp(0.0, 1.0)


def onset_weight(log_mel: Tensor) -> Tensor:
    """[B, 1, F] in [0, 1]: nats (mean over bands) by which a frame rises, shared with the frame before."""
    rise = log_mel.diff(dim=-1).clamp_min(0.0).mean(1, keepdim=True).clamp_max(1.0)  # [B, 1, F - 1]
    into, before = nn.functional.pad(rise, (1, 0)), nn.functional.pad(rise, (0, 1))
    return torch.maximum(into, before)


def reconstruction_loss(prediction: Tensor, target: Tensor, onsets: float) -> Tensor:
    """Weighted L1 of log-mels [B, 128, F] and of their change from frame to frame, in nats."""
    loudest = level(torch.maximum(prediction.detach(), target))
    weight = (0.1 + loudest) * (1.0 + onsets * onset_weight(target))
    value = (weight * (prediction - target).abs()).sum() / weight.sum()
    change = (weight[..., 1:] * (prediction - target).diff(dim=-1).abs()).sum() / weight[..., 1:].sum()
    return value + 0.5 * change


def initialize(codec: AudioCodec, log_mel: Tensor, seed: int) -> AudioCodec:
    """Magnitude-preserving start (EDM2, arXiv:2312.02696, eq. 65: unit-norm rows) and the mel's mean and deviation."""
    draws = torch.Generator().manual_seed(seed)
    for module in codec.modules():
        if isinstance(module, nn.Conv1d):
            rows_ = torch.randn(module.weight.shape, generator=draws)
            module.weight.data = rows_ / rows_.flatten(1).norm(dim=1)[:, None, None]
    buffers = dict(codec.vae.vae.named_buffers())
    buffers["data_mean"].copy_(log_mel.mean((0, 2), keepdim=True))
    buffers["data_std"].copy_(log_mel.std((0, 2), keepdim=True).clamp_min(0.1))
    if codec.patches is not None:
        codec.patches.fit(log_mel)
        for part in (codec.vae.vae.encoder, codec.vae.vae.decoder):
            part.learnable_gain.data.fill_(-1.0)  # the network's own part starts at zero
    return codec


def codec_loss(settings: AudioCodecSettings):
    """The loss that `fit` takes, for a codec of any rate."""

    def loss(codec: nn.Module, audio: Tensor, draws: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(codec, AudioCodec)
        target = mel_spectrogram(audio, codec.grid)
        with torch.autocast(audio.device.type, torch.bfloat16, enabled=settings.bf16):
            mean, logvar = codec.moments(target)
            mean, logvar = mean.float(), logvar.float()
            noise = torch.randn(mean.shape, generator=draws).to(mean.device)
            prediction = codec.reconstruct(mean + (0.5 * logvar).exp() * noise).float()
        mel = reconstruction_loss(prediction, target, settings.onsets)
        kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()  # of N(mean, var) from N(0, 1), per dimension
        return mel + settings.kl * kl, {"mel": mel.item(), "kl": kl.item()}

    return loss


@torch.no_grad()
def export(codec: AudioCodec, audio: np.ndarray, count: int, folder: Path) -> None:
    """Measure the latents' mean and deviation on evenly spaced clips and save the model.

    Latents have a mean square of 1. Each channel's is 1 as well, unless they began as principal components: then what
    makes more of the mel is larger, by the root of its share, and emerges earlier from the noise.
    """
    codec.register_to_config(latents_mean=None, latents_std=None)
    every = max(1, len(audio) // count)
    latents = torch.cat([codec.encode(rows(audio, slice(i, i + 1))) for i in range(0, len(audio), every)])
    flat = latents.flatten(0, 2)  # [clips · slots · 4, C]
    std = flat.std(0).clamp_min(1e-3)
    if codec.patches is not None:
        importance = codec.patches.scales.sqrt()
        std = std / importance * importance.square().mean().sqrt()
    codec.register_to_config(latents_mean=flat.mean(0).tolist(), latents_std=std.tolist())
    codec.save_pretrained(folder)


def draw_mels(path: Path, mels: Mapping[str, Tensor]) -> None:
    """A PNG: one row per name, one column per clip of the log-mels [B, 128, F]."""
    from matplotlib.figure import Figure

    columns = len(next(iter(mels.values())))
    figure = Figure(figsize=(4 * columns, 2.2 * len(mels)), layout="constrained")
    for row, (name, batch) in enumerate(mels.items()):
        for column, mel in enumerate(batch):
            axes = figure.add_subplot(len(mels), columns, row * columns + column + 1)
            axes.imshow(mel.numpy(), origin="lower", aspect="auto", vmin=np.log(FLOOR), vmax=1.0, cmap="magma")
            axes.set_title(name, fontsize=8)
    figure.savefig(path, dpi=70)


def train(settings: AudioCodecSettings, data: Path, run: Path) -> Path:
    """Train and return the folder of the model.

    Raises:
        ClipError: the data are incomplete, or of another rate than what is gone on with.
    """
    check_rate(run / "audio_codec", data)
    audio, grid = load_audio(data, settings.held_out), sound_grid(data)
    known, unseen = audio[: -settings.held_out], rows(audio, slice(-settings.held_out, None))
    every = max(1, len(known) // settings.statistics)
    if settings.start_from:
        check_rate(settings.start_from, data)
        codec = AudioCodec.from_pretrained(settings.start_from, torch_dtype=torch.float32, low_cpu_mem_usage=False)
    else:
        size = settings.hidden_channels, settings.channel_multipliers, settings.layers_per_block
        codec = AudioCodec(*size, rate=grid.rate, channels=settings.channels, linear=settings.linear)
        initialize(codec, mel_spectrogram(rows(known, slice(0, None, every)), grid), settings.seed)

    def batch(step: int, draws: torch.Generator) -> Tensor:
        return rows(known, batch_indices(len(known), settings.batch, step, settings.seed))

    def preview(averaged: nn.Module, step: int) -> dict[str, float]:
        assert isinstance(averaged, AudioCodec)
        export(averaged, known, settings.statistics, run / "audio_codec")
        target, rebuilt = mel_spectrogram(unseen, grid), averaged.decode_mel(averaged.encode(unseen))
        draw_mels(run / f"preview-{step:06d}.png", {"original": target[:4], f"codec, step {step}": rebuilt[:4]})
        heard = level(target) > 0.5  # within about 50 dB of full scale
        error = (rebuilt - target).abs()
        return {"held_out_mel_l1": error.mean().item(), "held_out_mel_l1_loud": error[heard].mean().item()}

    fit(codec, codec_loss(settings), batch, settings, run, preview)
    return run / "audio_codec"


if __name__ == "__main__":
    chosen, paths = parse_settings(small(), sys.argv[1:])
    print(train(chosen, paths["data"], paths["run"]))
