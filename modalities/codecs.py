"""All codecs of a model together: tensors of a batch of clips to latents on slots, and back to clips.

Legend: `B` batch, `T` slots of 0.16 s, `S` tokens per slot, `C` channels of a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from .audio import GRID, AudioCodec
from .clip import Clip, ClipError, Track
from .sensor import SensorPatches
from .video import VideoCodec
from .vocoder import Vocoder

SLOT_SECONDS = GRID.slot / GRID.rate
FPS = VideoCodec.frames_per_slot / SLOT_SECONDS
GROUPS = ("video", "audio", "sensor")
C = TypeVar("C")


class Codecs(nn.Module):
    """Video VAE, audio VAE with its vocoder, and sensor patches; a codec that a model lacks is None.

    Args:
        video: frames to latents and back.
        audio: sound to latents, latents to log-mel.
        vocoder: log-mel to sound.
        sensor: samples to patches and back, one modality per physical sensor.

    Raises:
        ClipError: no codec at all, only one of audio VAE and vocoder, or the two of different rates.
    """

    def __init__(
        self,
        video: VideoCodec | None,
        audio: AudioCodec | None,
        vocoder: Vocoder | None,
        sensor: SensorPatches | None,
    ) -> None:
        super().__init__()
        if (audio is None) != (vocoder is None):
            raise ClipError(f"codecs: no {'audio codec' if audio is None else 'vocoder'}; audio needs both")
        if audio is not None and vocoder is not None and audio.grid != vocoder.grid:
            raise ClipError(f"codecs: audio codec of {audio.grid.rate} Hz, vocoder of {vocoder.grid.rate} Hz")
        if video is None and audio is None and sensor is None:
            raise ClipError("codecs: none given, expected video, audio or sensor")
        self.video, self.audio, self.vocoder, self.sensor = video, audio, vocoder, sensor
        self.eval().requires_grad_(False)

    @property
    def audio_rate(self) -> int:
        """Samples a second of the sound that `encode` takes and `decode` makes; 16000 where there is no sound."""
        return GRID.rate if self.audio is None else self.audio.grid.rate

    def shapes(self) -> dict[str, tuple[int, int, str]]:
        """`{modality: (tokens per slot, channels of a token, group)}` in the fixed order of modalities."""
        shapes: dict[str, tuple[int, int, str]] = {}
        if self.video is not None:
            shapes["video"] = (self.video.tokens_per_slot, self.video.channels, "video")
        if self.audio is not None:
            shapes["audio"] = (4, int(self.audio.vae.config["latent_channels"]), "audio")
        if self.sensor is not None:
            shapes |= {name: (1, self.sensor.size(name), "sensor") for name in self.sensor.channels}
        return shapes

    def names(self, tracks: Sequence[str]) -> tuple[str, ...]:
        """The modalities of the tracks asked for, each of `video`, `audio`, `sensor`; others are a ClipError.

        Tracks without a codec give none, as long as one of those asked for has a codec.
        """
        unknown = [track for track in tracks if track not in GROUPS]
        if unknown or not tracks:
            raise ClipError(f"tracks: {', '.join(unknown) or 'none given'}; known are {', '.join(GROUPS)}")
        names = tuple(name for name, (_, _, group) in self.shapes().items() if group in tracks)
        if not names:
            there = dict.fromkeys(group for _, _, group in self.shapes().values())
            raise ClipError(f"tracks: {', '.join(tracks)}; this model has {', '.join(there)} only")
        return names

    @torch.no_grad()
    def encode(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Latents `{modality: [B, T, S, C]}` of `{"video": [B, 3, F, H, W], "audio": [B, 1, N], sensor: [B, K, n]}`.

        Sound is to be at `audio_rate`.
        """
        latents = {}
        for name, value in tensors.items():
            if name == "video":
                latents[name] = _there(self.video, name).encode(value).float()
            elif name == "audio":
                latents[name] = _there(self.audio, name).encode(value).float()
            else:
                latents[name] = _there(self.sensor, name).encode(name, value)[0]
        return latents

    @torch.no_grad()
    def decode(self, latents: Mapping[str, Tensor]) -> list[Clip]:
        """Clips of a batch of latents `{modality: [B, T, S, C]}`; tracks without latents are absent.

        No sensor leaves the range that its data had.
        """
        batch = next(iter(latents.values())).shape[0]
        video, audio, sensor = None, None, {}
        if "video" in latents:
            video = to_frames(_there(self.video, "video").decode(latents["video"]))
        if "audio" in latents:
            codec, vocoder = _there(self.audio, "audio"), _there(self.vocoder, "audio")
            audio = codec.decode(latents["audio"], vocoder).float().cpu().numpy()
        if self.sensor is not None:
            for name in (name for name in self.sensor.channels if name in latents):
                values = self.sensor.limit(name, self.sensor.decode(name, latents[name].float()))
                sensor[name] = values.cpu().numpy()
        return [
            Clip(
                video=None if video is None else Track(video[i], FPS),
                audio=None if audio is None else Track(audio[i], float(self.audio_rate)),
                sensor={name: self._sensor_track(name, values[i]) for name, values in sensor.items()},
            )
            for i in range(batch)
        ]

    def _sensor_track(self, name: str, values: np.ndarray) -> Track:
        codec = _there(self.sensor, name)
        channels = codec.channels[name]
        units = tuple(channel.unit for channel in channels)
        return Track(values, codec.rate, names=tuple(channel.name for channel in channels), units=units)

    def save_pretrained(self, folder: Path | str, dtype: torch.dtype | None = None) -> None:
        """One sub-folder a codec, diffusers layout."""
        folder = Path(folder)
        parts = {"video_codec": self.video, "audio_codec": self.audio, "vocoder": self.vocoder}
        for name, codec in parts.items():
            if codec is not None:
                codec.save_pretrained(folder / name, dtype=dtype)
        if self.sensor is not None:
            self.sensor.save_pretrained(folder / "sensor_codec")

    @classmethod
    def from_pretrained(cls, folder: Path | str, dtype: torch.dtype = torch.float32) -> Codecs:
        """Reads what `save_pretrained` wrote; a codec without a folder is absent.

        Raises:
            ClipError: no codec at all, a folder without its `config.json`, only one of audio codec and vocoder, or the
                two of different rates.
        """
        folder = Path(folder)
        names = [name for name in ("video_codec", "audio_codec", "vocoder", "sensor_codec") if (folder / name).is_dir()]
        needed = {"audio_codec", "vocoder"} if {"audio_codec", "vocoder"} & set(names) else set()
        for name in sorted({*names, *needed}) or ["video_codec"]:
            if not (folder / name / "config.json").is_file():
                raise ClipError(f"{folder / name}: no codec there (config.json is missing)")
        options: dict[str, Any] = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
        return cls(
            VideoCodec.from_pretrained(folder / "video_codec", dtype=dtype) if "video_codec" in names else None,
            AudioCodec.from_pretrained(folder / "audio_codec", **options) if "audio_codec" in names else None,
            Vocoder.from_pretrained(folder / "vocoder", **options) if "vocoder" in names else None,
            SensorPatches.from_pretrained(folder / "sensor_codec") if "sensor_codec" in names else None,
        )


def _there(codec: C | None, name: str) -> C:
    """The codec; a ClipError that names the modality if there is none."""
    if codec is None:
        raise ClipError(f"{name}: this model has no codec for it")
    return codec


def to_frames(video: Tensor) -> np.ndarray:
    """`[B, 3, F, H, W]` in [-1, 1] → uint8 `[B, F, H, W, 3]`."""
    levels = ((video.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return levels.permute(0, 2, 3, 4, 1).contiguous().cpu().numpy()


def from_frames(frames: np.ndarray) -> Tensor:
    """uint8 `[B, F, H, W, 3]` → float32 `[B, 3, F, H, W]` in [-1, 1]."""
    return torch.from_numpy(np.array(frames)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
