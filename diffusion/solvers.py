"""The solvers by name: schedulers of diffusers, of every process, that walk the flow from noise to clean.

The four of `SOLVERS` are flow schedulers themselves. The others come from variance-preserving or EDM diffusion and
are converted (`conversion.Converted`): they are given a schedule of exactly as many steps as are taken, so that no
level falls between two trained timesteps, which would be an error of its own in DDIM and DDPM.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .conversion import Ancestral, Converted
from .process import PROCESSES, Process

SOLVERS = ("unipc", "dpm++", "euler", "heun")
CLEANEST = 0.002  # s/α of the last level but one, where a schedule does not say
EDM_SPAN = (80.0, CLEANEST)  # s/α of the first level and the last but one of EDM's schedule
STEEPEST = 1000.0  # s/α of the first level of a flow schedule, where it is infinite


@dataclass(frozen=True)
class Recipe:
    """How a scheduler of another process is made.

    Args:
        name: class in `diffusers.schedulers`.
        space: `"vp"`, or `"ve"` where it keeps the signal at 1.
        prediction: what it is told.
        options: of its constructor.
        ends: `"zero"` where its last level is clean, `"cleanest"` where it can't be.
        random: whether it draws noise (an SDE).
        schedule: of its levels, if none is asked for.
    """

    name: str
    space: str = "vp"
    prediction: str = "v_prediction"
    options: Mapping[str, Any] = field(default_factory=dict)
    ends: str = "zero"
    random: bool = False
    schedule: str = "cosine"


_K: dict[str, Any] = {"space": "ve", "prediction": "epsilon"}
_EDM: dict[str, Any] = {"space": "ve", "prediction": "edm", "schedule": "edm"}
_TRAILING = {"timestep_spacing": "trailing"}
_SDE = {"algorithm_type": "sde-dpmsolver++"}
CONVERTED: dict[str, Recipe] = {
    "ddim": Recipe("DDIMScheduler", options=_TRAILING | {"clip_sample": False}),
    "ddpm": Recipe("DDPMScheduler", options=_TRAILING | {"clip_sample": False}, random=True),
    "pndm": Recipe("PNDMScheduler", prediction="epsilon", options={"skip_prk_steps": True, "set_alpha_to_one": True}),
    "ipndm": Recipe("IPNDMScheduler"),
    "deis": Recipe("DEISMultistepScheduler", ends="cleanest"),
    "unipc-vp": Recipe("UniPCMultistepScheduler", options=_TRAILING),
    "dpm++-vp": Recipe("DPMSolverMultistepScheduler", options=_TRAILING),
    "dpm++-single": Recipe("DPMSolverSinglestepScheduler", options={"lower_order_final": True}, ends="cleanest"),
    "dpm++-sde": Recipe("DPMSolverMultistepScheduler", options=_TRAILING | _SDE, random=True),
    "sa": Recipe("SASolverScheduler", ends="cleanest", random=True),
    "euler-ve": Recipe("EulerDiscreteScheduler", options=_TRAILING, **_K),
    "euler-ancestral": Recipe("EulerAncestralDiscreteScheduler", options=_TRAILING, random=True, **_K),
    "heun-ve": Recipe("HeunDiscreteScheduler", options=_TRAILING, **_K),
    "lms": Recipe("LMSDiscreteScheduler", options=_TRAILING, **_K),
    "dpm2": Recipe("KDPM2DiscreteScheduler", options=_TRAILING, **_K),
    "dpm2-ancestral": Recipe("KDPM2AncestralDiscreteScheduler", options=_TRAILING, random=True, **_K),
    "edm-euler": Recipe("EDMEulerScheduler", **_EDM),
    "edm-dpm++": Recipe("EDMDPMSolverMultistepScheduler", **_EDM),
    "edm-dpm++-sde": Recipe("EDMDPMSolverMultistepScheduler", options=_SDE, random=True, **_EDM),
}
STOCHASTIC = ("ancestral", *(name for name, recipe in CONVERTED.items() if recipe.random))
EDM_SOLVERS = tuple(name for name, recipe in CONVERTED.items() if recipe.schedule == "edm")
ALL_SOLVERS = (*SOLVERS, "ancestral", *CONVERTED)


def make_scheduler(
    solver: str = "unipc",
    shift: float = 1.0,
    schedule: str | None = None,
    eta: float | None = None,
    span: tuple[float, float] | None = None,
) -> Any:
    """A scheduler by name, in flow coordinates; a multistep solver needs the fewest passes.

    Args:
        solver: one of `ALL_SOLVERS`; those of `STOCHASTIC` solve the SDE, the others the ODE.
        shift: `σ → shift·σ / (1 + (shift − 1)·σ)`; above 1 spends more steps near noise (arXiv:2403.03206).
        schedule: levels of a converted solver, as even steps of `t` in this process (`flow`, `cosine`, `linear`) or
            the `edm` ones (arXiv:2206.00364, eq. 5); None: `cosine`, or `edm` for the solvers of EDM.
        eta: share of new noise of `ancestral`, 0 (Euler's method) to 1; None: 1.
        span: s/α of the first level and of the last but one of the `edm` schedule; None: 80 and .002. Latents of
            variance 1 whose least deviation is r need no more than about 20 and r/3.

    Raises:
        ValueError: an unknown solver or schedule, or an option that the solver does not have.
    """
    if solver not in ALL_SOLVERS:
        raise ValueError(f"solver: {solver!r} is not one of {', '.join(ALL_SOLVERS)}")
    if eta is not None and solver != "ancestral":
        raise ValueError(f"eta: {solver} has none; ancestral has")
    if schedule is not None and solver not in CONVERTED:
        raise ValueError(f"schedule: {solver} has the flow's own")
    if span is not None and solver not in CONVERTED:
        raise ValueError(f"span: {solver} has none")
    if solver == "ancestral":
        return Ancestral(shift, 1.0 if eta is None else eta)
    if solver in SOLVERS:
        return _flow_scheduler(solver, shift)
    recipe = CONVERTED[solver]
    schedule = recipe.schedule if schedule is None else schedule
    if schedule not in PROCESSES:
        raise ValueError(f"schedule: {schedule!r} is not one of {', '.join(PROCESSES)}")
    if recipe.prediction == "edm" and schedule != "edm":
        raise ValueError(f"schedule: {solver} has the edm one only")
    if span is not None and (schedule != "edm" or not span[0] > span[1] > 0):
        raise ValueError(f"span: {span} needs the edm schedule, and first the larger of two numbers above 0")
    build = partial(_build, recipe, schedule, shift, span or EDM_SPAN)
    return Converted(build, recipe.space, recipe.prediction, recipe.random)


def set_steps(scheduler: Any, steps: int, device: torch.device | str = "cpu") -> None:
    """Sets `steps` steps from σ = 1 to 0 with no step wasted at the end."""
    if steps < 1:
        raise ValueError(f"steps: {steps} is less than 1")
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        # its default schedule spends the last step between two levels that are both nearly clean
        scheduler.set_timesteps(sigmas=torch.linspace(1.0, 1.0 / steps, steps).tolist(), device=device)
    else:
        scheduler.set_timesteps(steps, device=device)


def begin(scheduler: Any, noise: Tensor) -> Tensor:
    """Where a walk begins, from noise `[B, T, S, C]`: the noise itself, but for converted solvers.

    It also keys the random numbers of an SDE, once the steps are set.
    """
    return scheduler.begin(noise) if isinstance(scheduler, (Converted, Ancestral)) else noise


def ratios(schedule: str, steps: int, shift: float = 1.0, span: tuple[float, float] = EDM_SPAN) -> Tensor:
    """s/α of the levels of a walk, falling, without the last, which is 0: float64 `[steps]`."""
    share = torch.arange(steps, dtype=torch.float64) / steps
    if schedule == "edm":  # eq. 5 of arXiv:2206.00364
        ramp = torch.linspace(0.0, 1.0, steps, dtype=torch.float64) if steps > 1 else share
        first, last = (level ** (1 / 7) for level in span)
        return shift * (first + ramp * (last - first)) ** 7
    process = Process(schedule)
    alpha, s = process.coefficients(process.last * (1 - share))
    return shift * s / alpha.clamp_min(1 / STEEPEST)


def _flow_scheduler(solver: str, shift: float) -> Any:
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
    from diffusers.schedulers.scheduling_flow_match_heun_discrete import FlowMatchHeunDiscreteScheduler
    from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
    makers: dict[str, Callable[[], Any]] = {
        "unipc": lambda: UniPCMultistepScheduler(**flow),
        "dpm++": lambda: DPMSolverMultistepScheduler(**flow),
        "euler": lambda: FlowMatchEulerDiscreteScheduler(shift=shift),
        "heun": lambda: FlowMatchHeunDiscreteScheduler(shift=shift),
    }
    return makers[solver]()


def _build(recipe: Recipe, schedule: str, shift: float, span: tuple[float, float], steps: int) -> Any:
    """A scheduler of diffusers with a schedule of its own for `steps` steps, its timesteps set."""
    import diffusers.schedulers

    make = getattr(diffusers.schedulers, recipe.name)
    levels = ratios(schedule, steps, shift, span)
    options: dict[str, Any] = dict(recipe.options)
    if recipe.name.startswith("EDM"):
        scheduler = make(sigma_min=span[1] * shift, sigma_max=span[0] * shift, sigma_data=1.0, **options)
        scheduler.set_timesteps(steps)
        return scheduler
    if recipe.name == "IPNDMScheduler":  # its betas are s, not the variances added
        s = levels / (1 + levels.square()).sqrt()
        scheduler = make(num_train_timesteps=steps, trained_betas=[*s.tolist(), 0.0])
        scheduler.set_timesteps(steps)
        return scheduler
    if recipe.ends == "cleanest":
        levels = torch.cat([levels, levels.new_tensor([min(CLEANEST, float(levels[-1]) / 2)])])
    if recipe.name == "SASolverScheduler":
        options["tau_func"] = lambda t: 1.0  # the SDE at every level
    scheduler = make(
        num_train_timesteps=len(levels),
        trained_betas=_betas(levels.flip(0)),
        prediction_type=recipe.prediction,
        **options,
    )
    scheduler.set_timesteps(steps)
    return scheduler


def _betas(rising: Tensor) -> list[float]:
    """`β_j = 1 − ᾱ_j/ᾱ_(j−1)` of the levels s/α, the cleanest first."""
    left = 1 / (1 + rising.square())  # ᾱ
    return (1 - left / torch.cat([left.new_ones(1), left[:-1]])).tolist()
