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

import numpy as np
import torch
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

    def states(self, x: Tensor) -> list[Tensor]:
        """The state after every step, `T` times `[R, B, H]`, of series `[R, T, B, C]`."""
        count, time, batch = x.shape[:3]
        flat = x.flatten(1, 2)  # [R, T·B, C]
        of_x, of_h = self.gates.split([self.channels, self.hidden], dim=1)
        into_gates = torch.baddbmm(self.gates_bias, flat, of_x).unflatten(1, (time, batch)).unbind(1)
        of_x, reset_h = self.candidate.split([self.channels, self.hidden], dim=1)
        into_candidate = torch.baddbmm(self.candidate_bias, flat, of_x).unflatten(1, (time, batch)).unbind(1)
        state = x.new_zeros(count, batch, self.hidden)
        states = []
        for gate, fresh in zip(into_gates, into_candidate, strict=True):
            reset, keep = torch.baddbmm(gate, state, of_h).sigmoid().chunk(2, dim=2)  # [R, B, H] each
            new = torch.baddbmm(fresh, reset * state, reset_h).tanh()
            state = torch.lerp(new, state, keep)
            states.append(state)
        return states

    def last(self, x: Tensor) -> Tensor:
        """The dense layer of the last state: `[R, T, B, C]` → `[R, B]`."""
        return torch.baddbmm(self.dense_bias, self.states(x)[-1], self.dense)[..., 0]

    def every(self, x: Tensor) -> Tensor:
        """The dense layer of every state: `[R, T, B, C]` → `[R, T, B]`."""
        states = torch.stack(self.states(x), dim=1)  # [R, T, B, H]
        out = torch.baddbmm(self.dense_bias, states.flatten(1, 2), self.dense)
        return out[..., 0].unflatten(1, states.shape[1:3])


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
    """|accuracy − ½| of a network that tells real windows from generated ones, once per pair, `[R]`.

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
    return np.array([_chance(network.only(i), *each) for i, each in enumerate(zip(pairs, splits, strict=True))])


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
    """Mean absolute errors `[R]` of the next values of the last channel of `[R, T, B, C]`."""
    predicted = network.every(x[:, :-1, :, :-1]).sigmoid()  # [R, T − 1, B]
    return (predicted - x[:, 1:, :, -1]).abs().mean(dim=(1, 2))


def _stack(windows: Sequence[np.ndarray]) -> Tensor:
    """`R` times `[B, T, C]` → `[R, T, B, C]`."""
    return torch.from_numpy(np.stack([w.swapaxes(0, 1) for w in windows]).astype(np.float32, copy=False))


def _split(count: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and rows to test on."""
    order = draw.permutation(count)
    return order[: int(0.8 * count)], order[int(0.8 * count) :]


@torch.no_grad()
def _chance(network: TF1GRU, pair: Pair, split: tuple[tuple[np.ndarray, np.ndarray], ...]) -> float:
    """|accuracy − ½| on the rows kept for testing."""
    right = []
    for values, (_, test), real in zip(pair, split, (True, False), strict=True):
        for rows in np.array_split(test, math.ceil(len(test) / 2048)):
            right.append((network.last(_stack([values[rows]]))[0] > 0).numpy() == real)
    return abs(float(np.concatenate(right).mean()) - 0.5)


@torch.no_grad()
def _error(network: TF1GRU, real: Windows) -> float:
    parts = np.array_split(np.arange(len(real)), math.ceil(len(real) / 2048))
    return sum(float(_errors(network, _stack([real[rows]]))[0]) * len(rows) for rows in parts) / len(real)
