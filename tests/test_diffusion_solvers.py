"""Every solver against the flow of a Gaussian mixture, whose velocity and whose end are known."""

import copy
from functools import cache

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from counterpoint.diffusion.sampling import draw_noise, sample
from counterpoint.diffusion.solvers import (
    ALL_SOLVERS,
    CONVERTED,
    STOCHASTIC,
    begin,
    make_scheduler,
    ratios,
    set_steps,
)

WEIGHTS, MEANS, SPREADS = (torch.tensor(v) for v in ([0.4, 0.6], [-1.0, 1.2], [0.35, 0.25]))
MEAN = float((WEIGHTS * MEANS).sum())
STD = float((WEIGHTS * (MEANS**2 + SPREADS**2)).sum() - MEAN**2) ** 0.5
SHAPE = {"video": (4, 3, 8)}
Tracks = dict[str, Tensor]
# root mean square distance from the exact end after 40 steps, with a margin of about a half
TOLERANCES = {
    "unipc": 0.002, "dpm++": 0.003, "euler": 0.03, "heun": 0.001,
    "ddim": 0.03, "pndm": 0.003, "ipndm": 0.0005, "deis": 0.008, "unipc-vp": 0.0012, "dpm++-vp": 0.0025,
    "dpm++-single": 0.009, "euler-ve": 0.03, "heun-ve": 0.008, "lms": 0.003, "dpm2": 0.0025,
    "edm-euler": 0.07, "edm-dpm++": 0.015,
}  # fmt: skip


def velocity(x: Tensor, level: Tensor) -> Tensor:
    """E[ε − x0 | x_σ] of x0 from the mixture, element by element."""
    x, level = x[..., None], level[..., None]
    weights, means, spreads = (value.to(x) for value in (WEIGHTS, MEANS, SPREADS))
    variance = (1 - level) ** 2 * spreads**2 + level**2
    centred = x - (1 - level) * means
    share = torch.softmax(weights.log() - 0.5 * centred**2 / variance - 0.5 * variance.log(), dim=-1)
    centred = centred / variance
    return (share * (level * centred - (means + (1 - level) * spreads**2 * centred))).sum(dim=-1)


def mixture(_: str, latents: Tracks, sigma: Tracks) -> Tracks:
    return {name: velocity(x, sigma[name][:, :, None, None].expand_as(x)) for name, x in latents.items()}


@cache
def end_of(first: float, scale: float) -> Tensor:
    """The exact end of the walk of seeds 0-3 from level `first`, by an error-controlled integration."""
    start = scale * draw_noise(SHAPE, range(4))["video"].double()

    def slope(level: float, state: np.ndarray) -> np.ndarray:
        return velocity(torch.from_numpy(state), torch.full(state.shape, level, dtype=torch.float64)).numpy()

    found = solve_ivp(slope, (first, 0.0), start.flatten().numpy(), rtol=1e-7, atol=1e-8, method="DOP853")
    return torch.from_numpy(found.y[:, -1]).reshape(start.shape)


def test_every_solver_is_judged() -> None:
    assert {*TOLERANCES, *STOCHASTIC} == {*ALL_SOLVERS}


@pytest.mark.parametrize("solver", TOLERANCES)
def test_the_end_of_the_ode_is_found(solver: str) -> None:
    noise = draw_noise(SHAPE, range(4))
    scheduler = make_scheduler(solver)
    set_steps(scheduler, 40)
    start = begin(scheduler, noise["video"])
    scale = float((start / noise["video"]).mean())
    exact = end_of(round(float(scheduler.sigmas[0]), 6), round(scale, 6))
    out = sample(mixture, noise, make_scheduler(solver), 40)["video"]
    assert float((out - exact).square().mean().sqrt()) < TOLERANCES[solver]


@pytest.mark.parametrize("solver", STOCHASTIC)
def test_the_moments_of_the_sde_are_found(solver: str) -> None:
    """The mixture's mean and spread, the share of each component, and more than one end for one beginning."""
    noise = draw_noise({"video": (4, 8, 16)}, range(8))  # 4,096 numbers
    out = sample(mixture, noise, make_scheduler(solver), 150 if solver == "sa" else 60)["video"]
    assert float(out.mean()) == pytest.approx(MEAN, abs=0.05)
    assert float(out.std()) == pytest.approx(STD, abs=0.03)
    upper = out[out > 0.2]
    assert upper.numel() / out.numel() == pytest.approx(0.6, abs=0.03)
    assert float(upper.std()) == pytest.approx(0.25, abs=0.025)
    ode = sample(mixture, noise, make_scheduler("unipc"), 20)["video"]
    assert float((out - ode).square().mean().sqrt()) > 0.5


@pytest.mark.parametrize("solver", STOCHASTIC)
def test_a_seed_gives_the_same_sample_in_any_batch(solver: str) -> None:
    shapes = {"video": (2, 3, 8), "audio": (2, 2, 6)}
    whole = sample(mixture, draw_noise(shapes, [3, 4, 5]), make_scheduler(solver), 6)
    alone = sample(mixture, draw_noise({"audio": shapes["audio"]}, [4]), make_scheduler(solver), 6)
    torch.testing.assert_close(alone["audio"][0], whole["audio"][1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("solver", ["ancestral", *CONVERTED])
def test_few_steps_stay_finite_and_nothing_is_left_behind(solver: str) -> None:
    scheduler = make_scheduler(solver)
    before = copy.deepcopy(scheduler.__dict__)
    for steps in (1, 2, 5):
        out = sample(mixture, draw_noise(SHAPE, [0]), scheduler, steps)["video"]
        assert out.isfinite().all()
        assert abs(float(out.mean()) - MEAN) < 0.5 or solver in ("pndm", "heun-ve", "dpm2-ancestral")  # they overshoot
    assert scheduler.__dict__.keys() == before.keys()


def test_eta_zero_is_euler() -> None:
    noise = draw_noise(SHAPE, [1, 2])
    walked = sample(mixture, noise, make_scheduler("ancestral", eta=0.0), 9)["video"]
    torch.testing.assert_close(walked, sample(mixture, noise, make_scheduler("euler"), 9)["video"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("solver", ["ddim", "euler-ve", "edm-euler"])
def test_first_order_solvers_are_euler_in_the_flow(solver: str) -> None:
    """Whatever their process, x' = (1 − σ')·x0 + σ'·ε = x + (σ' − σ)·v: step by step the same, on their own levels."""
    noise, scheduler = draw_noise(SHAPE, [1, 2]), make_scheduler(solver)
    set_steps(scheduler, 8)
    x = begin(scheduler, noise["video"])
    for now, after in zip(scheduler.sigmas[:-1], scheduler.sigmas[1:], strict=True):
        x = x + (after - now) * velocity(x, now.expand_as(x))
    out = sample(mixture, noise, make_scheduler(solver), 8)["video"]
    torch.testing.assert_close(out, x, rtol=1e-3, atol=1e-3)


def test_a_span_sets_the_ends_of_the_edm_schedule() -> None:
    noise = draw_noise(SHAPE, range(4))
    for solver in ("edm-dpm++", "edm-euler"):
        scheduler = make_scheduler(solver, span=(20.0, 0.01))
        set_steps(scheduler, 24)
        first, last = (float(scheduler.sigmas[i] / (1 - scheduler.sigmas[i])) for i in (0, -2))
        assert (first, last) == (pytest.approx(20.0, rel=1e-3), pytest.approx(0.01, rel=1e-3))
    levels = ratios("edm", 24, span=(20.0, 0.01)).tolist()
    assert (levels[0], levels[-1]) == (pytest.approx(20.0), pytest.approx(0.01))
    assert ratios("edm", 24)[[0, -1]].tolist() == [pytest.approx(80.0), pytest.approx(0.002)]
    out = sample(mixture, noise, make_scheduler("edm-dpm++", span=(20.0, 0.01)), 24)["video"]
    assert out.isfinite().all()
    for solver, span, said in (("unipc", (20.0, 0.01), "unipc has none"), ("ddim", (20.0, 0.01), "needs the edm"),
                               ("edm-dpm++", (0.1, 0.2), "first the larger")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            make_scheduler(solver, span=span)


def test_schedules() -> None:
    """Each falls; a shift multiplies s/α; DDIM finds the end on any of them."""
    noise = draw_noise(SHAPE, range(4))
    for schedule in ("flow", "cosine", "linear", "edm"):
        levels = ratios(schedule, 40)
        assert (levels.diff() < 0).all()
        torch.testing.assert_close(ratios(schedule, 40, 3.0), 3 * levels)
        scheduler = make_scheduler("unipc-vp", schedule=schedule)
        set_steps(scheduler, 40)
        assert float(scheduler.sigmas[1]) == pytest.approx(float(levels[1] / (1 + levels[1])), rel=2e-3)
        scale = float((begin(scheduler, noise["video"]) / noise["video"]).mean())
        exact = end_of(round(float(scheduler.sigmas[0]), 6), round(scale, 6))
        out = sample(mixture, noise, make_scheduler("unipc-vp", schedule=schedule), 40)["video"]
        assert float((out - exact).square().mean().sqrt()) < 0.03


def test_bad_requests_are_named() -> None:
    for options, message in (
        ({"solver": "lcm"}, "solver: 'lcm' is not one of unipc"),
        ({"solver": "ddim", "schedule": "sine"}, "schedule: 'sine' is not one of flow"),
        ({"solver": "euler", "schedule": "linear"}, "schedule: euler has the flow's own"),
        ({"solver": "edm-euler", "schedule": "linear"}, "schedule: edm-euler has the edm one only"),
        ({"solver": "ddim", "eta": 0.5}, "eta: ddim has none"),
        ({"solver": "ancestral", "eta": 2.0}, "eta: 2.0 is not between 0 and 1"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            make_scheduler(**options)
