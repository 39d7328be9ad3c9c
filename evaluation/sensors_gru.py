"""The two recurrent judges of the TimeGAN protocol, with TensorFlow 1's cell, initialization and Adam.

`torch.nn.GRU` would be another network: it resets the state after the product with its kernel, TensorFlow 1 before it,
and both start from other weights. All repeats of a score are trained side by side, as one more axis of every product:
these networks are so small that a step costs its calls, not its arithmetic.

Legend: `R` repeats, `B` batch, `T` time, `C` channels, `H` hidden units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor, nn
from torch.nn import functional

BATCH = 128


class TF1GRU(nn.Module):
    """`R` recurrent networks side by side: `tf.compat.v1.nn.rnn_cell.GRUCell` with a dense layer of one output on top.

        r, u = σ([x, h] W_g + b_g)     c = tanh([x, r·h] W_c + b_c)     h ← u·h + (1 − u)·c

    Kernels are Glorot-uniform, the bias of the gates is 1, all other biases 0.

    Args:
        channels: `C`.
        hidden: `H`.
        seeds: one per network.
    """

    def __init__(self, channels: int, hidden: int, seeds: Sequence[int]) -> None:
        super().__init__()
        self.channels, self.hidden = channels, hidden
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        count = len(seeds)
        self.gates = nn.Parameter(_glorot(channels + hidden, 2 * hidden, generators))  # [R, C + H, 2H]
        self.gates_bias = nn.Parameter(torch.ones(count, 1, 2 * hidden))
        self.candidate = nn.Parameter(_glorot(channels + hidden, hidden, generators))  # [R, C + H, H]
        self.candidate_bias = nn.Parameter(torch.zeros(count, 1, hidden))
        self.dense = nn.Parameter(_glorot(hidden, 1, generators))  # [R, H, 1]
        self.dense_bias = nn.Parameter(torch.zeros(count, 1, 1))

    def only(self, index: int) -> TF1GRU:
        """One of the networks, alone."""
        alone = TF1GRU(self.channels, self.hidden, [0])
        for own, all_of_them in zip(alone.parameters(), self.parameters(), strict=True):
            own.data = all_of_them.data[index : index + 1]
        return alone

    def states(self, x: Tensor) -> Tensor:
        """The state after every step, `[T, R, H, B]`, of series `[T, R, C, B]`."""
        return _Scan.apply(x, self.gates, self.gates_bias, self.candidate, self.candidate_bias)

    def last(self, x: Tensor) -> Tensor:
        """The dense layer of the last state: `[T, R, C, B]` → `[R, B]`."""
        return torch.baddbmm(self.dense_bias, self.dense.mT, self.states(x)[-1])[:, 0]

    def every(self, x: Tensor) -> Tensor:
        """The dense layer of every state: `[T, R, C, B]` → `[T, R, B]`."""
        return (self.states(x) * self.dense).sum(dim=2) + self.dense_bias[:, 0]


class _Scan(torch.autograd.Function):
    """The recurrence, with its own backward pass: autograd's graph of every step costs more than its arithmetic, and
    what one step needs stays in the cache."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gates: Tensor, gates_bias: Tensor, candidate: Tensor, candidate_bias: Tensor
    ) -> Tensor:
        """Series `[T, R, C, B]` and weights as in `TF1GRU` → states `[T, R, H, B]`."""
        time, count, channels, batch = x.shape
        hidden = candidate.shape[2]
        gates_x, gates_h = gates.mT.split([channels, hidden], dim=2)
        candidate_x, candidate_h = candidate.mT.split([channels, hidden], dim=2)
        opened, new = x.new_empty(time, count, 2 * hidden, batch), x.new_empty(time, count, hidden, batch)
        states = x.new_empty(time + 1, count, hidden, batch)
        states[0] = 0
        for t in range(time):
            torch.baddbmm(gates_bias.mT, gates_x, x[t], out=opened[t]).baddbmm_(gates_h, states[t]).sigmoid_()
            reset, keep = opened[t].split(hidden, dim=1)
            torch.baddbmm(candidate_bias.mT, candidate_x, x[t], out=new[t])
            new[t].baddbmm_(candidate_h, reset * states[t]).tanh_()
            torch.lerp(new[t], states[t], keep, out=states[t + 1])
        ctx.save_for_backward(x, opened, new, states, gates, candidate)
        return states[1:]

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the weights; the series has none."""
        x, opened, new, states, gates, candidate = ctx.saved_tensors
        channels, hidden = x.shape[2], new.shape[2]
        kernels = [*gates.split([channels, hidden], dim=1), *candidate.split([channels, hidden], dim=1)]
        slopes = [torch.zeros_like(kernel, memory_format=torch.contiguous_format) for kernel in kernels]
        gates_sum, new_sum = torch.zeros_like(opened[0]), torch.zeros_like(new[0])  # sums over time, for the biases
        by_gates, change = torch.empty_like(gates_sum), torch.zeros_like(new_sum)
        by_reset_gate, by_keep_gate = by_gates.split(hidden, dim=1)
        for t in reversed(range(len(x))):
            reset, keep = opened[t].split(hidden, dim=1)
            change = change + upstream[0][t]  # of the loss, by the state after the step
            fresh = torch.addcmul(change, change, keep, value=-1)  # by the new candidate
            by_new = torch.addcmul(fresh, fresh, new[t].square(), value=-1)  # by what enters its tanh
            by_reset = torch.bmm(kernels[3], by_new)  # by the state after its reset
            torch.mul(fresh * keep, states[t] - new[t], out=by_keep_gate)
            kept = by_reset * reset
            torch.addcmul(kept, kept, reset, value=-1, out=by_reset_gate).mul_(states[t])
            change = torch.addcmul(kept, change, keep).baddbmm_(kernels[1], by_gates)
            slopes[0].baddbmm_(x[t], by_gates.mT)
            slopes[1].baddbmm_(states[t], by_gates.mT)
            slopes[2].baddbmm_(x[t], by_new.mT)
            slopes[3].baddbmm_(reset * states[t], by_new.mT)
            gates_sum += by_gates
            new_sum += by_new
        gates_slope, candidate_slope = torch.cat(slopes[:2], dim=1), torch.cat(slopes[2:], dim=1)
        return None, gates_slope, gates_sum.sum(2)[:, None], candidate_slope, new_sum.sum(2)[:, None]


def _glorot(fan_in: int, fan_out: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Uniform within ±√(6 / (in + out)), `[R, in, out]`."""
    limit = math.sqrt(6.0 / (fan_in + fan_out))
    return torch.stack([torch.rand(fan_in, fan_out, generator=g) for g in generators]) * 2 * limit - limit


class TF1Adam:
    """`tf.compat.v1.train.AdamOptimizer()`: ε is added to a denominator that is not corrected for bias.

    w ← w − lr·√(1 − β₂ᵗ)/(1 − β₁ᵗ) · m/(√v + ε); PyTorch corrects v first.
    """

    def __init__(self, parameters: Sequence[Tensor], rate: float = 1e-3) -> None:
        self.parameters, self.rate, self.step_count = list(parameters), rate, 0
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, loss: Tensor) -> None:
        """One step down the gradient of `loss`."""
        gradients = torch.autograd.grad(loss, self.parameters)
        self.step_count += 1
        rate = self.rate * math.sqrt(1 - 0.999**self.step_count) / (1 - 0.9**self.step_count)
        for p, g, m, v in zip(self.parameters, gradients, self.first, self.second, strict=True):
            m.lerp_(g, 0.1)
            v.mul_(0.999).addcmul_(g, g, value=0.001)
            p.addcdiv_(m, v.sqrt().add_(1e-8), value=-rate)


@dataclass(frozen=True)
class Drawn:
    """Some rows of windows `[N, T, C]`, read when they are asked for."""

    values: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        return self.values[self.rows[index]]


Windows = np.ndarray | Drawn
Pair = tuple[Windows, Windows]  # real [N, T, C], generated [M, T, C]


def discriminative_scores(pairs: Sequence[Pair], seeds: Sequence[int], steps: int = 2000) -> np.ndarray:
    """|accuracy − ½| of `accuracies`, `[R]`."""
    return np.abs(accuracies(pairs, seeds, steps) - 0.5)


def accuracies(pairs: Sequence[Pair], seeds: Sequence[int], steps: int = 2000) -> np.ndarray:
    """How often a network is right that tells real windows from generated ones, once per pair, `[R]`.

    It can be right less than half of the time where the windows that it learned from and those that it is tested on
    are parts of sets that are more alike than chance makes them: what one part has too much of, the other lacks.

    One layer of ⌊C / 2⌋ units, 80 % of each set to train on, `steps` steps of 128 + 128 windows; the accuracy is that
    on the other 20 % of both.

    Args:
        pairs: (real, generated); the same array may stand in several pairs.
        seeds: one per pair, of weights, split and batches.
    """
    draws = [np.random.default_rng((seed, 1)) for seed in seeds]
    splits = [tuple(_split(len(values), draw) for values in pair) for pair, draw in zip(pairs, draws, strict=True)]
    batch = min(BATCH, *(len(train) for split in splits for train, _ in split))
    channels = pairs[0][0][np.arange(1)].shape[2]
    network = TF1GRU(channels, max(1, channels // 2), seeds)
    adam = TF1Adam(list(network.parameters()))
    labels = torch.cat([torch.ones(batch), torch.zeros(batch)]).expand(len(pairs), -1)
    for _ in range(steps):
        chosen = [
            np.concatenate([v[draw.choice(t, batch, False)] for v, (t, _) in zip(pair, split, strict=True)])
            for pair, split, draw in zip(pairs, splits, draws, strict=True)
        ]
        losses = functional.binary_cross_entropy_with_logits(network.last(_stack(chosen)), labels, reduction="none")
        adam.step(2 * losses.mean(dim=1).sum())  # the mean over real plus that over generated windows; a sum over R
    return np.array([_accuracy(network.only(i), *each) for i, each in enumerate(zip(pairs, splits, strict=True))])


def guessed_score(real: int, generated: int) -> float:
    """What the discriminative score of a network that guesses is on average.

    With `n` windows to test on, X ~ B(n, ½) answers are right, and E|X/n − ½| is not 0 (de Moivre's formula).

    Args:
        real, generated: windows of each kind, of which a fifth are tested on.
    """
    n = sum(len(_split(count, np.random.default_rng(0))[1]) for count in (real, generated))
    return float((n // 2 + 1) * binom.pmf(n // 2 + 1, n, 0.5) / n)


def predictive_scores(pairs: Sequence[Pair], seeds: Sequence[int], steps: int = 5000) -> np.ndarray:
    """Mean absolute error, on the real windows, of a network trained on the generated ones, once per pair, `[R]`.

    It reads all channels but the last, and foretells the last one's next value at every step; units and batches are
    those of `discriminative_scores`.

    Args:
        pairs: (real, generated), of two or more channels.
        seeds: one per pair.
    """
    draws = [np.random.default_rng((seed, 2)) for seed in seeds]
    batch = min(BATCH, *(len(made) for _, made in pairs))
    channels = pairs[0][0][np.arange(1)].shape[2]
    network = TF1GRU(channels - 1, max(1, channels // 2), seeds)
    adam = TF1Adam(list(network.parameters()))
    for _ in range(steps):
        chosen = [made[d.choice(len(made), batch, False)] for (_, made), d in zip(pairs, draws, strict=True)]
        adam.step(_errors(network, _stack(chosen)).sum())
    return np.array([_error(network.only(i), real) for i, (real, _) in enumerate(pairs)])


def _errors(network: TF1GRU, x: Tensor) -> Tensor:
    """Mean absolute errors `[R]` of the next values of the last channel of `[T, R, C, B]`."""
    predicted = network.every(x[:-1, :, :-1]).sigmoid()  # [T − 1, R, B]
    return (predicted - x[1:, :, -1]).abs().mean(dim=(0, 2))


def _stack(windows: Sequence[np.ndarray]) -> Tensor:
    """`R` times `[B, T, C]` → `[T, R, C, B]`."""
    return torch.from_numpy(np.stack(windows).astype(np.float32, copy=False)).permute(2, 0, 3, 1).contiguous()


def _split(count: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and rows to test on."""
    order = draw.permutation(count)
    return order[: int(0.8 * count)], order[int(0.8 * count) :]


@torch.no_grad()
def _accuracy(network: TF1GRU, pair: Pair, split: tuple[tuple[np.ndarray, np.ndarray], ...]) -> float:
    """On the rows kept for testing."""
    right = []
    for values, (_, test), real in zip(pair, split, (True, False), strict=True):
        for rows in np.array_split(test, math.ceil(len(test) / 2048)):
            right.append((network.last(_stack([values[rows]]))[0] > 0).numpy() == real)
    return float(np.concatenate(right).mean())


@torch.no_grad()
def _error(network: TF1GRU, real: Windows) -> float:
    parts = np.array_split(np.arange(len(real)), math.ceil(len(real) / 2048))
    return sum(float(_errors(network, _stack([real[rows]]))[0]) * len(rows) for rows in parts) / len(real)
