"""Train the video codec: settings → data → model → train → save.

    python -m counterpoint.recipes.video_codec data=FOLDER run=FOLDER minutes=20

`FOLDER/video.npy` holds clips as uint8 [N, F, H, W, 3]; the last `held_out` of them are never trained on. The same
command goes on where it stopped. The run folder gets `log.jsonl`, `preview.png` (held-out clips over their
reconstructions) and the codec in `video_codec/`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.utils import save_image

from counterpoint.modalities.clip import ClipError
from counterpoint.modalities.video import VideoCodec, moving_region, psnr, training_autocast
from counterpoint.recipes.codec_training import FitSettings, batch_indices, fit, parse_settings


@dataclass(frozen=True)
class WindowSettings(FitSettings):
    """How windows are drawn from clips; the rest of the fields are those of `FitSettings`."""

    batch: int = 4  # windows a step
    frames: int = 8  # of a window, drawn where something moves
    crop: int = 32  # pixels a window is wide, also drawn where something moves; a step has as many pixels as without
    whole_every: int = 4  # every how many steps the windows are whole frames, which have borders
    moving_weight: float = 10.0  # of a pixel that moves, against 1 for the background
    held_out: int = 16


@dataclass(frozen=True)
class Settings(WindowSettings):
    """What a run depends on; the rest of the fields are those of `WindowSettings`."""

    minutes: float = 20.0
    lr: float = 2e-3  # of AdamW, on the biases
    muon: float = 0.02  # of Muon, on the kernels; AdamW alone (muon=0) learns far more slowly here
    checkpoint_every: int = 250
    widths: tuple[int, int, int] = (32, 64, 128)
    layers: tuple[int, int, int] = (0, 1, 1)
    decoder_layers: tuple[int, int, int] = (0, 1, 1)
    channels: int = 64  # of a token
    start_from: str = ""  # folder of a VideoCodec, which gets the channels and blocks it lacks; empty: from scratch
    only: str = ""  # the half of `start_from` that learns, encoder or decoder: models that know the other stay good
    squared: float = 2.0  # weight of the squared error beside the absolute one
    change: float = 0.0  # weight of the absolute error of the change from frame to frame: what flickers and jitters
    kl: float = 1e-4
    latent_noise: float = 0.0  # most noise on the latents, in their deviations (RAE, arXiv:2510.11690)
    statistics_clips: int = 256  # clips on which the latents' mean and standard deviation are measured
    dtype: str = "auto"  # of the convolutions in training: auto, float32 or bfloat16


def tiny() -> Settings:
    """For tests: 0.1 million parameters, seconds."""
    return Settings(widths=(8, 16, 32), channels=16, frames=8, batch=2, held_out=2, max_steps=4, warmup=1)


def small() -> Settings:
    """What ships: 4.6 million parameters."""
    return Settings(minutes=40.0, batch=8)


def load_videos(data: Path, settings: WindowSettings) -> np.ndarray:
    """The memory-mapped clips, uint8 [N, F, H, W, 3]."""
    path = data / "video.npy"
    if not path.is_file():
        raise ClipError(f"{path}: missing; it holds the clips as uint8 [N, frames, height, width, 3]")
    videos = np.load(path, mmap_mode="r")
    if videos.dtype != np.uint8 or videos.ndim != 5 or len(videos) <= settings.held_out:
        found, least = f"{videos.dtype} {list(videos.shape)}", settings.held_out
        raise ClipError(f"{path}: {found}, expected uint8 [N > {least}, frames, height, width, 3]")
    if videos.shape[1] < settings.frames:
        raise ClipError(f"{path}: clips of {videos.shape[1]} frames are shorter than frames={settings.frames}")
    return videos


def to_tensor(frames: np.ndarray) -> Tensor:
    """uint8 [..., F, H, W, 3] → float32 [..., 3, F, H, W] in [−1, 1]."""
    return torch.from_numpy(np.array(frames)).movedim(-1, -4).float() / 127.5 - 1.0


class Motion:
    """Where something moves in clips uint8 [N, F, H, W, 3]: measured when a clip is first asked for, then kept."""

    def __init__(self, videos: np.ndarray, frames: int) -> None:
        self.videos, self.frames = videos, frames  # of a window
        self._seen: dict[int, tuple[np.ndarray, Tensor]] = {}

    def of(self, row: int) -> tuple[np.ndarray, Tensor]:
        """Of one clip: its background uint8 [H, W, 3] and how much moves in each of its windows [F − frames + 1]."""
        if row not in self._seen:
            video = np.asarray(self.videos[row])
            background = np.median(video[::4], axis=0).astype(np.uint8)
            self._seen[row] = background, window_motion(video, self.frames)
        return self._seen[row]

    def window(self, row: int, start: int) -> tuple[Tensor, Tensor]:
        """A window [3, frames, H, W] of a clip, from frame `start` on, and where it differs from the background."""
        window = to_tensor(self.videos[row, start : start + self.frames])
        background, _ = self.of(row)
        return window, (window - to_tensor(background[None])).abs().amax(dim=0, keepdim=True) > 0.1


def window_batch(motion: Motion, settings: WindowSettings, step: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random windows [B, 3, frames, h, w] and the weight of each of their pixels [B, 1, frames, h, w].

    Most steps take crops of `crop` pixels, and then so many more of them that the step costs the same.
    """
    height, width = motion.videos.shape[2:4]
    whole = not settings.crop or step % settings.whole_every == 0
    high, wide = (height, width) if whole else (min(settings.crop, height), min(settings.crop, width))
    count = settings.batch * (height * width // (high * wide))
    windows, weights = [], []
    for row in batch_indices(len(motion.videos) - settings.held_out, count, step, settings.seed):
        _, moves = motion.of(int(row))
        window, moving = motion.window(int(row), int(torch.multinomial(moves, 1, generator=draws)))
        top, left = crop_place(moving.float().mean((0, 1)), high, wide, draws)
        place = (..., slice(top, top + high), slice(left, left + wide))
        windows.append(window[place])
        weights.append(1.0 + (settings.moving_weight - 1.0) * moving[place].float())
    return torch.stack(windows), torch.stack(weights)


def crop_place(moving: Tensor, height: int, width: int, draws: torch.Generator) -> tuple[int, int]:
    """Top and left, multiples of 8, of a crop: drawn by how much of it moves in `moving` [H, W]."""
    share = functional.avg_pool2d(moving[None], (height, width), stride=8)[0]  # [tops, lefts]
    place = int(torch.multinomial(share.flatten() + 0.1 * share.mean() + 1e-6, 1, generator=draws))
    return 8 * (place // share.shape[1]), 8 * (place % share.shape[1])


def window_motion(video: np.ndarray, frames: int) -> Tensor:
    """How much moves in each window of a clip uint8 [F, H, W, 3], never quite nothing: [F − frames + 1]."""
    change = np.abs(np.diff(video[:, ::4, ::4].astype(np.int16), axis=0)).sum((1, 2, 3)).astype(np.float64)
    moves = np.convolve(change, np.ones(frames - 1), "valid")
    return torch.from_numpy(moves + 0.05 * moves.max() + 1e-6)


def codec_loss(codec: VideoCodec, batch: tuple[Tensor, Tensor], draws: torch.Generator, settings: Settings):
    """Weighted absolute and squared error, that of changes from frame to frame, and the posterior's KL divergence from
    N(0, 1), a mean over latents."""
    video, weight = batch
    with training_autocast(video.device, None if settings.dtype == "auto" else getattr(torch, settings.dtype)):
        mean, logvar = (moment.float() for moment in codec.posterior(video))
        raw = mean + torch.randn(mean.shape, generator=draws) * (0.5 * logvar).exp()
        if settings.latent_noise:
            level = settings.latent_noise * torch.rand(len(raw), 1, 1, 1, 1, generator=draws)
            spread = mean.std(dim=(0, 2, 3, 4), keepdim=True)  # of each channel
            raw = raw + level * spread * torch.randn(raw.shape, generator=draws)
        output = codec.reconstruct(raw)
    error = output.float() - video
    absolute, squared = ((weight * e).mean() / weight.mean() for e in (error.abs(), error.square()))
    between = torch.minimum(weight[:, :, 1:], weight[:, :, :-1])  # [B, 1, frames − 1, h, w]
    change = (between * error.diff(dim=2).abs()).mean() / between.mean()
    kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
    noise = (0.5 * logvar).exp().mean() / mean.std()
    numbers = {"absolute": absolute, "squared": squared, "change": change, "kl": kl, "noise": noise}
    numbers = {name: number.item() for name, number in numbers.items()}
    return absolute + settings.squared * squared + settings.change * change + settings.kl * kl, numbers


@torch.no_grad()
def evaluate(codec: VideoCodec, videos: np.ndarray, picture: Path | None = None) -> dict[str, float]:
    """`compare` of clips uint8 [N, F, H, W, 3] with what the codec makes of them."""
    clips = (to_tensor(clip)[None] for clip in videos)
    return compare(((video, codec.decode(codec.encode(video)).float()) for video in clips), picture)


def compare(pairs: Iterable[tuple[Tensor, Tensor]], picture: Path | None = None) -> dict[str, float]:
    """Mean PSNR of pairs of a clip and its reconstruction, both [1, 3, F, H, W], whole and where something moves; a
    picture of the first four."""
    shown, scores = [], []
    for video, result in pairs:
        scores.append([psnr(video, result).item(), psnr(video, result, moving_region(video)).item()])
        shown += [video[0, :, 2::8], result[0, :, 2::8]]
    if picture is not None:
        rows = torch.cat([row.transpose(0, 1) for row in shown[:8]])  # [rows · frames, 3, H, W]
        save_image(rows, picture, nrow=shown[0].shape[1], normalize=True, value_range=(-1, 1))
    whole, moving = np.nanmean(np.array(scores), axis=0)
    return {"psnr": round(float(whole), 3), "moving_psnr": round(float(moving), 3)}


def create(settings: Settings) -> VideoCodec:
    """The codec as training begins: new, or `start_from`'s.

    Raises:
        ClipError: `start_from` holds no codec, or one of another size, with more channels, or, where half of it is
            kept, with fewer; a half other than encoder and decoder.
    """
    if settings.only not in ("", "encoder", "decoder"):
        raise ClipError(f"only: {settings.only!r} is neither encoder nor decoder")
    if settings.only and not settings.start_from:
        raise ClipError(f"only: start_from has to say beside what the {settings.only} learns")
    torch.manual_seed(settings.seed)
    codec = VideoCodec.create(settings.widths, settings.layers, settings.decoder_layers, settings.channels)
    if settings.start_from:
        old = VideoCodec.from_pretrained(settings.start_from)
        copy_codec(old, codec, settings.start_from)
        if settings.only and old.channels != codec.channels:
            raise ClipError(f"only: {settings.start_from} has {old.channels} channels, not {codec.channels}")
    codec.vae.encoder.requires_grad_(settings.only != "decoder")
    codec.vae.decoder.requires_grad_(settings.only != "encoder")
    return codec


@torch.no_grad()
def copy_codec(old: VideoCodec, new: VideoCodec, name: str) -> None:
    """Copies the weights of a codec into one that may have more channels, which the decoder does not listen to yet, and
    more residual blocks, which add nothing yet.

    So the new codec rebuilds what the old one does, and learns from there.
    """
    few, many = old.vae.config["latent_channels"], new.vae.config["latent_channels"]
    weights, target = old.vae.state_dict(), new.vae.state_dict()
    kept = {n: w for n, w in weights.items() if not n.startswith(("latents_", "encoder.conv_out.", "decoder.conv_in."))}
    same = {n: w.shape for n, w in target.items() if n in kept} == {n: w.shape for n, w in kept.items()}
    if few > many or not same:
        raise ClipError(f"{name}: a video codec of other widths, or with more blocks or channels than the new one")
    for block in target.keys() - weights.keys():
        if ".conv2." in block:  # what is added to the block's input
            target[block].zero_()
    for buffer in ("latents_mean", "latents_std"):
        target[buffer][:few] = weights[buffer]
    for part in ("weight", "bias"):  # means of each channel, and a log-variance of all
        learned, out = weights[f"encoder.conv_out.conv.{part}"], target[f"encoder.conv_out.conv.{part}"]
        out[:few], out[-1] = learned[:few], learned[-1]
    kernel = target["decoder.conv_in.conv.weight"]
    kernel[:, :few], kernel[:, few:] = weights["decoder.conv_in.conv.weight"], 0.0
    target["decoder.conv_in.conv.bias"].copy_(weights["decoder.conv_in.conv.bias"])
    new.vae.load_state_dict({**target, **kept})


def train(settings: Settings, data: Path, run: Path) -> Path:
    """Train on `data/video.npy`, or go on with `run`; the folder of the saved codec (EMA weights, float16)."""
    videos = load_videos(data, settings)
    held_out = videos[len(videos) - settings.held_out :]
    motion = Motion(videos, settings.frames)
    fitted = fit(
        create(settings),
        lambda model, batch, draws: codec_loss(cast(VideoCodec, model), batch, draws, settings),
        lambda step, draws: window_batch(motion, settings, step, draws),
        settings,
        run,
        lambda model, step: evaluate(cast(VideoCodec, model), held_out, run / "preview.png"),
    )
    averaged = cast(VideoCodec, fitted)
    if not settings.only:  # a half that is kept has them, and models that know it do too
        order = np.random.default_rng(settings.seed).permutation(len(videos) - settings.held_out)
        averaged.fit_statistics([to_tensor(videos[row])[None] for row in order[: settings.statistics_clips]])
    averaged.save_pretrained(run / "video_codec", dtype=torch.float16)
    return run / "video_codec"


if __name__ == "__main__":
    chosen, paths = parse_settings(small(), sys.argv[1:])
    print(train(chosen, paths["data"], paths["run"]))
