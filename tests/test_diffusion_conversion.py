"""Networks of every process and prediction, told to walk the flow: their velocity is the exact one."""

import pytest
import torch
from torch import Tensor

from counterpoint.diffusion.conversion import as_flow, generators, level_of
from counterpoint.diffusion.noise_levels import Grid
from counterpoint.diffusion.process import PREDICTIONS, PROCESSES, Process, per_token
from counterpoint.diffusion.sampling import draw_noise, sample
from counterpoint.diffusion.solvers import make_scheduler

MEAN, SPREAD = 0.8, 0.5
SHAPES = {"video": (4, 3, 8), "audio": (4, 2, 6)}
Tracks = dict[str, Tensor]
EVERY = [Process(kind, prediction, sigma_data=0.6) for kind in PROCESSES for prediction in PREDICTIONS]


def perfect(process: Process):
    """The best network for x0 ~ N(MEAN, SPREAD²) under a process: it predicts the mean of its target, in float64."""

    def denoise(_: str, inputs: Tracks, t: Tracks) -> Tracks:
        out = {}
        for name, given in inputs.items():
            level = t[name].double()
            alpha, s = (per_token(c) for c in process.coefficients(level))
            unscaled = given.double() / process.scale_input(torch.ones_like(given).double(), level)  # x_t
            centred = (unscaled - alpha * MEAN) / (alpha**2 * SPREAD**2 + s**2)
            out[name] = process.target(MEAN + alpha * SPREAD**2 * centred, s * centred, level).float()
        return out

    return denoise


def exact(x: Tensor, level: float) -> Tensor:
    """E[ε − x0 | x_σ] in the flow."""
    centred = (x - (1 - level) * MEAN) / ((1 - level) ** 2 * SPREAD**2 + level**2)
    return level * centred - (MEAN + (1 - level) * SPREAD**2 * centred)


@pytest.mark.parametrize("process", EVERY, ids=lambda p: f"{p.kind}-{p.prediction}")
def test_the_velocity_of_any_network_is_the_flows(process: Process) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5)
    flow = as_flow(perfect(process), process)
    for level in (0.02, 0.3, 0.5, 0.7, 0.95):
        v = flow("conditional", {"video": x}, {"video": torch.full((2, 3), level)})["video"]
        torch.testing.assert_close(v, exact(x, level), rtol=2e-3, atol=2e-3)
    top = flow("conditional", {"video": x}, {"video": torch.ones(2, 3)})["video"]
    # the noisiest level of a process lies below σ = 1: it still sees 1/80 to 1/160 of the signal
    torch.testing.assert_close(top, exact(x, 1.0), rtol=0.05, atol=0.05)
    assert flow("conditional", {"video": x}, {"video": torch.zeros(2, 3)})["video"].isfinite().all()


def test_channels_of_their_own_deviations_walk_to_them() -> None:
    """A network that says 0 is perfect for Gaussian data whose deviations are known, in every channel at once."""
    deviation = torch.tensor([1.0, 0.3, 0.03])
    noise = draw_noise({"audio": (2, 1, 3)}, range(3))
    heard: list[Tensor] = []

    def silent(_: str, inputs: Tracks, __: Tracks) -> Tracks:
        heard.append(inputs["audio"])
        return {"audio": torch.zeros_like(inputs["audio"])}

    for process in (Process(prediction="edm"), Process("cosine", "edm"), Process("edm", "edm")):
        heard.clear()
        flow = as_flow(silent, process, {"audio": deviation})
        out = sample(flow, noise, make_scheduler("edm-dpm++"), 24)["audio"]
        torch.testing.assert_close(out, deviation * noise["audio"], rtol=0.05, atol=2e-3)
        for x in heard:  # as large as the noise at every level
            torch.testing.assert_close(x, noise["audio"], rtol=0.05, atol=0.02)


def test_deviations_are_heard_by_the_default_process_too() -> None:
    x, half = torch.ones(1, 2, 1, 3), {"audio": torch.full((1, 2), 0.5)}
    flow = as_flow(lambda _, inputs, __: inputs, Process(), {"audio": torch.tensor([1.0, 0.5, 0.0])})
    heard = flow("conditional", {"audio": x}, half)["audio"][0, 0, 0]
    torch.testing.assert_close(heard, 1 / torch.tensor([0.5, 0.3125, 0.25]).sqrt())


@pytest.mark.parametrize("solver", ["unipc", "ddim", "heun-ve", "edm-dpm++"])
@pytest.mark.parametrize("process", [Process("cosine", "epsilon"), Process("linear", "v_prediction"),
                                     Process("edm", "edm", 0.6), Process("flow", "sample")],
                         ids=lambda p: f"{p.kind}-{p.prediction}")  # fmt: skip
def test_any_network_walks_with_any_solver(process: Process, solver: str) -> None:
    noise = draw_noise(SHAPES, range(4))
    out = sample(as_flow(perfect(process), process), noise, make_scheduler(solver), 30)["video"]
    error = (out - (MEAN + SPREAD * noise["video"])).square().mean().sqrt() / SPREAD
    assert float(error) < 0.08


@pytest.mark.parametrize("process", [Process("cosine", "v_prediction"), Process("edm", "edm")], ids=lambda p: p.kind)
@pytest.mark.parametrize("solver", ["ddpm", "pndm", "edm-euler", "ancestral"])
def test_known_cells_stay_clean(process: Process, solver: str) -> None:
    known = {name: torch.zeros(2, 4, dtype=torch.bool) for name in SHAPES}
    known["audio"][:, 1:3] = True
    given = draw_noise(SHAPES, [50, 51])
    grid = Grid({name: torch.ones(2, 4) for name in SHAPES}, known)
    told: list[Tracks] = []

    def listen(name: str, latents: Tracks, t: Tracks) -> Tracks:
        told.append(t)
        return {n: v.float() for n, v in perfect(process)(name, latents, t).items()}

    noise = draw_noise(SHAPES, [0, 1])
    out = sample(as_flow(listen, process), noise, make_scheduler(solver), 6, grid=grid, given=given)
    assert torch.equal(out["audio"][known["audio"]], given["audio"][known["audio"]])
    assert all(x.isfinite().all() for x in out.values())
    assert all((t["audio"][known["audio"]] == 0).all() and (t["audio"][~known["audio"]] > 0).all() for t in told)


def test_the_default_is_not_wrapped() -> None:
    def denoise(_: str, latents: Tracks, __: Tracks) -> Tracks:
        return latents

    assert as_flow(denoise, Process()) is denoise


def test_levels_match_by_signal_to_noise() -> None:
    sigma = torch.tensor([[0.0, 0.1, 0.5, 0.9, 1.0]])
    torch.testing.assert_close(level_of(Process("cosine"), sigma)[0, 2], torch.tensor(0.5))  # s = α at 45°
    torch.testing.assert_close(level_of(Process("edm"), sigma)[0, :4], sigma[0, :4])
    for kind in PROCESSES:
        t = level_of(Process(kind), sigma)
        assert float(t[0, 0]) == 0.0
        assert float(t[0, 4]) == pytest.approx(Process(kind).last)
        alpha, s = Process(kind).coefficients(t[0, 1:4])
        torch.testing.assert_close(s / alpha, (sigma / (1 - sigma))[0, 1:4], rtol=1e-4, atol=1e-4)


def test_generators_follow_the_sample() -> None:
    noise = draw_noise(SHAPES, [1, 2, 3])["video"]
    whole = [torch.randn(3, generator=g) for g in generators(noise)]
    alone = [torch.randn(3, generator=g) for g in generators(noise[1:2])]
    assert torch.equal(whole[1], alone[0])
    assert not torch.equal(whole[0], whole[1])
