"""Which activity is a window of sensors? A small convolutional classifier, to ask what generated windows are worth.

A classifier trained only on generated windows and tested on real ones of people it has not seen (TSTR: Esteban, Hyland,
Rätsch 2017, arXiv 1706.02633) reaches the accuracy of one trained on real windows only if the generated ones hold what
tells the activities apart, in all its variety.

Legend: `N` windows, `B` batch, `L` steps, `C` channels, `K` classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..modalities.clip import ClipError

STEPS = 600
BATCH = 64
RATE = 2e-3  # at its peak; it rises over a tenth of the steps, and falls along a cosine
DECAY = 1e-2


@dataclass(frozen=True)
class Labelled:
    """Windows and their classes.

    Args:
        values: float32 `[N, L, C]` in the channels' units; of no meaning where the mask is False.
        mask: bool `[N, L, C]`, where a sample lies.
        labels: int64 `[N]`.
    """

    values: np.ndarray
    mask: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, rows: np.ndarray) -> Labelled:
        """Some of the windows."""
        return Labelled(self.values[rows], self.mask[rows], self.labels[rows])


@dataclass(frozen=True)
class Standard:
    """Mean and deviation of the measured samples of each channel, `[C]`."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, sources: Sequence[Labelled]) -> Standard:
        """Over all windows of all sources."""
        values = np.concatenate([own.values for own in sources]).astype(np.float64)
        mask = np.concatenate([own.mask for own in sources])
        count = mask.sum(axis=(0, 1)).clip(1)
        mean = np.where(mask, values, 0).sum(axis=(0, 1)) / count
        variance = np.where(mask, (values - mean) ** 2, 0).sum(axis=(0, 1)) / count
        return cls(mean, np.sqrt(variance).clip(1e-6))

    def apply(self, windows: Labelled) -> np.ndarray:
        """Float32 `[N, L, C]` of mean 0 and variance 1; 0 where nothing was measured."""
        return np.where(windows.mask, (windows.values - self.mean) / self.std, 0).astype(np.float32)


class ActivityNet(nn.Module):
    """Three convolutions over time, mean and maximum over what is left of it, one linear layer.

    Args:
        channels, classes: `C` and `K`.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for into, out, kernel, stride in ((channels, 64, 5, 1), (64, 96, 5, 2), (96, 128, 3, 2)):
            layers += [nn.Conv1d(into, out, kernel, stride, kernel // 2), nn.BatchNorm1d(out), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(256, classes))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, L, C]` → logits `[B, K]`."""
        found = self.features(x.transpose(1, 2))  # [B, 128, L/4]
        return self.head(torch.cat([found.mean(dim=2), found.amax(dim=2)], dim=1))


@dataclass(frozen=True)
class Classifier:
    """A trained network with the scale of what it was trained on."""

    network: ActivityNet
    scale: Standard

    @torch.no_grad()
    def predict(self, windows: Labelled) -> np.ndarray:
        """The most likely class of each window, `[N]`."""
        parts = torch.from_numpy(self.scale.apply(windows)).split(1024)
        return torch.cat([self.network(part).argmax(dim=1) for part in parts]).numpy()


def train_classifier(sources: Sequence[Labelled], classes: int, seed: int = 0, steps: int = STEPS) -> Classifier:
    """A classifier trained on one source of windows, or on several with an equal share of every batch each.

    Within a source every class that it has is drawn equally often, so that the balanced accuracy is what is trained
    for. The number of steps does not depend on the number of windows.

    Raises:
        ClipError: a source without windows.
    """
    if not sources or not all(len(own) for own in sources):
        raise ClipError("windows: none to train the classifier on")
    scale = Standard.fit(sources)
    values = [torch.from_numpy(scale.apply(own)) for own in sources]
    labels = [torch.from_numpy(own.labels) for own in sources]
    weights = [1.0 / torch.bincount(own, minlength=classes)[own] for own in labels]
    sizes = [BATCH // len(sources)] * len(sources)
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ActivityNet(values[0].shape[2], classes)
        optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
        for step in range(steps):
            done = (step + 0.5) / steps
            optimizer.param_groups[0]["lr"] = RATE * min(1.0, 10 * done) * 0.5 * (1 + math.cos(math.pi * done))
            rows = [torch.multinomial(w, n, True, generator=draw) for w, n in zip(weights, sizes, strict=True)]
            x = torch.cat([own[chosen] for own, chosen in zip(values, rows, strict=True)])
            y = torch.cat([own[chosen] for own, chosen in zip(labels, rows, strict=True)])
            optimizer.zero_grad()
            functional.cross_entropy(network(x), y).backward()
            optimizer.step()
    return Classifier(network.eval(), scale)


def balanced_accuracy(said: np.ndarray, truth: np.ndarray) -> float:
    """The mean over the classes in `truth` of the share of their windows that was recognized."""
    return float(np.mean([(said[truth == k] == k).mean() for k in np.unique(truth)]))


def recalls(said: np.ndarray, truth: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """The share of each class's windows that was recognized, for the classes in `truth`."""
    return {name: float((said[truth == k] == k).mean()) for k, name in enumerate(classes) if (truth == k).any()}


def spectral_distances(first: Labelled, second: Labelled) -> np.ndarray:
    """How far the mean power spectra of two sets of windows lie apart, dB `[C]`: root mean square over frequencies.

    Without the mean of each window, with a Hann window; missing samples count as the window's mean in both.
    """
    apart = 10 * (np.log10(_spectrum(first)) - np.log10(_spectrum(second)))
    return np.sqrt(np.square(apart).mean(axis=0))


def rotations(windows: Labelled, acceleration: Sequence[int], rotation: Sequence[int]) -> np.ndarray:
    """Mean rate of turning about the vertical, rad/s `[N]`, to the left above 0; NaN where nothing was measured.

    The vertical is the mean acceleration of the window, whose largest part is gravity.

    Args:
        acceleration, rotation: the channels x, y, z of an accelerometer and of the gyroscope beside it.
    """
    count = windows.mask.sum(axis=1).clip(1)  # [N, C]
    mean = np.where(windows.mask, windows.values, 0).sum(axis=1) / count
    up, rate = mean[:, list(acceleration)], mean[:, list(rotation)]  # [N, 3]
    norm = np.linalg.norm(up, axis=1)
    return np.where(norm > 0, (up * rate).sum(axis=1) / np.where(norm > 0, norm, 1), np.nan)


def _spectrum(windows: Labelled) -> np.ndarray:
    """Mean power, `[L // 2, C]`."""
    count = windows.mask.sum(axis=1, keepdims=True).clip(1)
    values = np.where(windows.mask, windows.values, 0).astype(np.float64)
    values = np.where(windows.mask, values - values.sum(axis=1, keepdims=True) / count, 0)
    shaped = values * np.hanning(values.shape[1] + 2)[1:-1, None]
    return np.square(np.abs(np.fft.rfft(shaped, axis=1)[:, 1:])).mean(axis=0) + 1e-12
