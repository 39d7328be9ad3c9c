"""The codecs recipe end to end on clips of the physics world: train, assemble, encode, decode."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoint.data.arrays import read_arrays, write_arrays
from counterpoint.data.physics import generate
from counterpoint.modalities.codecs import Codecs
from counterpoint.recipes import codecs
from counterpoint.recipes.latents import clip_tensors


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_arrays(folder, generate(range(8)), 8)
    return folder


def test_trained_codecs_round_trip(data: Path, tmp_path: Path) -> None:
    settings = codecs.tiny()
    held = {"held_out": 2}
    settings = replace(settings, video=replace(settings.video, **held), audio=replace(settings.audio, **held))
    settings = replace(settings, vocoder=replace(settings.vocoder, **held))
    folder = codecs.train(settings, data, tmp_path / "run")
    assert folder == tmp_path / "run" / "codecs"
    loaded = Codecs.from_pretrained(folder)
    assert loaded.video is not None
    assert loaded.video.refiner is not None
    tensors = clip_tensors(read_arrays(data), 0, 2)
    latents = loaded.encode(tensors)
    assert {name: tuple(value.shape[:3]) for name, value in latents.items()} == {
        "video": (2, 16, 16),
        "audio": (2, 16, 4),
        "accelerometer": (2, 16, 1),
        "gyroscope": (2, 16, 1),
        "force": (2, 16, 1),
    }
    clip = loaded.decode(latents)[0]
    assert clip.video is not None
    assert clip.audio is not None
    assert clip.video.values.shape == (64, 64, 64, 3)
    assert clip.audio.values.shape == (1, 40960)
    for name, track in clip.sensor.items():  # nothing is learned about sensors: they come back as they were
        np.testing.assert_allclose(track.values, tensors[name][0].numpy(), rtol=1e-4, atol=1e-3)


def test_sensor_ranges_are_those_of_all_clips(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.array(read_arrays(data).sensor)  # [N, channels, samples]
    monkeypatch.setattr(codecs, "STATISTICS", 3)
    scaling = codecs.fit_sensors(data)
    ranges = [(c.low, c.high) for axes in scaling.channels.values() for c in axes]
    ends = zip(samples.min((0, 2)).tolist(), samples.max((0, 2)).tolist(), strict=True)
    assert ranges == list(ends)
    assert [c.unit for c in scaling.channels["gyroscope"]] == ["rad/s"] * 3


def test_sensor_scaling_is_fitted_on_the_data(data: Path) -> None:
    scaling = codecs.fit_sensors(data)
    clips = read_arrays(data)
    latents, _ = scaling.encode("accelerometer", torch.from_numpy(np.array(clips.sensor[:, :3])))
    assert abs(float(latents.mean())) < 0.05
    assert abs(float(latents.std()) - 1.0) < 0.05
