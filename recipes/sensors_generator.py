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
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from counterpoint.backbones.transformer import CounterpointTransformer, Modality
from counterpoint.data.channel_moments import ChannelMoments
from counterpoint.data.quantile_map import QuantileMap
from counterpoint.data.series_patches import SeriesPatches
from counterpoint.data.window_start import WindowStart
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
DRAWS = 8  # of quasi-random points, on which a generator is calibrated: what they differ by is chance
MARGINALS, MOMENTS, START = "marginals.safetensors", "moments.safetensors", "start.safetensors"


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
    """

    def __init__(
        self, codec: SeriesPatches, transformer: CounterpointTransformer, facts: dict,
        marginals: QuantileMap | None = None, moments: ChannelMoments | None = None, start: WindowStart | None = None,
    ) -> None:  # fmt: skip
        self.codec, self.transformer, self.facts = codec, transformer.eval(), facts
        self.marginals, self.moments, self.start = marginals, moments, start

    @property
    def slots(self) -> int:
        """Slots of a window."""
        return self.facts["length"] // self.codec.patch

    @property
    def batch(self) -> int:
        """How many windows `sample` makes at once: as many as have `TOKENS` tokens, fewer of long or wide ones."""
        return max(1, round(TOKENS / (self.slots * len(self.codec.sizes))))

    def calibrate(self, windows: np.ndarray, count: int, per_step: bool = False, bf16: bool = False) -> None:
        """Fits `marginals` and `moments` on the training windows `[N, L, C]` and `count` samples that no seed of
        `sample` gives.

        Args:
            per_step: where windows all begin the same way: each step has its own.
            bf16: as for `sample`.
        """
        each = math.ceil(count / DRAWS)
        seeds = [np.random.SeedSequence((0, 12, draw)).generate_state(each).tolist() for draw in range(DRAWS)]
        made = torch.cat([batch for own in seeds for batch in self._draw(own, 0, None, None, bf16, False)])
        data = torch.tensor(windows)
        self.marginals = QuantileMap.fit(made, data, per_step, DRAWS)
        self.moments = ChannelMoments.fit(self.marginals.apply(made), data)

    def sample(
        self, count: int, seed: int = 0, steps: int | None = None, solver: str | None = None, bf16: bool = False,
        independent: bool = False, first: int = 0,
    ) -> np.ndarray:  # fmt: skip
        """Windows `[count, L, C]` float32 in [0, 1]; window i depends on `seed` and i alone.

        Args:
            steps, solver: None for the model's own.
            bf16: the network's products in bfloat16: faster where the processor has them.
            independent: each window from a draw of its own (`draw_noise`); else from noise that lies more evenly than
                chance, so that what is averaged over the windows is nearer to the model's (`QuasiRandomNoise`).
            first: number of the first window: many can be made in parts.
        """
        seeds = np.random.SeedSequence((seed, 11)).generate_state(first + count).tolist()
        batches = self._draw(seeds, first, steps, solver, bf16, independent)
        return torch.cat([self._calibrated(windows) for windows in batches]).numpy()

    def _calibrated(self, windows: Tensor) -> Tensor:
        """Decoded windows `[B, L, C]`, corrected by what was fitted."""
        fitted = [step for step in (self.marginals, self.moments) if step is not None]
        for step in fitted:
            windows = step.apply(windows)
        return self.codec.round(windows) if fitted else windows

    @torch.no_grad()
    def _draw(
        self, seeds: list[int], first: int, steps: int | None, solver: str | None, bf16: bool, independent: bool
    ) -> Iterator[Tensor]:
        """A window of each seed from the `first` on, as the codec decodes it, in batches `[B, L, C]`."""
        slots, axes = self.slots, sum(self.codec.sizes)
        points = None if independent else QuasiRandomNoise(slots * axes, seeds[0], first)
        for start in range(first, len(seeds), self.batch):
            own = seeds[start : start + self.batch]
            if points is None:
                drawn = draw_noise({"axes": (slots, axes)}, own)["axes"].transpose(1, 2)
            else:  # the greatest axes come first, where the points lie most evenly
                drawn = points.draw(len(own)).unflatten(1, (axes, slots))
            with torch.autocast(self.transformer.device.type, torch.bfloat16, enabled=bf16):
                latents = self._latents(drawn, steps, solver)  # of [B, K, T]
            yield self.codec.decode(latents)

    def _latents(self, drawn: Tensor, steps: int | None, solver: str | None) -> dict[str, Tensor]:
        """Clean latents `{token: [B, T, 1, size]}` on the CPU, of standard normal numbers `[B, K, T]`."""
        device = self.transformer.device
        solver = solver or self.facts["solver"]
        span = self.facts.get("span") if solver in EDM_SOLVERS else None
        scheduler = make_scheduler(solver, span=span)
        noised = self.start.draw(drawn, span[0]) if self.start and span else drawn.transpose(1, 2).contiguous()
        noise = {name: x.to(device) for name, x in self.codec.split(noised).items()}
        steps = self.facts["steps"] if steps is None else steps

        def denoise(_: str, latents: dict[str, Tensor], sigma: dict[str, Tensor]) -> dict[str, Tensor]:
            text, mask = (x.to(device) for x in no_text(len(drawn)))
            level = {name: cells[:1, :1] for name, cells in sigma.items()}  # the same in all cells
            return without_clock(self.transformer(with_clock(latents), level, text, mask), latents)

        denoiser = as_flow(denoise, process_of(self.transformer.config), self.codec.deviations)
        clean = sample(denoiser, noise, scheduler, steps)
        return {name: x.cpu() for name, x in clean.items()}

    def save_pretrained(self, folder: str | Path) -> Path:
        """Writes `generator.json`, `codec/`, `transformer/`, and what was fitted: `marginals.safetensors`,
        `moments.safetensors` and `start.safetensors`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.codec.save_pretrained(folder / "codec")
        save_transformer(self.transformer, folder / "transformer", None)
        for fitted, name in ((self.marginals, MARGINALS), (self.moments, MOMENTS), (self.start, START)):
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
        marginals = QuantileMap.load(folder / MARGINALS) if (folder / MARGINALS).is_file() else None
        moments = ChannelMoments.load(folder / MOMENTS) if (folder / MOMENTS).is_file() else None
        start = WindowStart.load(folder / START) if (folder / START).is_file() else None
        return cls(SeriesPatches.from_pretrained(folder / "codec"), network, facts, marginals, moments, start)
