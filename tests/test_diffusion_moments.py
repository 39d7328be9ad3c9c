"""Kept moments: the map between two Gaussians, and no more than what so many samples can show."""

import pytest
import torch
from torch import Tensor

from counterpoint.diffusion.moments import Moments, unbiased_spikes


def normal(count: int, seed: int, factor: Tensor, mean: float = 0.0) -> Tensor:
    return mean + torch.randn(count, len(factor), generator=torch.Generator().manual_seed(seed)) @ factor


def covariance(x: Tensor) -> Tensor:
    return torch.cov(x.T.double(), correction=0)


def test_new_samples_get_the_mean_and_covariance_of_the_data() -> None:
    draws = torch.Generator().manual_seed(0)
    right, wrong = (torch.eye(4) + torch.randn(4, 4, generator=draws) for _ in range(2))
    data = normal(20_000, 1, right, 2.0)
    moments = Moments.fit(data, normal(20_000, 2, wrong, -1.0))
    new = moments.apply(normal(20_000, 3, wrong, -1.0))
    scale = covariance(data).diagonal().sqrt()
    torch.testing.assert_close((new.mean(0) / scale).double(), (data.mean(0) / scale).double(), atol=0.04, rtol=0)
    torch.testing.assert_close(covariance(new / scale), covariance(data / scale), atol=0.1, rtol=0)


def test_a_step_between_parts_that_should_meet_goes_away() -> None:
    """Sixty numbers that all are one level, but for small steps; the generator makes two halves that do not meet."""

    def halves(count: int, seed: int, apart: float) -> Tensor:
        g = torch.Generator().manual_seed(seed)
        level = torch.randn(count, 1, generator=g) + apart * torch.randn(count, 2, generator=g)
        return level.repeat_interleave(30, 1) + 0.01 * torch.randn(count, 60, generator=g)

    moments = Moments.fit(halves(5000, 0, 0.003), halves(500, 1, 0.1))
    made = halves(5000, 2, 0.1)

    def step(x: Tensor) -> float:
        return float((x[:, :30].mean(1) - x[:, 30:].mean(1)).std())

    assert step(made) > 0.13
    assert step(moments.apply(made)) < 0.02
    assert moments.apply(made).std() == pytest.approx(float(made.std()), rel=0.05)


def test_what_chance_explains_is_left_as_it_is() -> None:
    samples = normal(300, 0, torch.eye(100))
    moments = Moments.fit(normal(50_000, 1, torch.eye(100)), samples)
    assert len(moments.hear) <= 2  # the largest eigenvalue may lie a little beyond the edge
    assert len(Moments.fit(normal(50_000, 1, torch.eye(100)), normal(60, 0, torch.eye(100))).hear) <= 2
    changed = moments.apply(samples) - samples
    assert changed.std() < 0.04  # a mean of 300 samples is off by 1/√300 = .06, and is not believed


def test_eigenvalues_of_few_samples_are_believed_to_be_what_is_behind_them() -> None:
    factor = torch.eye(200)
    factor[0, 0], factor[1, 1] = 3.0, 0.3
    values = torch.linalg.eigvalsh(covariance(normal(1000, 0, factor)))
    true = unbiased_spikes(values, 0.2)
    assert values[-1] > 9.2  # beyond the 9 that it is
    assert true[-1] == pytest.approx(9.0, rel=0.1)
    assert true[0] == pytest.approx(0.09, rel=0.3)
    assert (true == 1).sum() >= 195


def test_it_comes_back_from_its_file(tmp_path) -> None:
    moments = Moments.fit(normal(500, 0, torch.eye(3)), normal(500, 1, 2 * torch.eye(3)))
    moments.save(tmp_path / "moments.safetensors")
    x = normal(5, 2, torch.eye(3))
    assert torch.equal(Moments.load(tmp_path / "moments.safetensors").apply(x), moments.apply(x))
    with pytest.raises(ValueError, match="moments of data"):
        Moments.fit(normal(5, 0, torch.eye(3)), normal(5, 0, torch.eye(2)))
