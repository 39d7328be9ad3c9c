"""Previews of a training run: fixed prompts, fixed noise, the averaged weights, pictures one can compare by eye."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from counterpoint.backbones.transformer import CounterpointTransformer
from counterpoint.diffusion.pipeline import CounterpointPipeline
from counterpoint.modalities.audio import SoundGrid, mel_spectrogram
from counterpoint.modalities.clip import Clip
from counterpoint.modalities.codecs import GROUPS, Codecs
from counterpoint.modalities.text import TextEncoder


class Preview:
    """Called with a network and a step; writes `step_000500.png`, a row a prompt.

    Args:
        folder: of the pictures.
        codecs, encoder: as in the pipeline.
        prompts: one row each, with the seed of their place.
        seconds: length of the clips.
    """

    def __init__(
        self, folder: Path, codecs: Codecs, encoder: TextEncoder, prompts: Sequence[str], seconds: float = 2.56
    ) -> None:
        self.folder, self.codecs, self.encoder = folder, codecs, encoder
        self.prompts, self.seconds = list(prompts), seconds

    def __call__(self, transformer: CounterpointTransformer, step: int) -> None:
        pipeline = CounterpointPipeline(transformer, self.codecs, self.encoder, {"seconds": self.seconds})
        with torch.autocast(transformer.device.type, torch.bfloat16, enabled=transformer.device.type != "mps"):
            settings = pipeline._settings("", None, None, None, GROUPS)
            latents = pipeline.generate_latents(self.prompts, range(len(self.prompts)), settings)
        self.codecs.to(transformer.device)
        clips = self.codecs.decode(latents)
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = [picture(clip) for clip in clips]
        Image.fromarray(np.concatenate(rows)).save(self.folder / f"step_{step:06d}.png")


def picture(clip: Clip, frames: int = 16) -> np.ndarray:
    """A strip of frames over the mel spectrogram over the sensors, as far as there, uint8 `[height, width, 3]`."""
    rows, width = [], 1024
    if clip.video is not None:
        chosen = clip.video.values[:: max(1, len(clip.video.values) // frames)][:frames]  # [frames, H, W, 3]
        rows.append(np.concatenate(list(chosen), axis=1))  # [H, W * frames, 3]
        width = rows[0].shape[1]
    if clip.audio is not None:
        grid = SoundGrid(round(clip.audio.rate))
        mel = mel_spectrogram(torch.from_numpy(clip.audio.values)[None], grid)[0].flip(0)  # [128, F]
        level = ((mel + 11.5) / 13.5).clamp(0, 1).mul(255).to(torch.uint8).numpy()
        rows.append(_gray(np.asarray(Image.fromarray(level).resize((width, 64)))))
    rows += [_gray(_plot(track.values, width)) for track in clip.sensor.values()]
    return np.concatenate([*rows, np.full((4, width, 3), 255, np.uint8)])


def _gray(levels: np.ndarray) -> np.ndarray:
    return levels[..., None].repeat(3, axis=2)


def _plot(values: np.ndarray, width: int, height: int = 32) -> np.ndarray:
    """Lines of all channels `[channels, samples]`, white on black, uint8 `[height, width]`."""
    canvas = np.zeros((height, width), np.uint8)
    squeezed = np.arcsinh(values)
    low, high = squeezed.min(), squeezed.max()
    rows = ((high - squeezed) / max(high - low, 1e-6) * (height - 1)).astype(int)
    columns = np.linspace(0, width - 1, values.shape[1]).astype(int)
    for channel in rows:
        canvas[np.interp(np.arange(width), columns, channel).astype(int), np.arange(width)] = 255
    return canvas
