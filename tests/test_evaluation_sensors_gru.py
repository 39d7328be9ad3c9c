"""The recurrent judges against TensorFlow 1's formulas, worked out by hand in NumPy."""

import numpy as np
import pytest
import torch

from counterpoint.evaluation.sensors_gru import (
    TF1GRU,
    Drawn,
    TF1Adam,
    accuracies,
    discriminative_scores,
    guessed_score,
    predictive_scores,
)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_hand(network, x):
    """States of the first network on `x [T, B, C]`, as `GRUCell.call` computes them."""
    gates, gates_bias, candidate, candidate_bias = (p.detach().numpy()[0] for p in list(network.parameters())[:4])
    state = np.zeros((x.shape[1], network.hidden))
    for now in x:
        both = sigmoid(np.concatenate([now, state], axis=1) @ gates + gates_bias)
        reset, keep = both[:, : network.hidden], both[:, network.hidden :]
        new = np.tanh(np.concatenate([now, reset * state], axis=1) @ candidate + candidate_bias)
        state = keep * state + (1 - keep) * new
    return state


def test_a_step_is_tensorflow_s():
    network = TF1GRU(3, 2, [5, 6])
    x = np.random.default_rng(0).normal(size=(2, 4, 7, 3)).astype(np.float32)
    series = torch.from_numpy(x.transpose(1, 0, 3, 2))  # [T, R, C, B]
    state = network.states(series)[-1].detach().numpy().swapaxes(1, 2)
    np.testing.assert_allclose(state[0], by_hand(network, x[0]), atol=1e-6)
    np.testing.assert_allclose(state[1], by_hand(network.only(1), x[1]), atol=1e-6)
    logits = network.last(series).detach().numpy()
    dense = network.dense.detach().numpy()
    np.testing.assert_allclose(logits, (state @ dense)[..., 0], atol=1e-6)
    np.testing.assert_allclose(network.every(series).detach().numpy()[-1], logits, atol=1e-6)


def test_gradients_of_the_recurrence_are_those_of_its_values():
    """Against differences of the values, in double precision, from every step and for every weight."""
    network = TF1GRU(3, 2, [5, 6]).double()
    x = torch.rand(4, 2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = list(network.parameters())[:4]

    def states(*weights):
        return torch.func.functional_call(network, dict(zip(names, weights, strict=True)), x)

    names = [name for name, _ in network.named_parameters()][:4]
    network.forward = network.states
    assert torch.autograd.gradcheck(states, weights)


def test_weights_start_as_tensorflow_s():
    network = TF1GRU(30, 20, [1])
    for kernel, fan_in, fan_out in ((network.gates, 50, 40), (network.candidate, 50, 20), (network.dense, 20, 1)):
        limit = np.sqrt(6 / (fan_in + fan_out))
        assert kernel.shape == (1, fan_in, fan_out)
        assert kernel.abs().max() <= limit
        assert kernel.std().item() == pytest.approx(limit / np.sqrt(3), rel=0.25)
    assert (network.gates_bias == 1).all()
    assert (network.candidate_bias == 0).all()
    assert (network.dense_bias == 0).all()


def test_adam_is_tensorflow_s():
    """After one step with gradient g: lr·√(1 − β₂)/(1 − β₁) · (1 − β₁)g / (√(1 − β₂)|g| + ε)."""
    weight = torch.zeros(2, requires_grad=True)
    adam = TF1Adam([weight])
    gradient = np.array([1e-6, 2.0])
    adam.step((weight * torch.tensor(gradient, dtype=torch.float32)).sum())
    root = np.sqrt(1 - 0.999)
    expected = -1e-3 * root * gradient / (root * gradient + 1e-8)
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-4)


def test_networks_side_by_side_are_those_trained_alone():
    draws = np.random.default_rng(0)
    real, made = draws.random((60, 5, 4)).astype(np.float32), draws.random((60, 5, 4)).astype(np.float32)
    together = predictive_scores([(real, made), (made, real)], [1, 2], steps=5)
    alone = predictive_scores([(made, real)], [2], steps=5)
    assert together[1] == pytest.approx(alone[0], abs=1e-6)
    both = discriminative_scores([(real, made), (real, made + 2)], [3, 4], steps=400)
    assert both[1] == pytest.approx(discriminative_scores([(real, made + 2)], [4], steps=400)[0], abs=1e-6)
    assert both[1] > 0.4
    assert both[1] > both[0]


def test_sets_that_are_more_alike_than_chance_makes_them_are_told_apart_wrongly():
    """Of two copies of a set, what one's training part has and the other's lacks is the other way round in the rest."""
    windows = np.random.default_rng(0).random((60, 3, 12)).astype(np.float32)
    seeds = list(range(8))
    right = accuracies([(windows, windows)] * 8, seeds, steps=600)
    assert right.mean() < 0.42
    np.testing.assert_array_equal(
        discriminative_scores([(windows, windows)] * 8, seeds, steps=600), np.abs(right - 0.5)
    )


def test_the_next_value_is_foretold_from_the_other_channels():
    """The last channel repeats the first one's previous value: a network trained on it errs less than the mean does."""
    first = np.random.default_rng(0).random((400, 12, 1))
    late = np.concatenate([first[:, :1], first[:, :-1]], axis=1)
    windows = np.concatenate([first, first, first, late], axis=2).astype(np.float32)
    untrained, trained = (predictive_scores([(windows, windows)], [0], steps=n)[0] for n in (1, 400))
    assert untrained > 0.24  # a constant's error on uniform values is 0.25
    assert trained < 0.15


def test_rows_drawn_are_read_when_asked_for():
    values = np.arange(24).reshape(6, 2, 2)
    drawn = Drawn(values, np.array([4, 4, 1]))
    assert len(drawn) == 3
    np.testing.assert_array_equal(drawn[np.array([0, 2])], values[[4, 1]])


def test_who_guesses_is_not_right_just_every_other_time():
    """Four windows to test on: all or none right in 2 of 16 cases, three or one in 8; three windows: 2 and 6 of 8."""
    assert guessed_score(6, 6) == pytest.approx((2 * 0.5 + 8 * 0.25) / 16)
    assert guessed_score(6, 1) == pytest.approx((2 * 0.5 + 6 * (2 / 3 - 0.5)) / 8)
    assert guessed_score(10_000, 10_000) == pytest.approx((2 * np.pi * 4000) ** -0.5, rel=1e-3)
