"""Windows of series as latents and back: a linear code of whole windows, fitted once, nothing learned; and the same
numbers as slots of time, which a network hears.

Each channel is centred and scaled, or, where that makes a Gaussian process describe it better, mapped to normal scores
by its own distribution: uniform noise, spikes and lamps that are mostly off come out as they went in then, where a sum
of many axes would be nearly Gaussian. If such a channel takes few different values, each stands for an interval of
scores, and what is behind it is drawn (`normal_scores.draw_scores`). The window's L·C numbers are then turned onto
their principal axes and every axis is brought to about unit variance: y = Vᵀ(x − m) / √(λ + floor). So the slow level
of a signal and its small steps from one sample to the next weigh the same, and channels that are equal stay equal,
since axes without variance are left out. Last, each axis is bent so that its values are distributed normally (normal
scores): what happens once in a thousand windows lies three deviations from the middle then, and not twenty, where a
walk from noise is decided before the network hears anything. Then every axis gets back a deviation of its own, between
1 for the greatest and `least`: noise drowns the small steps first and the level last, so that a walk from noise settles
the level before the steps.

The axes reach over the whole window, so that nothing breaks where one slot meets the next. The network hears them
turned back into time all the same: V·y (a window with unit variance in every direction) is cut into slots of P steps,
and a slot's P·C numbers are one token, or several of no more than `token` numbers. What it says is turned onto the axes
again, by Vᵀ.

Decoding is the exact inverse up to the axes left out. A channel that takes few different values (a lamp's power in
steps of ten, or a temperature in tenths of a degree) is rounded to the nearest of them, and nothing leaves the range
that was seen.

Legend: `B` batch, `L` length, `T = L / P` slots, `C` channels, `K` axes kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..modalities.clip import ClipError
from .normal_scores import draw_scores, fit_drawn_scores, fit_scores, from_scores, to_scores

KNOTS = 1025  # of the map of an axis to normal scores
CHANNEL_KNOTS = 65  # of the map of a channel: more would follow the recording's chance, and roughen its small steps
GAIN = 0.05  # nats a step that a channel's normal scores must save; chance saves hundredths
LEVELS = 4096  # a channel with no more different values, and fewer than a quarter of the windows, is rounded to them
FITTED = 20_000  # windows that the axes are fitted on


class SeriesPatches:
    """The code of one set of windows.

    Args:
        patch: steps of a slot, `P`; the windows' length is a multiple of it.
        tensors: `center`, `scale`, `low`, `high` `[C]`, `scored` `[C]` (1: mapped to normal scores), `channel_scores`
            `[R]` and the values that have them `channel_knots` `[C, R]`, `mean` `[L·C]`, `encode` `[L·C, K]`,
            `decode` `[K, L·C]`, `deviation` `[K]`, `levels.i` for each channel that takes few values; `edges.i` between
            their scores and `precision.i` `[L, L]` if it is mapped; and with normal scores of the axes `scores`
            `[Q]` and the values that have them `knots` `[K, Q]`.
        sizes: numbers of each token; they add up to `P·C`.
    """

    def __init__(self, patch: int, tensors: dict[str, Tensor], sizes: tuple[int, ...]) -> None:
        self.patch, self.tensors, self.sizes = patch, tensors, sizes
        self.axes = tensors["encode"] / tensors["encode"].norm(dim=0)  # V, [L·C, K]

    @classmethod
    def fit(
        cls, windows: np.ndarray, patch: int, token: int = 64, floor: float = 1e-5, normal: bool = True,
        least: float = 1.0, seed: int = 0,
    ) -> SeriesPatches:  # fmt: skip
        """Fit on windows `[N, L, C]`.

        Args:
            patch: steps of a slot.
            token: most numbers of a token.
            floor: variance added to that of every axis, in units of a channel's; axes of a tenth of it are left out.
            normal: whether the axes are mapped to normal scores.
            least: smallest deviation of an axis; the greatest is 1.
            seed: chooses the windows where there are more than 20,000.

        Raises:
            ClipError: the length is no multiple of the patch, or no channel varies.
        """
        if windows.shape[1] % patch:
            raise ClipError(f"patch: windows of {windows.shape[1]} steps are not cut evenly into patches of {patch}")
        rows = np.sort(np.random.default_rng(seed).permutation(len(windows))[:FITTED])
        x = windows[rows].astype(np.float64)
        tensors = _channels(torch.from_numpy(x), floor)
        y = _drawn(torch.from_numpy(x), tensors).flatten(1)  # [n, L·C]
        mean = y.mean(dim=0)
        variance, axes = torch.linalg.eigh((y - mean).T @ (y - mean) / len(y))
        order = variance.argsort(descending=True)
        order = order[variance[order] > floor / 10]
        if len(order) == 0:
            raise ClipError("windows: no channel varies")
        spread, axes = (variance[order] + floor).sqrt(), axes[:, order]
        tensors |= {"mean": mean, "encode": axes / spread, "decode": (axes * spread).T}
        tensors["deviation"] = (spread / spread.max()).clamp_min(least)
        if normal:
            tensors["scores"], tensors["knots"] = fit_scores((y - mean) @ tensors["encode"], KNOTS)
        numbers = patch * windows.shape[2]
        sizes = tuple(len(part) for part in np.array_split(np.arange(numbers), -(-numbers // token)))
        return cls(patch, {key: value.float().contiguous() for key, value in tensors.items()}, sizes)

    @property
    def names(self) -> tuple[str, ...]:
        """The tokens of a slot, as modalities of the network."""
        return tuple(f"steps{i}" for i in range(len(self.sizes)))

    @property
    def deviation(self) -> Tensor:
        """About the standard deviation of each axis in the latents, `[K]`."""
        return self.tensors["deviation"]

    def encode(self, windows: Tensor) -> Tensor:
        """Windows `[B, L, C]` → latents `[B, K]`; the same windows give the same draws."""
        z = (_drawn(windows, self.tensors).flatten(1) - self.tensors["mean"]) @ self.tensors["encode"]
        z = to_scores(z, self.tensors["knots"], self.tensors["scores"]) if "knots" in self.tensors else z
        return z * self.deviation

    def decode(self, latents: Tensor) -> Tensor:
        """Latents `[B, K]` → windows `[B, L, C]`."""
        own = self.tensors
        z = latents.float() / self.deviation
        z = from_scores(z, own["knots"], own["scores"]) if "knots" in own else z
        y = (z @ own["decode"] + own["mean"]).unflatten(1, (-1, len(own["center"])))  # [B, L, C]
        scored = from_scores(y, own["channel_knots"], own["channel_scores"])
        x = torch.where(own["scored"] > 0, scored, y * own["scale"] + own["center"])
        for key, levels in own.items():
            if key.startswith("levels."):
                channel = int(key.removeprefix("levels."))
                edges = own.get(f"edges.{channel}")  # of scores; else halfway between the levels
                value, edges = (x, _halfway(levels)) if edges is None else (y, edges)
                x[..., channel] = levels[torch.bucketize(value[..., channel].contiguous(), edges)]
        return torch.minimum(torch.maximum(x, own["low"]), own["high"])

    def to_slots(self, axes: Tensor) -> dict[str, Tensor]:
        """Numbers on the axes, `[B, K]` of about unit variance, as slots of time, `{token: [B, T, 1, size]}`."""
        self.axes = self.axes.to(axes.device)
        with torch.autocast(axes.device.type, enabled=False):
            steps = (axes.float() @ self.axes.T).unflatten(1, (-1, sum(self.sizes)))  # [B, T, P·C]
        parts = steps.split(list(self.sizes), dim=2)
        return {name: part[:, :, None] for name, part in zip(self.names, parts, strict=True)}

    def from_slots(self, slots: Mapping[str, Tensor]) -> Tensor:
        """The way back, `{token: [B, T, 1, size]}` → `[B, K]`; what lies beside the axes is lost."""
        steps = torch.cat([slots[name][:, :, 0].float() for name in self.names], dim=2).flatten(1)
        self.axes = self.axes.to(steps.device)
        with torch.autocast(steps.device.type, enabled=False):
            return steps @ self.axes

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `config.json` and `series_patches.safetensors`."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file(self.tensors, Path(folder) / "series_patches.safetensors")
        config = {"_class_name": "SeriesPatches", "patch": self.patch, "sizes": list(self.sizes)}
        (Path(folder) / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> SeriesPatches:
        """Reads what `save_pretrained` wrote; a folder without it, or an older version's (whose axes had no deviations,
        or were those of a slot), is a ClipError."""
        path = Path(folder) / "config.json"
        if not path.is_file():
            raise ClipError(f"{path}: missing; no code of series here")
        config = json.loads(path.read_text(encoding="utf-8"))
        tensors = load_file(Path(folder) / "series_patches.safetensors")
        if not {"deviation", "scored"} <= tensors.keys():
            raise ClipError(f"{folder}: an older version's code of series; train the model anew")
        return cls(config["patch"], tensors, tuple(config["sizes"]))


def _channels(x: Tensor, floor: float) -> dict[str, Tensor]:
    """Centre, scale, map to normal scores, range and levels of each channel of `[N, L, C]`."""
    flat = x.flatten(0, 1)
    scale = flat.std(dim=0, correction=0)
    own = {"center": flat.mean(dim=0), "scale": torch.where(scale > 0, scale, 1.0)}
    own["low"], own["high"] = flat.amin(dim=0), flat.amax(dim=0)
    own["channel_scores"], own["channel_knots"] = fit_scores(flat, CHANNEL_KNOTS)
    plain, scored = (_standard(x, own | {"scored": torch.full_like(scale, value)}) for value in (0.0, 1.0))
    gain = _bits(plain, floor) - _bits(scored, floor) + _stretch(own)
    own["scored"] = ((gain > GAIN) & (scale > 0)).to(x)
    for channel in range(x.shape[2]):
        levels = flat[:, channel].unique()
        if 1 < len(levels) <= min(LEVELS, len(x) // 4):
            own[f"levels.{channel}"] = levels
            if own["scored"][channel]:
                index = torch.searchsorted(levels, x[..., channel].contiguous())
                edges, precision = fit_drawn_scores(index, floor)
                own |= {f"edges.{channel}": edges, f"precision.{channel}": precision}
    return own


def _bits(y: Tensor, floor: float) -> Tensor:
    """How much a Gaussian process needs to describe each channel of `[N, L, C]`, but for a constant: half the logarithm
    of the determinant of the windows' covariance, per step, `[C]`."""
    centred = (y - y.mean(dim=0)).permute(2, 1, 0)  # [C, L, N]
    covariance = centred @ centred.mT / len(y) + floor * torch.eye(y.shape[1]).to(y)
    return torch.linalg.slogdet(covariance).logabsdet / (2 * y.shape[1])


def _stretch(own: dict[str, Tensor]) -> Tensor:
    """Mean logarithm of the slope of each channel's map to normal scores, beside that of its scaling, `[C]`. A value
    that many share counts as spread over a hundredth of the channel's deviation."""
    scores, scale = own["channel_scores"], own["scale"][:, None]
    width = (own["channel_knots"].diff() / scale).clamp_min(1e-2)  # [C, R - 1]
    share = torch.distributions.Normal(0.0, 1.0).cdf(scores).diff()
    return (share / share.sum() * (scores.diff() / width).log()).sum(dim=1)


def _drawn(x: Tensor, own: dict[str, Tensor]) -> Tensor:
    """`_standard`, with scores drawn for channels that take few values."""
    y = _standard(x, own)
    for key, edges in own.items():
        if key.startswith("edges."):
            channel = key.removeprefix("edges.")
            index = torch.bucketize(x[..., int(channel)].contiguous(), _halfway(own[f"levels.{channel}"]))
            y[..., int(channel)] = draw_scores(index, edges, own[f"precision.{channel}"]).to(y)
    return y


def _halfway(levels: Tensor) -> Tensor:
    return (levels[1:] + levels[:-1]) / 2


def _standard(x: Tensor, own: dict[str, Tensor]) -> Tensor:
    """Channels of `[…, C]` with variance about 1: scaled, or as normal scores."""
    scored = to_scores(x, own["channel_knots"], own["channel_scores"])
    return torch.where(own["scored"] > 0, scored, (x - own["center"]) / own["scale"])
