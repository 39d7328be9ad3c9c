"""The process: both ends, the target, and the way back from a prediction."""

import pytest
import torch

from counterpoint.diffusion.process import (
    PREDICTIONS,
    PROCESSES,
    Process,
    add_noise,
    describe,
    per_token,
    predict_clean,
    predict_noise,
    process_of,
    velocity,
)


def test_ends_derivative_and_inversion() -> None:
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    sigma = torch.tensor([[0.0, 0.5, 1.0], [0.25, 1.0, 0.0]])
    noised, v = add_noise(clean, noise, sigma), velocity(clean, noise)
    assert torch.equal(noised[0, 0], clean[0, 0])
    assert torch.equal(noised[0, 2], noise[0, 2])
    torch.testing.assert_close(noised[1, 0], 0.75 * clean[1, 0] + 0.25 * noise[1, 0])
    torch.testing.assert_close(predict_clean(noised, v, sigma), clean)
    torch.testing.assert_close(predict_noise(noised, v, sigma), noise)
    torch.testing.assert_close((add_noise(clean, noise, sigma + 0.5) - noised) / 0.5, v)  # v = dx/dσ
    assert per_token(sigma).shape == (2, 3, 1, 1)
    assert add_noise(clean.bfloat16(), noise.bfloat16(), sigma).dtype == torch.bfloat16


EVERY = [Process(kind, prediction, sigma_data=0.7) for kind in PROCESSES for prediction in PREDICTIONS]


@pytest.mark.parametrize("process", EVERY, ids=lambda p: f"{p.kind}-{p.prediction}")
def test_every_prediction_gives_back_clean_and_noise(process: Process) -> None:
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 3, 4, 5).double(), torch.randn(2, 3, 4, 5).double()
    t = torch.tensor([[0.02, 0.5, 0.97], [0.25, 0.8, 0.1]]).double()
    noised, said = process.add_noise(clean, noise, t), process.target(clean, noise, t)
    torch.testing.assert_close(process.predict_clean(noised, said, t), clean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(process.predict_noise(noised, said, t), noise, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", PROCESSES)
def test_ends_of_every_process(kind: str) -> None:
    """Clean cells are clean bit for bit, noise is (nearly) all noise, and the level of a ratio is its inverse."""
    process = Process(kind)
    clean, noise = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 4)
    assert torch.equal(process.add_noise(clean, noise, torch.zeros(1, 2)), clean)
    alpha, s = process.coefficients(torch.ones(1, 2))
    assert (alpha / s < 1 / 79).all()
    t = torch.linspace(0.01, 0.95, 20).double()
    alpha, s = process.coefficients(t)
    torch.testing.assert_close(process.level(s / alpha), t)
    assert (s / alpha).diff().gt(0).all()
    if kind in ("cosine", "linear"):
        torch.testing.assert_close(alpha**2 + s**2, torch.ones_like(t))
    assert float(process.level(torch.tensor(torch.inf))) >= process.last


def test_known_schedules() -> None:
    """Cosine as in improved DDPM, linear as the limit of DDPM's 1,000 steps, EDM's preconditioning of table 1."""
    t = torch.tensor([0.25, 0.5, 0.9]).double()
    torch.testing.assert_close(Process("cosine").coefficients(t)[0], torch.cos(t * torch.pi / 2))
    from diffusers.schedulers import DDPMScheduler

    kept = DDPMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear").alphas_cumprod.double()
    mine = Process("linear").coefficients(torch.arange(1, 1001).double() / 1000)[0]
    torch.testing.assert_close(mine, kept.sqrt(), rtol=0.06, atol=1e-3)
    edm = Process("edm", "edm", sigma_data=0.5)
    clean, noise, sigma = torch.randn(1, 1, 2, 3).double(), torch.randn(1, 1, 2, 3).double(), 1.5
    level = torch.full((1, 1), sigma / (1 + sigma)).double()
    skip, out = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / (sigma**2 + 0.25) ** 0.5
    x = clean + sigma * noise
    torch.testing.assert_close(edm.target(clean, noise, level), (clean - skip * x) / out)
    torch.testing.assert_close(edm.scale_input(x, level), x / (sigma**2 + 0.25) ** 0.5)


@pytest.mark.parametrize("kind", PROCESSES)
def test_a_deviation_per_channel_is_sigma_data_of_that_channel(kind: str) -> None:
    clean, noise, t = torch.randn(2, 3, 4, 2).double(), torch.randn(2, 3, 4, 2).double(), torch.rand(2, 3).double()
    deviation = torch.tensor([0.5, 0.02]).double()
    process = Process(kind, "edm")
    x = process.add_noise(clean, noise, t)
    said = process.target(clean, noise, t, deviation)
    for channel, own in enumerate(deviation.tolist()):
        alone = Process(kind, "edm", own)
        torch.testing.assert_close(said[..., channel], alone.target(clean, noise, t)[..., channel])
        root = sum((f * c[..., None]) ** 2 for f, c in zip((own, 1.0), process.coefficients(t), strict=True)).sqrt()
        torch.testing.assert_close(process.scale_input(x, t, deviation)[..., channel], x[..., channel] / root)
    torch.testing.assert_close(process.predict_clean(x, said, t, deviation), clean)
    torch.testing.assert_close(process.predict_noise(x, said, t, deviation), noise)


def test_the_default_is_the_flow_to_the_last_bit() -> None:
    clean, noise = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    t = torch.rand(2, 3)
    process = Process()
    assert process.is_default
    assert torch.equal(process.add_noise(clean, noise, t), add_noise(clean, noise, t))
    assert torch.equal(process.target(clean, noise, t), velocity(clean, noise))
    assert process.scale_input(clean, t) is clean
    assert process_of({}) == process
    other = Process("cosine", "epsilon")
    assert process_of({"process": describe(other)}) == other


def test_bad_processes_are_named() -> None:
    with pytest.raises(ValueError, match="process: 'vp' is not one of flow"):
        Process("vp")
    with pytest.raises(ValueError, match="prediction: 'x0' is not one of velocity"):
        Process("flow", "x0")
    with pytest.raises(ValueError, match="sigma_data: 0"):
        Process(sigma_data=0)
