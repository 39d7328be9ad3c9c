"""Classifier-free guidance: the formula, its exceptions per modality, its interval and its rescaling."""

import pytest
import torch

from counterpoint.guidance.classifier_free import ClassifierFree
from counterpoint.guidance.interface import WalkState
from counterpoint.guidance.isolation import Isolation


def nothing(*_: object) -> dict[str, torch.Tensor]:
    raise AssertionError("no further pass is needed")


def walk() -> WalkState:
    generator = torch.Generator().manual_seed(0)
    shapes = {"video": (2, 3, 4, 8), "audio": (2, 3, 2, 6)}
    drawn = {
        name: {m: torch.randn(s, generator=generator) for m, s in shapes.items()}
        for name in ("conditional", "unconditional", "isolated", "latents")
    }
    latents = drawn.pop("latents")
    return WalkState(drawn, latents, {m: torch.full((2, 3), 0.5) for m in shapes}, 0.5, nothing)


@pytest.mark.parametrize(("kind", "other"), [(ClassifierFree, "unconditional"), (Isolation, "isolated")])
def test_formula_with_a_scale_per_modality(kind: type[ClassifierFree], other: str) -> None:
    state = walk()
    guidance = kind(scale=3.0, scales={"audio": 1.5})
    assert guidance.passes == (other,)
    delta = guidance.delta(state)
    for name, factor in (("video", 2.0), ("audio", 0.5)):
        difference = state.predictions["conditional"][name] - state.predictions[other][name]
        torch.testing.assert_close(delta[name], factor * difference)


def test_scale_one_is_no_guidance() -> None:
    state = walk()
    guidance = ClassifierFree(scale=1.0)
    assert not guidance.enabled(0.5)
    assert not any(delta.any() for delta in guidance.delta(state).values())
    assert ClassifierFree(scale=0.0).enabled(0.5)  # zero is a legal scale: the unconditional velocity
    torch.testing.assert_close(
        state.conditional["video"] + ClassifierFree(scale=0.0).delta(state)["video"],
        state.predictions["unconditional"]["video"],
    )
    assert ClassifierFree(scale=1.0, scales={"audio": 2.0}).enabled(0.5)
    assert ClassifierFree().passes == ("unconditional",)
    assert ClassifierFree() == ClassifierFree(2.0, {}, (0.0, 1.0), 0.0)


@pytest.mark.parametrize(("sigma", "inside"), [(1.0, False), (0.8, True), (0.5, True), (0.2, True), (0.1, False)])
def test_interval(sigma: float, inside: bool) -> None:
    assert ClassifierFree(2.0, interval=(0.2, 0.8)).enabled(sigma) is inside


def test_rescale_pulls_the_spread_back() -> None:
    state = walk()
    spreads = []
    for rescale in (0.0, 0.7, 1.0):
        guided = state.conditional["video"] + ClassifierFree(6.0, rescale=rescale).delta(state)["video"]
        spreads.append(guided.std(dim=(1, 2, 3)))
    own = state.conditional["video"].std(dim=(1, 2, 3))
    torch.testing.assert_close(spreads[2], own)
    torch.testing.assert_close(spreads[1], 0.7 * own + 0.3 * spreads[0])
    assert (spreads[0] > 3 * own).all()


def test_it_is_frozen() -> None:
    with pytest.raises(AttributeError):
        ClassifierFree().scale = 3.0  # pyright: ignore[reportAttributeAccessIssue]
