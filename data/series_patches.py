"""Windows of series as tokens and back: a linear code of patches, fitted once, nothing learned.

A patch is P steps of all C channels. Each channel is centred and scaled (one with heavy tails is companded by asinh
first); the patch's P·C numbers are then turned onto their principal axes and every axis is brought to about unit
variance: y = Vᵀ(x − m) / √(λ + floor). So the slow level of a signal and its small steps from one sample to the next
weigh the same, and channels that are equal stay equal, since axes without variance are left out. Last, each axis is
bent so that its values are distributed normally (normal scores): what happens once in a thousand windows lies three
deviations from the middle then, and not twenty, where a walk from noise is decided before the network hears anything.
Then every axis gets back a deviation of its own, between 1 for the greatest and `least`: noise drowns the small steps
first and the level last, so that a walk from noise settles the level before the steps.
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

KNOTS = 1025  # of the map of an axis to normal scores
LEVELS = 4096  # a channel with no more different values, and fewer than a quarter of the windows, is rounded to them
FITTED = 20_000  # windows that the axes are fitted on


class SeriesPatches:
    """The code of one set of windows.

    Args:
        patch: steps of a slot, `P`; a window's length must be a multiple of it.
        tensors: `center`, `scale`, `bend` `[C]` (bend 0: no companding), `low`, `high` `[C]`, `mean` `[P·C]`,
            `encode` `[P·C, K]`, `decode` `[K, P·C]`, `deviation` `[K]`, `levels.i` for each
            channel that is rounded, and with normal scores `scores` `[Q]` and the values that have them `knots`
            `[K, Q]`.
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
        y = (_compand(torch.from_numpy(x), tensors)).unflatten(1, (-1, patch)).flatten(2).flatten(0, 1)  # [n, P·C]
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
            tensors |= _normal_scores((y - mean) @ tensors["encode"])
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
        """Windows `[B, L, C]` → `{token: [B, T, 1, size]}`."""
        y = _compand(windows, self.tensors).unflatten(1, (-1, self.patch)).flatten(2)  # [B, T, P·C]
        z = (y - self.tensors["mean"]) @ self.tensors["encode"]
        z = _bent(z, self.tensors["knots"], self.tensors["scores"]) if "knots" in self.tensors else z
        return self.split(z * self.deviation)

    def decode(self, latents: dict[str, Tensor]) -> Tensor:
        """`{token: [B, T, 1, size]}` → windows `[B, L, C]`."""
        own = self.tensors
        z = torch.cat([latents[name][:, :, 0] for name in self.names], dim=-1).float() / self.deviation  # [B, T, K]
        z = _unbent(z, own["knots"], own["scores"]) if "knots" in own else z
        y = z @ own["decode"] + own["mean"]
        y = y.unflatten(2, (self.patch, -1)).flatten(1, 2)  # [B, L, C]
        bent = torch.where(own["bend"] > 0, torch.sinh(y * own["bend"].clamp_min(1e-6)), y)
        x = bent * own["scale"] + own["center"]
        for key, levels in own.items():
            if key.startswith("levels."):
                channel = int(key.removeprefix("levels."))
                between = (levels[1:] + levels[:-1]) / 2
                x[..., channel] = levels[torch.bucketize(x[..., channel].contiguous(), between)]
        return torch.minimum(torch.maximum(x, own["low"]), own["high"])

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """All axes `[B, T, K]` as tokens."""
        parts = values.split(list(self.sizes), dim=-1)
        return {name: part[:, :, None] for name, part in zip(self.names, parts, strict=True)}

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


def _compand(x: Tensor, own: dict[str, Tensor]) -> Tensor:
    """Channels of `[…, C]` with variance 1; a companded one y = asinh((x − median) / deviation) / bend."""
    y = (x - own["center"]) / own["scale"]
    return torch.where(own["bend"] > 0, torch.asinh(y) / own["bend"].clamp_min(1e-6), y)


def _normal_scores(values: Tensor) -> dict[str, Tensor]:
    """`scores` `[Q]`, even from the least to the greatest that `n` values have, and of each axis of `[n, K]` the
    quantiles `knots` `[K, Q]` that belong to them."""
    n = len(values)
    normal = torch.distributions.Normal(0.0, 1.0)
    end = normal.icdf(torch.tensor(1 - 0.5 / n, dtype=torch.float64))
    scores = torch.linspace(-1, 1, KNOTS, dtype=torch.float64) * end
    place = (normal.cdf(scores) * n - 0.5).clamp(0, n - 1)  # among the sorted values
    ordered, before = values.sort(dim=0).values, place.long()
    share = (place - before)[:, None]
    knots = ordered[before] * (1 - share) + ordered[(before + 1).clamp_max(n - 1)] * share  # [Q, K]
    return {"scores": scores, "knots": knots.T}


def _bent(z: Tensor, knots: Tensor, scores: Tensor) -> Tensor:
    """Values `[…, K]` → their normal scores; one that many values share has the middle of theirs."""
    z = z.movedim(-1, 0)  # [K, …]
    flat, last = z.flatten(1).contiguous(), len(scores) - 1
    first = torch.searchsorted(knots, flat)  # knots before it are smaller
    after = torch.searchsorted(knots, flat, right=True)  # from here on they are greater
    high = first.clamp(1, last)
    below, above = knots.gather(1, high - 1), knots.gather(1, high)
    share = ((flat - below) / (above - below).clamp_min(1e-12)).clamp(0, 1)
    between = torch.lerp(scores[high - 1], scores[high], share)
    shared = (scores[first.clamp_max(last)] + scores[(after - 1).clamp_min(0)]) / 2
    return torch.where(after > first, shared, between).view_as(z).movedim(0, -1)


def _unbent(scored: Tensor, knots: Tensor, scores: Tensor) -> Tensor:
    """The inverse of `_bent`; beyond the outermost scores stand the least and the greatest value."""
    place = ((scored / scores[-1] + 1) / 2 * (len(scores) - 1)).clamp(0, len(scores) - 1).movedim(-1, 0)  # [K, …]
    flat = place.flatten(1)
    low = flat.long().clamp_max(len(scores) - 2)
    return torch.lerp(knots.gather(1, low), knots.gather(1, low + 1), flat - low).view_as(place).movedim(0, -1)
