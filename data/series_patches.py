"""Windows of series as tokens and back: a linear code of patches, fitted once, nothing learned.

A patch is P steps of all C channels. Each channel is centred and scaled (one with heavy tails is companded by asinh
first). One of which much comes anew with each step is mapped to normal scores by its own distribution, if a Gaussian
process describes it better then: a sum of many axes is nearly Gaussian, so uniform noise, spikes and lamps that are
mostly off would not come out as they went in. If such a channel takes few different values, each stands for an interval
of scores, and what is behind it is drawn (`normal_scores.draw_scores`). The patch's P·C numbers are then turned onto
their principal axes and every axis is brought to about unit variance: y = Vᵀ(x − m) / √(λ + floor). So the slow level
of a signal and its small steps from one sample to the next weigh the same, and channels that are equal stay equal,
since axes without variance are left out. Last, each axis is bent so that its values are distributed normally (normal
scores again): what happens once in a thousand windows lies three deviations from the middle then, and not twenty, where
a walk from noise is decided before the network hears anything. Then every axis gets back a deviation of its own,
between 1 for the greatest and `least`: noise drowns the small steps first and the level last, so that a walk from noise
settles the level before the steps.
The axes, ordered by their variance, are dealt out to tokens of no more than `token` numbers.

Decoding is the exact inverse up to the axes left out. A channel that takes few different values (a lamp's power in
steps of ten, or a temperature in tenths of a degree) is rounded to the nearest of them, and nothing leaves the range
that was seen.

Legend: `B` batch, `L` length, `T = L / P` slots, `C` channels, `K` axes kept.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..modalities.clip import ClipError
from .normal_scores import NORMAL, draw_scores, fit_drawn_scores, fit_scores, from_scores, to_scores

KNOTS = 1025  # of the map of an axis to normal scores
CHANNEL_KNOTS = 65  # of the map of a channel: more would follow the recording's chance, and roughen its small steps
NEW = 0.3  # share of a channel's variance that comes anew with each step, from which on it may be mapped
GAIN = 0.05  # nats a step that the map must save; chance saves hundredths
LEVELS = 4096  # a channel with no more different values, and fewer than a quarter of the windows, is rounded to them
FITTED = 20_000  # windows that the axes are fitted on


class SeriesPatches:
    """The code of one set of windows.

    Args:
        patch: steps of a slot, `P`; a window's length must be a multiple of it.
        tensors: `center`, `scale`, `bend` `[C]` (bend 0: no companding), `low`, `high` `[C]`, `mean` `[P·C]`,
            `encode` `[P·C, K]`, `decode` `[K, P·C]`, `deviation` `[K]`, `levels.i` for each channel that is rounded,
            and with normal scores `scores` `[Q]` and the values that have them `knots` `[K, Q]`. For each channel that
            is mapped to normal scores: `own_scores.i` `[R]` and the values that have them `own_knots.i` `[1, R]`, or
            if it is rounded `edges.i` between the levels' scores and `precision.i` `[L, L]`.
        sizes: numbers of each token; they add up to `K`.
    """

    def __init__(self, patch: int, tensors: dict[str, Tensor], sizes: tuple[int, ...]) -> None:
        self.patch, self.tensors, self.sizes = patch, tensors, sizes

    @classmethod
    def fit(
        cls, windows: np.ndarray, patch: int, token: int = 64, floor: float = 1e-5, tails: float = 10.0,
        normal: bool = True, least: float = 1.0, seed: int = 0,
    ) -> SeriesPatches:  # fmt: skip
        """Fit on windows `[N, L, C]`.

        Args:
            patch: steps of a slot.
            token: most numbers of a token.
            floor: variance added to that of every axis, in units of a channel's; axes of a tenth of it are left out.
            tails: a channel whose kurtosis (3 for a Gaussian) exceeds this is companded.
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
        tensors = {key: torch.from_numpy(value) for key, value in _channels(x, tails).items()}
        tensors |= _maps(torch.from_numpy(x), tensors, floor)
        y = _standard(torch.from_numpy(x), tensors).unflatten(1, (-1, patch)).flatten(2).flatten(0, 1)  # [n, P·C]
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
        parts = -(-len(order) // token)
        sizes = tuple(len(part) for part in np.array_split(np.arange(len(order)), parts))
        return cls(patch, {key: value.float().contiguous() for key, value in tensors.items()}, sizes)

    @property
    def names(self) -> tuple[str, ...]:
        """The tokens, as modalities of the network."""
        return tuple(f"axes{i}" for i in range(len(self.sizes)))

    @property
    def deviation(self) -> Tensor:
        """About the standard deviation of each axis in the latents, `[K]`."""
        return self.tensors["deviation"]

    @property
    def deviations(self) -> dict[str, Tensor]:
        """`deviation` by token, `{token: [size]}`."""
        return dict(zip(self.names, self.deviation.split(list(self.sizes)), strict=True))

    def encode(self, windows: Tensor) -> dict[str, Tensor]:
        """Windows `[B, L, C]` → `{token: [B, T, 1, size]}`; the same windows give the same draws."""
        y = _standard(windows, self.tensors).unflatten(1, (-1, self.patch)).flatten(2)  # [B, T, P·C]
        z = (y - self.tensors["mean"]) @ self.tensors["encode"]
        z = to_scores(z, self.tensors["knots"], self.tensors["scores"]) if "knots" in self.tensors else z
        return self.split(z * self.deviation)

    def decode(self, latents: dict[str, Tensor]) -> Tensor:
        """`{token: [B, T, 1, size]}` → windows `[B, L, C]`."""
        own = self.tensors
        z = self.join(latents).float() / self.deviation  # [B, T, K]
        z = from_scores(z, own["knots"], own["scores"]) if "knots" in own else z
        y = z @ own["decode"] + own["mean"]
        y = y.unflatten(2, (self.patch, -1)).flatten(1, 2)  # [B, L, C]
        bent = torch.where(own["bend"] > 0, torch.sinh(y * own["bend"].clamp_min(1e-6)), y)
        x = bent * own["scale"] + own["center"]
        for channel in range(x.shape[2]):
            if f"own_knots.{channel}" in own:
                knots, scores = own[f"own_knots.{channel}"], own[f"own_scores.{channel}"]
                x[..., channel] = from_scores(y[..., channel, None], knots, scores)[..., 0]
            elif f"edges.{channel}" in own:
                level = torch.bucketize(y[..., channel].contiguous(), own[f"edges.{channel}"])
                x[..., channel] = own[f"levels.{channel}"][level]
        return self.round(x)

    def round(self, windows: Tensor) -> Tensor:
        """Windows `[B, L, C]`, with each channel that takes few different values rounded to the nearest of them, and
        all brought into the range that was seen."""
        own, x = self.tensors, windows.clone()
        for channel in range(x.shape[2]):
            if (levels := own.get(f"levels.{channel}")) is not None:
                x[..., channel] = levels[torch.bucketize(x[..., channel].contiguous(), _halfway(levels))]
        return torch.minimum(torch.maximum(x, own["low"]), own["high"])

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """All axes `[B, T, K]` as tokens."""
        parts = values.split(list(self.sizes), dim=-1)
        return {name: part[:, :, None] for name, part in zip(self.names, parts, strict=True)}

    def join(self, latents: dict[str, Tensor]) -> Tensor:
        """The other way: tokens `{token: [B, T, 1, size]}` as all axes `[B, T, K]`."""
        return torch.cat([latents[name][:, :, 0] for name in self.names], dim=-1)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `config.json` and `series_patches.safetensors`."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file(self.tensors, Path(folder) / "series_patches.safetensors")
        config = {"_class_name": "SeriesPatches", "patch": self.patch, "sizes": list(self.sizes)}
        (Path(folder) / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> SeriesPatches:
        """Reads what `save_pretrained` wrote; a folder without it, or one from before axes had deviations (the network
        beside it reckons with none), is a ClipError."""
        path = Path(folder) / "config.json"
        if not path.is_file():
            raise ClipError(f"{path}: missing; no code of series here")
        config = json.loads(path.read_text(encoding="utf-8"))
        tensors = load_file(Path(folder) / "series_patches.safetensors")
        if "deviation" not in tensors:
            raise ClipError(f"{folder}: an older version's, without the deviations of its axes; train the model anew")
        return cls(config["patch"], tensors, tuple(config["sizes"]))


def _channels(x: np.ndarray, tails: float) -> dict[str, np.ndarray]:
    """Centre, scale, companding, range and levels of each channel of `[N, L, C]`."""
    flat = x.reshape(-1, x.shape[2])
    center, scale = flat.mean(axis=0), flat.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    standard = (flat - center) / scale
    heavy = (standard**4).mean(axis=0) > tails
    median = np.median(flat, axis=0)
    deviation = np.abs(flat - median).mean(axis=0)
    out = {
        "center": np.where(heavy, median, center),
        "scale": np.where(heavy, deviation, scale),
        "bend": np.where(heavy, np.arcsinh((flat - median) / np.where(deviation > 0, deviation, 1.0)).std(axis=0), 0.0),
        "low": flat.min(axis=0),
        "high": flat.max(axis=0),
    }
    for channel in range(flat.shape[1]):
        levels = np.unique(flat[:, channel])
        if 1 < len(levels) <= min(LEVELS, len(x) // 4):
            out[f"levels.{channel}"] = levels
    return out


def _maps(x: Tensor, own: dict[str, Tensor], floor: float) -> dict[str, Tensor]:
    """The maps to normal scores of those channels of `[N, L, C]` that get one."""
    out = {}
    for channel in range(x.shape[2]):
        values = x[..., channel].contiguous()  # [N, L]
        scale = {key: own[key][channel] for key in ("center", "scale", "bend")}
        scores, knots = fit_scores(values.flatten()[:, None], CHANNEL_KNOTS)
        scored = _nats(to_scores(values[..., None], knots, scores)[..., 0], floor)
        saved = _nats(_compand(values, scale), floor) - scored + _stretch(scores, _compand(knots[0], scale))
        if (2 * scored).exp() < NEW or saved < GAIN:
            continue
        if (levels := own.get(f"levels.{channel}")) is None:
            out |= {f"own_scores.{channel}": scores, f"own_knots.{channel}": knots}
        else:
            edges, precision = fit_drawn_scores(torch.bucketize(values, _halfway(levels)), floor)
            out |= {f"edges.{channel}": edges, f"precision.{channel}": precision}
    return out


def _nats(y: Tensor, floor: float) -> Tensor:
    """How much a Gaussian process needs to describe a channel `[N, L]`, but for a constant: half the logarithm of the
    determinant of the windows' covariance, per step. So exp(2·nats) is the variance that comes anew with a step."""
    centred = y - y.mean(dim=0)
    covariance = centred.T @ centred / len(y) + floor * torch.eye(y.shape[1]).to(y)
    return torch.linalg.slogdet(covariance).logabsdet / (2 * y.shape[1])


def _stretch(scores: Tensor, knots: Tensor) -> Tensor:
    """Mean logarithm of the slope of a channel's map to normal scores `[R]` from its values `[R]`, of variance 1. A
    value that many share counts as spread over a hundredth of the channel's deviation."""
    share = NORMAL.cdf(scores).diff()
    return (share / share.sum() * (scores.diff() / knots.diff().clamp_min(1e-2)).log()).sum()


def _standard(x: Tensor, own: dict[str, Tensor]) -> Tensor:
    """Channels of `[N, L, C]` with variance about 1: scaled, companded, or as normal scores."""
    y = _compand(x, own)
    for key, value in own.items():
        name, _, channel = key.partition(".")
        if name == "own_knots":
            values = x[..., int(channel), None]
            y[..., int(channel)] = to_scores(values, value, own[f"own_scores.{channel}"])[..., 0]
        elif name == "edges":
            level = torch.bucketize(x[..., int(channel)].contiguous(), _halfway(own[f"levels.{channel}"]))
            y[..., int(channel)] = draw_scores(level, value, own[f"precision.{channel}"]).to(y)
    return y


def _halfway(levels: Tensor) -> Tensor:
    return (levels[1:] + levels[:-1]) / 2


def _compand(x: Tensor, own: dict[str, Tensor]) -> Tensor:
    """Values `[…, C]` of all channels, or of one if `own` holds its numbers alone, with variance 1; a companded one
    y = asinh((x − median) / deviation) / bend."""
    y = (x - own["center"]) / own["scale"]
    return torch.where(own["bend"] > 0, torch.asinh(y) / own["bend"].clamp_min(1e-6), y)
