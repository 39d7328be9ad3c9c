"""TS2Vec: shapes, the contrastive loss on known representations, and two kinds of series told apart."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from counterpoint.evaluation.sensors_ts2vec import (
    DilatedConv,
    TS2VecEncoder,
    contrast,
    encode,
    fit_ts2vec,
    hierarchical_loss,
)


def test_shapes():
    encoder = TS2VecEncoder(3)
    assert encoder(torch.zeros(2, 7, 3)).shape == (2, 7, 320)
    assert len(encoder.blocks) == 11
    assert encode(encoder.eval(), np.zeros((700, 7, 3), np.float32)).shape == (700, 320)  # several batches


@pytest.mark.parametrize("dilation", [1, 4, 16])
def test_taps_beyond_the_series_are_left_out_without_a_difference(dilation):
    torch.manual_seed(0)
    conv, x = DilatedConv(3, 5, dilation), torch.randn(2, 3, 8)
    full = functional.conv1d(x, conv.weight, conv.bias, dilation=dilation, padding=dilation)
    torch.testing.assert_close(conv(x), full)


def test_a_masked_instant_is_not_seen():
    encoder = TS2VecEncoder(2, output=8, hidden=4, depth=1).eval()
    x, mask = torch.randn(1, 6, 2), torch.ones(1, 6, dtype=torch.bool)
    mask[0, 2] = False
    changed = x.clone()
    changed[0, 2] += 1
    torch.testing.assert_close(encoder(x, mask), encoder(changed, mask))
    assert not torch.allclose(encoder(x), encoder(changed))


def test_contrast_of_known_rows():
    """Rows that are all alike: a twin among 2n − 1 others. Rows far apart: the twin is found for certain."""
    alike = torch.ones(2, 3, 4)
    assert contrast(alike, alike).item() == pytest.approx(math.log(5))
    apart = 10 * torch.eye(3)[None]
    assert contrast(apart, apart).item() == pytest.approx(0, abs=1e-6)


def test_hierarchical_loss_of_equal_representations():
    """T = 4, B = 3, all alike: scales of 4, 2 and 1 instants; over time 2T − 1 others, between instances 5."""
    alike = torch.ones(3, 4, 2)
    scales = [(math.log(5) + math.log(7)) / 2, (math.log(5) + math.log(3)) / 2, math.log(5) / 2]
    assert hierarchical_loss(alike, alike).item() == pytest.approx(np.mean(scales))


def test_two_kinds_of_series_are_told_apart():
    draws = np.random.default_rng(0)
    time = np.arange(16)
    slow, fast = (np.sin(2 * np.pi * (f * time + draws.random((60, 1))))[..., None] for f in (1 / 16, 1 / 4))
    windows = (np.concatenate([slow, fast]) + 0.05 * draws.normal(size=(120, 16, 1))).astype(np.float32)
    features = encode(fit_ts2vec(windows, seed=0, steps=25), windows)
    kind = np.arange(120) < 60
    centres = np.stack([features[kind][:30].mean(0), features[~kind][:30].mean(0)])
    nearest = np.linalg.norm(features[:, None] - centres, axis=2).argmin(axis=1)
    unseen = np.r_[30:60, 90:120]
    assert (nearest[unseen] == np.where(kind[unseen], 0, 1)).mean() > 0.95


def test_the_fit_is_keyed_by_the_seed_and_leaves_the_generator_alone():
    windows = np.random.default_rng(0).random((20, 8, 2)).astype(np.float32)
    before = torch.random.get_rng_state()
    first, second, other = (encode(fit_ts2vec(windows, seed, steps=2), windows) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first, other)
