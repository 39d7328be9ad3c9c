"""The mean of what is behind a noised state: Bayes by hand, one's own where noise is weak, no bias."""

import math

import pytest
import torch
from torch import Tensor

from counterpoint.diffusion.posterior import Posterior
from counterpoint.diffusion.process import Process

PROCESSES = [Process(prediction="edm"), Process("cosine", "v_prediction"), Process("edm", "edm", 0.5)]


def points(count: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "a": torch.randn(count, 2, 1, 3, generator=generator),
        "b": torch.randn(count, 2, 2, 1, generator=generator),
    }


@pytest.mark.parametrize("process", PROCESSES)
def test_means_are_those_of_bayes(process: Process) -> None:
    data, noise = points(7), points(3, 1)
    clean = {name: x[:3] for name, x in data.items()}
    t = torch.tensor([[0.5, 0.7], [0.6, 0.6], [0.97, 0.8]])  # also one level per slot
    got, rest = Posterior(data, process).expected(clean, noise, t)
    alpha, s = (x[..., None, None] for x in process.coefficients(t))
    for row in range(3):
        states = {n: alpha[row] * clean[n][row] + s[row] * noise[n][row] for n in data}
        log = torch.tensor(
            [
                -sum(((states[n] - alpha[row] * data[n][i]) / s[row]).square().sum().item() for n in data) / 2
                for i in range(7)
            ]
        )
        weight = log.softmax(0)
        assert weight.max() < 0.999  # several come into question
        for n in data:
            mean = (weight[:, None, None, None] * data[n]).sum(0)
            torch.testing.assert_close(got[n][row], mean, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(
                alpha[row] * got[n][row] + s[row] * rest[n][row], states[n], atol=1e-5, rtol=1e-4
            )


def test_weak_noise_keeps_the_draw() -> None:
    data, noise = points(5), points(2, 1)
    clean = {name: x[:2].clone() for name, x in data.items()}
    posterior = Posterior(data, Process(prediction="edm"))
    below = posterior.least / (1 + posterior.least) - 1e-3  # of flow, where s/α = t/(1 − t)
    t = torch.tensor([[below, 0.9], [0.9, 0.9]])
    got, rest = posterior.expected(clean, noise, t)
    for n in data:
        assert torch.equal(got[n][0], clean[n][0])
        assert torch.equal(rest[n][0], noise[n][0])
        assert not torch.equal(got[n][1], clean[n][1])
    t = torch.full((2, 2), below)
    assert all(torch.equal(x, clean[n]) for n, x in Posterior(data, Process()).expected(clean, noise, t)[0].items())


def test_what_is_left_out_would_have_changed_nothing() -> None:
    data = points(400)
    posterior = Posterior(data, Process())
    flat = torch.cat([x.flatten(1) for x in data.values()], dim=1)
    nearest = (torch.cdist(flat, flat) + torch.eye(400) * 1e9).min(dim=1).values
    assert nearest.min() / 5 < posterior.least < nearest.median() / 5
    t = torch.full((400, 2), posterior.least / (1 + posterior.least) - 1e-3)
    posterior.least = 0.0
    got, _ = posterior.expected(data, points(400, 1), t)
    moved = torch.stack([(got[n] - x).flatten(1).norm(dim=1) for n, x in data.items()]).amax(0) / nearest
    assert moved.quantile(0.9) < 1e-3
    t = torch.full((400, 2), 0.6)
    got, _ = posterior.expected(data, points(400, 1), t)
    assert (got["a"] - data["a"]).abs().mean() > 0.1


def test_pure_noise_tells_nothing() -> None:
    data = points(6)
    got, rest = Posterior(data, Process()).expected({n: x[:2] for n, x in data.items()}, points(2, 1), torch.ones(2, 2))
    for n, x in data.items():
        torch.testing.assert_close(got[n], x.mean(0).expand(2, -1, -1, -1))
        torch.testing.assert_close(rest[n], points(2, 1)[n])


def test_targets_keep_their_mean_and_lose_their_spread() -> None:
    """What a network learns is the mean of targets given the state: the same, by the tower rule, for any function."""
    process = Process(prediction="edm")
    values = torch.tensor([-1.0, 0.2, 1.0])[:, None, None, None]  # [3, 1, 1, 1]
    count = 40_000
    generator = torch.Generator().manual_seed(0)
    clean = {"a": values[torch.randint(3, (count,), generator=generator)]}
    noise = {"a": torch.randn(count, 1, 1, 1, generator=generator)}
    t = torch.full((count, 1), 0.55)
    mean, rest = Posterior({"a": values}, process).expected(clean, noise, t)
    state = process.add_noise(clean["a"], noise["a"], t)
    own, exact = process.target(clean["a"], noise["a"], t), process.target(mean["a"], rest["a"], t)
    assert exact.var() < 0.5 * own.var()
    for function in (torch.ones_like(state), state, state.square(), (4 * state).sin()):
        error = ((own - exact) * function).flatten()
        assert abs(error.mean()) < 4 * error.std() / math.sqrt(count)


def test_autocast_does_not_blur_the_weights() -> None:
    data, noise = points(5), points(5, 1)
    t = torch.full((5, 2), 0.6)
    exact = Posterior(data, Process()).expected(data, noise, t)
    with torch.autocast("cpu", torch.bfloat16):
        again = Posterior(data, Process()).expected(data, noise, t)
    assert all(torch.equal(exact[i][n], again[i][n]) for i in (0, 1) for n in data)
