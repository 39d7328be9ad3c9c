"""From log-mel back to sound: an inverse-STFT network with an amplitude prior, and Griffin-Lim to compare with.

Shapes: log-mel `[B, 128, F]` → audio `[B, 1, F · hop]`; spectra `[B, bins, F]`. At 16 kHz the hop is 320 samples and a
spectrum has 513 bins, at 24 kHz 480 and 769.
"""

from __future__ import annotations

import math

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from .audio import FLOOR, GRID, MELS, RATE, SavedModel, SoundGrid, filterbank, istft, stft
from .clip import ClipError


def check_mel(log_mel: Tensor) -> Tensor:
    """`log_mel` itself.

    Raises:
        ClipError: not `[B, 128, F]` with at least one frame.
    """
    if log_mel.ndim != 3 or log_mel.shape[1] != MELS or not log_mel.shape[2]:
        raise ClipError(f"log-mel: shape {list(log_mel.shape)}, expected [batch, {MELS}, frames]")
    return log_mel


@torch.no_grad()
def nnls(mel: Tensor, steps: int = 10, grid: SoundGrid = GRID) -> Tensor:
    """A linear magnitude s ≥ 0 with `filterbank @ s` ≈ `mel`: [B, 128, F] → [B, bins, F].

    Multiplicative steps s ← s · Mᵀm / MᵀMs (Lee & Seung 2001, eq. 4): never negative, never a larger residual.
    """
    bank = filterbank(grid, mel.device)  # [128, bins]
    with torch.autocast(mel.device.type, enabled=False):
        target = bank.T @ mel.float()  # [B, bins, F]
        estimate = target / (bank.T @ bank.sum(1)).clamp_min(1e-8)[:, None]
        for _ in range(steps):
            estimate = estimate * (target / (bank.T @ (bank @ estimate)).clamp_min(1e-12))
    return estimate


def griffin_lim(
    log_mel: Tensor, steps: int = 32, momentum: float = 0.99, seed: int = 0, grid: SoundGrid = GRID
) -> Tensor:
    """Fast Griffin-Lim (Perraudin 2013) on the NNLS magnitude: [B, 128, F] → audio [B, 1, F · hop], F at least 2.

    Every clip starts from the same random phases, so that its result doesn't depend on the batch.
    """
    magnitude = nnls(check_mel(log_mel).float().exp(), 100, grid)
    random = torch.rand(magnitude.shape[1:], generator=torch.Generator().manual_seed(seed)).to(magnitude.device)
    phase = torch.polar(torch.ones_like(random), 2 * math.pi * random).expand(magnitude.shape)
    before = torch.zeros_like(phase)
    for _ in range(steps):
        rebuilt = stft(istft(magnitude * phase, grid), grid)
        phase = rebuilt - before * (momentum / (1 + momentum))
        phase = phase / phase.abs().clamp_min(1e-16)
        before = rebuilt
    return istft(magnitude * phase, grid)


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
    """log-mel → a log-amplitude correction and a phase for every bin → inverse STFT, of a length of exactly F hops.

    The NNLS magnitude of the mel is the amplitude prior: an untrained network already has the right spectrum, and only
    the phase is learnt from nothing. (A phase relative to each bin's carrier was tried: it breaks the invariance to a
    shift by one frame and learns more slowly.)

    Args:
        width, hidden, layers: of the ConvNeXt blocks.
        nnls_steps: of the prior.
        rate: samples a second, 16000 or 24000.
    """

    @register_to_config
    def __init__(
        self, width: int = 192, hidden: int = 576, layers: int = 6, nnls_steps: int = 10, rate: int = RATE
    ) -> None:
        super().__init__()
        self.grid = SoundGrid(rate)
        self.embed = nn.Conv1d(MELS, width, 7, padding=3)
        self.norm_in = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(ConvNeXtBlock(width, hidden, 1 / layers) for _ in range(layers))
        self.norm_out = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3 * self.grid.bins)
        nn.init.zeros_(self.head.weight[: self.grid.bins])  # no correction at first
        nn.init.zeros_(self.head.bias)

    def spectrum(self, log_mel: Tensor) -> Tensor:
        """Complex spectrum [B, bins, F] of a log-mel [B, 128, F]."""
        x = self.norm_in(self.embed((log_mel.to(self.dtype) - math.log(FLOOR)) / 5.0 - 1.0).mT).mT  # [B, D, F]
        for block in self.blocks:
            x = block(x)
        correction, real, imaginary = self.head(self.norm_out(x.mT)).mT.float().chunk(3, dim=1)  # [B, bins, F] each
        prior = nnls(log_mel.float().exp(), self.config["nnls_steps"], self.grid).clamp_min(1e-8)
        magnitude = prior * (3.0 * torch.tanh(correction / 3.0)).exp()  # at most a factor of 20 from the prior
        direction = torch.complex(real, imaginary)
        return magnitude * direction / direction.abs().clamp_min(1e-6)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Log-mel [B, 128, F] → audio [B, 1, F · hop].

        Raises:
            ClipError: wrong shape.
        """
        return istft(self.spectrum(check_mel(log_mel)), self.grid)
