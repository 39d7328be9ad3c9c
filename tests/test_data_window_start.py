import pytest
import torch

from counterpoint.data.window_start import LEAST, WindowStart


@pytest.fixture(scope="module")
def latents():
    """Windows `[4000, 6, 3]`: a level that lasts, one that alternates, and noise; the first slot lies higher."""
    draws = torch.Generator().manual_seed(0)
    level, turn = torch.randn(2, 4000, 1, generator=draws)
    sign = torch.tensor([1.0, -1.0]).repeat(3)
    windows = torch.stack([level.expand(-1, 6), 0.7 * turn * sign, torch.zeros(4000, 6)], dim=2)
    windows[:, 0] += 4.0
    return windows + 0.1 * torch.randn(windows.shape, generator=draws)


def test_a_walk_begins_with_the_mean_and_covariance_of_noised_windows(latents):
    ratio, count = 2.0, 200_000
    points = torch.randn(count, 3, 6, generator=torch.Generator().manual_seed(1))
    start = WindowStart.fit(latents)
    drawn = start.draw(points, ratio) * (1 + ratio**2) ** 0.5
    assert drawn.shape == (count, 6, 3)
    torch.testing.assert_close(drawn.mean(dim=0), latents.mean(dim=0), atol=0.05, rtol=0)
    wanted = torch.cov(latents.flatten(1).T) + ratio**2 * torch.eye(18)
    torch.testing.assert_close(torch.cov(drawn.flatten(1).T), wanted, atol=0.12, rtol=0)
    assert wanted[0, 3] > 0.9  # not only noise
    assert len(start.tensors["variance"]) == 2
    assert (start.tensors["variance"] > LEAST).all()


def test_the_first_number_of_a_point_goes_along_the_direction_of_the_greatest_variance(latents):
    points = torch.zeros(1, 3, 6)
    points[0, 0, 0] = 1.0
    moved = WindowStart.fit(latents).draw(points, 5.0) - WindowStart.fit(latents).draw(0 * points, 5.0)
    along = moved[0, :, 0].abs()  # all slots of the level alike
    torch.testing.assert_close(along, along.mean().expand(6), atol=0.02, rtol=0)
    assert along.norm() > 0.99 * moved.norm()


def test_windows_that_hardly_vary_begin_with_noise_about_their_mean():
    flat = 0.01 * torch.randn(100, 4, 2, generator=torch.Generator().manual_seed(0)) + 1.0
    points = torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(1))
    drawn = WindowStart.fit(flat).draw(points, 5.0) * 26**0.5
    torch.testing.assert_close(drawn, flat.mean(dim=0) + 5 * points.transpose(1, 2))


def test_the_same_windows_give_the_same_start_and_files_keep_it(latents, tmp_path):
    state = torch.random.get_rng_state()
    start = WindowStart.fit(latents)
    assert torch.equal(torch.random.get_rng_state(), state)
    start.save(tmp_path / "start.safetensors")
    again = WindowStart.load(tmp_path / "start.safetensors")
    points = torch.randn(3, 3, 6, generator=torch.Generator().manual_seed(2))
    assert torch.equal(again.draw(points, 5.0), start.draw(points, 5.0))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        assert torch.equal(WindowStart.fit(latents).draw(points, 5.0), start.draw(points, 5.0))
