"""Train the refiner of a video codec: settings → data → codec → refiner → train → save.

    counterpoint train video_refiner data=FOLDER start_from=runs/codecs/codecs/video_codec run=runs/refiner

The codec stays as it is; `RUN/video_codec` is a copy of it with the refiner beside. `FOLDER/video.npy` holds clips as
uint8 [N, F, H, W, 3]; the last `held_out` are never trained on. The same command goes on where it stopped. The run
folder gets `log.jsonl` and `preview.png` (held-out clips over their reconstructions from refined latents).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from counterpoint.modalities.clip import ClipError
from counterpoint.modalities.video import VideoCodec, training_autocast
from counterpoint.modalities.video_refiner import LatentRefiner
from counterpoint.recipes.codec_training import fit, generator
from counterpoint.recipes.video_codec import Motion, WindowSettings, evaluate, load_videos, window_batch


@dataclass(frozen=True)
class Settings(WindowSettings):
    """What a run depends on; the rest of the fields are those of `WindowSettings`."""

    minutes: float = 10.0
    lr: float = 2e-3
    warmup: int = 20
    weight_decay: float = 0.0
    ema: float = 0.98
    checkpoint_every: int = 100
    start_from: str = ""  # folder of the VideoCodec
    width: int = 48
    layers: int = 2
    steps: int = 2  # of descent
    stay: float = 1.0  # price of moving latents (`LatentRefiner.learn`)
    frames: int = 16  # of a window
    squared: float = 10.0
    shown: int = 4  # of the held-out clips that each preview measures


def tiny() -> Settings:
    """For tests: seconds."""
    return Settings(batch=2, frames=8, width=8, layers=1, held_out=2, shown=1, max_steps=4, warmup=1)


def small() -> Settings:
    """What ships: 13,000 parameters."""
    return Settings()


def create(settings: Settings, codec: VideoCodec) -> LatentRefiner:
    """A refiner that knows plain descent alone."""
    torch.manual_seed(settings.seed)
    return LatentRefiner(
        channels=codec.vae.config["latent_channels"],
        width=settings.width,
        layers=settings.layers,
        steps=settings.steps,
        moving_weight=settings.moving_weight,
        squared=settings.squared,
    )


class Lesson:
    """The loss of a refiner beside a codec that stays as it is."""

    def __init__(self, codec: VideoCodec, settings: Settings) -> None:
        self.codec, self.settings = codec.eval().requires_grad_(False), settings
        self._rebuild = codec.rebuild()

    def rebuild(self, standard: Tensor) -> Tensor:
        """The decoder, in the fastest dtype whose gradients are right."""
        with training_autocast("cpu"):
            return self._rebuild(standard)

    @torch.no_grad()
    def latents(self, video: Tensor) -> Tensor:
        """The encoder's standard latents."""
        with training_autocast("cpu"):
            return self.codec.standard(self.codec.posterior(video)[0].float())

    def fit_scale(self, refiner: LatentRefiner, batch: tuple[Tensor, Tensor]) -> None:
        """Measures the size of gradients on a batch: their mean absolute value."""
        gradient, _ = refiner.gradient(self.rebuild, self.latents(batch[0]), *batch)
        refiner.scale.copy_(gradient.abs().mean() * refiner.scale)

    def __call__(self, refiner: LatentRefiner, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, float]]:
        video, weight = batch
        loss, errors = refiner.learn(self.rebuild, self.latents(video), video, weight, self.settings.stay)
        return loss, {f"error_{k}": error for k, error in enumerate(errors)}


def train(settings: Settings, data: Path, run: Path) -> Path:
    """Train on `data/video.npy`, or go on with `run`; the folder of the codec with its refiner (float16).

    Raises:
        ClipError: no codec is named, or none is there; the data are missing or too short.
    """
    if not settings.start_from:
        raise ClipError("start_from: has to name the folder of the video codec that is refined")
    videos = load_videos(data, settings)
    codec = VideoCodec.from_pretrained(settings.start_from)
    lesson, motion = Lesson(codec, settings), Motion(videos, settings.frames)
    refiner = create(settings, codec)
    lesson.fit_scale(refiner, window_batch(motion, settings, 0, generator(settings.seed, 0)))
    held_out = videos[len(videos) - settings.held_out :][: settings.shown]

    def preview(model: torch.nn.Module, step: int) -> dict[str, float]:
        shown = VideoCodec(codec.vae, cast(LatentRefiner, model) if step else None)
        return evaluate(shown, held_out, run / "preview.png")

    fitted = fit(
        refiner,
        lambda model, batch, draws: lesson(cast(LatentRefiner, model), batch),
        lambda step, draws: window_batch(motion, settings, step, draws),
        settings,
        run,
        preview,
    )
    out = run / "video_codec"
    shutil.copytree(settings.start_from, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("refiner"))
    cast(LatentRefiner, fitted).save_pretrained(out / "refiner", dtype=torch.float16)
    return out
