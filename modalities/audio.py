"""Sound: log-mel spectrogram, the audio VAE, and the scores of a reconstruction.

Sound is sampled at 16 kHz, or at 24 kHz; a `SoundGrid` says how many samples a frame and a slot then have. The grid of
time is the same at both: 50 mel frames and 25 latents a second, 0.16 s a slot.

Shapes: audio `[B, 1, N]` in [-1, 1], N a multiple of the slot's 2,560 samples (24 kHz: 3,840) for the codec (T slots)
and of the hop's 320 (480) for the mel (F frames, 8 a slot); latents `[B, T, 4, C]`. Frame `i` is centred at sample
`(i + ½) · hop`. What a function is not told of the grid, it takes for 16 kHz.
"""

from __future__ import annotations

import copy
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import torch
import torchaudio
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.autoencoder_mmaudio import MMAudioVAE
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from .clip import ClipError

RATES = (16_000, 24_000)  # Hz
MELS = 128  # up to half the rate
FLOOR = 1e-5  # of the mel magnitude; ln → -11.5
FRAMES, TOKENS, CHANNELS = 8, 4, 32  # a slot: 8 mel frames, 4 latents of 32 channels (or more)


@dataclass(frozen=True)
class SoundGrid:
    """How sound of a rate is cut up: windows of 64 ms every 20 ms, slots of 0.16 s.

    Args:
        rate: samples a second, one of `RATES`.

    Raises:
        ClipError: another rate.
    """

    rate: int = RATES[0]

    def __post_init__(self) -> None:
        if self.rate not in RATES:
            raise ClipError(f"rate: {self.rate} samples a second, expected {' or '.join(map(str, RATES))}")

    @property
    def hop(self) -> int:
        """Samples from one mel frame to the next."""
        return self.rate // 50

    @property
    def n_fft(self) -> int:
        """Samples of a window."""
        return self.rate * 8 // 125

    @property
    def bins(self) -> int:
        """Frequencies of a spectrum."""
        return self.n_fft // 2 + 1

    @property
    def pad(self) -> int:
        """Samples added on both sides, so that frames sit at (i + ½) · hop and F = N / hop."""
        return (self.n_fft - self.hop) // 2

    @property
    def slot(self) -> int:
        """Samples of a slot."""
        return FRAMES * self.hop


GRID = SoundGrid()
RATE, HOP, SLOT = GRID.rate, GRID.hop, GRID.slot  # where nothing else is said: 16,000 Hz, 320 and 2,560 samples


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is kept must serve training too
def _window(size: int, device: torch.device) -> Tensor:
    return torch.hann_window(size, device=device)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def filterbank(grid: SoundGrid = GRID, device: torch.device | None = None) -> Tensor:
    """Slaney mel filters, Slaney area norm: [128, bins], as `librosa.filters.mel`."""
    bank = torchaudio.functional.melscale_fbanks(grid.bins, 0.0, grid.rate / 2, MELS, grid.rate, "slaney", "slaney")
    return bank.T.contiguous().to(device)


def check_audio(audio: Tensor, multiple: int, least: int) -> Tensor:
    """`audio` itself.

    Raises:
        ClipError: not `[B, 1, N]`, or N is not a multiple of `multiple`, at least `least`.
    """
    if audio.ndim != 3 or audio.shape[1] != 1:
        raise ClipError(f"audio: shape {list(audio.shape)}, expected [batch, 1, samples]")
    if audio.shape[-1] % multiple or audio.shape[-1] < least:
        raise ClipError(f"audio: {audio.shape[-1]} samples, expected a positive multiple of {multiple}")
    return audio


def stft(audio: Tensor, grid: SoundGrid = GRID) -> Tensor:
    """Complex spectrum [B, bins, F] of `audio` [B, 1, N], N at least two hops, all whole; ends are reflected."""
    sound = check_audio(audio, grid.hop, 2 * grid.hop).float()
    padded = nn.functional.pad(sound, (grid.pad, grid.pad), mode="reflect")[:, 0]
    window = _window(grid.n_fft, audio.device)
    return torch.stft(padded, grid.n_fft, grid.hop, window=window, center=False, return_complex=True)


def istft(spectrum: Tensor, grid: SoundGrid = GRID) -> Tensor:
    """The inverse of `stft`: [B, bins, F] → audio [B, 1, F · hop], by windowed overlap-add."""
    frames, size = spectrum.shape[-1], grid.n_fft
    window = _window(size, spectrum.device)[:, None]  # [n_fft, 1]
    pieces = torch.fft.irfft(spectrum, size, dim=1) * window  # [B, n_fft, F]
    power = (window**2).expand(1, size, frames)
    shape = {"output_size": (1, frames * grid.hop + 2 * grid.pad), "kernel_size": (1, size), "stride": (1, grid.hop)}
    weight = nn.functional.fold(power, **shape).clamp_min(1e-8)
    audio = nn.functional.fold(pieces, **shape) / weight  # [B, 1, 1, N + 2 pad]
    return audio[:, 0, :, grid.pad : -grid.pad]


def mel_spectrogram(audio: Tensor, grid: SoundGrid = GRID) -> Tensor:
    """Log-mel magnitude, ln(max(mel, 1e-5)): [B, 1, N] → [B, 128, N / hop] (the front end of `MMAudioVAE`).

    Raises:
        ClipError: wrong shape or length.
    """
    return torch.log((filterbank(grid, audio.device) @ stft(audio, grid).abs()).clamp_min(FLOOR))


class ToAudio(Protocol):
    """What turns a log-mel [B, 128, F] into audio [B, 1, F · hop]: a `Vocoder`, or `griffin_lim`."""

    def __call__(self, log_mel: Tensor, /) -> Tensor: ...


def forget_origin(path: Path) -> None:
    """Takes the folder that a part was loaded from out of its configuration: it says nothing to anybody else."""
    config = json.loads(path.read_text())
    if config.pop("_name_or_path", None) is not None:
        path.write_text(json.dumps(config, indent=2) + "\n")


class SavedModel(ModelMixin, ConfigMixin):
    """A diffusers model whose weights can be rounded on their way to disk."""

    def save_pretrained(self, save_directory: str | os.PathLike, *args, dtype: torch.dtype | None = None, **options):
        """Write `config.json` and `diffusion_pytorch_model.safetensors`; nothing tells where the model came from.

        `dtype` rounds the weights (None: as they are).
        """
        model = copy.deepcopy(self)
        nn.Module.to(model, dtype)  # None changes nothing
        ModelMixin.save_pretrained(model, save_directory, *args, **options)
        forget_origin(Path(save_directory) / "config.json")


class LinearPatches(nn.Module):
    """Two mel frames at a time through a fixed linear map and back: principal components of unit variance.

    It stands beside the learned codec, which adds what a linear map can't do. Both maps are zero until `fit`.
    """

    mean: Tensor
    into: Tensor
    back: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(MELS))
        self.register_buffer("into", torch.zeros(channels, MELS, 2))
        self.register_buffer("back", torch.zeros(channels, MELS, 2))

    @torch.no_grad()
    def fit(self, log_mel: Tensor) -> None:
        """The components of log-mels [B, 128, F] with the largest variance."""
        mean = log_mel.mean((0, 2))  # [128]
        patches = (log_mel - mean[:, None]).unfold(2, 2, 2).transpose(1, 2).flatten(2).flatten(0, 1)  # [B·F/2, 256]
        variance, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        channels = len(self.into)
        scale = variance[-channels:].flip(0).clamp_min(1e-6 * float(variance[-1])).sqrt()[:, None]  # [C, 1]
        components = vectors[:, -channels:].T.flip(0)  # [C, 256]
        self.mean.copy_(mean)
        self.into.copy_((components / scale).unflatten(1, (MELS, 2)))
        self.back.copy_((components * scale).unflatten(1, (MELS, 2)))

    @property
    def scales(self) -> Tensor:
        """Standard deviation of the mel along each component, [C]."""
        return self.back.flatten(1).norm(dim=1)

    def encode(self, log_mel: Tensor) -> Tensor:
        """Log-mel [B, 128, F] → [B, C, F / 2]."""
        return nn.functional.conv1d(log_mel - self.mean[:, None], self.into, stride=2)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, F / 2] → log-mel less its mean, [B, 128, F]."""
        return nn.functional.conv_transpose1d(latents, self.back, stride=2)


class AudioCodec(SavedModel):
    """The audio VAE: `diffusers.MMAudioVAE` on our mel, with latents of zero mean and unit variance per channel.

    Args:
        hidden_channels, channel_multipliers, layers_per_block: as in `MMAudioVAE` (at least two levels).
        latents_mean, latents_std: per channel, measured on data after training; None is 0 and 1.
        rate: samples a second, 16000 or 24000; the network is the same.
        channels: of a latent, C.
        linear: `LinearPatches` beside the network, which then learns what they miss.
    """

    @register_to_config
    def __init__(
        self,
        hidden_channels: int = 128,
        channel_multipliers: tuple[int, ...] = (1, 1),
        layers_per_block: int = 2,
        latents_mean: tuple[float, ...] | None = None,
        latents_std: tuple[float, ...] | None = None,
        rate: int = RATE,
        channels: int = CHANNELS,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.grid, self.token_channels = SoundGrid(rate), channels
        self.patches = LinearPatches(channels) if linear else None
        front = self.grid.rate, self.grid.n_fft, self.grid.hop
        self.vae = MMAudioVAE(
            MELS, channels, hidden_channels, tuple(channel_multipliers), layers_per_block, *front, scaling_factor=1.0
        )

    def moments(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the raw latents: [B, 128, F] → two [B, C, F / 2]."""
        mean, logvar = self.vae.vae.encode(log_mel.to(self.dtype)).chunk(2, dim=1)
        mean = mean if self.patches is None else mean + self.patches.encode(log_mel.to(self.dtype))
        return mean, (logvar - 5.0).clamp(-20.0, 10.0)  # so that training starts with little noise: std about 0.1

    def reconstruct(self, latents: Tensor) -> Tensor:
        """Raw latents [B, C, F / 2] → log-mel [B, 128, F]."""
        rebuilt = self.vae.vae.decode(latents)
        return rebuilt if self.patches is None else rebuilt + self.patches.decode(latents)

    def statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the raw latents, two [C, 1]."""
        mean = self.config["latents_mean"] or (0.0,) * self.token_channels
        std = self.config["latents_std"] or (1.0,) * self.token_channels
        return like.new_tensor(mean)[:, None], like.new_tensor(std)[:, None]  # [C, 1]

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """Audio [B, 1, T · slot] → latents [B, T, 4, C] (the posterior's mean).

        Raises:
            ClipError: wrong shape or length.
        """
        sound = check_audio(audio, self.grid.slot, self.grid.slot)
        latents, _ = self.moments(mel_spectrogram(sound, self.grid))  # [B, C, 4 T]
        mean, std = self.statistics(latents)
        return ((latents - mean) / std).mT.unflatten(1, (-1, TOKENS)).float()  # [B, T, 4, C]

    @torch.no_grad()
    def decode_mel(self, latents: Tensor) -> Tensor:
        """Latents [B, T, 4, C] → log-mel [B, 128, 8 T].

        Raises:
            ClipError: wrong shape.
        """
        if latents.ndim != 4 or latents.shape[2:] != (TOKENS, self.token_channels) or not latents.shape[1]:
            expected = f"[batch, slots, {TOKENS}, {self.token_channels}]"
            raise ClipError(f"audio latents: shape {list(latents.shape)}, expected {expected}")
        raw = latents.to(self.dtype).flatten(1, 2).mT  # [B, C, 4 T]
        mean, std = self.statistics(raw)
        return self.reconstruct(raw * std + mean).float()

    def decode(self, latents: Tensor, vocoder: ToAudio) -> Tensor:
        """Latents [B, T, 4, C] → audio [B, 1, T · slot] in [-1, 1], through `vocoder`."""
        return vocoder(self.decode_mel(latents)).clamp(-1.0, 1.0)


def log_mel_l1(audio: Tensor, reference: Tensor, grid: SoundGrid = GRID) -> float:
    """Mean |Δ ln mel| of two sounds [B, 1, N], in nats."""
    return (mel_spectrogram(audio, grid) - mel_spectrogram(reference, grid)).abs().mean().item()


def magnitudes(audio: Tensor, n_fft: int) -> Tensor:
    """STFT magnitude [B, n_fft // 2 + 1, frames] with hop n_fft / 4, scaled so that white noise reads its own RMS."""
    window = _window(n_fft, audio.device)
    spectrum = torch.stft(audio[:, 0].float(), n_fft, n_fft // 4, window=window, return_complex=True)
    return spectrum.abs() / window.square().sum().sqrt()


def multi_scale_stft(audio: Tensor, reference: Tensor, sizes: tuple[int, ...] = (256, 1024, 2048)) -> dict[str, float]:
    """Scores of two sounds [B, 1, N], averaged over three resolutions (Parallel WaveGAN, arXiv:1910.11480, eq. 4-6).

    Returns:
        `log_magnitude`: mean |Δ ln max(|X|, 1e-4)| in nats; `spectral_convergence`: ‖|X|−|Y|‖ / ‖Y‖ over all clips.
    """
    log_magnitude, convergence = 0.0, 0.0
    for size in sizes:
        x, y = magnitudes(audio, size), magnitudes(reference, size)
        log_magnitude += (x.clamp_min(1e-4).log() - y.clamp_min(1e-4).log()).abs().mean().item() / len(sizes)
        convergence += ((x - y).norm() / y.norm().clamp_min(1e-8)).item() / len(sizes)
    return {"log_magnitude": log_magnitude, "spectral_convergence": convergence}
