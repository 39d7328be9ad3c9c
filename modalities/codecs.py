"""All codecs of a model together: tensors of a batch of clips to latents on slots, and back to clips.

Legend: `B` batch, `T` slots of 0.16 s, `S` tokens per slot, `C` channels of a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .audio import RATE, SLOT, AudioCodec
from .clip import Clip, ClipError, Track
from .sensor import SensorPatches
from .video import VideoCodec
from .vocoder import Vocoder

SLOT_SECONDS = SLOT / RATE
FPS = VideoCodec.frames_per_slot / SLOT_SECONDS
GROUPS = ("video", "audio", "sensor")


class Codecs(nn.Module):
    """Video VAE, audio VAE with its vocoder, and sensor patches.

    Args:
        video: frames to latents and back.
        audio: sound to latents, latents to log-mel.
        vocoder: log-mel to sound.
        sensor: samples to patches and back, one modality per physical sensor.
    """

    def __init__(self, video: VideoCodec, audio: AudioCodec, vocoder: Vocoder, sensor: SensorPatches) -> None:
        super().__init__()
        self.video, self.audio, self.vocoder, self.sensor = video, audio, vocoder, sensor
        self.eval().requires_grad_(False)

    def shapes(self, video_tokens: int = VideoCodec.tokens_per_slot) -> dict[str, tuple[int, int, str]]:
        """`{modality: (tokens per slot, channels of a token, group)}` in the fixed order of modalities."""
        audio = (4, int(self.audio.vae.config["latent_channels"]), "audio")
        sensors = {name: (1, self.sensor.size(name), "sensor") for name in self.sensor.channels}
        return {"video": (video_tokens, self.video.channels, "video"), "audio": audio, **sensors}

    def names(self, tracks: Sequence[str]) -> tuple[str, ...]:
        """The modalities of the tracks asked for, each of `video`, `audio`, `sensor`; others are a ClipError."""
        unknown = [track for track in tracks if track not in GROUPS]
        if unknown or not tracks:
            raise ClipError(f"tracks: {', '.join(unknown) or 'none given'}; known are {', '.join(GROUPS)}")
        return tuple(name for name, (_, _, group) in self.shapes().items() if group in tracks)

    @torch.no_grad()
    def encode(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Latents `{modality: [B, T, S, C]}` of `{"video": [B, 3, F, H, W], "audio": [B, 1, N], sensor: [B, K, n]}`."""
        latents = {}
        for name, value in tensors.items():
            if name == "video":
                latents[name] = self.video.encode(value).float()
            elif name == "audio":
                latents[name] = self.audio.encode(value).float()
            else:
                latents[name] = self.sensor.encode(name, value)[0]
        return latents

    @torch.no_grad()
    def decode(self, latents: Mapping[str, Tensor]) -> list[Clip]:
        """Clips of a batch of latents `{modality: [B, T, S, C]}`; tracks without latents are absent."""
        batch = next(iter(latents.values())).shape[0]
        video = to_frames(self.video.decode(latents["video"])) if "video" in latents else None
        audio = self.audio.decode(latents["audio"], self.vocoder).float().cpu().numpy() if "audio" in latents else None
        sensor = {name: self.sensor.decode(name, latents[name].float()).cpu().numpy() for name in self.sensor.channels
                  if name in latents}  # fmt: skip
        return [
            Clip(
                video=None if video is None else Track(video[i], FPS),
                audio=None if audio is None else Track(audio[i], float(RATE)),
                sensor={name: self._sensor_track(name, values[i]) for name, values in sensor.items()},
            )
            for i in range(batch)
        ]

    def _sensor_track(self, name: str, values: np.ndarray) -> Track:
        channels = self.sensor.channels[name]
        units = tuple(channel.unit for channel in channels)
        return Track(values, self.sensor.rate, names=tuple(channel.name for channel in channels), units=units)

    def save_pretrained(self, folder: Path | str, dtype: torch.dtype | None = None) -> None:
        """One sub-folder a codec, diffusers layout."""
        folder = Path(folder)
        self.video.save_pretrained(folder / "video_codec", dtype=dtype)
        self.audio.save_pretrained(folder / "audio_codec", dtype=dtype)
        self.vocoder.save_pretrained(folder / "vocoder", dtype=dtype)
        self.sensor.save_pretrained(folder / "sensor_codec")

    @classmethod
    def from_pretrained(cls, folder: Path | str, dtype: torch.dtype = torch.float32) -> Codecs:
        """Reads what `save_pretrained` wrote; a missing codec is a ClipError that names its folder."""
        folder = Path(folder)
        for name in ("video_codec", "audio_codec", "vocoder", "sensor_codec"):
            if not (folder / name / "config.json").is_file():
                raise ClipError(f"{folder / name}: no codec there (config.json is missing)")
        options: dict[str, Any] = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
        return cls(
            VideoCodec.from_pretrained(folder / "video_codec", dtype=dtype),
            AudioCodec.from_pretrained(folder / "audio_codec", **options),
            Vocoder.from_pretrained(folder / "vocoder", **options),
            SensorPatches.from_pretrained(folder / "sensor_codec"),
        )


def to_frames(video: Tensor) -> np.ndarray:
    """`[B, 3, F, H, W]` in [-1, 1] → uint8 `[B, F, H, W, 3]`."""
    levels = ((video.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return levels.permute(0, 2, 3, 4, 1).contiguous().cpu().numpy()


def from_frames(frames: np.ndarray) -> Tensor:
    """uint8 `[B, F, H, W, 3]` → float32 `[B, 3, F, H, W]` in [-1, 1]."""
    return torch.from_numpy(np.array(frames)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
