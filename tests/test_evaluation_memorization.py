"""Planted copies are found, honest samples are not accused."""

import numpy as np
import pytest

from counterpoint.evaluation.memorization import memorization, nearest

RNG = np.random.default_rng(0)
TRAINING, REAL, NEW = RNG.normal(size=(3, 400, 8))


def test_nearest_is_exact_across_chunks():
    distance, index = nearest(TRAINING[[5, 300]] + 0.001, TRAINING, chunk=64)
    assert index.tolist() == [5, 300]
    assert distance == pytest.approx([0.001 * np.sqrt(8)] * 2)


def test_new_samples_look_like_held_out_ones():
    score = memorization(NEW, REAL, TRAINING)
    assert score["ratio"] == pytest.approx(1, abs=0.1)
    assert score["share_closer"] < 0.05


def test_planted_copies_are_found():
    made = NEW.copy()
    made[:100] = TRAINING[:100] + 1e-3 * RNG.normal(size=(100, 8))
    assert memorization(made, REAL, TRAINING)["share_closer"] == pytest.approx(0.25, abs=0.04)
    copies = memorization(TRAINING[:100], REAL, TRAINING)
    assert copies["ratio"] == pytest.approx(0, abs=1e-4)
    assert copies["share_closer"] == 1


def test_no_training_clips_is_an_error():
    with pytest.raises(ValueError, match="training"):
        nearest(NEW, NEW[:0])
