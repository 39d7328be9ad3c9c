"""The kernel distance has its analytic value, no bias, and sees a planted difference that means do not show."""

import numpy as np
import pytest

from counterpoint.evaluation.music_realism import kernel_distance, realism

RNG = np.random.default_rng(0)


def test_analytic_value():
    """One dimension, kernel (xy + 1)³: the distance is Σ c_k (E xᵏ − E yᵏ)² with c = 3, 3, 1."""
    x, y = RNG.normal(size=(4000, 1)), RNG.normal(size=(4000, 1)) + 1
    expected = 3 * 1**2 + 3 * 1**2 + 1 * 4**2  # moments of N(0, 1): 0, 1, 0; of N(1, 1): 1, 2, 4
    assert kernel_distance(x, y) == pytest.approx(expected, rel=0.12)


def test_no_bias_at_small_numbers():
    values = [kernel_distance(*RNG.normal(size=(2, 12, 8))) for _ in range(300)]
    assert np.mean(values) == pytest.approx(0, abs=3 * np.std(values) / np.sqrt(300))
    assert min(values) < 0


def test_a_spread_that_is_too_narrow_is_seen():
    real, other = RNG.normal(size=(2, 200, 16))
    scores = realism(0.5 * RNG.normal(size=(200, 16)), real, other)
    assert scores["frechet"] > 3 * scores["frechet_floor"]
    assert scores["kernel"] > 10 * abs(scores["kernel_floor"])
    assert scores["recall"] < scores["recall_floor"]
    assert scores["n"] == 200


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"\[3, 4\] and \[3, 5\]"):
        kernel_distance(np.zeros((3, 4)), np.zeros((3, 5)))
