"""How probable a clip is: the density of its latents, by the probability-flow ODE or by how well they are denoised.

    dx/dσ = v(x, σ)     ⇒     log p(x0) = log N(x1; 0, I) + ∫₀¹ div v dσ        (arXiv:1806.07366, arXiv:2011.13456)

It is the density of latents, not of pixels and samples: two models with different codecs can't be compared by it.
Cells that are known stay at σ = 0 and are conditioned on, so that log p(a|v), and with it the pointwise mutual
information log p(a|v) − log p(a), comes from the same network.

Legend: `B` batch, `T` slots, `S` tokens, `C` channels, `K` probes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .process import per_token

Tracks = dict[str, Tensor]
Denoiser = Callable[[str, Tracks, Tracks], Tracks]
Score = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], "Likelihood"]
"""`score(latents {modality: [B, T, S, C]}, known {modality: [B, T]})`: one of the two functions below, bound."""
ODE_SOLVERS = ("rk45", "midpoint")


@dataclass(frozen=True)
class Likelihood:
    """What was found.

    Args:
        log_prob: `[B]` float64, nats, of the cells that are not known.
        dimensions: `[B]`, how many numbers these cells hold.
        error: `[B]` standard error over the probes, nats; None where there are fewer than two.
        evaluations: passes of the network.
    """

    log_prob: Tensor
    dimensions: Tensor
    error: Tensor | None
    evaluations: int

    @property
    def bits_per_dimension(self) -> Tensor:
        """`−log2 p / dimensions`, `[B]`; lower is more probable."""
        return -self.log_prob / math.log(2) / self.dimensions


@dataclass(frozen=True)
class Flow:
    """How the ODE is solved.

    Args:
        solver: `rk45` of scipy, which controls its error, or `midpoint` with a fixed number of steps.
        steps: of `midpoint`, each of two passes.
        probes: Rademacher probes of Hutchinson's estimate of the divergence; 0: exact, a backward pass a dimension.
        tolerance: relative and absolute, of `rk45`.
        seed: of the probes, which are the same for all samples of a batch.

    Raises:
        ValueError: an unknown solver or a number out of range.
    """

    solver: str = "rk45"
    steps: int = 8
    probes: int = 4
    tolerance: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.solver not in ODE_SOLVERS:
            raise ValueError(f"solver: {self.solver!r} is not one of {', '.join(ODE_SOLVERS)}")
        if self.steps < 1:
            raise ValueError(f"steps: {self.steps} is less than 1")
        if self.probes < 0:
            raise ValueError(f"probes: {self.probes} is less than 0")
        if not self.tolerance > 0:
            raise ValueError(f"tolerance: {self.tolerance} is not more than 0")


def log_likelihood(
    denoiser: Denoiser,
    latents: Mapping[str, Tensor],
    known: Mapping[str, Tensor] | None = None,
    flow: Flow | None = None,
    name: str = "conditional",
) -> Likelihood:
    """Log-likelihood of the cells that are not known, given those that are, through the ODE.

    Args:
        denoiser: predicts the flow's velocity (`conversion.as_flow` where the network was trained otherwise), in
            float32: the rounding of 16 bits is all that an error-controlled solver would see.
        latents: `{modality: [B, T, S, C]}`, clean; a modality left out is integrated out by the network.
        known: `{modality: [B, T]}` bool, the cells conditioned on; None: none.
        flow: how; None: the defaults.
        name: pass of the denoiser.

    The step size of `rk45` is that of the whole batch: another batch may change the last digits within the tolerance.
    """
    flow = Flow() if flow is None else flow
    free = _free(latents, known)
    names = list(latents)
    shapes = {n: latents[n].shape for n in names}
    batch = shapes[names[0]][0]
    count = max(flow.probes, 1)
    like = latents[names[0]]
    probes = [_probe(shapes, flow.seed, k, like.device) for k in range(flow.probes)]
    calls = 0

    def slope(level: float, x: Tracks) -> tuple[Tracks, Tensor]:
        nonlocal calls
        calls += 1
        sigma = {n: free[n].to(torch.float32) * level for n in names}  # [B, T]
        with torch.enable_grad():
            inputs = {n: x[n].float().detach().requires_grad_() for n in names}
            said = denoiser(name, dict(inputs), sigma)
            v = {n: said[n].float() * per_token(free[n]) for n in names}
            divergence = _divergence(v, inputs, free, probes)  # [B, K]
        return {n: v[n].detach().double() for n in names}, divergence.double()

    start = {n: latents[n].double() for n in names}
    zero = torch.zeros(batch, count, dtype=torch.float64, device=like.device)
    solve = _midpoint if flow.solver == "midpoint" else _rk45
    end, change = solve(slope, start, zero, flow)
    dimensions = _dimensions(free, shapes)
    energy = sum((per_token(free[n]) * end[n].square()).flatten(1).sum(1) for n in names)
    prior = -0.5 * (energy + dimensions * math.log(2 * math.pi))
    error = change.std(dim=1) / count**0.5 if flow.probes > 1 else None
    return Likelihood(prior + change.mean(dim=1), dimensions, error, calls)


def denoising_likelihood(
    denoiser: Denoiser,
    latents: Mapping[str, Tensor],
    known: Mapping[str, Tensor] | None = None,
    levels: int = 16,
    seed: int = 0,
    low: float = -5.0,
    high: float = 5.0,
    name: str = "conditional",
) -> Likelihood:
    """A bound of the log-likelihood from how well the latents are denoised: one pass a level, no gradients.

    −log p(x0) = D/2·log 2πe − ∫ (1 − σ)²·[D/((1 − σ)² + σ²) − ‖v − v̂‖²] dλ with λ = logit σ: the pointwise form of
    I-MMSE (arXiv:2302.03792, eq. 9), exact in expectation over the noise for a perfect denoiser. The noise is the
    same for all samples of a batch, so that differences between them are far surer than the values themselves.

    Args:
        denoiser, latents, known, name: as for `log_likelihood`.
        levels: noise levels, even in λ.
        seed: of the noise.
        low, high: between which λ runs. A narrower range gives the part of it that these levels add, up to a constant;
            differences between samples, or with and without what is given, are then what these levels tell.
    """
    if levels < 1:
        raise ValueError(f"levels: {levels} is less than 1")
    free = _free(latents, known)
    shapes = {n: x.shape for n, x in latents.items()}
    dimensions = _dimensions(free, shapes)
    total = torch.zeros_like(dimensions, dtype=torch.float64)
    width = (high - low) / levels
    for index in range(levels):
        level = 1 / (1 + math.exp(-low - (index + 0.5) * width))
        noise = {n: _draw(shape, seed, index, n).to(latents[n].device) for n, shape in shapes.items()}
        sigma = {n: free[n].to(torch.float32) * level for n in latents}
        noised = {n: (1 - per_token(sigma[n])) * x + per_token(sigma[n]) * noise[n] for n, x in latents.items()}
        with torch.no_grad():
            v = denoiser(name, noised, sigma)
        wrong = sum(
            (per_token(free[n]) * (v[n].float() - (noise[n] - x)).square()).flatten(1).sum(1).double()
            for n, x in latents.items()
        )
        total += width * (1 - level) ** 2 * (dimensions / ((1 - level) ** 2 + level**2) - wrong)
    return Likelihood(total - dimensions / 2 * math.log(2 * math.pi * math.e), dimensions, None, levels)


def conditional(
    score: Score, latents: Mapping[str, Tensor], of: Sequence[str], given: Sequence[str] = ()
) -> Likelihood:
    """log p(of | given): the other modalities are left out, those of `given` stand at σ = 0."""
    chosen = {n: x for n, x in latents.items() if n in of or n in given}
    return score(chosen, {n: torch.full(x.shape[:2], n in given, device=x.device) for n, x in chosen.items()})


def mutual_information(together: Likelihood, alone: Likelihood) -> Tensor:
    """Pointwise mutual information in bits, `[B]`: log2 p(a|v) − log2 p(a)."""
    return (together.log_prob - alone.log_prob) / math.log(2)


def _free(latents: Mapping[str, Tensor], known: Mapping[str, Tensor] | None) -> Tracks:
    """Where cells are not known, `{modality: [B, T]}` bool."""
    if known is None:
        return {n: torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) for n, x in latents.items()}
    free = {n: ~known[n].to(x.device) for n, x in latents.items()}
    if not any(bool(cells.any()) for cells in free.values()):
        raise ValueError("known: every cell is, nothing is left to be probable")
    return free


def _dimensions(free: Tracks, shapes: Mapping[str, Sequence[int]]) -> Tensor:
    return torch.stack([cells.sum(dim=1) * math.prod(shapes[n][2:]) for n, cells in free.items()]).sum(dim=0)


def _draw(shape: Sequence[int], seed: int, index: int, name: str) -> Tensor:
    """Standard normal noise `[1, T, S, C]` keyed by all that is given."""
    draws = np.random.default_rng((seed, index, *name.encode()))
    return torch.from_numpy(draws.standard_normal((1, *shape[1:]), dtype=np.float32))


def _probe(shapes: Mapping[str, Sequence[int]], seed: int, index: int, device: torch.device) -> Tracks:
    """Random signs `{modality: [1, T, S, C]}`."""
    return {n: _draw(shape, seed, index, n).sign().to(device) for n, shape in shapes.items()}


def _divergence(v: Tracks, inputs: Tracks, free: Tracks, probes: Sequence[Tracks]) -> Tensor:
    """`Σ ∂v_i/∂x_i` over the free cells: εᵀJε for each probe, `[B, K]`; without probes exactly, `[B, 1]`."""
    names = [n for n in inputs if v[n].requires_grad and bool(free[n].any())]
    batch = next(iter(inputs.values())).shape[0]
    if not names:
        return torch.zeros(batch, max(len(probes), 1))
    xs = [inputs[n] for n in names]
    if not probes:
        return _exact_divergence(v, inputs, names)
    estimates = []
    for probe in probes:
        masked = {n: probe[n] * per_token(free[n]) for n in names}
        along = torch.autograd.grad(
            torch.stack([(v[n] * masked[n]).sum() for n in names]).sum(), xs, retain_graph=True, allow_unused=True
        )
        parts = [(g * masked[n]).flatten(1).sum(1) for n, g in zip(names, along, strict=True) if g is not None]
        estimates.append(torch.stack(parts).sum(dim=0))
    return torch.stack(estimates, dim=1)


def _exact_divergence(v: Tracks, inputs: Tracks, names: Sequence[str]) -> Tensor:
    total = torch.zeros(next(iter(inputs.values())).shape[0], dtype=torch.float64)
    for n in names:
        flat = v[n].flatten(1)  # [B, D]
        for i in range(flat.shape[1]):  # samples don't see each other: the gradient of the sum is each one's own
            (g,) = torch.autograd.grad(flat[:, i].sum(), inputs[n], retain_graph=True, allow_unused=True)
            if g is not None:
                total = total.to(g.device) + g.flatten(1)[:, i].double()
    return total[:, None]


Slope = Callable[[float, Tracks], tuple[Tracks, Tensor]]


def _midpoint(slope: Slope, x: Tracks, change: Tensor, flow: Flow) -> tuple[Tracks, Tensor]:
    """From σ = 0 to 1 in even steps of the explicit midpoint rule."""
    width = 1 / flow.steps
    for index in range(flow.steps):
        v, _ = slope(index * width, x)
        middle = {n: x[n] + 0.5 * width * v[n] for n in x}
        v, divergence = slope((index + 0.5) * width, middle)
        x = {n: x[n] + width * v[n] for n in x}
        change = change + width * divergence
    return x, change


def _rk45(slope: Slope, x: Tracks, change: Tensor, flow: Flow) -> tuple[Tracks, Tensor]:
    """From σ = 0 to 1 with scipy's Dormand–Prince pair, all samples and their divergences as one state."""
    from scipy.integrate import solve_ivp

    names, shapes = list(x), {n: x[n].shape for n in x}
    sizes = [x[n].numel() for n in names] + [change.numel()]
    device = change.device

    def unpack(state: np.ndarray) -> tuple[Tracks, Tensor]:
        parts = torch.from_numpy(state).to(device).split(sizes)
        return {n: part.view(shapes[n]) for n, part in zip(names, parts, strict=False)}, parts[-1].view(change.shape)

    def pack(tracks: Tracks, last: Tensor) -> np.ndarray:
        return torch.cat([*(tracks[n].flatten() for n in names), last.to(device).flatten()]).cpu().numpy()

    def derivative(level: float, state: np.ndarray) -> np.ndarray:
        return pack(*slope(float(level), unpack(state)[0]))

    result = solve_ivp(derivative, (0.0, 1.0), pack(x, change), rtol=flow.tolerance, atol=flow.tolerance)
    if not result.success:
        raise ValueError(f"likelihood: the ODE could not be solved within {flow.tolerance:g}: {result.message}")
    return unpack(np.ascontiguousarray(result.y[:, -1]))
