"""A walk with a network that errs keeps mean and variance; a right one is left alone; the file holds all of it."""

import pytest
import torch

from counterpoint.diffusion.moments import Moments, fit_moments
from counterpoint.diffusion.sampling import make_scheduler, sample
from counterpoint.guidance.interface import WalkState

MEAN = torch.tensor([0.5, -1.0, 0.0])
STD = torch.tensor([0.3, 1.0, 2.0])
STEPS = 12


def exact(_, latents, sigma):
    """The velocity for data of N(MEAN, STD²)."""
    s = sigma["a"][:, :, None, None]
    x, clean = latents["a"], 1 - s
    ratio = (s - clean * STD**2) / (clean**2 * STD**2 + s**2)
    return {"a": -MEAN + ratio * (x - clean * MEAN)}


def weak(name, latents, sigma):
    """One that moves everything too little, and downwards."""
    return {"a": exact(name, latents, sigma)["a"] * 0.8 + 0.2}


def walk(denoiser, guidances, seed, count=4000):
    noise = {"a": torch.randn(count, 2, 1, 3, generator=torch.Generator().manual_seed(seed))}
    return sample(denoiser, noise, make_scheduler("unipc"), STEPS, guidances)["a"]


@pytest.fixture(scope="module")
def data():
    draws = torch.randn(20_000, 2, 1, 3, generator=torch.Generator().manual_seed(9))
    return {"a": (draws - draws.mean(0)) / draws.std(0) * STD + MEAN}


def fitted(denoiser, data):
    return fit_moments(lambda own: walk(denoiser, [own], 1), data)


def off(x):
    return ((x.mean(0) - MEAN) / STD).abs().max(), (x.std(0) / STD - 1).abs().max()


def test_mean_and_variance_are_kept_by_a_network_that_errs(data):
    before, after = off(walk(weak, [], 2)), off(walk(weak, [fitted(weak, data)], 2))
    right = off(walk(exact, [], 2))  # of 4,000 samples: one deviation of a mean is 0.016
    for own, wrong, mended in zip(right, before, after, strict=True):
        assert wrong > 0.15
        assert mended < own + 0.02


def test_a_network_that_is_right_is_left_alone(data):
    own = fitted(exact, data)
    assert own.slope["a"].abs().max() < 0.1
    torch.testing.assert_close(walk(exact, [own], 2), walk(exact, [], 2), atol=0.2, rtol=0.0)


def test_between_levels_is_interpolated_and_beyond_them_the_last_holds():
    slope, shift = (torch.tensor(values)[:, None, None, None] for values in ([2.0, 4.0], [1.0, 0.0]))
    own = Moments(torch.tensor([0.8, 0.4]), {"a": slope}, {"a": shift})
    x = {"a": torch.full((1, 1, 1, 1), 3.0), "b": torch.ones(1, 1, 1, 1)}

    def at(level):
        return own.delta(WalkState({}, x, {}, level, exact))

    found = [float(at(level)["a"]) for level in (1.0, 0.8, 0.7, 0.4, 0.1)]
    assert found == pytest.approx([7.0, 7.0, 2.5 * 3 + 0.75, 12.0, 12.0])
    assert set(at(0.5)) == {"a"}


def test_the_file_holds_everything(data, tmp_path):
    own = fitted(weak, data)
    own.save(tmp_path / "m.safetensors")
    again = Moments.load(tmp_path / "m.safetensors")
    assert torch.equal(walk(weak, [own], 3, 5), walk(weak, [again], 3, 5))
