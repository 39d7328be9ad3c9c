"""The walk's state, deltas that add up, and the weak model that answers a pass of its own."""

from typing import Any

import pytest
import torch
from torch import Tensor

from counterpoint.diffusion.sampling import draw_noise, guided_velocity, make_scheduler, sample
from counterpoint.guidance.auto import AutoGuidance, with_weak
from counterpoint.guidance.classifier_free import ClassifierFree
from counterpoint.guidance.interface import WalkState
from counterpoint.guidance.isolation import Isolation

SHAPES = {"video": (2, 3, 4), "audio": (2, 2, 5)}
LEVELS = {"conditional": -1.0, "unconditional": -0.25, "isolated": 0.5, "weak": 0.75}
Tracks = dict[str, Tensor]


def constant(name: str, latents: Tracks, _: Tracks) -> Tracks:
    return {n: torch.full_like(x, LEVELS[name]) for n, x in latents.items()}


def test_the_predicted_clean_latents() -> None:
    clean, noise = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    sigma = torch.rand(2, 3)
    level = sigma[:, :, None, None]
    latents = (1 - level) * clean + level * noise
    state = WalkState({"conditional": {"x": noise - clean}}, {"x": latents}, {"x": sigma}, 0.5, constant)
    torch.testing.assert_close(state.clean()["x"], clean)


def test_deltas_of_different_kinds_add_up() -> None:
    noise = draw_noise(SHAPES, [0])
    guidances = [ClassifierFree(3.0), Isolation(1.5, {"audio": 1.0}), AutoGuidance(2.0)]
    out = sample(constant, noise, make_scheduler("euler"), 3, guidances)
    v = -1.0 + 2.0 * (-0.75) + 1.0 * (-1.75)
    torch.testing.assert_close(out["video"], noise["video"] - (v + 0.5 * (-1.5)))
    torch.testing.assert_close(out["audio"], noise["audio"] - v)


def test_the_walk_tells_its_step_and_forgets_its_memory() -> None:
    class Listener:
        passes = ()
        told: list[tuple[int, int, int]] = []  # noqa: RUF012

        def enabled(self, sigma: float) -> bool:
            return sigma < 0.9

        def delta(self, state: WalkState) -> Tracks:
            state.memory["calls"] = state.memory.get("calls", 0) + 1
            self.told.append((state.step, state.steps, state.memory["calls"]))
            assert set(state.denoiser("weak", dict(state.latents), dict(state.sigma))) == set(SHAPES)
            return {}

    guidances = [ClassifierFree(2.0), Listener()]
    for _ in range(2):
        sample(constant, draw_noise(SHAPES, [0]), make_scheduler("euler"), 4, guidances)
    assert Listener.told == [(1, 4, 1), (2, 4, 2), (3, 4, 3)] * 2
    x = draw_noise(SHAPES, [0])
    v = guided_velocity(constant, x, {n: torch.full((1, 2), 0.5) for n in x}, 0.5, [Listener()])
    assert all((value == -1.0).all() for value in v.values())
    assert Listener.told[-1] == (0, 1, 1)


class Weak:
    def __init__(self, level: float) -> None:
        self.level = level

    def denoiser(self, prompts: Any, negative_prompt: str = "") -> Any:
        assert (list(prompts), negative_prompt) == (["a ball"], "dark")

        def denoise(name: str, latents: Tracks, _: Tracks) -> Tracks:
            assert name == "conditional"
            return {n: torch.full_like(x, self.level) for n, x in latents.items()}

        return denoise


def test_a_weaker_model_answers_the_weak_pass() -> None:
    weak = Weak(3.0)
    guidances = [AutoGuidance(2.0, weak=weak), ClassifierFree(2.0)]
    denoiser = with_weak(constant, guidances, ["a ball"], "dark")
    x = draw_noise(SHAPES, [0])
    v = guided_velocity(denoiser, x, {n: torch.ones(1, 2) for n in x}, 1.0, guidances)
    assert all(torch.allclose(value, torch.tensor(-1.0 + (-4.0) - 0.75)) for value in v.values())
    assert with_weak(constant, [ClassifierFree(2.0), AutoGuidance()], ["a ball"], "dark") is constant
    with pytest.raises(ValueError, match="two different weak models"):
        with_weak(constant, [*guidances, AutoGuidance(weak=Weak(1.0))], ["a ball"])
