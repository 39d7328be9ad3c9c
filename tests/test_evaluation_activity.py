"""The classifier of activities learns what there is to learn, and nothing from gaps; spectra and turns are known."""

import numpy as np
import pytest

from counterpoint.evaluation.activity import (
    Labelled,
    Standard,
    balanced_accuracy,
    recalls,
    rotations,
    spectral_distances,
    train_classifier,
)
from counterpoint.modalities.clip import ClipError


def waves(count, seed, missing=0.1):
    """Class 0 and 1: a slow and a fast sine at any phase in channel 0; class 2, rare: noise. Channel 1 is noise."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, count, p=[0.45, 0.45, 0.1])
    rate = np.array([0.5, 1.5, 0.0])[labels][:, None]
    values = 5 + 3 * rng.standard_normal((count, 32, 2))
    wave = 4 * np.sin(rate * np.arange(32) + rng.uniform(0, 6.3, (count, 1)))
    values[:, :, 0] = np.where(labels[:, None] < 2, wave + 0.5 * rng.standard_normal((count, 32)), values[:, :, 0])
    mask = rng.random(values.shape) >= missing
    return Labelled(np.where(mask, values, 0).astype(np.float32), mask, labels)


def test_it_learns_what_tells_classes_apart_and_the_seed_repeats_it():
    train, test = waves(300, 0), waves(200, 1)
    first, again = (train_classifier([train], 3, seed=3, steps=40).predict(test) for _ in range(2))
    assert balanced_accuracy(first, test.labels) > 0.9
    np.testing.assert_array_equal(first, again)
    mixed = train_classifier([train.only(np.arange(40)), waves(300, 2)], 3, steps=40).predict(test)
    assert balanced_accuracy(mixed, test.labels) > 0.9
    with pytest.raises(ClipError, match="none to train"):
        train_classifier([train, train.only(np.arange(0))], 3)


def test_what_stands_where_nothing_was_measured_does_not_matter():
    train, test = waves(60, 0, 0.3), waves(40, 1, 0.3)
    spoiled = [Labelled(np.where(own.mask, own.values, 1e6), own.mask, own.labels) for own in (train, test)]
    clean = train_classifier([train], 3, steps=10).predict(test)
    np.testing.assert_array_equal(train_classifier([spoiled[0]], 3, steps=10).predict(spoiled[1]), clean)
    scale = Standard.fit([spoiled[0]])
    x = scale.apply(train)
    assert (x[~train.mask] == 0).all()
    np.testing.assert_allclose(x[train.mask].std(), 1, atol=0.02)


def test_balanced_accuracy_counts_classes_not_windows():
    truth = np.array([0] * 8 + [1] * 2)
    assert balanced_accuracy(np.zeros(10, int), truth) == 0.5
    assert balanced_accuracy(np.array([0] * 6 + [1] * 4), truth) == pytest.approx((6 / 8 + 1) / 2)
    assert recalls(np.zeros(10, int), truth, ["a", "b", "c"]) == {"a": 1.0, "b": 0.0}


def test_a_signal_of_twice_the_height_is_six_decibels_away():
    one = waves(200, 0)
    louder = Labelled(one.values * np.float32([2, 1]), one.mask, one.labels)
    np.testing.assert_allclose(spectral_distances(louder, one), [20 * np.log10(2), 0], atol=1e-3)
    shifted = Labelled(one.values + np.float32(7) * one.mask, one.mask, one.labels)
    np.testing.assert_allclose(spectral_distances(shifted, one), 0, atol=1e-3)


def test_turning_is_measured_about_gravity_however_the_device_lies():
    rng = np.random.default_rng(0)
    up = rng.standard_normal((20, 3))
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    rate = rng.uniform(-2, 2, 20)
    values = np.concatenate([9.8 * up, rate[:, None] * up], axis=1)[:, None].repeat(16, axis=1).astype(np.float32)
    mask = rng.random(values.shape) < 0.8
    found = rotations(Labelled(np.where(mask, values, np.float32(99)), mask, np.zeros(20, int)), (0, 1, 2), (3, 4, 5))
    np.testing.assert_allclose(found, rate, rtol=1e-4)
    assert np.isnan(rotations(Labelled(values, mask & False, np.zeros(20, int)), (0, 1, 2), (3, 4, 5))).all()
