"""TS2Vec: representations of time series by contrast over time scales (Yue et al. 2022, https://arxiv.org/abs/2106.10466).

Context-FID measures in the space of this encoder, fitted anew on the real windows of each repeat, with the settings
that the benchmark uses: 320 channels, 64 hidden ones, 10 blocks, batches of 8, AdamW at 0.001, 600 steps (200 where the
windows hold no more than 100,000 numbers), weights averaged over all steps, and the largest value over time of every
channel as a window's representation.

Legend: `B` batch, `T` time, `C` channels, `D` channels of the representation.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

HIDDEN, DEPTH, OUTPUT = 64, 10, 320
BATCH, RATE = 8, 1e-3
SMALL, STEPS_SMALL, STEPS = 100_000, 200, 600  # numbers in the training windows; steps up to there, and beyond
DROPOUT = 0.1
INSTANTS = 4096  # encoded at a time: what a block works on stays in the cache


class DilatedConv(nn.Conv1d):
    """A convolution of three taps that keeps the length.

    Where the dilation reaches beyond the series, only the middle tap touches data: the others are left out, which
    changes nothing but the time it takes.
    """

    def __init__(self, channels: int, out: int, dilation: int) -> None:
        super().__init__(channels, out, kernel_size=3, dilation=dilation, padding=dilation)

    def forward(self, input: Tensor) -> Tensor:
        if self.dilation[0] < input.shape[2]:
            return super().forward(input)
        return functional.conv1d(input, self.weight[:, :, 1:2], self.bias)


class Block(nn.Module):
    """Two convolutions behind GELUs, beside a shortcut (a projection where `project`)."""

    def __init__(self, channels: int, out: int, dilation: int, project: bool) -> None:
        super().__init__()
        self.first, self.second = DilatedConv(channels, out, dilation), DilatedConv(out, out, dilation)
        self.shortcut = nn.Conv1d(channels, out, 1) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(functional.gelu(self.first(functional.gelu(x)))) + self.shortcut(x)


class TS2VecEncoder(nn.Module):
    """`[B, T, C]` → `[B, T, D]`: a projection of each instant, half of them masked in training, and dilated blocks."""

    def __init__(self, channels: int, output: int = OUTPUT, hidden: int = HIDDEN, depth: int = DEPTH) -> None:
        super().__init__()
        self.project = nn.Linear(channels, hidden)
        blocks = [Block(hidden, hidden, 2**i, project=False) for i in range(depth)]
        self.blocks = nn.Sequential(*blocks, Block(hidden, output, 2**depth, project=True))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Args: x: `[B, T, C]`; mask: bool `[B, T]`, False where an instant is hidden."""
        hidden = self.project(x)
        if mask is not None:
            hidden = hidden * mask[..., None]
        return self.dropout(self.blocks(hidden.transpose(1, 2))).transpose(1, 2)


def contrast(first: Tensor, second: Tensor) -> Tensor:
    """Cross-entropy of telling each row's twin from all other rows of its group: `[G, n, D]` twice (a scalar)."""
    count = first.shape[1]
    both = torch.cat([first, second], dim=1)  # [G, 2n, D]
    similarity = both @ both.transpose(1, 2)  # [G, 2n, 2n]
    alone = torch.eye(2 * count, dtype=torch.bool, device=both.device)
    twin = torch.arange(2 * count, device=both.device).roll(count).expand(len(both), -1)
    return functional.cross_entropy(similarity.masked_fill(alone, -torch.inf).flatten(0, 1), twin.flatten())


def hierarchical_loss(first: Tensor, second: Tensor) -> Tensor:
    """Contrast between instances and between instants, in equal parts, at every scale of max-pooling over time (eq. 3).

    Args:
        first, second: representations `[B, T, D]` of the same instants in two contexts.
    """
    losses = []
    while True:
        instances = contrast(first.transpose(0, 1), second.transpose(0, 1)) if len(first) > 1 else first.new_zeros(())
        if first.shape[1] == 1:  # one instant left: nothing to contrast over time
            losses.append(instances / 2)
            return torch.stack(losses).mean()
        losses.append((instances + contrast(first, second)) / 2)
        first, second = (functional.max_pool1d(z.transpose(1, 2), 2).transpose(1, 2) for z in (first, second))


def fit_ts2vec(windows: np.ndarray, seed: int, steps: int | None = None) -> TS2VecEncoder:
    """The encoder fitted on real windows `[N, T, C]`, in eval mode, with its weights averaged over the steps.

    Args:
        steps: None for the published number.
    """
    steps = (STEPS_SMALL if windows.size <= SMALL else STEPS) if steps is None else steps
    draws = np.random.default_rng((seed, 0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = TS2VecEncoder(windows.shape[2])
        average = copy.deepcopy(encoder)
        optimizer = torch.optim.AdamW(encoder.parameters(), lr=RATE)
        order: list[int] = []
        batch = min(BATCH, len(windows))
        for step in range(steps):
            if len(order) < batch:  # the rest of an epoch that fills no batch is dropped
                order = draws.permutation(len(windows)).tolist()
            chosen, order = order[:batch], order[batch:]
            loss = _loss(encoder, torch.from_numpy(np.ascontiguousarray(windows[chosen], np.float32)), draws)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            with torch.no_grad():  # the mean over the initial weights and those after every step
                for mean, value in zip(average.parameters(), encoder.parameters(), strict=True):
                    mean.lerp_(value, 1.0 / (step + 2))
    return average.eval().requires_grad_(False)


def _loss(encoder: TS2VecEncoder, x: Tensor, draws: np.random.Generator) -> Tensor:
    """Two crops of each window that overlap, each masked at random; their representations of the overlap agree."""
    total = x.shape[1]
    length = int(draws.integers(2, total + 1))  # of the overlap
    left = int(draws.integers(total - length + 1))
    right = left + length
    outer_left, outer_right = int(draws.integers(left + 1)), int(draws.integers(right, total + 1))
    shift = draws.integers(-outer_left, total - outer_right + 1, size=len(x))  # each window's own
    first = _encode_crop(encoder, x, shift + outer_left, right - outer_left, draws)[:, -length:]
    second = _encode_crop(encoder, x, shift + left, outer_right - left, draws)[:, :length]
    return hierarchical_loss(first, second)


def _encode_crop(
    encoder: TS2VecEncoder, x: Tensor, start: np.ndarray, length: int, draws: np.random.Generator
) -> Tensor:
    times = torch.from_numpy(start[:, None] + np.arange(length))  # [B, length]
    crop = x[torch.arange(len(x))[:, None], times]
    return encoder(crop, torch.from_numpy(draws.random(crop.shape[:2]) < 0.5))


@torch.no_grad()
def encode(encoder: TS2VecEncoder, windows: np.ndarray) -> np.ndarray:
    """Representations `[N, D]` of windows `[N, T, C]`: the largest value over time of each channel."""
    parts, batch = [], max(1, INSTANTS // windows.shape[1])
    for start in range(0, len(windows), batch):
        x = torch.from_numpy(np.ascontiguousarray(windows[start : start + batch], np.float32))
        parts.append(encoder(x).amax(dim=1))
    return torch.cat(parts).numpy()
