"""Reconstruction guidance against posteriors with a known answer: prior N(0, 1), linear measurements."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from counterpoint.diffusion.noise_levels import Grid
from counterpoint.diffusion.sampling import make_scheduler, sample
from counterpoint.guidance.interface import WalkState
from counterpoint.guidance.reconstruction import Measured, Reconstruction

Tracks = dict[str, Tensor]


def prior(_: str, latents: Tracks, sigma: Tracks) -> Tracks:
    """The exact velocity of x0 ~ N(0, 1)."""
    s = {name: level[:, :, None, None] for name, level in sigma.items()}
    return {n: (2 * s[n] - 1) * x / ((1 - s[n]) ** 2 + s[n] ** 2) for n, x in latents.items()}


def noise(count: int, *shape: int) -> Tracks:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(count, *shape, generator=generator) for name in ("a", "b")}


def first(clean: Tracks) -> Tensor:
    return clean["a"].flatten(1)[:, :1]


@pytest.mark.parametrize("through_network", [False, True])
@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_a_noisy_measurement_gives_the_exact_posterior_in_any_unit(unit: float, through_network: bool) -> None:
    """x0 ~ N(0, 1) measured as 1 ± .5: mean .8, variance .2."""
    measured = Measured(lambda clean: unit * first(clean), torch.tensor([unit]))
    guidance = Reconstruction(
        measurement=measured, noise=0.5 * unit, limit=math.inf, through_network=through_network, max_factor=1e4
    )
    large = unit == 1.0 and not through_network
    start = noise(20_000 if large else 200, 1, 1, 1)
    out = sample(prior, start, make_scheduler(), 40, [guidance])
    exact = 0.8 + math.sqrt(0.2) * start["a"]
    assert float((out["a"] - exact).abs().max()) < 0.02
    assert float((out["b"] - start["b"]).abs().max()) < 0.01
    assert not any(x.requires_grad for x in out.values())
    if large:
        assert float(out["a"].mean()) == pytest.approx(0.8, abs=0.012)
        assert float(out["a"].var()) == pytest.approx(0.2, abs=0.006)


@pytest.mark.parametrize("steps", [6, 30])
def test_a_noiseless_measurement_is_met_and_the_rest_stays_the_prior(steps: int) -> None:
    """The mean of 8 numbers is measured, and one of them at NaN is not asked for; at any number of steps."""
    weights = torch.zeros(2, 8)
    weights[0, :4] = 0.25
    weights[1, 5] = 1.0
    target = torch.tensor([[0.7, math.nan], [-1.2, math.nan], [0.0, math.nan]])
    guidance = Reconstruction(measurement=Measured(lambda clean: clean["a"].flatten(1) @ weights.T, target))
    start = noise(3, 2, 1, 4)
    out = sample(prior, start, make_scheduler("euler"), steps, [guidance])
    free = sample(prior, start, make_scheduler("euler"), steps)
    torch.testing.assert_close(out["a"][:, 0, 0].mean(dim=1), target[:, 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(out["a"][:, 1], free["a"][:, 1])
    for x in (out, free):  # only the mean of the four is moved
        x["a"][:, 0] -= x["a"][:, 0].mean(dim=-1, keepdim=True)
    torch.testing.assert_close(out["a"], free["a"], atol=1e-5, rtol=0)


def test_a_step_is_the_likelihoods_and_scales_with_it() -> None:
    """One number at σ = .6: the predicted clean latent moves by ω/(ω + noise²) of the residual, ω = σ²/D."""
    state, omega = at(0.6), 0.36 / 0.52
    for scale in (1.0, 0.5):
        guidance = Reconstruction(scale, measurement=Measured(first, torch.tensor([0.3])), noise=0.5, limit=math.inf)
        delta = guidance.delta(state)["a"]
        residual = first(state.clean()) - 0.3
        torch.testing.assert_close(0.6 * delta.flatten(1), scale * residual * omega / (omega + 0.25))


def at(level: float, shape: tuple[int, ...] = (1, 1, 1)) -> WalkState:
    latents = noise(5, *shape)
    sigma = {name: torch.full((5, shape[0]), level) for name in latents}
    return WalkState({"conditional": prior("", latents, sigma)}, latents, sigma, level, prior)


def test_a_step_is_limited_by_the_uncertainty() -> None:
    state = at(0.6, (2, 1, 3))
    for limit in (0.1, 1.0):
        far = Measured(lambda clean: clean["a"].flatten(1), torch.tensor(100.0))
        delta = Reconstruction(measurement=far, limit=limit).delta(state)["a"]
        moved = (0.6 * delta).flatten(1).square().mean(dim=1).sqrt()
        torch.testing.assert_close(moved, torch.full((5,), limit * 0.6 / math.sqrt(0.52)))


def test_a_met_or_blind_measurement_adds_nothing() -> None:
    state = at(0.5)
    for target in (first(state.clean()), torch.full((5, 1), math.nan)):
        delta = Reconstruction(measurement=Measured(first, target)).delta(state)
        assert not any(value.any() for value in delta.values())


def test_a_decoder_stands_before_the_measurement() -> None:
    state = at(0.5)
    plain = Reconstruction(measurement=Measured(lambda x: 2.0 * first(x), torch.tensor([1.0])), limit=math.inf)
    decoded = Reconstruction(measurement=Measured(lambda x: 2.0 * x, torch.tensor([1.0]), first), limit=math.inf)
    torch.testing.assert_close(decoded.delta(state)["a"], plain.delta(state)["a"])


def test_given_cells_are_neither_moved_nor_counted() -> None:
    """The sum of a given 2.0 and a free cell is measured as 2.5: the free one becomes .5."""
    known = {"a": torch.tensor([[True, False]]), "b": torch.zeros(1, 2, dtype=torch.bool)}
    given: dict[str, Any] = {"a": torch.full((1, 2, 1, 1), 2.0)}
    total = Measured(lambda clean: clean["a"].sum(dim=(1, 2, 3))[:, None], torch.tensor([2.5]))
    guidance = Reconstruction(measurement=total, limit=math.inf)
    grid = Grid({n: torch.ones(1, 2) for n in known}, known)
    out = sample(prior, noise(1, 2, 1, 1), make_scheduler("euler"), 8, [guidance], grid, given)
    assert out["a"].flatten().tolist() == pytest.approx([2.0, 0.5], abs=1e-4)


def test_parts_of_a_residual_get_steps_of_their_own() -> None:
    """Both numbers are met, though one is measured in a unit a thousand times as small."""

    def two(clean: Tracks) -> list[Tensor]:
        return [clean["a"].flatten(1) - 0.4, 1000.0 * (clean["b"].flatten(1) + 0.6)]

    out = sample(prior, noise(3, 1, 1, 1), make_scheduler("euler"), 8, [Reconstruction(measurement=two)])
    assert out["a"].flatten().tolist() == pytest.approx([0.4] * 3, abs=1e-4)
    assert out["b"].flatten().tolist() == pytest.approx([-0.6] * 3, abs=1e-4)
