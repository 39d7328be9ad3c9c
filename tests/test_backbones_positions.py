"""Rotary positions in seconds: only differences of time count, and they are real seconds."""

import math

import pytest
import torch

from counterpoint.backbones.positions import apply_rotary, rotary_angles, rotary_table


def scores(query: torch.Tensor, key: torch.Tensor, at: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    """`q_i · k_j` after rotation to the times `at` and `of`, `[T, L]`."""
    channels = query.shape[-1]
    q = apply_rotary(query[None, :, None], rotary_table(at, channels, query.dtype))[0, :, 0]
    k = apply_rotary(key[None, :, None], rotary_table(of, channels, key.dtype))[0, :, 0]
    return q @ k.T


def test_scores_are_invariant_to_a_shift_in_time() -> None:
    torch.manual_seed(0)
    q, k, seconds = torch.randn(7, 16), torch.randn(7, 16), torch.arange(7) * 0.16
    shifted = scores(q, k, seconds + 3.7, seconds + 3.7)
    torch.testing.assert_close(shifted, scores(q, k, seconds, seconds), atol=1e-4, rtol=1e-4)
    assert (scores(q, k, seconds, seconds + 0.16) - shifted).abs().max() > 0.1  # an offset is seen


def test_rotation_keeps_lengths_and_time_zero() -> None:
    torch.manual_seed(0)
    x, seconds = torch.randn(2, 5, 3, 8), torch.arange(5) * 0.16
    turned = apply_rotary(x, rotary_table(seconds, 8, x.dtype))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(turned[:, 0], x[:, 0])


def test_periods_are_seconds() -> None:
    angles = rotary_angles(torch.tensor([0.25, 60.0]), 8)
    assert angles.shape == (2, 4)
    assert float(angles[0, 0]) == pytest.approx(2 * math.pi)  # one turn of the fastest pair in a quarter second
    assert float(angles[1, -1]) == pytest.approx(2 * math.pi)  # and of the slowest in a minute
    with pytest.raises(ValueError, match="head_dim: 7 is odd"):
        rotary_angles(torch.zeros(1), 7)
