"""Sound: log-mel spectrogram, the audio VAE, and the scores of a reconstruction.

Shapes: audio `[B, 1, N]` in [-1, 1] at 16 kHz, N a multiple of `SLOT` = 2,560 samples for the codec (T slots) and of
`HOP` = 320 for the mel (F frames, 8 a slot); latents `[B, T, 4, 32]`. Frame `i` is centred at sample `(i + ½) · HOP`.
"""

from __future__ import annotations

import copy
import os
from functools import lru_cache
from typing import Protocol

import torch
import torchaudio
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.autoencoder_mmaudio import MMAudioVAE
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from .clip import ClipError

RATE = 16_000  # Hz
N_FFT, HOP, MELS = 1024, 320, 128
PAD = (N_FFT - HOP) // 2  # on both sides, so that frames sit at (i + ½) · HOP and F = N / HOP
FLOOR = 1e-5  # of the mel magnitude; ln → -11.5
SLOT = 2560  # samples: 0.16 s
FRAMES, TOKENS, CHANNELS = SLOT // HOP, SLOT // HOP // 2, 32  # a slot: 8 mel frames, 4 latents of 32 channels


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is kept must serve training too
def _window(size: int, device: torch.device) -> Tensor:
    return torch.hann_window(size, device=device)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def filterbank(device: torch.device | None = None) -> Tensor:
    """Slaney mel filters, Slaney area norm: [MELS, N_FFT // 2 + 1], as `librosa.filters.mel`."""
    bank = torchaudio.functional.melscale_fbanks(N_FFT // 2 + 1, 0.0, RATE / 2, MELS, RATE, "slaney", "slaney")
    return bank.T.contiguous().to(device)


def check_audio(audio: Tensor, multiple: int = HOP) -> Tensor:
    """`audio` itself.

    Raises:
        ClipError: not `[B, 1, N]`, or N is not a positive multiple of `multiple` (at least two hops).
    """
    if audio.ndim != 3 or audio.shape[1] != 1:
        raise ClipError(f"audio: shape {list(audio.shape)}, expected [batch, 1, samples]")
    if audio.shape[-1] % multiple or audio.shape[-1] < max(multiple, 2 * HOP):
        raise ClipError(f"audio: {audio.shape[-1]} samples, expected a positive multiple of {multiple}")
    return audio


def stft(audio: Tensor) -> Tensor:
    """Complex spectrum [B, N_FFT // 2 + 1, F] of `audio` [B, 1, N], N a multiple of HOP; ends are reflected."""
    padded = nn.functional.pad(check_audio(audio).float(), (PAD, PAD), mode="reflect")[:, 0]
    return torch.stft(padded, N_FFT, HOP, window=_window(N_FFT, audio.device), center=False, return_complex=True)


def istft(spectrum: Tensor) -> Tensor:
    """The inverse of `stft`: [B, N_FFT // 2 + 1, F] → audio [B, 1, F · HOP], by windowed overlap-add."""
    frames = spectrum.shape[-1]
    window = _window(N_FFT, spectrum.device)[:, None]  # [N_FFT, 1]
    pieces = torch.fft.irfft(spectrum, N_FFT, dim=1) * window  # [B, N_FFT, F]
    power = (window**2).expand(1, N_FFT, frames)
    shape = {"output_size": (1, frames * HOP + 2 * PAD), "kernel_size": (1, N_FFT), "stride": (1, HOP)}
    audio = nn.functional.fold(pieces, **shape) / nn.functional.fold(power, **shape).clamp_min(
        1e-8
    )  # [B, 1, 1, N + 2 PAD]
    return audio[:, 0, :, PAD:-PAD]


def mel_spectrogram(audio: Tensor) -> Tensor:
    """Log-mel magnitude, ln(max(mel, 1e-5)): [B, 1, N] → [B, 128, N / 320] (the front end of `MMAudioVAE`).

    Raises:
        ClipError: wrong shape or length.
    """
    return torch.log((filterbank(audio.device) @ stft(audio).abs()).clamp_min(FLOOR))


class ToAudio(Protocol):
    """What turns a log-mel [B, 128, F] into audio [B, 1, 320 F]: a `Vocoder`, or `griffin_lim`."""

    def __call__(self, log_mel: Tensor, /) -> Tensor: ...


class SavedModel(ModelMixin, ConfigMixin):
    """A diffusers model whose weights can be rounded on their way to disk."""

    def save_pretrained(self, save_directory: str | os.PathLike, *args, dtype: torch.dtype | None = None, **options):
        """Write `config.json` and `diffusion_pytorch_model.safetensors`; `dtype` rounds the weights (None: as is)."""
        model = copy.deepcopy(self)
        nn.Module.to(model, dtype)  # None changes nothing
        ModelMixin.save_pretrained(model, save_directory, *args, **options)


class AudioCodec(SavedModel):
    """The audio VAE: `diffusers.MMAudioVAE` on our mel, with latents of zero mean and unit variance per channel.

    Args:
        hidden_channels, channel_multipliers, layers_per_block: as in `MMAudioVAE` (at least two levels).
        latents_mean, latents_std: per channel, measured on data after training.
    """

    @register_to_config
    def __init__(
        self,
        hidden_channels: int = 128,
        channel_multipliers: tuple[int, ...] = (1, 1),
        layers_per_block: int = 2,
        latents_mean: tuple[float, ...] = (0.0,) * CHANNELS,
        latents_std: tuple[float, ...] = (1.0,) * CHANNELS,
    ) -> None:
        super().__init__()
        self.vae = MMAudioVAE(
            MELS, CHANNELS, hidden_channels, tuple(channel_multipliers), layers_per_block, RATE, N_FFT, HOP, 1.0
        )

    def moments(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the raw latents: [B, 128, F] → two [B, 32, F / 2]."""
        mean, logvar = self.vae.vae.encode(log_mel.to(self.dtype)).chunk(2, dim=1)
        return mean, (logvar - 5.0).clamp(-20.0, 10.0)  # so that training starts with little noise: std about 0.1

    def reconstruct(self, latents: Tensor) -> Tensor:
        """Raw latents [B, 32, F / 2] → log-mel [B, 128, F]."""
        return self.vae.vae.decode(latents)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = self.config["latents_mean"], self.config["latents_std"]
        return like.new_tensor(mean)[:, None], like.new_tensor(std)[:, None]  # [32, 1]

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """Audio [B, 1, 2560 T] → latents [B, T, 4, 32] (the posterior's mean).

        Raises:
            ClipError: wrong shape or length.
        """
        latents, _ = self.moments(mel_spectrogram(check_audio(audio, SLOT)))  # [B, 32, 4 T]
        mean, std = self._statistics(latents)
        return ((latents - mean) / std).mT.unflatten(1, (-1, TOKENS)).float()  # [B, T, 4, 32]

    @torch.no_grad()
    def decode_mel(self, latents: Tensor) -> Tensor:
        """Latents [B, T, 4, 32] → log-mel [B, 128, 8 T].

        Raises:
            ClipError: wrong shape.
        """
        if latents.ndim != 4 or latents.shape[2:] != (TOKENS, CHANNELS) or not latents.shape[1]:
            raise ClipError(f"audio latents: shape {list(latents.shape)}, expected [batch, slots, 4, 32]")
        raw = latents.to(self.dtype).flatten(1, 2).mT  # [B, 32, 4 T]
        mean, std = self._statistics(raw)
        return self.reconstruct(raw * std + mean).float()

    def decode(self, latents: Tensor, vocoder: ToAudio) -> Tensor:
        """Latents [B, T, 4, 32] → audio [B, 1, 2560 T] in [-1, 1], through `vocoder`."""
        return vocoder(self.decode_mel(latents)).clamp(-1.0, 1.0)


def log_mel_l1(audio: Tensor, reference: Tensor) -> float:
    """Mean |Δ ln mel| of two sounds [B, 1, N], in nats."""
    return (mel_spectrogram(audio) - mel_spectrogram(reference)).abs().mean().item()


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
