"""The linear code of patches: exact inverse, white latents, equal channels, rounded and companded ones."""

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
    assert {name: z.shape for name, z in latents.items()} == {
        name: (400, 12 // patch, 1, size) for name, size in zip(codec.names, codec.sizes, strict=True)
    }
    assert max(codec.sizes) <= 8
    assert sum(codec.sizes) == 5 * patch  # the twin adds no axis
    spread = x.std(dim=(0, 1))
    assert ((codec.decode(latents) - x).abs() / spread).max() < 1e-2


def test_latents_are_white(windows):
    codec = SeriesPatches.fit(windows, 12, token=16, normal=False)
    flat = torch.cat(list(codec.encode(torch.from_numpy(windows)).values()), dim=3).flatten(1)
    torch.testing.assert_close(flat.T @ flat / len(flat), torch.eye(flat.shape[1]), atol=5e-2, rtol=0)


def test_axes_get_back_their_deviations_down_to_the_least(windows, tmp_path):
    white, own = (SeriesPatches.fit(windows, 12, least=least) for least in (1.0, 0.1))
    x = torch.from_numpy(windows)
    spread = own.tensors["decode"].norm(dim=1)  # of the axes, in units of a channel's
    torch.testing.assert_close(own.deviation, (spread / spread.max()).clamp_min(0.1))
    assert own.deviation[0] == 1
    assert own.deviation[-1] == pytest.approx(0.1)
    assert torch.equal(white.deviation, torch.ones_like(own.deviation))
    for name, z in white.encode(x).items():
        torch.testing.assert_close(own.encode(x)[name], z * own.deviations[name])
    torch.testing.assert_close(own.decode(own.encode(x)), white.decode(white.encode(x)), atol=1e-3, rtol=1e-3)
    own.save_pretrained(tmp_path)
    assert torch.equal(SeriesPatches.from_pretrained(tmp_path).deviation, own.deviation)
    del own.tensors["deviation"]
    own.save_pretrained(tmp_path)
    with pytest.raises(ClipError, match="train the model anew"):
        SeriesPatches.from_pretrained(tmp_path)


def test_a_rare_state_far_away_has_a_normal_score():
    """One window in a hundred stands at 50 where the others are within 3: a walk from noise must not have to decide for
    it at once, and from noise alone it comes out as often as it is there."""
    draws = np.random.default_rng(0)
    steps = draws.normal(size=(2000, 4, 2)) * [[[1], [0.3], [0.3], [0.3]]]
    windows = steps.cumsum(axis=1).astype(np.float32)
    windows[::100] += 50
    codec = SeriesPatches.fit(windows, 4)
    x = torch.from_numpy(windows)
    latents = torch.cat(list(codec.encode(x).values()), dim=3).flatten(1)
    assert latents.abs().max() < 3.7
    torch.testing.assert_close(latents.mean(0), torch.zeros(8), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.pow(2).mean(0), torch.ones(8), atol=1e-2, rtol=0)
    torch.testing.assert_close(latents.pow(4).mean(0), torch.full((8,), 3.0), atol=0.1, rtol=0)
    torch.testing.assert_close(codec.decode(codec.encode(x)), x, atol=1e-3, rtol=0)
    noise = torch.randn(20_000, 1, 8, generator=torch.Generator().manual_seed(0))
    far = codec.decode(codec.split(noise)).mean(dim=(1, 2)) > 25
    assert far.float().mean().item() == pytest.approx(0.01, abs=0.002)
    plain = SeriesPatches.fit(windows, 4, normal=False)
    assert plain.decode(plain.split(noise)).mean(dim=(1, 2)).max() < 25
    assert torch.cat(list(plain.encode(x).values()), dim=3).abs().max() > 6


def test_what_many_values_share_has_the_middle_of_their_scores():
    windows = np.repeat(np.random.default_rng(0).random((1000, 1, 1)) < 0.25, 4, axis=1).astype(np.float32)
    latents = SeriesPatches.fit(windows, 4).encode(torch.from_numpy(windows))["axes0"]
    assert latents.shape == (1000, 1, 1, 1)
    normal = torch.distributions.Normal(0.0, 1.0)
    between, end = normal.icdf(torch.tensor([(windows[:, 0] == 0).mean(), 1 - 0.5 / 1000])).tolist()
    found = sorted(abs(value) for value in latents.unique().tolist())  # which way an axis points is open
    assert found == pytest.approx([(end - between) / 2, (end + between) / 2], abs=0.02)


def test_equal_channels_stay_equal_and_levels_and_range_hold_for_any_latents(windows):
    codec = SeriesPatches.fit(windows, 4)
    drawn = codec.split(2 * torch.randn(50, 3, sum(codec.sizes), generator=torch.Generator().manual_seed(0)))
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
    made = codec.decode(codec.split(torch.randn(50, 1, 8, generator=torch.Generator().manual_seed(0))))
    share = [float(np.isin(made[..., c], np.float32(np.arange(600) / 10)).mean()) for c in range(2)]
    assert share[0] == 1.0
    assert share[1] < 0.3  # the ends of the range, and chance


def test_heavy_tails_are_companded_alone(windows):
    codec = SeriesPatches.fit(windows, 4)
    assert (codec.tensors["bend"] > 0).tolist() == [False, False, False, False, False, True]


@pytest.fixture
def household():
    """Uniform noise, the same again, a lamp with a memory that is off most of the time, a smooth level, and noise that
    is Gaussian already."""
    draws = np.random.default_rng(0)
    noise = draws.random((3000, 12, 1))
    warm = np.empty((3000, 12, 1))
    warm[:, 0] = draws.normal(size=(3000, 1))
    for step in range(1, 12):
        warm[:, step] = 0.7 * warm[:, step - 1] + np.sqrt(0.51) * draws.normal(size=(3000, 1))
    lamp = np.select([warm > 1.5, warm > 0.7], [20.0, 10.0], 0.0)
    level = draws.random((3000, 1, 1)) + 0.001 * draws.normal(size=(3000, 12, 1)).cumsum(axis=1)
    plain = draws.normal(size=(3000, 12, 1))
    return np.concatenate([noise, noise, lamp, level, plain], axis=2).astype(np.float32)


def _mapped(codec):
    return sorted(key for key in codec.tensors if key.startswith(("own_knots", "edges")))


def test_only_channels_that_come_anew_with_each_step_and_are_not_gaussian_are_mapped(household):
    assert _mapped(SeriesPatches.fit(household, 4)) == ["edges.2", "own_knots.0", "own_knots.1"]


def test_mapped_channels_are_decoded_as_they_were_and_draws_are_repeated(household, tmp_path):
    codec = SeriesPatches.fit(household, 4)
    x = torch.from_numpy(household)
    back = codec.decode(codec.encode(x))
    torch.testing.assert_close(back[..., [0, 1, 3, 4]], x[..., [0, 1, 3, 4]], atol=0.02, rtol=0)
    assert (back[..., 2] == x[..., 2]).float().mean() > 0.999
    codec.save_pretrained(tmp_path)
    again = SeriesPatches.from_pretrained(tmp_path)
    for name, value in codec.encode(x).items():
        assert torch.equal(again.encode(x)[name], value)


def test_noise_alone_has_the_distributions_of_mapped_channels(household):
    codec = SeriesPatches.fit(household, 4)
    noise = torch.randn(5000, 3, sum(codec.sizes), generator=torch.Generator().manual_seed(1))
    made = codec.decode(codec.split(noise * codec.deviation))
    shares = torch.histc(made[..., 0], 10, 0.0, 1.0) / made[..., 0].numel()
    torch.testing.assert_close(shares, torch.full((10,), 0.1), atol=0.006, rtol=0)
    torch.testing.assert_close(made[..., 1], made[..., 0], atol=1e-3, rtol=0)
    for value in (0.0, 10.0, 20.0):
        assert (made[..., 2] == value).float().mean() == pytest.approx((household[..., 2] == value).mean(), abs=0.01)
    stays = [((w[:, :3, 2] == w[:, 1:4, 2]).mean()) for w in (household, made.numpy())]  # within a slot
    assert stays[1] == pytest.approx(stays[0], abs=0.02)


def test_saved_and_loaded_it_is_the_same(windows, tmp_path):
    codec = SeriesPatches.fit(windows, 4, token=8)
    codec.save_pretrained(tmp_path)
    again = SeriesPatches.from_pretrained(tmp_path)
    x = torch.from_numpy(windows[:5])
    for name, value in codec.encode(x).items():
        assert torch.equal(again.encode(x)[name], value)
    with pytest.raises(ClipError, match="missing"):
        SeriesPatches.from_pretrained(tmp_path / "nowhere")


def test_what_cannot_be_coded_is_refused(windows):
    with pytest.raises(ClipError, match="12 steps are not cut evenly into patches of 5"):
        SeriesPatches.fit(windows, 5)
    with pytest.raises(ClipError, match="no channel varies"):
        SeriesPatches.fit(np.ones((20, 4, 2), np.float32), 4)
