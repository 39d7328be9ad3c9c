"""Moments of channels: the map between two Gaussians, and no more than what so many samples can show."""

import pytest
import torch
from torch import Tensor

from counterpoint.data.channel_moments import ChannelMoments


def normal(count: int, seed: int, factor: Tensor, mean: float = 0.0) -> Tensor:
    return mean + torch.randn(count, len(factor), generator=torch.Generator().manual_seed(seed)) @ factor


def covariance(x: Tensor) -> Tensor:
    return torch.cov(x.T.double(), correction=0)


def test_each_channel_gets_the_mean_and_covariance_of_the_data() -> None:
    draws = torch.Generator().manual_seed(0)
    right, wrong = ([torch.eye(4) + 0.2 * torch.randn(4, 4, generator=draws) for _ in range(2)] for _ in range(2))

    def windows(factors: list[Tensor], seed: int, mean: float) -> Tensor:
        return torch.stack([normal(20_000, 10 * seed + i, f, mean * i) for i, f in enumerate(factors, 1)], dim=2)

    data = windows(right, 1, 2.0)
    moments = ChannelMoments.fit(windows(wrong, 2, -1.0), data)
    new = moments.apply(windows(wrong, 3, -1.0))
    for channel in range(2):
        ours, theirs = new[..., channel], data[..., channel]
        scale = theirs.std(0)
        torch.testing.assert_close(ours.mean(0) / scale, theirs.mean(0) / scale, atol=0.04, rtol=0)
        torch.testing.assert_close(covariance(ours / scale), covariance(theirs / scale), atol=0.1, rtol=0)


def halves(count: int, seed: int, apart: float) -> Tensor:
    """Sixty numbers that all are one level, but for small steps, in two halves that lie `apart`: `[N, 60, 1]`.

    The halves lie the further apart the higher the level is, as they do where a network errs by a share of it.
    """
    g = torch.Generator().manual_seed(seed)
    level = torch.randn(count, 1, generator=g)
    level = level + apart * (torch.randn(count, 2, generator=g) + level * torch.tensor([1.0, -1.0]))
    return (level.repeat_interleave(30, 1) + 0.01 * torch.randn(count, 60, generator=g))[..., None]


def test_a_step_between_parts_that_should_meet_goes_away_and_the_level_stays() -> None:
    moments = ChannelMoments.fit(halves(2000, 1, 0.1), halves(5000, 0, 0.003))
    made = halves(5000, 2, 0.1)
    mended = moments.apply(made)

    def step(x: Tensor) -> float:
        return float((x[:, :30].mean(1) - x[:, 30:].mean(1)).std())

    assert step(made) > 0.13
    assert step(mended) < 0.01
    before, after = made.mean((1, 2)), mended.mean((1, 2))
    assert torch.corrcoef(torch.stack([before, after]))[0, 1] > 0.9999


def test_what_small_axes_have_to_do_with_great_ones_is_mended_in_the_small_ones() -> None:
    """Two steps with a level and a small difference, which the generator lets follow the level."""
    g = torch.Generator().manual_seed(0)
    level, free = torch.randn(2, 4000, 1, generator=g)
    data, made = (level + 0.01 * d * torch.tensor([1.0, -1.0]) for d in (free, 0.6 * level + 0.8 * free))
    mended = ChannelMoments.fit(made[..., None], data[..., None]).apply(made[..., None])[..., 0]
    torch.testing.assert_close(mended.mean(1), made.mean(1), atol=1e-3, rtol=0)
    assert abs(torch.corrcoef(torch.stack([mended.diff()[:, 0], level[:, 0]]))[0, 1]) < 0.05


def test_what_chance_explains_is_left_as_it_is() -> None:
    """A whole covariance of as few samples would be off by more than half, the mean by .06."""
    samples, data = normal(300, 0, torch.eye(100))[..., None], normal(50_000, 1, torch.eye(100))[..., None]
    changed = ChannelMoments.fit(samples, data).apply(samples) - samples
    assert changed.square().mean().sqrt() < 0.02
    few = samples[:60]  # fewer than there are numbers
    assert (ChannelMoments.fit(few, data).apply(few) - few).square().mean().sqrt() < 0.1


def test_long_windows_can_be_mended_with_two_threads() -> None:
    """LAPACK's inverse of several large matrices fails in two threads on some processors."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        data = torch.stack([normal(800, seed, torch.eye(200)) for seed in range(4)], dim=2)
        moments = ChannelMoments.fit(1.5 * data[..., :2], data[..., 2:])
    finally:
        torch.set_num_threads(before)
    assert moments.apply(1.5 * data[..., :2]).std() == pytest.approx(1.0, abs=0.02)


def test_a_channel_that_never_changes_stays_so() -> None:
    data = torch.stack([torch.full((50, 6), 0.4), torch.rand(50, 6)], dim=2)
    made = torch.stack([torch.full((50, 6), 0.3), torch.rand(50, 6)], dim=2)
    mended = ChannelMoments.fit(made, data).apply(made)
    torch.testing.assert_close(mended[..., 0], data[..., 0])
    assert mended.isfinite().all()


def test_it_comes_back_from_its_file(tmp_path) -> None:
    made, data = normal(500, 1, 2 * torch.eye(3))[..., None], normal(500, 0, torch.eye(3))[..., None]
    moments = ChannelMoments.fit(made, data)
    moments.save(tmp_path / "moments.safetensors")
    torch.testing.assert_close(ChannelMoments.load(tmp_path / "moments.safetensors").apply(made), moments.apply(made))
    with pytest.raises(ValueError, match=r"moments of windows \[500, 3, 1\] and of \[500, 2, 1\]"):
        ChannelMoments.fit(made, data[:, :2])
    with pytest.raises(ValueError, match="moments of windows"):
        ChannelMoments.fit(made[:1], data)
