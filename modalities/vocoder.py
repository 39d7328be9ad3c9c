"""From log-mel back to sound: an inverse-STFT network with an amplitude prior, and Griffin-Lim to compare with.

Shapes: log-mel `[B, 128, F]` → audio `[B, 1, 320 F]`; spectra `[B, 513, F]`.
"""

from __future__ import annotations

import math

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from .audio import FLOOR, MELS, N_FFT, SavedModel, filterbank, istft, stft
from .clip import ClipError

BINS = N_FFT // 2 + 1


def check_mel(log_mel: Tensor) -> Tensor:
    """`log_mel` itself.

    Raises:
        ClipError: not `[B, 128, F]` with at least one frame.
    """
    if log_mel.ndim != 3 or log_mel.shape[1] != MELS or not log_mel.shape[2]:
        raise ClipError(f"log-mel: shape {list(log_mel.shape)}, expected [batch, {MELS}, frames]")
    return log_mel


@torch.no_grad()
def nnls(mel: Tensor, steps: int = 10) -> Tensor:
    """A linear magnitude s ≥ 0 with `filterbank @ s` ≈ `mel`: [B, 128, F] → [B, 513, F].

    Multiplicative steps s ← s · Mᵀm / MᵀMs (Lee & Seung 2001, eq. 4): never negative, never a larger residual.
    """
    bank = filterbank(mel.device)  # [128, 513]
    with torch.autocast(mel.device.type, enabled=False):
        target = bank.T @ mel.float()  # [B, 513, F]
        estimate = target / (bank.T @ bank.sum(1)).clamp_min(1e-8)[:, None]
        for _ in range(steps):
            estimate = estimate * (target / (bank.T @ (bank @ estimate)).clamp_min(1e-12))
    return estimate


def griffin_lim(log_mel: Tensor, steps: int = 32, momentum: float = 0.99, seed: int = 0) -> Tensor:
    """Fast Griffin-Lim (Perraudin 2013) on the NNLS magnitude: [B, 128, F] → audio [B, 1, 320 F], F at least 2.

    Every clip starts from the same random phases, so that its result doesn't depend on the batch.
    """
    magnitude = nnls(check_mel(log_mel).float().exp(), steps=100)
    random = torch.rand(magnitude.shape[1:], generator=torch.Generator().manual_seed(seed)).to(magnitude.device)
    phase = torch.polar(torch.ones_like(random), 2 * math.pi * random).expand(magnitude.shape)
    before = torch.zeros_like(phase)
    for _ in range(steps):
        rebuilt = stft(istft(magnitude * phase))
        phase = rebuilt - before * (momentum / (1 + momentum))
        phase = phase / phase.abs().clamp_min(1e-16)
        before = rebuilt
    return istft(magnitude * phase)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, then a pointwise MLP (Vocos, arXiv:2306.00814): [B, D, F] → [B, D, F]."""

    def __init__(self, width: int, hidden: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden)
        self.project = nn.Linear(hidden, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        update = self.norm(self.depthwise(x).mT)  # [B, F, D]
        return x + (self.scale * self.project(nn.functional.gelu(self.expand(update)))).mT


class Vocoder(SavedModel):
    """log-mel → a log-amplitude correction and a phase for every bin → inverse STFT, hop 320, length exactly 320 F.

    The NNLS magnitude of the mel is the amplitude prior: an untrained network already has the right spectrum, and only
    the phase is learnt from nothing. (A phase relative to each bin's carrier was tried: it breaks the invariance to a
    shift by one frame and learns more slowly.)
    """

    @register_to_config
    def __init__(self, width: int = 192, hidden: int = 576, layers: int = 6, nnls_steps: int = 10) -> None:
        super().__init__()
        self.embed = nn.Conv1d(MELS, width, 7, padding=3)
        self.norm_in = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(ConvNeXtBlock(width, hidden, 1 / layers) for _ in range(layers))
        self.norm_out = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3 * BINS)
        nn.init.zeros_(self.head.weight[:BINS])  # no correction at first
        nn.init.zeros_(self.head.bias)

    def spectrum(self, log_mel: Tensor) -> Tensor:
        """Complex spectrum [B, 513, F] of a log-mel [B, 128, F]."""
        x = self.norm_in(self.embed((log_mel.to(self.dtype) - math.log(FLOOR)) / 5.0 - 1.0).mT).mT  # [B, D, F]
        for block in self.blocks:
            x = block(x)
        correction, real, imaginary = self.head(self.norm_out(x.mT)).mT.float().chunk(3, dim=1)  # [B, 513, F] each
        prior = nnls(log_mel.float().exp(), self.config["nnls_steps"]).clamp_min(1e-8)
        magnitude = prior * (3.0 * torch.tanh(correction / 3.0)).exp()  # at most a factor of 20 from the prior
        direction = torch.complex(real, imaginary)
        return magnitude * direction / direction.abs().clamp_min(1e-6)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Log-mel [B, 128, F] → audio [B, 1, 320 F].

        Raises:
            ClipError: wrong shape.
        """
        return istft(self.spectrum(check_mel(log_mel)))
