"""The linear code of patches: exact inverse, white latents, equal channels, rounded and mapped ones."""

import numpy as np
import pytest
import torch

from counterpoint.data.series_patches import SeriesPatches
from counterpoint.modalities.clip import ClipError


@pytest.fixture
def windows():
    draws = np.random.default_rng(0)
    walk = draws.normal(size=(400, 12, 3)).cumsum(axis=1)
    twin = walk[..., :1]  # the same channel again
    lamp = 10.0 * (draws.random((400, 12, 1)) < 0.3)
    spiky = np.exp(2 * draws.normal(size=(400, 12, 1)))
    return np.concatenate([walk, twin, lamp, spiky], axis=2).astype(np.float32)


@pytest.mark.parametrize("patch", [3, 4, 12])
def test_decoding_is_the_inverse(windows, patch):
    codec = SeriesPatches.fit(windows, patch, token=8, floor=1e-6)
    x = torch.from_numpy(windows)
    latents = codec.encode(x)
    assert latents.shape == (400, 5 * 12)  # the twin adds no axis
    spread = x.std(dim=(0, 1))
    assert ((codec.decode(latents) - x).abs() / spread).max() < 1e-2


def test_latents_are_white(windows):
    codec = SeriesPatches.fit(windows, 12, token=16, normal=False)
    flat = codec.encode(torch.from_numpy(windows))
    torch.testing.assert_close(flat.T @ flat / len(flat), torch.eye(flat.shape[1]), atol=5e-2, rtol=0)


@pytest.mark.parametrize("patch", [2, 4, 12])
def test_slots_of_time_hold_the_axes_and_hand_them_back(windows, patch):
    codec = SeriesPatches.fit(windows, patch, token=16)
    axes = torch.randn(50, len(codec.deviation), generator=torch.Generator().manual_seed(0))
    slots = codec.to_slots(axes)
    assert {name: x.shape for name, x in slots.items()} == {
        name: (50, 12 // patch, 1, size) for name, size in zip(codec.names, codec.sizes, strict=True)
    }
    assert max(codec.sizes) <= 16
    assert sum(codec.sizes) == patch * 6
    torch.testing.assert_close(codec.from_slots(slots), axes, atol=1e-4, rtol=1e-4)


def test_a_slot_of_white_windows_hears_its_own_time(windows):
    """The numbers of a slot are those of its steps alone, where the windows have no memory."""
    noise = np.random.default_rng(0).normal(size=(20_000, 12, 2)).astype(np.float32)
    codec = SeriesPatches.fit(noise, 4, normal=False)
    x = torch.from_numpy(noise[:1]).repeat(2, 1, 1)
    x[1, 4:8] = 0
    slots = codec.to_slots(codec.encode(x))["steps0"]
    torch.testing.assert_close(slots[0, [0, 2]], slots[1, [0, 2]], atol=5e-2, rtol=0)
    torch.testing.assert_close(slots[1, 1], torch.zeros(1, 8), atol=5e-2, rtol=0)


def test_axes_get_back_their_deviations_down_to_the_least(windows, tmp_path):
    white, own = (SeriesPatches.fit(windows, 12, least=least) for least in (1.0, 0.1))
    x = torch.from_numpy(windows)
    spread = own.tensors["decode"].norm(dim=1)  # of the axes, in units of a channel's
    torch.testing.assert_close(own.deviation, (spread / spread.max()).clamp_min(0.1))
    assert own.deviation[0] == 1
    assert own.deviation[-1] == pytest.approx(0.1)
    assert torch.equal(white.deviation, torch.ones_like(own.deviation))
    torch.testing.assert_close(own.encode(x), white.encode(x) * own.deviation)
    torch.testing.assert_close(own.decode(own.encode(x)), white.decode(white.encode(x)), atol=1e-3, rtol=1e-3)
    own.save_pretrained(tmp_path)
    assert torch.equal(SeriesPatches.from_pretrained(tmp_path).deviation, own.deviation)
    for key in ("deviation", "scored"):
        older = SeriesPatches(12, {name: x for name, x in own.tensors.items() if name != key}, own.sizes)
        older.save_pretrained(tmp_path)
        with pytest.raises(ClipError, match="train the model anew"):
            SeriesPatches.from_pretrained(tmp_path)


def test_a_rare_state_far_away_has_a_normal_score():
    """In one window of a hundred the two channels' sum stands at 100 where that of the others is within 6 (each alone
    hides it): a walk from noise must not have to decide for it at once, and from noise alone it comes out as often as
    it is there."""
    draws = np.random.default_rng(0)
    windows = draws.normal(size=(2000, 4, 2)).cumsum(axis=1).astype(np.float32)
    windows += 100 * draws.normal(size=(2000, 4, 1)).astype(np.float32) * np.array([1, -1], np.float32)
    windows[::100] += 50
    codec = SeriesPatches.fit(windows, 4)
    x = torch.from_numpy(windows)
    latents = codec.encode(x)
    assert latents.abs().max() < 3.7
    torch.testing.assert_close(latents.mean(0), torch.zeros(8), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.pow(2).mean(0), torch.ones(8), atol=1e-2, rtol=0)
    torch.testing.assert_close(latents.pow(4).mean(0), torch.full((8,), 3.0), atol=0.1, rtol=0)
    torch.testing.assert_close(codec.decode(codec.encode(x)), x, atol=1e-3, rtol=1e-4)
    noise = torch.randn(20_000, 8, generator=torch.Generator().manual_seed(0))
    far = codec.decode(noise).mean(dim=(1, 2)) > 25
    assert far.float().mean().item() == pytest.approx(0.01, abs=0.002)
    plain = SeriesPatches.fit(windows, 4, normal=False)
    assert plain.encode(x).abs().max() > 6


def test_a_lamp_comes_out_as_often_and_as_long_as_it_is_on():
    """Gaussian latents of a channel of two values decode to both in their shares, and in runs of their length."""
    draws = np.random.default_rng(0)
    hidden = draws.normal(size=(4000, 12, 1)).cumsum(axis=1) + 3 * draws.normal(size=(4000, 1, 1))
    lamp = 10 * (hidden > 2).astype(np.float32)
    codec = SeriesPatches.fit(lamp, 4)
    made = codec.decode(torch.randn(4000, len(codec.deviation), generator=torch.Generator().manual_seed(0))).numpy()
    assert set(np.unique(made)) == {0.0, 10.0}
    assert (made > 5).mean() == pytest.approx((lamp > 5).mean(), abs=0.02)
    assert (made[:, 1:] != made[:, :-1]).mean() == pytest.approx((lamp[:, 1:] != lamp[:, :-1]).mean(), abs=0.03)
    x = torch.from_numpy(lamp)
    assert (codec.decode(codec.encode(x)) == x).float().mean() > 0.995  # but for axes left out


def test_equal_channels_stay_equal_and_levels_and_range_hold_for_any_latents(windows):
    codec = SeriesPatches.fit(windows, 4)
    drawn = 2 * torch.randn(50, len(codec.deviation), generator=torch.Generator().manual_seed(0))
    made = codec.decode(drawn)
    torch.testing.assert_close(made[..., 3], made[..., 0], atol=1e-4, rtol=0)
    assert set(made[..., 4].unique().tolist()) <= {0.0, 10.0}
    assert (made >= torch.from_numpy(windows.min(axis=(0, 1)))).all()
    assert (made <= torch.from_numpy(windows.max(axis=(0, 1)))).all()


def test_values_that_come_back_are_levels_and_others_are_not():
    draws = np.random.default_rng(0)
    tenths = draws.integers(0, 300, (2000, 4, 1)) / 10
    many = draws.integers(0, 600, (2000, 4, 1)) / 10
    codec = SeriesPatches.fit(np.concatenate([tenths, many], axis=2).astype(np.float32), 4)
    made = codec.decode(torch.randn(50, 8, generator=torch.Generator().manual_seed(0)))
    share = [float(np.isin(made[..., c], np.float32(np.arange(600) / 10)).mean()) for c in range(2)]
    assert share[0] == 1.0
    assert share[1] < 0.3  # the ends of the range, and chance


def test_channels_that_a_gaussian_describes_better_by_their_scores_are_mapped(windows):
    codec = SeriesPatches.fit(windows, 4)
    assert codec.tensors["scored"].int().tolist() == [0, 0, 0, 0, 1, 1]  # walks are not; the lamp and the spikes are
    times = np.arange(12) * np.random.default_rng(1).uniform(0.1, 0.2, (400, 1))
    waves = np.sin(times + np.random.default_rng(2).uniform(0, 6, (400, 1))).astype(np.float32)
    uniform = np.random.default_rng(3).random((400, 12)).astype(np.float32)
    constant = np.ones_like(waves)
    codec = SeriesPatches.fit(np.stack([waves, uniform, constant], axis=2), 12)
    assert codec.tensors["scored"].int().tolist() == [
        0,
        1,
        0,
    ]  # an arcsine's values are no Gaussian's, but run smoothly


def test_uniform_noise_comes_out_uniform():
    windows = np.random.default_rng(0).random((5000, 8, 2)).astype(np.float32)
    codec = SeriesPatches.fit(windows, 8)
    noise = torch.randn(5000, 16, generator=torch.Generator().manual_seed(0))
    made = codec.decode(noise).flatten().numpy()
    even = np.arange(1, 16) / 16
    assert np.abs(np.quantile(made, even) - even).max() < 0.01
    assert (made <= windows.min()).mean() < 1e-3  # a Gaussian cut at 0 has .04 there


def test_saved_and_loaded_it_is_the_same(windows, tmp_path):
    codec = SeriesPatches.fit(windows, 4, token=8)
    codec.save_pretrained(tmp_path)
    again = SeriesPatches.from_pretrained(tmp_path)
    x = torch.from_numpy(windows[:5])
    assert torch.equal(again.encode(x), codec.encode(x))
    assert (again.patch, again.names, again.sizes) == (4, ("steps0", "steps1", "steps2"), (8, 8, 8))
    with pytest.raises(ClipError, match="missing"):
        SeriesPatches.from_pretrained(tmp_path / "nowhere")


def test_what_cannot_be_coded_is_refused(windows):
    with pytest.raises(ClipError, match="12 steps are not cut evenly into patches of 5"):
        SeriesPatches.fit(windows, 5)
    with pytest.raises(ClipError, match="no channel varies"):
        SeriesPatches.fit(np.ones((20, 4, 2), np.float32), 4)
