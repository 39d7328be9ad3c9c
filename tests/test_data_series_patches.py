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
    codec = SeriesPatches.fit(windows, 12, token=16)
    flat = torch.cat(list(codec.encode(torch.from_numpy(windows)).values()), dim=3).flatten(1)
    torch.testing.assert_close(flat.T @ flat / len(flat), torch.eye(flat.shape[1]), atol=5e-2, rtol=0)


def test_equal_channels_stay_equal_and_levels_and_range_hold_for_any_latents(windows):
    codec = SeriesPatches.fit(windows, 4)
    drawn = codec.split(2 * torch.randn(50, 3, sum(codec.sizes), generator=torch.Generator().manual_seed(0)))
    made = codec.decode(drawn)
    torch.testing.assert_close(made[..., 3], made[..., 0], atol=1e-4, rtol=0)
    assert set(made[..., 4].unique().tolist()) <= {0.0, 10.0}
    assert (made >= torch.from_numpy(windows.min(axis=(0, 1)))).all()
    assert (made <= torch.from_numpy(windows.max(axis=(0, 1)))).all()


def test_heavy_tails_are_companded_alone(windows):
    codec = SeriesPatches.fit(windows, 4)
    assert (codec.tensors["bend"] > 0).tolist() == [False, False, False, False, False, True]


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
