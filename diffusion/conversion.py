"""Any network with any solver: all of them meet in the flow process, where signal-to-noise ratios match.

    σ/(1 − σ) = s(t)/α(t)     and     x_t = (α + s)·x_σ

`as_flow` makes a network of any process and prediction speak flow and velocity; `Converted` makes a diffusers
scheduler of another process step in flow coordinates. `sample` and everything in `guidance/` know only flow.

Legend: `B` batch, `T` slots, `S` tokens, `C` channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .process import Process, per_token

Tracks = dict[str, Tensor]
Denoiser = Callable[[str, Tracks, Tracks], Tracks]


def as_flow(denoiser: Denoiser, process: Process, deviations: Mapping[str, Tensor] | None = None) -> Denoiser:
    """A network trained under `process`, as one that predicts the flow's velocity; the default is given back as it is.

    Args:
        denoiser: `(pass, latents {modality: [B, T, S, C]}, t {modality: [B, T]})` → what the network predicts.
        process: what it was trained with.
        deviations: of each modality's channels, `[C]`, where it was trained with them.

    Returns:
        a denoiser of flow latents and flow σ; above the process's noisiest level it hears that level.
    """
    if process.is_default and deviations is None:
        return denoiser

    def converted(name: str, latents: Tracks, sigma: Tracks) -> Tracks:
        t = {n: level_of(process, sigma[n]) for n in latents}
        own = {n: from_flow(process, x, t[n]) for n, x in latents.items()}  # x_t
        known = {n: None if deviations is None else deviations[n].to(x) for n, x in latents.items()}
        said = denoiser(name, {n: process.scale_input(x, t[n], known[n]) for n, x in own.items()}, t)
        return {n: to_velocity(process, latents[n], sigma[n], own[n], said[n].float(), t[n], known[n]) for n in said}

    return converted


def level_of(process: Process, sigma: Tensor) -> Tensor:
    """The process's `t` of the same signal-to-noise ratio as flow's `σ`, at most its noisiest."""
    wide = sigma.double()
    return process.level(wide / (1 - wide)).clamp_max(process.last).to(sigma.dtype)


def from_flow(process: Process, latents: Tensor, t: Tensor) -> Tensor:
    """Flow latents `[B, T, S, C]` in the scale that the process gives them at `t [B, T]`."""
    alpha, s = process.coefficients(t)
    return per_token(alpha + s).to(latents.dtype) * latents


def to_velocity(
    process: Process, latents: Tensor, sigma: Tensor, own: Tensor, said: Tensor, t: Tensor, deviation: Tensor | None
) -> Tensor:
    """`v` from x0 where it is noisy, from ε where it is clean: (x_σ − x0)/σ = (ε − x_σ)/(1 − σ) = ε − x0."""
    level = per_token(sigma).to(latents.dtype)
    from_clean = (latents - process.predict_clean(own, said, t, deviation)) / level.clamp_min(0.5)
    from_noise = (process.predict_noise(own, said, t, deviation) - latents) / (1 - level).clamp_min(0.5)
    return torch.where(level >= 0.5, from_clean, from_noise)


class Converted:
    """A diffusers scheduler of another process, in flow coordinates: what `sample` takes for a flow scheduler.

    Args:
        make: a scheduler of so many steps, its timesteps set.
        space: `"vp"` where its samples have α² + s² = 1, `"ve"` where α = 1.
        prediction: what it wants to be told: `epsilon`, `v_prediction` or `edm` (with σ_data = 1).
        random: whether its `step` draws noise.
    """

    def __init__(self, make: Callable[[int], Any], space: str, prediction: str, random: bool = False) -> None:
        self.make, self.space, self.prediction, self.random = make, space, prediction, random
        self.timesteps, self.sigmas = torch.empty(0), torch.empty(0)
        self.generators: list[torch.Generator] = []

    def set_timesteps(self, steps: int, device: torch.device | str = "cpu") -> None:
        """Builds the scheduler for `steps` steps; `sigmas` are flow levels, one more than there are timesteps."""
        self.inner, self.index = self.make(steps), 0
        self.inner.is_scale_input_called = True  # the latents are scaled here
        self.timesteps = self.inner.timesteps.to(device)
        self.ratios = ratios_of(self.inner)  # s/α, float64
        self.sigmas = (self.ratios / (1 + self.ratios)).float()

    def begin(self, noise: Tensor) -> Tensor:
        """The start of a walk from `noise [B, …]`, as noisy as the first level; keys the solver's own noise by it.

        A sample's noise comes from its seed, so that what is drawn later is the same in any batch.
        """
        self.generators = generators(noise) if self.random else []
        alpha, s = self._coefficients(0)
        return noise * ((alpha**2 + s**2) ** 0.5 / (alpha + s))

    def step(self, v: Tensor, t: Tensor, latents: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """One step from velocity `v` and flow latents `[B, T, S, C]` to flow latents at the next level."""
        alpha, s = self._coefficients(self.index)
        sigma = s / (alpha + s)
        clean, noise = latents - sigma * v, latents + (1 - sigma) * v
        if self.prediction == "v_prediction":
            root = (alpha**2 + s**2) ** 0.5
            said = (alpha * noise - s * clean) / root
        elif self.prediction == "edm":
            said = (s * clean - alpha * noise) / (alpha**2 + s**2) ** 0.5
        else:
            said = noise
        more: dict[str, Any] = {"generator": self.generators} if self.random else {}
        stepped = self.inner.step(said, t, (alpha + s) * latents, return_dict=False, **more)[0]
        self.index += 1
        alpha, s = self._coefficients(self.index)
        return (stepped.to(latents.dtype) / (alpha + s),)

    def _coefficients(self, index: int) -> tuple[float, float]:
        ratio = float(self.ratios[index])
        root = (1 + ratio**2) ** 0.5 if self.space == "vp" else 1.0
        return 1 / root, ratio / root


class Ancestral:
    """Flow matching as an SDE: each step goes a little too far down and adds the missing noise anew.

    The noise of variance σ'² that is left at the next level σ' keeps the share (1 − η²·f) of what there was, with
    f = 1 − ((σ'/(1 − σ'))/(σ/(1 − σ)))² as in DDIM (arXiv:2010.02502, eq. 16); η = 0 is Euler's method, and the
    marginals are the flow's for any η.

    Args:
        shift: as for the other flow solvers.
        eta: share of new noise, 0 to 1.
    """

    def __init__(self, shift: float = 1.0, eta: float = 1.0) -> None:
        if not 0 <= eta <= 1:
            raise ValueError(f"eta: {eta} is not between 0 and 1")
        self.shift, self.eta = shift, eta
        self.timesteps, self.sigmas = torch.empty(0), torch.empty(0)

    def set_timesteps(self, steps: int, device: torch.device | str = "cpu") -> None:
        """`steps` steps from σ = 1 to 0, even before the shift."""
        even = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
        self.sigmas = (self.shift * even / (1 + (self.shift - 1) * even)).float()
        self.timesteps, self.index = self.sigmas[:-1].to(device), 0

    def begin(self, noise: Tensor) -> Tensor:
        """Keys the noise of the walk by the noise `[B, …]` that it starts from, which comes back."""
        self.generators = generators(noise)
        return noise

    def step(self, v: Tensor, t: Tensor, latents: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """One step from velocity `v` and latents `[B, T, S, C]`."""
        now, after = float(self.sigmas[self.index]), float(self.sigmas[self.index + 1])
        self.index += 1
        clean, noise = latents - now * v, latents + (1 - now) * v
        fresh = self.eta * after * max(0.0, 1 - (after * (1 - now) / (now * (1 - after))) ** 2) ** 0.5
        kept = max(0.0, after**2 - fresh**2) ** 0.5
        if fresh == 0.0:
            return ((1 - after) * clean + kept * noise,)
        drawn = [torch.randn(latents.shape[1:], generator=generator) for generator in self.generators]
        return ((1 - after) * clean + kept * noise + fresh * torch.stack(drawn).to(latents),)


def generators(noise: Tensor) -> list[torch.Generator]:
    """One CPU generator per sample of `noise [B, …]`, keyed by the bytes of its noise."""
    rows = noise.detach().float().cpu().contiguous()
    keys = [hashlib.blake2b(row.numpy().tobytes(), digest_size=4).digest() for row in rows]  # 32 bits: all it reads
    return [torch.Generator().manual_seed(int.from_bytes(key, "little")) for key in keys]


def ratios_of(scheduler: Any) -> Tensor:
    """s/α before each call of a scheduler's `step` and after the last, float64 `[calls + 1]`."""
    calls = len(scheduler.timesteps)
    if hasattr(scheduler, "sigmas_interpol"):  # DPM2: every other call is half-way
        index = torch.arange(calls + 1)
        halves = scheduler.sigmas_interpol[index - hasattr(scheduler, "sigmas_down") * (index % 2)]  # as its step reads
        return torch.where(index % 2 == 1, halves.cpu(), scheduler.sigmas[: calls + 1]).double()
    if hasattr(scheduler, "sigmas"):
        return scheduler.sigmas[: calls + 1].double().cpu()
    if hasattr(scheduler, "alphas_cumprod"):
        left = scheduler.alphas_cumprod[scheduler.timesteps.long().cpu()].double()
        return torch.cat([((1 - left) / left).sqrt(), torch.zeros(1, dtype=torch.float64)])
    return (scheduler.betas.double() / scheduler.alphas.double())[: calls + 1].cpu()  # iPNDM calls s so
