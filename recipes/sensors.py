"""Train a generator of sensor windows: settings → windows → code → model → train → sample → save.

    counterpoint train sensors set=ETTh1 length=24 data=ETTh1.csv run=runs/sensors-etth1-24
    counterpoint evaluate sensors --set ETTh1 --length 24 --data ETTh1.csv --generator runs/sensors-etth1-24/model

`DATA` is the set's file, or a folder with it; Sines are generated. One setting serves all sets. The same command goes
on where it stopped. With `time=`, the data are a table of your own recordings, which `sensors_own.py` trains on:

    counterpoint train sensors data=my.csv time=timestamp group=subject label=activity length=64
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from counterpoint.backbones.transformer import CounterpointTransformer
from counterpoint.data.series import SINES_SEED, load_windows
from counterpoint.data.series_patches import SeriesPatches
from counterpoint.data.window_start import WindowStart
from counterpoint.diffusion.checkpoints import AveragedWeights, RunFolder, SafetensorsIO
from counterpoint.diffusion.model_files import fast_bf16
from counterpoint.diffusion.noise_levels import GridMixture, draw_grid
from counterpoint.diffusion.pipeline import choose_device
from counterpoint.diffusion.posterior import Posterior
from counterpoint.diffusion.process import Process, describe
from counterpoint.diffusion.training import JointTraining, KeyedBatches, LossSettings, OptimizerSettings
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes.joint import ModelSettings
from counterpoint.recipes.sensors_generator import (
    ANGLE,
    TEXT_DIM,
    SeriesGenerator,
    in_proportion,
    no_text,
    token_modalities,
    with_clock,
    without_clock,
)
from counterpoint.recipes.settings import to_json
from counterpoint.recipes.trainer import make_trainer, quiet_lightning

STEPS, EDM_STEPS = 1.45, 2.4  # of a walk, in a unit of log s/α: 9, or 15 of another solver than `angle`, from 5 to .01
FITTED = 8192  # windows that the start and the levels of walks are fitted on, fewer of more than 24 steps


@dataclass(frozen=True)
class Settings:
    """What a run of the sensors recipe depends on."""

    set: str = "ETTh1"  # Sines, Stocks, ETTh1, MuJoCo, Energy or fMRI
    length: int = 24  # steps of a window
    time: str = ""  # your own recordings: the column of timestamps; `set` then says nothing
    group: str = ""  # of your own: the column that says whose a row is; no window lies in two groups
    label: tuple[str, ...] = ()  # of your own: columns of classes, which become conditions
    text: str = ""  # of your own: a column of sentences, which become a condition
    static: tuple[str, ...] = ()  # of your own: columns of numbers that a group has one of, which become conditions
    drop: tuple[str, ...] = ()  # of your own: columns left out
    rate: float | None = None  # of your own: cells of the grid a second; none: from the timestamps
    repeats: Literal["error", "merge"] = "error"  # of your own: a timestamp that a group has twice
    stride: int = 1  # of your own: steps from one window to the next
    hold: tuple[str, ...] = ()  # of your own: groups that are not trained on, or patterns: s17_*
    drop_text: float = 0.15  # share of windows, and of their conditions, trained without: for guidance
    series_seed: int = SINES_SEED  # of Sines
    patch: int = 8  # most steps of a slot; a longer window has several
    token: int = 112  # most numbers of a token; with the clock's 16 no more than the width
    floor: float = 1e-5  # variance below which an axis counts as noise, in units of a channel's
    tails: float = 10.0  # kurtosis above which a channel is companded
    normal: bool = True  # whether every axis is mapped to normal scores
    least: float = 0.03  # of a set: least deviation of an axis in the latents; the greatest is 1
    location: float = -1.0  # of a set: added to `mixture.location`
    spread: float = 1.5  # of a set: factor on `mixture.scale`
    posterior: bool = True  # of a set: targets are means over all windows that could look the same under the noise
    model: ModelSettings = field(
        default_factory=lambda: ModelSettings(width=128, depth=6, heads=4, feed_forward="shared", multiple=4)
    )
    mixture: GridMixture = field(
        default_factory=lambda: GridMixture(1.0, 0.0, 0.0, 0.0, 0.0, location=0.0, scale=1.0, uniform=0.2)
    )
    process: Process = field(default_factory=lambda: Process(prediction="edm"))  # 0 is right for Gaussian windows
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    steps: int = 4000  # of the whole run: the learning rate cools down towards it
    batch: int = 128  # windows of a step; of a set: of 24 steps or fewer, and fewer of longer ones, in proportion
    ema: float = 0.999
    seed: int = 0
    minutes: float = math.inf  # stop, with a checkpoint, after this time; the same command goes on
    log_every: int = 50
    checkpoint_every: int = 500
    solver: str = ""  # of sampling; empty: angle for a set (edm-dpm++ if `process` isn't EDM's), unipc for your own
    sample_steps: int = 0  # 0: as many as the span asks for of a set (`STEPS`), 16 for your own
    span: tuple[float, float] = (5.0, 0.33)  # of a set: s/α of the walk's first level, and of its last but one in
    # units of the least axis's deviation
    calibration: int = 8192  # of a set: samples by which each channel's distribution is mended, fewer as of `batch`
    bf16: bool = True  # products in bfloat16 where the processor is fast at them
    device: str = "auto"


def tiny() -> Settings:
    """For tests: seconds."""
    model = ModelSettings(width=32, depth=1, heads=2, feed_forward="shared", multiple=2)
    return Settings(
        set="Sines", length=8, patch=4, token=16, model=model, steps=4, batch=8, log_every=1, checkpoint_every=2,
        sample_steps=2, calibration=64,
    )  # fmt: skip


def small() -> Settings:
    """The one setting of the benchmark: slots of 8 steps, at every length."""
    return Settings()


PRESETS = {"tiny": tiny, "small": small}
ARRAYS = False  # its data are a file of its own


class WindowBatches(Dataset[dict[str, Any]]):
    """Whole batches of latents by their keys `[(row, draw), …]`: `{"latents": {token: [B, T, 1, size]}, …}`.

    Args:
        windows: `[N, L, C]`.
        codec: makes the latents.
    """

    def __init__(self, windows: np.ndarray, codec: SeriesPatches) -> None:
        self.windows, self.codec = windows, codec

    @cached_property
    def latents(self) -> dict[str, Tensor]:
        """Of all windows, `{token: [N, T, 1, size]}`; made when they are asked for, which can take minutes."""
        return self.codec.encode(torch.tensor(self.windows))

    def __getitem__(self, keys: Sequence[tuple[int, float]]) -> dict[str, Any]:
        rows = [row for row, _ in keys]
        latents = {name: x[rows] for name, x in self.latents.items()}
        text, mask = no_text(len(rows))
        return {"latents": latents, "text": text, "text_mask": mask}


class SeriesTraining(JointTraining):
    """`JointTraining` of tokens that share one noise level, beside a clock that is never noised.

    Windows are uncorrelated in the code's axes and the deviation of each axis is known, so with EDM's prediction a
    network that says 0 is the best one for Gaussian windows: its loss is 1, and what is below 1 is more than that, or
    the spread that a posterior takes away.

    Args:
        args: those of `JointTraining`.
        deviations: of the axes, `{token: [size]}`.
        posterior: of all windows; None: each window is its own target.
    """

    def __init__(self, *args: Any, deviations: dict[str, Tensor], posterior: Posterior | None = None) -> None:
        super().__init__(*args)
        self.deviations, self.posterior = deviations, posterior

    def losses(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        """The mean squared error of the prediction over all axes as one loss."""
        clean = batch["latents"]
        first = next(iter(clean.values()))
        grid = draw_grid(["sensor"], len(first), first.shape[1], self.loss.mixture, generator)
        sigma = grid.sigma["sensor"].to(first.device)  # [B, T]
        noise = {n: torch.randn(x.shape, generator=generator).to(x.device) for n, x in clean.items()}
        process = self.loss.process
        deviations = {name: self.deviations[name].to(first) for name in clean}
        noised = {name: process.add_noise(x, noise[name], sigma) for name, x in clean.items()}
        inputs = {name: process.scale_input(x, sigma, deviations[name]) for name, x in noised.items()}
        levels = dict.fromkeys(clean, sigma)
        predicted = self.transformer(with_clock(inputs), levels, batch["text"], batch["text_mask"])
        predicted = without_clock(predicted, clean)
        if self.posterior is not None:
            clean, noise = self.posterior.expected(clean, noise, sigma)
        weight = (~grid.known["sensor"]).to(first)  # [B, T]
        error = torch.zeros_like(sigma)
        for name, x in clean.items():
            target = process.target(x, noise[name], sigma, deviations[name])
            error = error + (predicted[name].float() - target).square().sum(dim=(2, 3))
        axes = sum(x.shape[3] for x in clean.values())
        return {"sensor": (error * weight).sum() / (axes * weight.sum().clamp_min(1.0))}


def patch_of(settings: Settings) -> int:
    """Steps of a slot: `patch`, or the longest divisor of the length that is no longer."""
    return next(p for p in range(min(settings.patch, settings.length), 0, -1) if settings.length % p == 0)


def fit_codec(settings: Settings, windows: np.ndarray) -> SeriesPatches:
    """The code of a set's windows `[N, L, C]`."""
    return SeriesPatches.fit(
        windows, patch_of(settings), settings.token, settings.floor, settings.tails, settings.normal, settings.least
    )


def some_latents(codec: SeriesPatches, windows: np.ndarray) -> Tensor:
    """Latents `[N, T, K]` of windows `[N, L, C]` all over a set, on which walks are fitted."""
    count = min(len(windows), in_proportion(FITTED, windows.shape[1]))
    rows = np.linspace(0, len(windows) - 1, count).astype(int)
    return codec.join(codec.encode(torch.tensor(windows[rows])))


def sampling(settings: Settings) -> dict[str, Any]:
    """`solver` and `steps` that a model of your own recordings is saved with; a solver for sets is a ClipError."""
    if settings.solver == ANGLE:
        raise ClipError(f"solver: {ANGLE} is for the sets of the benchmark; your own recordings take unipc or another")
    return {"solver": settings.solver or "unipc", "steps": settings.sample_steps or 16}


def walk(settings: Settings, codec: SeriesPatches) -> dict[str, Any]:
    """`solver`, `steps` and `span` that a model of a set is saved with.

    Below the least deviation of its axes there is no noise left to take away: a set without small axes is done earlier.

    Raises:
        ClipError: the solver `angle` for a network that doesn't predict as EDM's do.
    """
    edm = settings.process.prediction == "edm"
    solver = settings.solver or (ANGLE if edm else "edm-dpm++")
    if solver == ANGLE and not edm:
        raise ClipError(f"solver: {ANGLE} needs process.prediction=edm, not {settings.process.prediction}")
    first, last = settings.span[0], settings.span[1] * float(codec.deviation.min())
    rate = STEPS if solver == ANGLE else EDM_STEPS
    return {
        "solver": solver,
        "steps": settings.sample_steps or round(rate * math.log(first / last)),
        "span": [first, last],
    }


def build_transformer(settings: Settings, codec: SeriesPatches) -> CounterpointTransformer:
    """The network for the code's tokens, seeded."""
    torch.manual_seed(settings.seed)
    model = settings.model
    modalities = token_modalities(codec)
    transformer = CounterpointTransformer(
        modalities=CounterpointTransformer.describe(modalities),
        width=model.width,
        depth=model.depth,
        heads=model.heads,
        text_dim=TEXT_DIM,
        feed_forward=model.feed_forward,
        multiple=model.multiple,
        experts=model.experts,
        active=model.active,
    )
    if not settings.process.is_default:
        transformer.register_to_config(process=describe(settings.process))
    return transformer


def train(settings: Settings, data: Path | None, run: Path) -> Path:
    """Trains or goes on training; returns the folder of the generator with the averaged weights.

    Args:
        settings: a preset, changed by `key=value`.
        data: the set's file, or a folder with it; None or anything for Sines; with `time`, a table.
        run: the run folder: `settings.json`, `log.jsonl`, `checkpoint.safetensors`, `model/`.

    Raises:
        ClipError: the set or its file is not there.
    """
    if settings.time:
        from counterpoint.recipes.sensors_own import train_own

        return train_own(settings, data, run)  # pyright: ignore[reportArgumentType] (the class by its other name)
    windows = load_windows(settings.set, settings.length, data, settings.series_seed)
    codec = fit_codec(settings, windows.values)
    facts = {
        "set": windows.name, "length": windows.length, "channels": windows.channels, "windows": len(windows),
        "series_seed": settings.series_seed,
        "bf16": settings.bf16, **walk(settings, codec),
    }  # fmt: skip

    batches = WindowBatches(windows.values, codec)

    def kind(*args: Any) -> SeriesTraining:
        posterior = Posterior(batches.latents, settings.process) if settings.posterior else None
        return SeriesTraining(*args, deviations=codec.deviations, posterior=posterior)

    mixture = replace(
        settings.mixture, location=settings.mixture.location + settings.location,
        scale=settings.mixture.scale * settings.spread,
    )  # fmt: skip
    settings = replace(settings, batch=in_proportion(settings.batch, settings.length))

    def save(transformer: CounterpointTransformer) -> Path:
        latents = some_latents(codec, windows.values)
        generator = SeriesGenerator(codec, transformer, facts, start=WindowStart.fit(latents))
        if count := in_proportion(settings.calibration, settings.length):
            bf16 = settings.bf16 and fast_bf16(transformer.device)
            generator.calibrate(windows.values, latents, count, not windows.overlapping, bf16)
        return generator.save_pretrained(run / "model")

    return fit(settings, run, build_transformer(settings, codec), kind, batches, len(windows), save, mixture)


def fit(
    settings: Settings, run: Path, transformer: CounterpointTransformer, kind: Callable[..., JointTraining],
    data: Dataset[dict[str, Any]], size: int, save: Callable[[CounterpointTransformer], Path],
    mixture: GridMixture | None = None,
) -> Path:  # fmt: skip
    """Trains the network, or goes on; what `save` makes of the one with the averaged weights.

    Args:
        settings: length of the run, optimizer, loss; written into the run folder.
        run: the run folder.
        transformer: as it begins, on the CPU.
        kind: makes the training step of the arguments of `JointTraining`.
        data: whole batches by their keys; `size`: how many windows it holds.
        save: called at the end, and again where the run was finished already.
        mixture: the noise levels; None: those of the settings.
    """
    run.mkdir(parents=True, exist_ok=True)
    to_json(settings, run / "settings.json")
    device = choose_device(settings.device)
    average = AveragedWeights(settings.ema)
    folder = RunFolder(run, average, settings.log_every, settings.checkpoint_every, settings.steps + 1,
                       minutes=settings.minutes)  # fmt: skip
    resume = folder.checkpoint if folder.checkpoint.is_file() else None
    saved: dict[str, Any] = SafetensorsIO().load_checkpoint(resume) if resume else {"global_step": 0}
    start = int(saved["global_step"])
    if start >= settings.steps:  # Lightning would wait for a batch for ever; `state_dict` holds the averaged weights
        transformer.load_state_dict({n.removeprefix("transformer."): value for n, value in saved["state_dict"].items()})
        return save(transformer)
    loss = LossSettings(
        mixture=mixture or settings.mixture, weights={}, drop_text=settings.drop_text, drop_modality=0.0, isolate=0.0,
        process=settings.process,
    )  # fmt: skip
    module = kind(transformer, loss, settings.optimizer, settings.steps, settings.seed)
    sampler = KeyedBatches(size, settings.batch, settings.seed, settings.steps, start)
    batches: Any = DataLoader(data, sampler=sampler, batch_size=None)  # pyright: ignore[reportArgumentType]
    with quiet_lightning():
        trainer = make_trainer(device, settings.steps, settings.optimizer.clip, [average, folder], settings.bf16)
        trainer.fit(module, batches, ckpt_path=resume, weights_only=False)
    return save(average.average.transformer.cpu())
