"""The sampler against flows with a known answer, against diffusers' own step, and cell by cell."""

import copy
from collections.abc import Mapping

import pytest
import torch
from diffusers.schedulers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from counterpoint.diffusion.noise_levels import Grid, generation_grid
from counterpoint.diffusion.sampling import SOLVERS, draw_noise, make_scheduler, sample, set_steps
from counterpoint.guidance.classifier_free import ClassifierFree

MEAN, SPREAD = 1.5, 0.4
SHAPES = {"video": (4, 3, 8), "audio": (4, 2, 6)}
Tracks = dict[str, Tensor]


def gaussian(_: str, latents: Tracks, sigma: Tracks) -> Tracks:
    """The exact velocity E[ε − x0 | x_σ] of x0 ~ N(MEAN, SPREAD²)."""
    out = {}
    for name, x in latents.items():
        s = sigma[name][:, :, None, None]
        centred = (x - (1 - s) * MEAN) / ((1 - s) ** 2 * SPREAD**2 + s**2)
        out[name] = s * centred - (MEAN + (1 - s) * SPREAD**2 * centred)
    return out


def error(solver: str, steps: int) -> float:
    """Root mean square distance from the flow's exact end, `MEAN + SPREAD · ε`, in units of SPREAD."""
    noise = draw_noise(SHAPES, range(8))
    out = sample(gaussian, noise, make_scheduler(solver), steps)
    exact = {name: MEAN + SPREAD * x for name, x in noise.items()}
    return max(float((out[n] - exact[n]).square().mean().sqrt()) / SPREAD for n in noise)


@pytest.mark.parametrize(("solver", "steps", "tolerance"), [
    ("euler", 20, 0.15), ("euler", 200, 0.015), ("heun", 20, 0.01), ("dpm++", 20, 0.02), ("unipc", 10, 0.02),
    ("unipc", 200, 0.0005),
])  # fmt: skip
def test_the_end_of_a_gaussians_flow_is_found(solver: str, steps: int, tolerance: float) -> None:
    assert error(solver, steps) < tolerance


def test_few_steps_of_a_multistep_solver_beat_euler() -> None:
    assert error("unipc", 8) < 0.25 * error("euler", 8)
    assert error("unipc", 8) < error("euler", 20)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_very_few_steps_stay_finite(solver: str, steps: int) -> None:
    out = sample(gaussian, draw_noise(SHAPES, [0]), make_scheduler(solver), steps)
    assert all(x.isfinite().all() for x in out.values())
    assert abs(float(out["video"].mean()) - MEAN) < 0.5


def test_euler_agrees_with_diffusers() -> None:
    noise = draw_noise(SHAPES, [3, 4])
    for shift in (1.0, 3.0):
        theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
        theirs.set_timesteps(sigmas=torch.linspace(1, 1 / 7, 7).tolist())
        x = noise["video"]
        for t in theirs.timesteps:
            level = torch.full(x.shape[:2], float(t) / 1000)
            x = theirs.step(gaussian("", {"x": x}, {"x": level})["x"], t, x, return_dict=False)[0]
        mine = sample(gaussian, noise, make_scheduler("euler", shift), 7)["video"]
        torch.testing.assert_close(mine, x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_level_told_is_the_level_of_the_walk(solver: str) -> None:
    """The network hears the scheduler's σ, the same for all cells, and not a timestep cut to an integer."""
    told: list[float] = []

    def listen(_: str, latents: Tracks, sigma: Tracks) -> Tracks:
        assert all(s.shape == latents[n].shape[:2] and (s == s[0, 0]).all() for n, s in sigma.items())
        told.append(float(sigma["audio"][0, 0]))
        return gaussian("", latents, sigma)

    scheduler = make_scheduler(solver)
    before = copy.deepcopy(scheduler.__dict__)
    sample(listen, draw_noise(SHAPES, [0]), scheduler, 7)
    assert scheduler.__dict__.keys() == before.keys()
    assert torch.equal(torch.as_tensor(scheduler.timesteps), torch.as_tensor(before["timesteps"]))  # left untouched
    set_steps(scheduler, 7)
    assert told == pytest.approx(scheduler.sigmas[:-1].tolist())
    assert told == sorted(told, reverse=True)
    assert told[0] == pytest.approx(1.0, abs=2e-3)


def test_no_pass_is_wasted() -> None:
    """With guidance a step costs two passes inside the interval and one outside; without, one."""
    for guidances, expected in (
        ([], 8), ([ClassifierFree(2.0)], 16), ([ClassifierFree(1.0)], 8), ([ClassifierFree(2.0)] * 2, 16),
        ([ClassifierFree(2.0, interval=(0.3, 0.7))], 11),
    ):  # fmt: skip
        asked: list[str] = []

        def count(name: str, latents: Tracks, sigma: Tracks, asked=asked) -> Tracks:
            asked.append(name)
            return gaussian(name, latents, sigma)

        done: list[tuple[int, int]] = []
        sample(count, draw_noise(SHAPES, [0]), make_scheduler(), 8, guidances, progress=lambda *x, d=done: d.append(x))
        assert len(asked) == expected
        assert done == [(i, 8) for i in range(1, 9)]


def test_guidance_is_added_to_the_conditional_velocity() -> None:
    def denoise(name: str, latents: Tracks, _: Tracks) -> Tracks:
        return {n: torch.full_like(x, -1.0 if name == "conditional" else -0.25) for n, x in latents.items()}

    noise = draw_noise(SHAPES, [0])
    guidances = [ClassifierFree(3.0, scales={"audio": 1.0}), ClassifierFree(2.0, scales={"video": 1.0})]
    out = sample(denoise, noise, make_scheduler("euler"), 4, guidances)
    torch.testing.assert_close(out["video"], noise["video"] + 1.0 + 2.0 * 0.75)  # σ falls by 1: x0 = x1 − v
    torch.testing.assert_close(out["audio"], noise["audio"] + 1.0 + 1.0 * 0.75)


def some_known() -> tuple[Grid, Mapping[str, Tensor]]:
    plain = generation_grid(list(SHAPES), 2, 4)
    known = {name: torch.zeros(2, 4, dtype=torch.bool) for name in SHAPES}
    known["video"][:, :2] = True
    known["video"][1, 3] = True
    return Grid(plain.sigma, known), draw_noise(SHAPES, [100, 101])


@pytest.mark.parametrize("solver", SOLVERS)
def test_known_cells_come_back_bit_identical(solver: str) -> None:
    grid, given = some_known()
    told: list[Tracks] = []

    def listen(name: str, latents: Tracks, sigma: Tracks) -> Tracks:
        assert torch.equal(latents["video"][grid.known["video"]], given["video"][grid.known["video"]])
        told.append(sigma)
        return gaussian(name, latents, sigma)

    noise = draw_noise(SHAPES, [0, 1])
    out = sample(listen, noise, make_scheduler(solver), 5, grid=grid, given=given)
    known = grid.known["video"]
    assert torch.equal(out["video"][known], given["video"][known])
    assert all((s["video"][known] == 0).all() and (s["video"][~known] > 0).all() for s in told)
    assert all((s["audio"] > 0).all() for s in told)
    free = sample(gaussian, noise, make_scheduler(solver), 5)
    assert torch.equal(out["video"][~known], free["video"][~known])  # this velocity is cell by cell: no influence
    assert torch.equal(out["audio"], free["audio"])


@pytest.mark.parametrize("solver", [*SOLVERS, "ancestral"])
def test_cells_walk_from_the_level_of_the_grid(solver: str) -> None:
    """Some cells from σ = 1, some from 0.6, some from 0.2: each finds the end of its own flow."""
    start = {name: torch.tensor([[1.0, 0.6, 0.6, 0.2]]).expand(8, -1) for name in SHAPES}
    start["audio"] = torch.full((8, 4), 0.6)
    grid = Grid(start, {name: torch.zeros(8, 4, dtype=torch.bool) for name in SHAPES})
    noise = draw_noise(SHAPES, range(8))
    at = {name: level[:, :, None, None] for name, level in start.items()}
    spread = {name: ((1 - s) ** 2 * SPREAD**2 + s**2).sqrt() for name, s in at.items()}
    told: list[Tracks] = []

    def listen(name: str, latents: Tracks, sigma: Tracks) -> Tracks:
        told.append(sigma)
        return gaussian(name, latents, sigma)

    begun = {name: (1 - at[name]) * MEAN + spread[name] * x for name, x in noise.items()}
    out = sample(listen, begun, make_scheduler(solver), 40, grid=grid)
    for name, x in noise.items():
        torch.testing.assert_close(told[0][name], start[name], atol=1e-3, rtol=1e-3)
        if solver == "ancestral":  # only the distribution is known
            assert float(out[name].mean()) == pytest.approx(MEAN, abs=0.15)
            assert float(out[name].std()) == pytest.approx(SPREAD, rel=0.2)
        else:
            assert float((out[name] - (MEAN + SPREAD * x)).square().mean().sqrt()) / SPREAD < 0.1
    ratio = told[20]["video"][0] / told[20]["video"][0, 0]
    torch.testing.assert_close(ratio, start["video"][0], atol=1e-3, rtol=1e-3)


def test_known_cells_need_latents() -> None:
    grid, given = some_known()
    noise = draw_noise(SHAPES, [0, 1])
    for missing in (None, {"audio": given["audio"]}):
        with pytest.raises(ValueError, match="video: the grid calls cells known, but no latents are given"):
            sample(gaussian, noise, make_scheduler(), 2, grid=grid, given=missing)


def test_bad_solver_and_steps_are_named() -> None:
    with pytest.raises(ValueError, match="solver: 'rk45' is not one of unipc"):
        make_scheduler("rk45")
    with pytest.raises(ValueError, match="steps: 0 is less than 1"):
        sample(gaussian, draw_noise(SHAPES, [0]), make_scheduler(), 0)


def test_shift_spends_steps_near_noise() -> None:
    for solver in SOLVERS:
        plain, shifted = make_scheduler(solver), make_scheduler(solver, shift=3.0)
        set_steps(plain, 8)
        set_steps(shifted, 8)
        middle = len(plain.sigmas) // 2
        assert float(shifted.sigmas[middle]) > float(plain.sigmas[middle]) + 0.1


def test_noise_of_a_seed_is_the_same_in_any_company() -> None:
    whole = draw_noise(SHAPES, [5, 6, 7])
    assert torch.equal(draw_noise({"audio": SHAPES["audio"]}, [6])["audio"][0], whole["audio"][1])
    assert torch.equal(draw_noise(SHAPES, [7, 5])["video"], whole["video"][[2, 0]])
    assert whole["video"].dtype == torch.float32


def test_every_seed_and_modality_has_noise_of_its_own() -> None:
    seeds = [*range(64), 2**31, 2**32, 2**32 + 1, 2**40]
    noise = draw_noise(dict.fromkeys(("video", "audio", "gyroscope", "accelerometer"), (1, 1, 8)), seeds)
    rows = torch.cat(list(noise.values())).flatten(1)
    assert rows.unique(dim=0).shape[0] == 4 * len(seeds)
    values = draw_noise({"video": (16, 16, 64)}, [1, 2])["video"].flatten(1)
    assert float(values.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(values.std()) == pytest.approx(1.0, abs=0.02)
    assert abs(float(torch.corrcoef(values)[0, 1])) < 0.03
