"""Sensors as tokens and back: patches of 16 samples, one token per physical sensor and slot, nothing learned.

Shapes: B batch, T slots, K channels of one sensor (3 axes of an accelerometer), P = 16 samples of a patch (0.16 s at
100 Hz). Samples [B, K, samples] in physical units ↔ latents [B, T, 1, K·P], channel by channel: K patches in a row.
Impacts are spikes a hundred times the everyday signal, so values are companded: y = (asinh((x − median) / s) − a) / b,
per channel, with s, a and b fitted so that y has mean 0 and standard deviation 1; the inverse is exact. It grows
exponentially: a latent a little too large would be any number, so what is generated is held within the range of the
data (`SensorPatches.limit`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .clip import ClipError

PATCH = 16


@dataclass(frozen=True)
class Companding:
    """The scaling of one channel: y = (asinh((x − center) / scale) − shift) / spread.

    Args:
        name: of the channel, e.g. `x`.
        unit: of its samples, e.g. `m/s²`.
        center, scale: median and typical deviation from it, in that unit.
        shift, spread: mean and standard deviation of the companded samples.
        low, high: least and greatest sample of the data, in that unit; None: not known, nothing is held within it.
    """

    name: str
    unit: str
    center: float = 0.0
    scale: float = 1.0
    shift: float = 0.0
    spread: float = 1.0
    low: float | None = None
    high: float | None = None


class SensorPatches:
    """The codec of all sensors of a data set.

    Args:
        channels: the channels of each sensor, e.g. `{"force": (Companding("z", "N"),)}`; the order is kept.
        rate: samples a second.
    """

    samples_per_slot = PATCH
    tokens_per_slot = 1

    def __init__(self, channels: dict[str, tuple[Companding, ...]], rate: float = 100.0) -> None:
        self.channels = dict(channels)
        self.rate = rate

    @classmethod
    def fit(
        cls,
        names: dict[str, Sequence[str]],
        units: dict[str, str],
        values: dict[str, np.ndarray],
        rate: float = 100.0,
    ) -> SensorPatches:
        """Fit the scaling of every channel on data; samples that are not finite are left out.

        Args:
            names: the channels' names by sensor, e.g. `{"accelerometer": ("x", "y", "z")}`.
            units: the unit of each sensor.
            values: samples [N, K, samples] of each sensor, in that unit.

        Raises:
            ClipError: if a sensor has another number of channels than names, or a channel has no samples.
        """
        channels = {}
        for sensor, axes in names.items():
            if values[sensor].ndim != 3 or values[sensor].shape[1] != len(axes):
                raise ClipError(f"{sensor}: samples {list(values[sensor].shape)}, expected [N, {len(axes)}, samples]")
            columns = values[sensor].transpose(1, 0, 2).reshape(len(axes), -1)  # [K, N · samples]
            channels[sensor] = tuple(
                _fit_channel(sensor, axis, units[sensor], x) for axis, x in zip(axes, columns, strict=True)
            )
        return cls(channels, rate)

    def widened(self, values: dict[str, np.ndarray]) -> SensorPatches:
        """The same scaling, with ranges that hold further samples [N, K, samples] of each sensor too."""
        channels = {}
        for sensor, axes in self.channels.items():
            columns = values[sensor].transpose(1, 0, 2).reshape(len(axes), -1)  # [K, N · samples]
            channels[sensor] = tuple(_widened(channel, x) for channel, x in zip(axes, columns, strict=True))
        return SensorPatches(channels, self.rate)

    def size(self, sensor: str) -> int:
        """Channels of the latents of one sensor: K·16."""
        return len(self._channels(sensor)) * PATCH

    def encode(self, sensor: str, values: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latents [B, T, 1, K·16] and the measured share of each patch [B, T, K] of samples [B, K, samples].

        Samples that are masked out or not finite become 0 (the channel's usual value). A last patch that is not full
        is padded with such samples: T = ⌈samples / 16⌉; `decode(…, samples=…)` crops them off again.

        Args:
            values: samples in physical units, at `rate`.
            mask: [B, K, samples] bool, True where measured; None means everywhere.

        Raises:
            ClipError: an unknown sensor, another number of channels, no samples, or a mask of another shape.
        """
        count = len(self._channels(sensor))
        if values.ndim != 3 or values.shape[1] != count or values.shape[2] == 0:
            raise ClipError(f"{sensor}: samples {list(values.shape)}, expected [batch, {count}, samples]")
        if mask is not None and mask.shape != values.shape:
            raise ClipError(f"{sensor}: mask {list(mask.shape)} beside samples {list(values.shape)}")
        known = torch.isfinite(values) if mask is None else mask.bool() & torch.isfinite(values)
        center, scale, shift, spread = self._columns(sensor, values.device)
        companded = (torch.asinh((values.double() - center) / scale) - shift) / spread
        companded = torch.where(known, companded, torch.zeros_like(companded)).float()
        padding = -values.shape[2] % PATCH
        patches = functional.pad(companded, (0, padding)).unflatten(2, (-1, PATCH))  # [B, K, T, P]
        share = functional.pad(known, (0, padding)).unflatten(2, (-1, PATCH)).float().mean(3)  # [B, K, T]
        return patches.transpose(1, 2).flatten(2)[:, :, None], share.transpose(1, 2)

    def decode(self, sensor: str, latents: Tensor, samples: int | None = None) -> Tensor:
        """Samples [B, K, samples] in physical units, float32, of latents [B, T, 1, K·16].

        Args:
            samples: how many to keep; None keeps all T·16.

        Raises:
            ClipError: an unknown sensor, latents of another shape, or more samples than there are.
        """
        count = len(self._channels(sensor))
        if latents.ndim != 4 or latents.shape[2] != 1 or latents.shape[3] != count * PATCH:
            raise ClipError(f"{sensor}: latents {list(latents.shape)}, expected [batch, slots, 1, {count * PATCH}]")
        if samples is not None and not 0 < samples <= latents.shape[1] * PATCH:
            raise ClipError(f"{sensor}: {samples} samples asked of {latents.shape[1]} slots of {PATCH}")
        companded = latents[:, :, 0].unflatten(2, (count, PATCH)).transpose(1, 2).flatten(2)  # [B, K, T·P]
        center, scale, shift, spread = self._columns(sensor, latents.device)
        values = torch.sinh(companded.double() * spread + shift) * scale + center
        return values[:, :, :samples].float()

    def limit(self, sensor: str, values: Tensor) -> Tensor:
        """Samples [B, K, samples] in physical units, each channel held within the range of the data.

        Beside `decode`, not in it: beyond the range it has no gradient, which guidance needs.

        Raises:
            ClipError: an unknown sensor.
        """
        ends = [
            (-math.inf if c.low is None else c.low, math.inf if c.high is None else c.high)
            for c in self._channels(sensor)
        ]
        low, high = torch.tensor(ends, dtype=values.dtype, device=values.device).T[:, :, None]  # [K, 1] each
        return torch.minimum(torch.maximum(values, low), high)

    def sample_mask(self, share: Tensor, samples: int | None = None) -> Tensor:
        """[B, K, samples] bool, True where the whole patch was measured, from the shares [B, T, K] of `encode`."""
        return (share == 1.0).transpose(1, 2).repeat_interleave(PATCH, dim=2)[:, :, :samples]

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json`: rate, patch length, and name, unit and scaling of every channel."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        sensors = {sensor: [asdict(channel) for channel in axes] for sensor, axes in self.channels.items()}
        config = {"_class_name": "SensorPatches", "rate": self.rate, "patch": PATCH, "sensors": sensors}
        (Path(folder) / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> SensorPatches:
        """Read what `save_pretrained` wrote.

        Raises:
            ClipError: the file is missing, or isn't the configuration of sensor patches of 16 samples.
        """
        path = Path(folder) / "config.json"
        if not path.is_file():
            raise ClipError(f"{path}: missing; no sensor codec here")
        try:
            config = json.loads(path.read_text("utf-8"))
            sensors = {s: tuple(Companding(**channel) for channel in axes) for s, axes in config["sensors"].items()}
            patch, rate = config["patch"], float(config["rate"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ClipError(f"{path}: not a sensor codec ({error})") from None
        if patch != PATCH:
            raise ClipError(f"{path}: patches of {patch} samples, expected {PATCH}")
        return cls(sensors, rate)

    def _channels(self, sensor: str) -> tuple[Companding, ...]:
        if sensor not in self.channels:
            raise ClipError(f"{sensor}: unknown sensor; this codec knows {', '.join(self.channels)}")
        return self.channels[sensor]

    def _columns(self, sensor: str, device: torch.device) -> Tensor:
        """center, scale, shift and spread, each [K, 1] float64."""
        rows = [(c.center, c.scale, c.shift, c.spread) for c in self._channels(sensor)]
        return torch.tensor(rows, dtype=torch.float64, device=device).T[:, :, None]


def _fit_channel(sensor: str, name: str, unit: str, values: np.ndarray) -> Companding:
    """Center: the median; scale: the median of the deviations that aren't tiny, so that long rests don't make it 0."""
    values = values[np.isfinite(values)].astype(np.float64)
    if values.size == 0:
        raise ClipError(f"{sensor}.{name}: no finite samples to fit the scaling on")
    center = float(np.median(values))
    deviation = np.abs(values - center)
    lively = deviation[deviation > 1e-2 * deviation.std()]
    scale = float(np.median(lively)) if lively.size else 1.0
    companded = np.arcsinh((values - center) / scale)
    shift, spread = float(companded.mean()), float(max(companded.std(), 1e-3))
    return _widened(Companding(name, unit, center, scale, shift, spread), values)


def _widened(channel: Companding, values: np.ndarray) -> Companding:
    """With a range that holds the finite ones of further samples too."""
    ends = [end for end in (channel.low, channel.high) if end is not None]
    seen = np.concatenate([values[np.isfinite(values)].astype(np.float64), ends])
    return replace(channel, low=float(seen.min()), high=float(seen.max())) if seen.size else channel
