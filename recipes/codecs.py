"""Train all codecs of a data set: video VAE → its refiner → audio VAE → vocoder → sensor scaling → one folder.

    counterpoint train codecs data=DATA run=runs/codecs

Each part has a recipe of its own (`video_codec`, `video_refiner`, `audio_codec`, `vocoder`) and a run folder in this
one. The result, `RUN/codecs`, is what the joint recipe takes as `codecs=`. The same command goes on where it stopped.

Audio codec and vocoder get the rate of the data's sound: of 24 kHz after `counterpoint data music DATA --rate 24000`.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from counterpoint.data.arrays import read_arrays
from counterpoint.modalities.sensor import SensorPatches
from counterpoint.recipes import audio_codec, video_codec, video_refiner, vocoder

STATISTICS = 2000  # clips on which the sensors' scaling is fitted


@dataclass(frozen=True)
class Settings:
    """The settings of the four trained parts."""

    video: video_codec.Settings = field(default_factory=video_codec.small)
    refiner: video_refiner.Settings = field(default_factory=video_refiner.small)
    audio: audio_codec.AudioCodecSettings = field(default_factory=audio_codec.small)
    vocoder: vocoder.VocoderSettings = field(default_factory=vocoder.small)


def tiny() -> Settings:
    """For tests: seconds."""
    return Settings(video_codec.tiny(), video_refiner.tiny(), audio_codec.tiny(), vocoder.tiny())


def small() -> Settings:
    """What ships."""
    return Settings()


def train(settings: Settings, data: Path, run: Path) -> Path:
    """Trains what the data set has tracks for; returns the folder with the codecs."""
    clips = read_arrays(data)
    out = run / "codecs"
    if clips.video is not None:
        coded = video_codec.train(settings.video, data, run / "video_codec")
        refining = replace(settings.refiner, start_from=str(coded))
        _place(video_refiner.train(refining, data, run / "video_refiner"), out / "video_codec")
    if clips.audio is not None:
        _place(audio_codec.train(settings.audio, data, run / "audio_codec"), out / "audio_codec")
        hearing = replace(
            settings.vocoder, codec=str(run / "audio_codec" / "audio_codec")
        )  # half of its mels are decoded
        _place(vocoder.train(hearing, data, run / "vocoder"), out / "vocoder")
    if clips.sensor is not None:
        fit_sensors(data).save_pretrained(out / "sensor_codec")
    return out


def fit_sensors(data: Path) -> SensorPatches:
    """The scaling of every sensor channel, fitted on the first clips of a data set, with the ranges of all."""
    clips = read_arrays(data)
    names: dict[str, Sequence[str]] = {sensor: channels for sensor, (channels, _) in clips.sensors.items()}
    units = {sensor: own[0] for sensor, (_, own) in clips.sensors.items()}
    fitted = SensorPatches.fit(names, units, clips.sensor_values(0, STATISTICS), clips.sensor_rate)
    for start in range(STATISTICS, len(clips), STATISTICS):
        fitted = fitted.widened(clips.sensor_values(start, start + STATISTICS))
    channels = {
        sensor: tuple(replace(c, unit=unit) for c, unit in zip(fitted.channels[sensor], own, strict=True))
        for sensor, (_, own) in clips.sensors.items()
    }
    return SensorPatches(channels, fitted.rate)


def _place(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)
