"""Train the decoder of a video codec alone, on the latents that a model learned: settings → latents → train → save.

    counterpoint train video_decoder data=FOLDER latents=runs/joint/latents start_from=CODEC run=runs/decoder

The encoder and the scale of the latents stay as they are, so every model of these latents stays good, and its clips get
better. `FOLDER/video.npy` holds the clips as uint8 [N, F, H, W, 3], `latents` (the cache of training a model) what the
codec made of them; the last `held_out` are never trained on. The decoder learns on cuts in time and space that follow
what moves; next to where a cut was made nothing is scored, since there the decoder would see more in a whole clip. The
same command goes on where it stopped. The run folder gets `log.jsonl`, `preview.png` and the codec in `video_codec/`.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from counterpoint.modalities.clip import ClipError
from counterpoint.modalities.video import CELLS, SPATIAL, VideoCodec, training_autocast
from counterpoint.recipes.codec_training import FitSettings, batch_indices, fit
from counterpoint.recipes.video_codec import Motion, WindowSettings, compare, crop_place, load_videos, to_tensor

CELL = SPATIAL // CELLS  # pixels of a cell of the latent grid
SLOT = VideoCodec.frames_per_slot


@dataclass(frozen=True)
class Settings(FitSettings):
    """What a run depends on; the rest of the fields are those of `FitSettings`."""

    minutes: float = 30.0
    batch: int = 6  # cuts a step
    lr: float = 1e-3  # of AdamW, on the biases
    muon: float = 0.01  # of Muon, on the kernels
    start_from: str = ""  # folder of the VideoCodec
    latents: str = ""  # folder of `latents.safetensors`
    slots: int = 6  # of a cut; the first and the last are context
    crop: int = 48  # pixels a cut is wide, with a cell of context at either side
    moving_weight: float = 10.0  # of a pixel that moves, against 1 for the background
    squared: float = 10.0  # weight of the squared error beside the absolute one
    noise: float = 0.0  # most noise on the latents, in their deviations, as those that a model makes have
    held_out: int = 16


def tiny() -> Settings:
    """For tests: seconds."""
    return Settings(batch=2, slots=3, crop=40, held_out=2, max_steps=4, warmup=1)


def small() -> Settings:
    """What ships."""
    return Settings()


def load_latents(folder: Path, videos: np.ndarray) -> Tensor:
    """The cached latents of the clips, standard, fp16 [N, C/4, T, H/8, W/8].

    Raises:
        ClipError: there are none, or they are of other clips.
    """
    path = folder / "latents.safetensors"
    if not path.is_file():
        raise ClipError(f"{path}: missing; name the folder of latents with latents=")
    with safe_open(path, "pt") as file:
        if "video" not in file.keys():  # noqa: SIM118
            raise ClipError(f"{path}: holds no latents of video")
        tokens = file.get_tensor("video")  # [N, T, S, C]
    count, frames, height, width = videos.shape[:4]
    if tokens.shape[:3] != (count, frames // SLOT, height * width // SPATIAL**2):
        shape = list(tokens.shape)
        raise ClipError(f"{path}: {shape} latents are not those of {count} clips of {frames} frames {height}×{width}")
    return VideoCodec.grid(tokens)


class Cuts:
    """Cuts of latents and what they are to become, drawn by what moves."""

    def __init__(self, videos: np.ndarray, latents: Tensor, settings: Settings) -> None:
        if settings.slots > latents.shape[2] or settings.crop > videos.shape[2] or settings.crop % CELL:
            raise ClipError(
                f"slots={settings.slots}, crop={settings.crop}: clips have {latents.shape[2]} slots and "
                f"{videos.shape[2]} pixels; the crop has to be a multiple of {CELL}"
            )
        self.videos, self.latents, self.settings = videos, latents, settings
        self.motion = Motion(videos, settings.slots * SLOT)

    def batch(self, step: int, draws: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Standard latents [B, C/4, slots, h, w], video [B, 3, F, H, W], weight of each pixel [B, 1, F, H, W]."""
        own = self.settings
        rows = batch_indices(len(self.videos) - own.held_out, own.batch, step, own.seed)
        parts = zip(*(self.cut(int(row), draws) for row in rows), strict=True)
        latents, video, weight = (torch.stack(part) for part in parts)
        return latents, video, weight

    def cut(self, row: int, draws: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """One cut of a clip."""
        own = self.settings
        _, moves = self.motion.of(row)
        first = int(torch.multinomial(moves[::SLOT], 1, generator=draws))  # slot
        video, moving = self.motion.window(row, SLOT * first)
        top, left = crop_place(moving.float().mean((0, 1)), own.crop, own.crop, draws)
        place = (..., slice(top, top + own.crop), slice(left, left + own.crop))
        weight = 1.0 + (own.moving_weight - 1.0) * moving[place].float()
        starts, sizes = (first, top // CELL, left // CELL), (own.slots, own.crop // CELL, own.crop // CELL)
        latents = self.latents[row]  # [C/4, T, H/8, W/8]
        for axis, (start, size, unit) in enumerate(zip(starts, sizes, (SLOT, CELL, CELL), strict=True), start=1):
            if start > 0:
                weight.narrow(axis, 0, unit).zero_()
            if start + size < latents.shape[axis]:
                weight.narrow(axis, (size - 1) * unit, unit).zero_()
            latents = latents.narrow(axis, start, size)
        return latents.float(), video[place], weight


def decoder_loss(codec: VideoCodec, batch: tuple[Tensor, Tensor, Tensor], draws: torch.Generator, settings: Settings):
    """Weighted absolute and squared error of what the decoder makes of latents, some of them noised."""
    latents, video, weight = batch
    if settings.noise:
        level = settings.noise * torch.rand(len(latents), 1, 1, 1, 1, generator=draws)
        latents = latents + level * torch.randn(latents.shape, generator=draws)
    with training_autocast(video.device):
        output = codec.reconstruct(codec.raw(latents))
    error = output.float() - video
    absolute, squared = ((weight * e).mean() / weight.mean().clamp_min(1e-6) for e in (error.abs(), error.square()))
    return absolute + settings.squared * squared, {"absolute": absolute.item(), "squared": squared.item()}


@torch.no_grad()
def evaluate(codec: VideoCodec, latents: Tensor, videos: np.ndarray, picture: Path) -> dict[str, float]:
    """`compare` of clips uint8 [N, F, H, W, 3] with what becomes of their latents."""
    made = (codec.reconstruct(codec.raw(row[None].float())).clamp(-1.0, 1.0) for row in latents)
    return compare(zip((to_tensor(clip)[None] for clip in videos), made, strict=True), picture)


def train(settings: Settings, data: Path, run: Path) -> Path:
    """Train on the latents of `data/video.npy`, or go on with `run`; the folder of the saved codec (float16).

    A refiner of the codec is not kept: it has to be trained anew beside the new decoder.

    Raises:
        ClipError: codec, latents or data are missing, or do not fit one another.
    """
    if not settings.start_from:
        raise ClipError("start_from: has to name the folder of the video codec whose decoder learns")
    videos = load_videos(data, WindowSettings(held_out=settings.held_out, frames=SLOT * settings.slots))
    latents = load_latents(Path(settings.latents), videos)
    codec = VideoCodec.from_pretrained(settings.start_from)
    if latents.shape[1] != codec.vae.config["latent_channels"]:
        raise ClipError(
            f"{settings.latents}: latents of {4 * latents.shape[1]} channels, the codec has {codec.channels}"
        )
    codec.refiner = None
    cuts, kept = Cuts(videos, latents, settings), slice(len(videos) - settings.held_out, None)
    fitted = fit(
        codec,
        lambda model, batch, draws: decoder_loss(cast(VideoCodec, model), batch, draws, settings),
        cuts.batch,
        settings,
        run,
        lambda model, step: evaluate(cast(VideoCodec, model), latents[kept], videos[kept], run / "preview.png"),
    )
    out = run / "video_codec"
    shutil.rmtree(out, ignore_errors=True)
    cast(VideoCodec, fitted).save_pretrained(out, dtype=torch.float16)
    return out
