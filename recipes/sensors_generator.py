"""A trained generator of series: a linear code of patches and the transformer that denoises its tokens.

    generator = SeriesGenerator.from_pretrained("runs/sensors/model")
    windows = generator.sample(1000, seed=0)    # [1000, L, C] in [0, 1]

A slot is a patch of the window; a token, one per slot and with a projection and an embedding of its own, is a group of
the patch's principal axes. The first token also carries, never noised, which slot it is: the backbone's positions are
relative, and a recording of a fall does not begin as it ends.

Legend: `B` batch, `L` length, `T` slots, `C` channels, `K` axes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.backbones.transformer import CounterpointTransformer, Modality
from counterpoint.data.channel_moments import ChannelMoments
from counterpoint.data.quantile_map import QuantileMap
from counterpoint.data.series_patches import SeriesPatches
from counterpoint.data.window_start import WindowStart
from counterpoint.diffusion.angle_walk import LevelMoments, angle_ratios, angle_walk
from counterpoint.diffusion.conversion import as_flow
from counterpoint.diffusion.model_files import save_transformer
from counterpoint.diffusion.process import process_of
from counterpoint.diffusion.quasi_random import QuasiRandomNoise
from counterpoint.diffusion.sampling import draw_noise, make_scheduler, sample
from counterpoint.diffusion.solvers import EDM_SOLVERS
from counterpoint.modalities.clip import ClipError

CLOCK = 16  # channels that say which slot it is
TEXT_DIM = 16  # of the place where labels and sentences will stand; without them it holds padding
TOKENS = 3000  # that are sampled at once, so that they stay in the cache
KEPT = 31 << 20  # bytes of a block that glibc, once it was freed, keeps at hand instead of fetching new pages each time
DRAWS = 8  # of quasi-random points, on which a generator is calibrated: what they differ by is chance
MARGINALS, MOMENTS, START = "marginals.safetensors", "moments.safetensors", "start.safetensors"
LEVELS = "levels.safetensors"
ANGLE = "angle"  # the solver of `diffusion/angle_walk.py`; the others are those of `make_scheduler`


def in_proportion(count: int, length: int) -> int:
    """`count` windows, or as many as have about the time steps of `count` windows of 24."""
    return min(count, max(1, round(count * 24 / length)))


def clock(slots: int) -> Tensor:
    """Which slot it is, as sines and cosines of periods from 2 to 256 slots: `[T, 16]`."""
    periods = torch.logspace(math.log10(2.0), math.log10(256.0), CLOCK // 2)
    angles = 2 * math.pi * torch.arange(slots)[:, None] / periods  # [T, 8]
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def with_clock(latents: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's input: the clock behind the numbers of the first token, `[B, T, 1, size + 16]`."""
    name, first = next(iter(latents.items()))
    codes = clock(first.shape[1]).to(first)[None, :, None].expand(len(first), -1, -1, -1)
    return {**latents, name: torch.cat([first, codes], dim=3)}


def without_clock(predicted: dict[str, Tensor], latents: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's output, cut to the numbers of each token."""
    return {name: predicted[name][..., : x.shape[3]] for name, x in latents.items()}


def no_text(batch: int) -> tuple[Tensor, Tensor]:
    """Text states `[B, 1, TEXT_DIM]` and mask `[B, 1]` of windows that nothing is said of."""
    return torch.zeros(batch, 1, TEXT_DIM), torch.zeros(batch, 1, dtype=torch.bool)


def token_modalities(codec: SeriesPatches) -> list[Modality]:
    """What the network must know of each token."""
    sizes = [codec.sizes[0] + CLOCK, *codec.sizes[1:]]
    return [Modality(name, 1, size, "sensor") for name, size in zip(codec.names, sizes, strict=True)]


class SeriesGenerator:
    """Codec, network and how to sample.

    Args:
        codec: between windows and latents.
        transformer: denoises the latents.
        facts: `set`, `length`, `solver`, `steps` and what else is to be kept with the model; must be JSON.
        marginals: brings the values of each channel to their distribution in the training data; None: left as they are.
        moments: brings the mean and the covariance over time of each channel to those of the training data, after it;
            None: left as they are.
        start: of walks with a `span`; None: they begin with noise alone.
        levels: keeps walks of the solver `angle` at the moments of the training data; None: they are left alone.
    """

    def __init__(
        self, codec: SeriesPatches, transformer: CounterpointTransformer, facts: dict,
        marginals: QuantileMap | None = None, moments: ChannelMoments | None = None, start: WindowStart | None = None,
        levels: LevelMoments | None = None,
    ) -> None:  # fmt: skip
        self.codec, self.transformer, self.facts = codec, transformer.eval(), facts
        self.marginals, self.moments, self.start, self.levels = marginals, moments, start, levels

    @property
    def slots(self) -> int:
        """Slots of a window."""
        return self.facts["length"] // self.codec.patch

    @property
    def batch(self) -> int:
        """How many windows `sample` makes at once: as many as have `TOKENS` tokens, fewer of long or wide ones."""
        return max(1, round(TOKENS / (self.slots * len(self.codec.sizes))))

    @torch.no_grad()
    def calibrate(
        self, windows: np.ndarray, latents: Tensor, count: int, per_step: bool = False, bf16: bool = False
    ) -> None:
        """Fits `levels`, `marginals` and `moments` on training windows and `count` samples that no seed of `sample`
        gives.

        Args:
            windows: `[N, L, C]`.
            latents: of some or all of them, `[N, T, K]`.
            per_step: where windows all begin the same way: each step, and each slot, has its own.
            bf16: as for `sample`.
        """
        each = math.ceil(count / DRAWS)
        seeds = [np.random.SeedSequence((0, 12, draw)).generate_state(each).tolist() for draw in range(DRAWS)]
        drawn = [batch for own in seeds for batch in self._points(own, 0, False)]
        if self.facts["solver"] == ANGLE:
            ratios = angle_ratios(self.facts["steps"], self.facts["span"])
            begun = self._begun(torch.cat(drawn))
            with self._autocast(bf16):
                self.levels, clean = LevelMoments.fit(
                    self._predict, begun, ratios, self.codec.deviation, latents, per_step
                )
            made = self.codec.decode(self.codec.split(clean))
        else:
            made = torch.cat([self._decoded(batch, None, None, bf16) for batch in drawn])
        data = torch.tensor(windows)
        self.marginals = QuantileMap.fit(made, data, per_step, DRAWS)
        self.moments = ChannelMoments.fit(self.marginals.apply(made), data)

    def sample(
        self, count: int, seed: int = 0, steps: int | None = None, solver: str | None = None, bf16: bool = False,
        independent: bool = False, first: int = 0,
    ) -> np.ndarray:  # fmt: skip
        """Windows `[count, L, C]` float32 in [0, 1]; window i depends on `seed` and i alone.

        Args:
            steps, solver: None for the model's own; other steps go without `levels`.
            bf16: the network's products in bfloat16: faster where the processor has them.
            independent: each window from a draw of its own (`draw_noise`); else from noise that lies more evenly than
                chance, so that what is averaged over the windows is nearer to the model's (`QuasiRandomNoise`).
            first: number of the first window: many can be made in parts.
        """
        torch.empty(KEPT, dtype=torch.uint8)  # freed at once
        seeds = np.random.SeedSequence((seed, 11)).generate_state(first + count).tolist()
        batches = self._points(seeds, first, independent)
        return torch.cat([self._calibrated(self._decoded(drawn, steps, solver, bf16)) for drawn in batches]).numpy()

    def _calibrated(self, windows: Tensor) -> Tensor:
        """Decoded windows `[B, L, C]`, corrected by what was fitted."""
        fitted = [step for step in (self.marginals, self.moments) if step is not None]
        for step in fitted:
            windows = step.apply(windows)
        return self.codec.round(windows) if fitted else windows

    def _points(self, seeds: Sequence[int], first: int, independent: bool) -> Iterator[Tensor]:
        """Standard normal numbers of a window for each seed from the `first` on, in batches `[B, K, T]`."""
        slots, axes = self.slots, sum(self.codec.sizes)
        points = None if independent else QuasiRandomNoise(slots * axes, seeds[0], first)
        for start in range(first, len(seeds), self.batch):
            own = seeds[start : start + self.batch]
            if points is None:
                yield draw_noise({"axes": (slots, axes)}, own)["axes"].transpose(1, 2)
            else:  # the greatest axes come first, where the points lie most evenly
                yield points.draw(len(own)).unflatten(1, (axes, slots))

    @torch.no_grad()
    def _decoded(self, drawn: Tensor, steps: int | None, solver: str | None, bf16: bool) -> Tensor:
        """Windows `[B, L, C]` as the codec decodes them, of standard normal numbers `[B, K, T]`."""
        steps, solver = self.facts["steps"] if steps is None else steps, solver or self.facts["solver"]
        with self._autocast(bf16):
            if solver == ANGLE:
                levels = self.levels if self.levels and self.levels.steps == steps else None
                ratios = angle_ratios(steps, self.facts["span"])
                clean = angle_walk(self._predict, self._begun(drawn), ratios, self.codec.deviation, levels)
                latents = self.codec.split(clean)
            else:
                latents = self._solved(drawn, steps, solver)
        return self.codec.decode(latents)

    def _autocast(self, bf16: bool) -> torch.autocast:
        return torch.autocast(self.transformer.device.type, torch.bfloat16, enabled=bf16)

    def _begun(self, drawn: Tensor) -> Tensor:
        """What a walk in angles begins with, `[B, T, K]`, of standard normal numbers `[B, K, T]`."""
        if self.start is None:
            return drawn.transpose(1, 2)
        first = self.facts["span"][0]
        unit = (self.codec.deviation.square() + first**2).sqrt()
        return self.start.draw(drawn, first) * (1 + first**2) ** 0.5 / unit

    def _predict(self, y: Tensor, ratio: float) -> Tensor:
        """What the network says `[B, T, K]` of its input `[B, T, K]` at s/α = `ratio`."""
        process = process_of(self.transformer.config)
        if process.prediction != "edm":
            raise ClipError(f"solver: {ANGLE} needs a network that predicts as edm, not {process.prediction}")
        level = process.level(torch.tensor([[ratio]], dtype=torch.float64)).float()  # the same in all cells
        said = []
        for part in y.split(self.batch):
            inputs = {name: x.to(self.transformer.device) for name, x in self.codec.split(part).items()}
            said.append(self.codec.join({name: x.float().cpu() for name, x in self._said(inputs, level).items()}))
        return torch.cat(said)

    def _said(self, inputs: dict[str, Tensor], level: Tensor) -> dict[str, Tensor]:
        """The network's output for its input `{token: [B, T, 1, size]}` at one level `[1, 1]`."""
        text, mask = (x.to(self.transformer.device) for x in no_text(len(next(iter(inputs.values())))))
        levels = dict.fromkeys(inputs, level.to(self.transformer.device))
        return without_clock(self.transformer(with_clock(inputs), levels, text, mask), inputs)

    def _solved(self, drawn: Tensor, steps: int, solver: str) -> dict[str, Tensor]:
        """Clean latents `{token: [B, T, 1, size]}` on the CPU, by a solver of `make_scheduler`."""
        device = self.transformer.device
        span = self.facts.get("span") if solver in EDM_SOLVERS else None
        scheduler = make_scheduler(solver, span=span)
        noised = self.start.draw(drawn, span[0]) if self.start and span else drawn.transpose(1, 2).contiguous()
        noise = {name: x.to(device) for name, x in self.codec.split(noised).items()}

        def denoise(_: str, latents: dict[str, Tensor], sigma: dict[str, Tensor]) -> dict[str, Tensor]:
            return self._said(latents, next(iter(sigma.values()))[:1, :1])

        denoiser = as_flow(denoise, process_of(self.transformer.config), self.codec.deviations)
        return {name: x.cpu() for name, x in sample(denoiser, noise, scheduler, steps).items()}

    def save_pretrained(self, folder: str | Path) -> Path:
        """Writes `generator.json`, `codec/`, `transformer/`, and what was fitted: `marginals.safetensors`,
        `moments.safetensors`, `start.safetensors` and `levels.safetensors`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.codec.save_pretrained(folder / "codec")
        save_transformer(self.transformer, folder / "transformer", None)
        kept = (self.marginals, MARGINALS), (self.moments, MOMENTS), (self.start, START), (self.levels, LEVELS)
        for fitted, name in kept:
            (folder / name).unlink(missing_ok=True)  # of an earlier model
            if fitted is not None:
                fitted.save(folder / name)
        (folder / "generator.json").write_text(json.dumps(self.facts, indent=2) + "\n", encoding="utf-8")
        return folder

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> SeriesGenerator:
        """Reads what `save_pretrained` wrote; a folder without it is a ClipError."""
        folder = Path(folder)
        if not (folder / "generator.json").is_file():
            raise ClipError(f"{folder}: no generator.json in it; train one with `counterpoint train sensors`")
        facts = json.loads((folder / "generator.json").read_text(encoding="utf-8"))
        network = CounterpointTransformer.from_pretrained(
            str(folder / "transformer"), torch_dtype=torch.float32, low_cpu_mem_usage=False
        )
        kinds: list[Any] = [QuantileMap, ChannelMoments, WindowStart, LevelMoments]
        paths = [folder / name for name in (MARGINALS, MOMENTS, START, LEVELS)]
        fitted = [kind.load(path) if path.is_file() else None for kind, path in zip(kinds, paths, strict=True)]
        return cls(SeriesPatches.from_pretrained(folder / "codec"), network, facts, *fitted)
