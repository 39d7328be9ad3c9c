"""Classifier-free guidance: the formula, its exceptions per modality, its interval and its rescaling."""

from dataclasses import replace

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
    assert ClassifierFree() == ClassifierFree(2.0, {}, (0.0, 1.0), 0.0, 1.0, {})


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


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_of_what_lies_along_the_clean_latents_of_a_slot_a_share_is_kept(share: float) -> None:
    state = walk()
    clean, full = state.clean()["video"], ClassifierFree(3.0).delta(state)["video"]
    turned = ClassifierFree(3.0, parallel=share).delta(state)["video"]

    def along(delta: torch.Tensor) -> torch.Tensor:
        return (delta * clean).sum(dim=(2, 3))  # [B, T]

    assert along(full).abs().min() > 1e-3
    torch.testing.assert_close(along(turned), share * along(full), atol=1e-4, rtol=1e-4)
    unit = clean / clean.square().sum(dim=(2, 3), keepdim=True).sqrt()
    across = full - along(full)[:, :, None, None] / clean.square().sum(dim=(2, 3), keepdim=True) * clean
    torch.testing.assert_close(turned, across + share * (unit * full).sum(dim=(2, 3), keepdim=True) * unit)


def test_nothing_lies_along_latents_of_zero() -> None:
    state = walk()
    dark = {name: state.sigma[name][:, :, None, None] * v for name, v in state.conditional.items()}  # x0 = 0
    zero = replace(state, latents=dark)
    torch.testing.assert_close(
        ClassifierFree(3.0, parallel=0.0).delta(zero)["video"], ClassifierFree(3.0).delta(zero)["video"]
    )


@pytest.mark.parametrize("kind", [ClassifierFree, Isolation])
def test_a_modality_has_a_share_of_its_own(kind: type[ClassifierFree]) -> None:
    state = walk()
    across, whole = (kind(3.0, parallel=share).delta(state) for share in (0.0, 1.0))
    mixed = kind(3.0, parallels={"video": 0.0}).delta(state)
    torch.testing.assert_close(mixed["video"], across["video"])
    torch.testing.assert_close(mixed["audio"], whole["audio"])
    torch.testing.assert_close(kind(3.0, parallel=0.0, parallels={"audio": 1.0}).delta(state), mixed)
    assert not torch.allclose(across["audio"], whole["audio"])


def test_it_is_frozen() -> None:
    with pytest.raises(AttributeError):
        ClassifierFree().scale = 3.0  # pyright: ignore[reportAttributeAccessIssue]
