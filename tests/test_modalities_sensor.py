"""Sensor patches: exact round trips, masks, companding of spikes, configuration on disk."""

import json
import math

import numpy as np
import pytest
import torch

from counterpoint.modalities.clip import ClipError
from counterpoint.modalities.sensor import SensorPatches

NAMES = {"accelerometer": ("x", "y", "z"), "force": ("z",)}
UNITS = {"accelerometer": "m/s²", "force": "N"}


def spikes(channels: int, clips: int = 8, samples: int = 256) -> np.ndarray:
    """Rest with a little noise, an offset, and an impact a thousand times stronger."""
    rng = np.random.default_rng(channels)
    values = 9.81 + 0.05 * rng.normal(size=(clips, channels, samples))
    values[:, :, 100:103] += 80.0 * rng.normal(size=(clips, channels, 3))
    return values.astype(np.float32)


def fitted() -> SensorPatches:
    return SensorPatches.fit(NAMES, UNITS, {sensor: spikes(len(axes)) for sensor, axes in NAMES.items()})


@pytest.mark.parametrize("samples", [1, 15, 16, 17, 256])
@pytest.mark.parametrize("sensor", ["accelerometer", "force"])
def test_round_trip_is_exact_for_every_length(sensor, samples):
    patches, values = fitted(), torch.from_numpy(spikes(len(NAMES[sensor])))[:, :, 90 : 90 + samples]
    if samples == 256:
        values = torch.from_numpy(spikes(len(NAMES[sensor])))
    latents, share = patches.encode(sensor, values)
    slots = -(-samples // 16)
    assert latents.shape == (8, slots, 1, patches.size(sensor))
    assert share.shape == (8, slots, len(NAMES[sensor]))
    again = patches.decode(sensor, latents, samples=samples)
    assert again.dtype == torch.float32
    torch.testing.assert_close(again, values, rtol=2e-6, atol=2e-6)
    assert patches.decode(sensor, latents).shape[2] == slots * 16


def test_latents_have_unit_variance_and_tamed_spikes():
    patches, values = fitted(), torch.from_numpy(spikes(3))
    latents, _ = patches.encode("accelerometer", values)
    columns = latents[:, :, 0].unflatten(2, (3, 16)).transpose(0, 2).flatten(1)  # [K, everything]
    torch.testing.assert_close(columns.mean(1), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(columns.std(1), torch.ones(3), atol=1e-2, rtol=0)
    raw = ((values - values.mean((0, 2), keepdim=True)) / values.std((0, 2), keepdim=True)).abs().max()
    assert columns.abs().max() < 0.6 * raw


def test_a_patch_holds_channel_after_channel_in_time_order():
    patches = fitted()
    values = torch.full((1, 3, 32), 9.81)
    values[0, 1, 16 + 5] = 50.0
    latents, _ = patches.encode("accelerometer", values)
    assert latents[0, 1, 0].argmax() == 16 + 5
    assert latents[0].argmax() // 48 == 1


def test_masked_and_missing_samples_become_zero_and_are_reported():
    patches, values = fitted(), torch.from_numpy(spikes(1))[:1]
    mask = torch.ones_like(values, dtype=torch.bool)
    mask[0, 0, 16:24] = False
    values[0, 0, 16:24] = 1e30
    values[0, 0, 40] = float("nan")
    latents, share = patches.encode("force", values, mask)
    assert torch.all(latents[0, 1, 0, :8] == 0)
    assert latents[0, 2, 0, 8] == 0
    assert share[0, :4, 0].tolist() == [1.0, 0.5, 15 / 16, 1.0]
    known = patches.sample_mask(share, samples=60)
    assert known.shape == (1, 1, 60)
    assert known[0, 0].tolist() == [True] * 16 + [False] * 32 + [True] * 12
    assert patches.encode("force", torch.ones(1, 1, 20))[1][0, :, 0].tolist() == [1.0, 0.25]


def test_saved_and_loaded_configurations_are_equal(tmp_path):
    patches = fitted()
    patches.save_pretrained(tmp_path / "codec")
    again = SensorPatches.from_pretrained(tmp_path / "codec")
    assert again.channels == patches.channels
    assert again.rate == 100.0
    config = json.loads((tmp_path / "codec" / "config.json").read_text("utf-8"))
    assert [c["unit"] for c in config["sensors"]["accelerometer"]] == ["m/s²"] * 3


def test_bad_configurations_name_the_file(tmp_path):
    with pytest.raises(ClipError, match=r"config\.json: missing"):
        SensorPatches.from_pretrained(tmp_path)
    path = tmp_path / "config.json"
    for text in ("{", "{}", "[]", '{"sensors": {"force": [{"nam": "z"}]}, "patch": 16, "rate": 100}'):
        path.write_text(text)
        with pytest.raises(ClipError, match="not a sensor codec"):
            SensorPatches.from_pretrained(tmp_path)
    path.write_text('{"sensors": {}, "patch": 8, "rate": 100}')
    with pytest.raises(ClipError, match="patches of 8 samples"):
        SensorPatches.from_pretrained(tmp_path)


def test_bad_input_names_the_sensor():
    patches = fitted()
    with pytest.raises(ClipError, match="thermometer: unknown sensor; this codec knows accelerometer, force"):
        patches.encode("thermometer", torch.zeros(1, 1, 16))
    with pytest.raises(ClipError, match=r"accelerometer: samples \[1, 2, 16\]"):
        patches.encode("accelerometer", torch.zeros(1, 2, 16))
    with pytest.raises(ClipError, match="force: samples"):
        patches.encode("force", torch.zeros(1, 1, 0))
    with pytest.raises(ClipError, match="force: mask"):
        patches.encode("force", torch.zeros(1, 1, 16), torch.ones(1, 1, 15, dtype=torch.bool))
    with pytest.raises(ClipError, match="force: latents"):
        patches.decode("force", torch.zeros(1, 2, 1, 48))
    with pytest.raises(ClipError, match="33 samples asked of 2 slots"):
        patches.decode("force", torch.zeros(1, 2, 1, 16), samples=33)
    with pytest.raises(ClipError, match=r"force\.z: no finite samples"):
        SensorPatches.fit({"force": ("z",)}, UNITS, {"force": np.full((1, 1, 16), np.nan)})


def test_samples_are_held_within_the_range_of_the_data():
    data = np.array([[[0.0, 2.0, np.nan, -1.0]], [[1.0, 1.0, 0.5, 0.0]]])
    patches = SensorPatches.fit({"force": ("z",)}, UNITS, {"force": data})
    assert (patches.channels["force"][0].low, patches.channels["force"][0].high) == (-1.0, 2.0)
    huge = patches.decode("force", torch.full((1, 1, 1, 16), 30.0))
    assert huge.min() > 1e6  # a latent far out is any number
    values = torch.tensor([[[-9.0, -1.0, 0.25, 2.0, 9.0, math.inf, -math.inf]]])
    assert patches.limit("force", values).tolist() == [[[-1.0, -1.0, 0.25, 2.0, 2.0, 2.0, -1.0]]]
    assert torch.equal(patches.limit("force", huge), torch.full_like(huge, 2.0))
    with pytest.raises(ClipError, match="thermometer: unknown sensor"):
        patches.limit("thermometer", values)


def test_each_channel_has_its_own_range_which_further_data_widen():
    low, high = np.zeros((1, 3, 16)), np.zeros((1, 3, 16))
    low[0, :, 0], high[0, :, 0] = [-1.0, -2.0, -3.0], [4.0, 5.0, np.nan]
    patches = SensorPatches.fit({"accelerometer": ("x", "y", "z")}, UNITS, {"accelerometer": low})
    wider = patches.widened({"accelerometer": high})
    assert [(c.low, c.high) for c in wider.channels["accelerometer"]] == [(-1.0, 4.0), (-2.0, 5.0), (-3.0, 0.0)]
    assert wider.rate == patches.rate
    assert torch.equal(wider.limit("accelerometer", torch.full((1, 3, 1), 9.0))[0, :, 0], torch.tensor([4.0, 5.0, 0.0]))
    latents = torch.randn(2, 3, 1, 48, generator=torch.Generator().manual_seed(0))
    assert torch.equal(wider.decode("accelerometer", latents), patches.decode("accelerometer", latents))


def test_a_codec_that_knows_no_range_holds_nothing(tmp_path):
    (tmp_path / "config.json").write_text('{"sensors": {"force": [{"name": "z", "unit": ""}]}, "patch": 16, "rate": 1}')
    values = torch.tensor([[[-1e9, 1e9]]])
    assert torch.equal(SensorPatches.from_pretrained(tmp_path).limit("force", values), values)


def test_constant_channels_survive():
    patches = SensorPatches.fit({"force": ("z",)}, UNITS, {"force": np.full((2, 1, 32), 3.0)})
    values = torch.full((1, 1, 16), 3.0)
    latents, _ = patches.encode("force", values)
    assert torch.all(latents == 0)
    assert torch.equal(patches.decode("force", latents), values)
