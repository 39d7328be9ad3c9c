"""Likelihoods that are known in closed form: a Gaussian, a mixture, a correlated pair of tracks."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from counterpoint.diffusion.likelihood import (
    Flow,
    conditional,
    denoising_likelihood,
    log_likelihood,
    mutual_information,
)

MEAN, SPREAD = 0.5, 0.4
Tracks = dict[str, Tensor]
EXACT = Flow(probes=0, tolerance=1e-6)


def gaussian(_: str, latents: Tracks, sigma: Tracks) -> Tracks:
    """The exact velocity of x0 ~ N(MEAN, SPREAD²), independent in every number."""
    out = {}
    for name, x in latents.items():
        s = sigma[name][:, :, None, None]
        centred = (x - (1 - s) * MEAN) / ((1 - s) ** 2 * SPREAD**2 + s**2)
        out[name] = s * centred - (MEAN + (1 - s) * SPREAD**2 * centred)
    return out


def pair(covariance: Tensor):
    """The exact velocity of pairs (video, audio) ~ N(0, covariance), number by number, each at a level of its own."""
    order = ("video", "audio")

    def denoise(_: str, latents: Tracks, sigma: Tracks) -> Tracks:
        names = [n for n in order if n in latents]
        index = torch.tensor([order.index(n) for n in names])
        own = covariance[index][:, index]
        x = torch.stack([latents[n] for n in names], dim=-1)  # [B, T, S, C, 2]
        s = torch.stack([sigma[n] for n in names], dim=-1)[:, :, None, None]  # [B, T, 1, 1, 2]
        noised = (1 - s)[..., None] * own * (1 - s)[..., None, :] + torch.diag_embed(s**2)
        solved = torch.linalg.solve(noised, x[..., None])[..., 0]
        clean = (own @ ((1 - s) * solved)[..., None])[..., 0]
        v = s * solved - clean
        return {n: v[..., i] for i, n in enumerate(names)}

    return denoise


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_gaussian_is_exact() -> None:
    x = {"video": MEAN + SPREAD * draws(3, 2, 2, 2), "audio": MEAN + 2 * SPREAD * draws(3, 2, 1, 3, seed=1)}
    truth = sum(Normal(MEAN, SPREAD).log_prob(v.double()).flatten(1).sum(1) for v in x.values())
    found = log_likelihood(gaussian, x, flow=EXACT)
    torch.testing.assert_close(found.log_prob, truth, rtol=0, atol=2e-3)
    assert found.dimensions.tolist() == [14] * 3
    torch.testing.assert_close(found.bits_per_dimension, -truth / 14 / math.log(2), rtol=0, atol=1e-3)
    fixed = log_likelihood(gaussian, x, flow=Flow("midpoint", steps=40, probes=1))  # a diagonal Jacobian: no variance
    torch.testing.assert_close(fixed.log_prob, truth, rtol=0, atol=0.05)
    assert fixed.evaluations == 80
    assert fixed.error is None


def test_a_mixture_in_two_dimensions_is_exact() -> None:
    weights = torch.tensor([0.3, 0.7]).double()
    means, spreads = torch.tensor([[-1.0, 0.5], [1.0, -0.3]]).double(), torch.tensor([0.5, 0.3]).double()

    def log_parts(x: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        variance = (1 - level) ** 2 * spreads**2 + level**2  # [..., 2]
        centred = x[..., None, :] - (1 - level)[..., None] * means  # [..., component, 2]
        square = centred.square().sum(-1)
        return weights.log() - 0.5 * square / variance - torch.log(2 * math.pi * variance), centred / variance[
            ..., None
        ]

    def denoise(_: str, latents: Tracks, sigma: Tracks) -> Tracks:
        x, level = latents["video"].double(), sigma["video"].double()[:, :, None, None]
        parts, centred = log_parts(x, level)
        clean = means + ((1 - level) * spreads**2)[..., None] * centred
        share = parts.softmax(-1)[..., None]
        return {"video": (share * (level[..., None] * centred - clean)).sum(-2).float()}

    x = torch.tensor([[-1.0, 0.5], [0.1, 0.2], [1.2, -0.5], [2.0, 1.0]])[:, None, None]  # [4, 1, 1, 2]
    truth = torch.logsumexp(log_parts(x.double(), torch.zeros(4, 1, 1, 1).double())[0], -1)[:, 0, 0]
    found = log_likelihood(denoise, {"video": x}, flow=EXACT)
    torch.testing.assert_close(found.log_prob, truth, rtol=0, atol=5e-3)


COVARIANCE = torch.tensor([[1.0, 0.56], [0.56, 0.64]])  # a correlation of 0.7


def correlated(batch: int, size: int) -> Tracks:
    both = MultivariateNormal(torch.zeros(2), COVARIANCE)
    torch.manual_seed(1)
    values = both.sample((batch, 1, 1, size))  # [B, 1, 1, size, 2]
    return {"video": values[..., 0], "audio": values[..., 1]}


def test_hutchinson_is_unbiased() -> None:
    x = correlated(2, 2)
    exact = log_likelihood(pair(COVARIANCE), x, flow=Flow("midpoint", steps=6, probes=0))
    many = log_likelihood(pair(COVARIANCE), x, flow=Flow("midpoint", steps=6, probes=64, seed=3))
    assert many.error is not None
    assert ((many.log_prob - exact.log_prob).abs() < 4 * many.error).all()
    assert (many.error > 1e-3).all()  # this Jacobian is not diagonal: one probe is not enough
    few = [
        log_likelihood(pair(COVARIANCE), x, flow=Flow("midpoint", steps=6, probes=4, seed=seed)).log_prob
        for seed in (0, 0, 1)
    ]
    assert torch.equal(few[0], few[1])
    assert not torch.equal(few[0], few[2])


def test_a_conditional_and_mutual_information_are_exact() -> None:
    x = correlated(3, 2)

    def score(latents, known):
        return log_likelihood(pair(COVARIANCE), latents, known, EXACT)

    v, a = (x[n].double().flatten(1) for n in ("video", "audio"))
    alone = Normal(0.0, 0.8).log_prob(a).sum(1)
    given = Normal(0.56 * v, (0.64 - 0.56**2) ** 0.5).log_prob(a).sum(1)
    together = conditional(score, x, ["audio"], ["video"])
    single = conditional(score, x, ["audio"])
    torch.testing.assert_close(together.log_prob, given, rtol=0, atol=3e-3)
    torch.testing.assert_close(single.log_prob, alone, rtol=0, atol=3e-3)
    torch.testing.assert_close(mutual_information(together, single), (given - alone) / math.log(2), rtol=0, atol=0.01)
    assert together.dimensions.tolist() == [2, 2, 2]
    both = conditional(score, x, ["video", "audio"])
    torch.testing.assert_close(both.log_prob, given + Normal(0.0, 1.0).log_prob(v).sum(1), rtol=0, atol=5e-3)


def test_part_of_a_track_can_be_known() -> None:
    x = {"video": MEAN + SPREAD * draws(2, 3, 1, 2)}
    known = torch.tensor([[True, False, False], [True, True, False]])
    truth = (Normal(MEAN, SPREAD).log_prob(x["video"].double()).sum((2, 3)) * ~known).sum(1)
    found = log_likelihood(gaussian, x, {"video": known}, EXACT)
    torch.testing.assert_close(found.log_prob, truth, rtol=0, atol=2e-3)
    assert found.dimensions.tolist() == [4, 2]
    with pytest.raises(ValueError, match="known: every cell is"):
        log_likelihood(gaussian, x, {"video": torch.ones(2, 3, dtype=torch.bool)}, EXACT)


def test_how_well_it_is_denoised_tells_the_likelihood() -> None:
    x = {"video": MEAN + SPREAD * draws(2, 8, 8, 16)}
    x["video"][1] += 0.3  # less probable
    truth = Normal(MEAN, SPREAD).log_prob(x["video"].double()).flatten(1).sum(1)
    found = denoising_likelihood(gaussian, x, levels=128)
    torch.testing.assert_close(found.log_prob / 1024, truth / 1024, rtol=0, atol=0.06)
    assert float(found.log_prob.diff() / truth.diff()) == pytest.approx(1.0, abs=0.1)
    assert found.evaluations == 128


def test_ranges_of_noise_levels_add_up() -> None:
    x = {"video": MEAN + SPREAD * draws(2, 8, 8, 16)}
    x["video"][1] += 0.3
    whole = denoising_likelihood(gaussian, x, levels=128).log_prob.diff()
    parts = [denoising_likelihood(gaussian, x, levels=64, low=low, high=low + 5).log_prob.diff() for low in (-5.0, 0.0)]
    assert float(parts[0] + parts[1]) == pytest.approx(float(whole), rel=0.1)
    assert all(abs(float(part)) > 0.05 * abs(float(whole)) for part in parts)


def test_mutual_information_without_gradients() -> None:
    """In one step with each other 128 pairs share 0.49 bits each; out of step, they lose more than that."""
    x = correlated(1, 128)
    x = {n: torch.cat([v, v.roll(1, dims=-1) if n == "audio" else v]) for n, v in x.items()}

    def score(latents, known):
        return denoising_likelihood(pair(COVARIANCE), latents, known, levels=96)

    a, v = x["audio"].double().flatten(1), x["video"].double().flatten(1)
    ratio = Normal(0.56 * v, (0.64 - 0.56**2) ** 0.5).log_prob(a) - Normal(0.0, 0.8).log_prob(a)
    truth = ratio.sum(1) / math.log(2)
    found = mutual_information(conditional(score, x, ["audio"], ["video"]), conditional(score, x, ["audio"]))
    torch.testing.assert_close(found, truth, rtol=0.15, atol=6.0)
    assert found[0] > found[1] + 50


def test_bad_settings_are_named() -> None:
    for options, message in (
        ({"solver": "euler"}, "solver: 'euler' is not one of rk45"), ({"steps": 0}, "steps: 0"),
        ({"probes": -1}, "probes: -1"), ({"tolerance": 0.0}, "tolerance: 0"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            Flow(**options)
    with pytest.raises(ValueError, match="levels: 0"):
        denoising_likelihood(gaussian, {"video": draws(1, 1, 1, 1)}, levels=0)
