"""Walks in angles: known answers for Gaussian latents and mixtures, moments that stay those of the data."""

import math

import pytest
import torch

from counterpoint.diffusion.angle_walk import LevelMoments, angle_ratios, angle_walk

DEVIATION = torch.tensor([1.0, 0.1])
SPAN = (5.0, 0.033)


def noised(windows):
    """What a walk of Gaussian latents begins with: y `[B, 3, 2]` of variance 1."""
    return torch.randn(windows, 3, 2, generator=torch.Generator().manual_seed(0))


def two_points(y, ratio):
    """F of latents that are d or −d, each half the time: E[x0 | x] = d·tanh(d·x/r²)."""
    unit = (DEVIATION.square() + ratio**2).sqrt()
    x = y * unit
    clean = DEVIATION * torch.tanh(DEVIATION * x / ratio**2)
    return (clean - DEVIATION.square() / unit.square() * x) * unit / (ratio * DEVIATION)


def test_levels_fall_over_the_span_and_lie_densest_in_the_middle():
    ratios = angle_ratios(8, SPAN)
    steps = ratios[:-2].log() - ratios[1:-1].log()
    assert ratios[0].item() == pytest.approx(5.0)
    assert (ratios[-2].item(), ratios[-1].item()) == (pytest.approx(0.033), 0.0)
    assert steps.min() > 0
    assert steps.argmin() == 3
    assert torch.allclose(steps, steps.flip(0))
    assert angle_ratios(1, SPAN).tolist() == pytest.approx([5.0, 0.0])


@pytest.mark.parametrize(("steps", "span"), [(0, SPAN), (4, (0.1, 5.0)), (4, (5.0, 0.0))])
def test_levels_that_do_not_fall_are_refused(steps, span):
    with pytest.raises(ValueError, match=f"a walk of {steps} steps"):
        angle_ratios(steps, span)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_gaussian_latents_stand_still(steps):
    """F is 0, and each channel comes out with its own deviation: exactly, in a single step."""
    y = noised(10)
    clean = angle_walk(lambda y, _: torch.zeros_like(y), y, angle_ratios(steps, SPAN), DEVIATION)
    assert torch.equal(clean, DEVIATION * y)


def test_an_f_that_is_linear_in_the_angle_is_integrated_exactly():
    """dy/dθ = −θ of each channel: y falls by θ²/2; the first step, of first order, is corrected behind it."""
    ratios = angle_ratios(6, SPAN)
    clean = angle_walk(lambda y, r: torch.atan(r / DEVIATION).expand_as(y), torch.zeros(1, 1, 2), ratios, DEVIATION)
    assert torch.allclose(clean / DEVIATION, torch.atan(SPAN[0] / DEVIATION).square() / 2, atol=1e-6)


def test_the_solver_is_of_second_order():
    """The error of a walk between two levels falls by four with twice as many steps."""
    y, errors = noised(200), []
    even = [torch.linspace(math.log(3.0), math.log(0.3), n + 1, dtype=torch.float64).exp() for n in (512, 16, 32)]
    exact, *walks = (angle_walk(two_points, y, ratios, DEVIATION) for ratios in even)
    for made in walks:
        errors.append(float((made - exact).square().mean().sqrt()))
    assert 3.3 < errors[0] / errors[1] < 5.5


def test_a_walk_ends_at_the_two_points():
    clean = angle_walk(two_points, noised(400), angle_ratios(12, SPAN), DEVIATION)
    assert (clean / DEVIATION).abs().sub(1).abs().median() < 0.05
    assert 0.4 < (clean > 0).float().mean() < 0.6


def short(y, _):
    """A network of Gaussian latents that should say 0: it leaves too little variance and a mean of its own."""
    return 0.2 - 0.1 * y


@pytest.mark.parametrize("per_slot", [False, True])
def test_moments_stay_those_of_the_data(per_slot):
    """What was fitted on some walks mends others; slots with moments of their own keep them."""
    data = DEVIATION * torch.randn(4000, 3, 2, generator=torch.Generator().manual_seed(1)).sign()
    if per_slot:
        data = data * torch.tensor([1.0, 0.5, 2.0])[:, None] + torch.tensor([0.0, 0.1, 0.0])[:, None]
    ratios = angle_ratios(8, SPAN)
    y = noised(4000)
    levels, fitted = LevelMoments.fit(short, y[:2000], ratios, DEVIATION, data, per_slot)
    bare = angle_walk(short, y[2000:], ratios, DEVIATION)
    made = angle_walk(short, y[2000:], ratios, DEVIATION, levels)
    assert levels.steps == 8
    assert levels.tensors["scale"].shape == (16, 3 if per_slot else 1, 2)
    assert torch.equal(angle_walk(short, y[:2000], ratios, DEVIATION, levels), fitted)
    over = 0 if per_slot else (0, 1)
    assert torch.allclose(fitted.mean(dim=over), data.mean(dim=over), atol=1e-3)
    for moment in torch.mean, torch.std:
        assert ((moment(made, dim=over) - moment(data, dim=over)) / DEVIATION).abs().max() < 0.08
        assert ((moment(bare, dim=over) - moment(data, dim=over)) / DEVIATION).abs().max() > 0.12


def test_moments_are_right_at_every_level():
    """Behind each step y has the mean and the deviation of noised data at that step's level."""
    data = DEVIATION * (1.5 + torch.randn(5000, 3, 2, generator=torch.Generator().manual_seed(1)).sign())
    ratios, seen = angle_ratios(5, SPAN), []
    y = noised(3000)
    levels, _ = LevelMoments.fit(two_points, y, ratios, DEVIATION, data, False)

    def watch(place, value):
        seen.append((place, levels(place, value)))
        return seen[-1][1]

    angle_walk(two_points, y, ratios, DEVIATION, watch)
    assert [place for place, _ in seen] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    for place, value in seen:
        ratio = ratios[(place + 1) // 2].item()
        unit = (DEVIATION.square() + ratio**2).sqrt()
        assert torch.allclose(value.mean(dim=(0, 1)), 1.5 * DEVIATION / unit, atol=0.03)
        wanted = (data.var(dim=(0, 1)) + ratio**2).sqrt() / unit
        assert torch.allclose(value.std(dim=(0, 1)), wanted, atol=0.03)


def test_moments_are_kept_in_a_file_and_need_two_windows(tmp_path):
    y, ratios = noised(20), angle_ratios(3, SPAN)
    levels, clean = LevelMoments.fit(two_points, y, ratios, DEVIATION, y, True)
    levels.save(tmp_path / "levels.safetensors")
    read = LevelMoments.load(tmp_path / "levels.safetensors")
    assert torch.equal(angle_walk(two_points, y, ratios, DEVIATION, read), clean)
    with pytest.raises(ValueError, match="moments of 1 and 20 windows"):
        LevelMoments.fit(two_points, y, ratios, DEVIATION, y[:1], True)
