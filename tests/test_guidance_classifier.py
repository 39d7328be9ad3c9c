"""Classifier guidance against posteriors with a known answer: prior N(0, 1), likelihood N(1, .5²) of x0."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from counterpoint.diffusion.noise_levels import Grid
from counterpoint.diffusion.sampling import make_scheduler, sample
from counterpoint.guidance.classifier import Classifier, CleanScore
from counterpoint.guidance.gradients import clean_variance
from counterpoint.guidance.interface import WalkState

Tracks = dict[str, Tensor]
MEAN, VARIANCE = 0.8, 0.2  # of the posterior: (1/.5²)/(1 + 1/.5²), 1/(1 + 1/.5²)


def prior(_: str, latents: Tracks, sigma: Tracks) -> Tracks:
    """The exact velocity of x0 ~ N(0, 1): E[ε − x0 | x_σ] = (2σ − 1)·x/D."""
    out = {}
    for name, x in latents.items():
        s = sigma[name][:, :, None, None]
        out[name] = (2 * s - 1) * x / ((1 - s) ** 2 + s**2)
    return out


class Exact:
    """log p(y = 1 | x_σ, σ) of y ~ N(x0, .5²), with x0 | x_σ ~ N((1 − σ)·x/D, σ²/D), from one modality."""

    def log_probability(self, latents: Tracks, sigma: Tracks, attribute: str, value: str) -> Tensor:
        if (attribute, value) != ("place", "1"):
            raise ValueError(f"{attribute}: unknown class {value!r}")
        s = sigma["a"][:, :, None, None]
        spread = (1 - s) ** 2 + s**2
        mean, variance = (1 - s) * latents["a"] / spread, 0.25 + s**2 / spread
        return (-0.5 * (1.0 - mean) ** 2 / variance).sum(dim=(1, 2, 3))


def noise(count: int = 20_000) -> Tracks:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(count, 1, 1, 1, generator=generator) for name in ("a", "b")}


def classifier(**options: Any) -> Classifier:
    return Classifier(**options, classifier=Exact(), attribute="place", value="1")


@pytest.mark.parametrize("solver", ["unipc", "heun"])
def test_the_exact_posterior_is_sampled(solver: str) -> None:
    start = noise()
    out = sample(prior, start, make_scheduler(solver), 40, [classifier()])
    assert float(out["a"].mean()) == pytest.approx(MEAN, abs=0.012)
    assert float(out["a"].var()) == pytest.approx(VARIANCE, abs=0.006)
    exact = MEAN + math.sqrt(VARIANCE) * start["a"]  # the guided flow is affine
    assert float((out["a"] - exact).abs().max()) < 0.03
    assert float((out["b"] - start["b"]).abs().max()) < 0.01  # what the classifier does not see stays the prior


def test_scale_zero_is_no_guidance_and_scales_hold_per_modality() -> None:
    start = noise(100)
    assert not classifier(scale=0.0).enabled(0.5)
    plain = sample(prior, start, make_scheduler(), 10)
    other = sample(prior, start, make_scheduler(), 10, [classifier(scales={"a": 0.0})])
    assert torch.equal(other["a"], plain["a"])
    once, twice = (classifier(scale=scale).delta(state(0.5))["a"] for scale in (1.0, 2.0))
    torch.testing.assert_close(twice, 2.0 * once)


def state(level: float, denoiser=prior) -> WalkState:
    latents = noise(16)
    sigma = {name: torch.full((16, 1), level) for name in latents}
    return WalkState({"conditional": prior("", latents, sigma)}, latents, sigma, level, denoiser)


def test_the_factor_is_cut_near_noise() -> None:
    for limit in (5.0, 50.0):
        guidance = Classifier(classifier=Exact(), attribute="place", value="1", max_factor=limit)
        at_one = guidance.delta(state(1.0))["a"]
        assert at_one.isfinite().all()
        assert float(at_one.mean()) == pytest.approx(-0.8, abs=2.0 / limit)  # the limit of σ/(1 − σ)·∇: −1/1.25
    inside = classifier().delta(state(0.6))["a"]
    wide = Classifier(classifier=Exact(), attribute="place", value="1", max_factor=1e6).delta(state(0.6))["a"]
    assert torch.equal(inside, wide)


def test_given_cells_are_left_alone() -> None:
    known = {"a": torch.tensor([[True], [False]]), "b": torch.zeros(2, 1, dtype=torch.bool)}
    grid = Grid({n: torch.ones(2, 1) for n in known}, known)
    given = {"a": torch.full((2, 1, 1, 1), -3.0)}
    out = sample(prior, noise(2), make_scheduler(), 8, [classifier()], grid, given)
    assert float(out["a"][0]) == -3.0
    assert all(x.isfinite().all() for x in out.values())


def test_an_unknown_class_is_named() -> None:
    with pytest.raises(ValueError, match="place: unknown class '2'"):
        Classifier(classifier=Exact(), attribute="place", value="2").delta(state(0.5))


def likelihood(level: float):
    """log p(y = 1 | x0 = E[x0 | x_σ]) with the variance that x0 still has: then the posterior is exact."""
    variance = 0.25 + float(clean_variance(torch.tensor([[level]])))
    return lambda clean: (-0.5 * (1.0 - clean["a"]) ** 2 / variance).sum(dim=(1, 2, 3))


@pytest.mark.parametrize("through_network", [False, True])
@pytest.mark.parametrize("level", [0.05, 0.5, 0.9])
def test_a_score_of_the_clean_prediction_is_the_same_gradient(level: float, through_network: bool) -> None:
    """For a standard normal prior the Jacobian is exact, so both ways give the noise-aware classifier's delta."""
    guidance = CleanScore(score=likelihood(level), through_network=through_network)
    delta = guidance.delta(state(level))
    torch.testing.assert_close(delta["a"], classifier().delta(state(level))["a"], rtol=1e-4, atol=1e-5)
    assert not delta["b"].any()
    assert not delta["a"].requires_grad


def test_through_network_differentiates_the_prediction() -> None:
    """Of a prior N(0, .1²) the prediction moves less with x_σ than of N(0, 1): Jacobian (1 − σ)·.01/D'."""

    def narrow(_: str, latents: Tracks, sigma: Tracks) -> Tracks:
        s = {n: level[:, :, None, None] for n, level in sigma.items()}
        return {n: (s[n] - (1 - s[n]) * 0.01) * x / ((1 - s[n]) ** 2 * 0.01 + s[n] ** 2) for n, x in latents.items()}

    def total(clean: Tracks) -> Tensor:
        return clean["a"].sum(dim=(1, 2, 3))

    delta = CleanScore(score=total, through_network=True).delta(state(0.5, narrow))["a"]
    torch.testing.assert_close(delta, torch.full_like(delta, -1.0 * 0.5 * 0.01 / (0.25 * 0.01 + 0.25)))
    default = CleanScore(score=total).delta(state(0.5, narrow))["a"]
    torch.testing.assert_close(default, torch.full_like(default, -0.5 / 0.5))


def test_it_works_without_gradients_around_it() -> None:
    with torch.no_grad():
        out = sample(prior, noise(4), make_scheduler(), 4, [classifier(), CleanScore(score=likelihood(0.5))])
    assert not any(x.requires_grad for x in out.values())


def test_a_score_or_denoiser_without_gradients_is_named() -> None:
    with pytest.raises(ValueError, match="the score has no gradient"):
        CleanScore(score=lambda clean: torch.zeros(16)).delta(state(0.5))
    blocked = torch.no_grad()(prior)
    with pytest.raises(ValueError, match="the denoiser gives no gradients"):
        CleanScore(score=likelihood(0.5), through_network=True).delta(state(0.5, blocked))
