"""Normal scores: exact inverse, shared values in the middle, and what is drawn behind shared values."""

import numpy as np
import pytest
import torch

from counterpoint.data.normal_scores import NORMAL, draw_scores, fit_drawn_scores, fit_scores, from_scores, to_scores


def test_scores_are_normal_and_go_back():
    values = torch.from_numpy(np.random.default_rng(0).exponential(size=(5000, 2)))
    scores, knots = fit_scores(values, 257)
    scored = to_scores(values, knots, scores)
    assert scored.abs().max() < 3.8
    torch.testing.assert_close(scored.mean(0), torch.zeros(2).double(), atol=2e-3, rtol=0)
    torch.testing.assert_close(scored.pow(4).mean(0), torch.full((2,), 3.0).double(), atol=0.1, rtol=0)
    torch.testing.assert_close(from_scores(scored, knots, scores), values, atol=1e-4, rtol=0)
    outside = from_scores(torch.tensor([[-9.0, 9.0]]).double(), knots, scores)
    torch.testing.assert_close(outside, torch.stack([values[:, 0].min(), values[:, 1].max()])[None])


def test_a_value_that_many_share_has_the_middle_of_their_scores_even_a_rounding_away():
    values = torch.from_numpy((np.random.default_rng(0).random((1000, 1)) < 0.25).astype(np.float64))
    scores, knots = fit_scores(values, 1025)
    between, end = NORMAL.icdf(torch.tensor([(values == 0).double().mean(), 1 - 0.5 / 1000])).tolist()
    for off in (0.0, 1e-9, -1e-9):
        found = to_scores(values + off, knots, scores).unique().tolist()
        assert found == pytest.approx([(between - end) / 2, (between + end) / 2], abs=0.02)


@pytest.fixture
def process():
    """A first-order process of 12 steps, correlation .9, and its precision."""
    covariance = 0.9 ** (torch.arange(12)[:, None] - torch.arange(12)).abs().double()
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(4000, 12)))
    return noise @ torch.linalg.cholesky(covariance).T, torch.linalg.inv(covariance)


def test_drawn_scores_lie_in_their_levels_and_are_the_same_again(process):
    index = torch.bucketize(process[0], torch.tensor([0.5, 1.5]).double())
    edges, precision = fit_drawn_scores(index, 1e-5)
    torch.testing.assert_close(edges, torch.tensor([0.5, 1.5]).double(), atol=0.05, rtol=0)
    scores = draw_scores(index, edges, precision)
    assert torch.equal(torch.bucketize(scores, edges), index)
    assert torch.equal(draw_scores(index, edges, precision), scores)


def test_drawn_scores_have_the_memory_of_the_process_behind_the_levels(process):
    index = torch.bucketize(process[0], torch.tensor([0.5, 1.5]).double())
    scores = draw_scores(index, *fit_drawn_scores(index, 1e-5))
    torch.testing.assert_close(scores.mean(0), torch.zeros(12).double(), atol=0.06, rtol=0)
    torch.testing.assert_close(scores.std(0), torch.ones(12).double(), atol=0.06, rtol=0)
    found = np.corrcoef(scores.numpy().T)
    assert [found[0, k] for k in (1, 3, 6)] == pytest.approx([0.9, 0.9**3, 0.9**6], abs=0.05)
    middle = NORMAL.icdf((index.double() + 0.5) / 3)  # what needs no drawing forgets sooner
    assert np.corrcoef(middle.numpy().T)[0, 1] < found[0, 1] - 0.05


def test_drawn_scores_of_rare_levels_are_finite():
    index = torch.zeros(3000, 4, dtype=torch.long)
    index[0] = 1
    scores = draw_scores(index, *fit_drawn_scores(index, 1e-5))
    assert scores.isfinite().all()
    assert scores[0].min() > scores[1:].max()
