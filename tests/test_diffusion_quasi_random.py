"""Quasi-random noise: each point normal, a set of them more even than chance, and any number the same."""

import pytest
import torch

from counterpoint.diffusion.quasi_random import QuasiRandomNoise


@pytest.mark.parametrize("size", [7, 21_220])
def test_a_point_depends_on_its_seed_and_number_alone(size):
    whole, parts = QuasiRandomNoise(size, 3), QuasiRandomNoise(size, 3)
    points = whole.draw(100)
    assert points.shape == (100, size)
    assert points.dtype == torch.float32
    assert torch.equal(torch.cat([parts.draw(1), parts.draw(60), parts.draw(39)]), points)
    later = QuasiRandomNoise(size, 3, first=61)
    assert torch.equal(torch.cat([later.draw(30), later.draw(9)]), points[61:])
    assert not torch.allclose(QuasiRandomNoise(size, 4).draw(100), points)


def test_each_point_is_normal_over_the_seeds():
    points = torch.stack([QuasiRandomNoise(3, seed).draw(2) for seed in range(2000)])  # [seeds, 2, 3]
    torch.testing.assert_close(points.mean(0), torch.zeros(2, 3), atol=0.08, rtol=0)
    torch.testing.assert_close(points.std(0), torch.ones(2, 3), atol=0.06, rtol=0)
    torch.testing.assert_close(points.pow(4).mean(0), torch.full((2, 3), 3.0), atol=0.6, rtol=0)


def test_a_set_of_points_is_nearer_to_the_law_than_independent_ones():
    size, count = 50, 2000

    def misses(points):
        points = points.double()
        covariance = points.T @ points / count
        return points.mean(0).abs().max().item(), (covariance - torch.eye(size)).pow(2).mean().sqrt().item()

    independent = torch.randn(count, size, generator=torch.Generator().manual_seed(0))
    (mean, second), (own_mean, own_second) = misses(independent), misses(QuasiRandomNoise(size, 0).draw(count))
    assert own_mean < mean / 5
    assert own_second < 0.7 * second


def test_points_are_finite_and_what_the_sequence_lacks_is_independent():
    points = QuasiRandomNoise(21_210, 0).draw(600)
    assert points.isfinite().all()
    assert points.abs().max() < 7
    assert points[:, 21_201:].std().item() == pytest.approx(1.0, abs=0.05)
    assert len(points[:, 21_201:].unique()) == 600 * 9
