"""The process: both ends, the target, and the way back from a prediction."""

import torch

from counterpoint.diffusion.process import add_noise, per_token, predict_clean, predict_noise, velocity


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
