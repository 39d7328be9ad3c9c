"""The guiders of diffusers per modality: ours where we have one, diffusers' own loop where they remember."""

import copy
from typing import Any

import diffusers.guiders
import pytest
import torch
from torch import Tensor

from counterpoint.cli.guides import GUIDERS
from counterpoint.diffusion.sampling import draw_noise, make_scheduler, sample
from counterpoint.guidance.classifier_free import ClassifierFree
from counterpoint.guidance.diffusers_guiders import DiffusersGuider
from counterpoint.guidance.interface import WalkState
from counterpoint.guidance.isolation import Isolation

SHAPES = {"video": (2, 3, 4), "audio": (2, 2, 5)}
PASSES = ("conditional", "unconditional", "isolated", "weak")
Tracks = dict[str, Tensor]


def make(kind: str, **options: Any) -> Any:
    return getattr(diffusers.guiders, kind)(**options)


def denoise(name: str, latents: Tracks, sigma: Tracks) -> Tracks:
    """A velocity that differs in kind from pass to pass."""
    turn = PASSES.index(name)
    return {n: (x + 0.3 * turn).sin() + sigma[n][:, :, None, None] for n, x in latents.items()}


def state(step: int = 3, steps: int = 10) -> WalkState:
    latents = draw_noise(SHAPES, [0, 1])
    sigma = {n: torch.full((2, 2), 1 - step / steps) for n in latents}
    return WalkState(
        {name: denoise(name, latents, sigma) for name in PASSES}, latents, sigma, 1 - step / steps, denoise, step, steps
    )


def same(one: Tracks, other: Tracks) -> None:
    for name, x in other.items():
        torch.testing.assert_close(one[name], x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_classifier_free_guidance_equals_ours(rescale: float) -> None:
    theirs = DiffusersGuider(
        guider=make("ClassifierFreeGuidance", guidance_scale=3.0, guidance_rescale=rescale),
        guiders={"audio": make("ClassifierFreeGuidance", guidance_scale=1.5, guidance_rescale=rescale)},
    )
    ours = ClassifierFree(3.0, {"audio": 1.5}, rescale=rescale)
    assert theirs.passes == ours.passes
    same(theirs.delta(state()), ours.delta(state()))
    noise = draw_noise(SHAPES, [4])
    same(*(sample(denoise, noise, make_scheduler(), 5, [guidance]) for guidance in (theirs, ours)))


def test_modality_guidance_of_ltx2_equals_ours() -> None:
    guidance = DiffusersGuider(guider=make("LTX2Guidance", guidance_scale=2.0, modality_scale=3.0))
    assert set(guidance.passes) == {"unconditional", "isolated"}
    ours = [ClassifierFree(2.0).delta(state()), Isolation(3.0).delta(state())]
    same(guidance.delta(state()), {name: ours[0][name] + ours[1][name] for name in SHAPES})


@pytest.mark.parametrize("kind", GUIDERS)
def test_every_guider_by_name_acts_as_diffusers_calls_it(kind: str) -> None:
    guider = make(kind, guidance_scale=2.5)
    before = dict(guider.__dict__)
    delta = DiffusersGuider(guider=guider).delta(state())
    assert guider.__dict__ == before
    own, now = copy.copy(guider), state()
    own.set_state(3, 10, torch.tensor(700.0))
    for name in SHAPES:
        v, other = (now.predictions[p][name].flatten(1, 2) for p in ("conditional", "unconditional"))  # [B, N, C]
        torch.testing.assert_close(delta[name].flatten(1, 2), own.forward(pred_cond=v, pred_uncond=other).pred - v)
        assert delta[name].any()


@pytest.mark.parametrize("guider", [
    make("AdaptiveProjectedGuidance", guidance_scale=3.0, adaptive_projected_guidance_momentum=-0.5, eta=0.5),
    make("AdaptiveProjectedMixGuidance", guidance_scale=2.0, adaptive_projected_guidance_start_step=1),
    make("ClassifierFreeZeroStarGuidance", guidance_scale=2.0, zero_init_steps=2, stop=0.8),
])  # fmt: skip
def test_steps_and_momentum_are_those_of_the_walk(guider: Any) -> None:
    """A walk equals the loop in which diffusers keeps one guider; a second walk is the same: nothing stays behind."""
    noise, steps = draw_noise(SHAPES, [4]), 6
    scheduler = make_scheduler("euler")
    guidance = DiffusersGuider(guider=guider)
    walks = [sample(denoise, noise, scheduler, steps, [guidance]) for _ in range(2)]
    expected = {}
    for name, x in noise.items():
        own = copy.copy(guider)
        for step in range(steps):
            level = 1 - step / steps
            own.set_state(step, steps, torch.tensor(1000 * level))
            batches = own.prepare_inputs({})
            for batch in batches:
                said = {"pred_cond": "conditional", "pred_uncond": "unconditional"}[batch.__guidance_identifier__]
                batch.noise_pred = denoise(said, {name: x}, {name: torch.full((1, 2), level)})[name]
            x = x - own(batches).pred / steps
        expected[name] = x
    same(walks[0], expected)
    assert all(torch.equal(walks[0][name], walks[1][name]) for name in SHAPES)


def test_a_prediction_that_no_pass_answers_is_named() -> None:
    skip = make("SkipLayerGuidance", skip_layer_guidance_layers=[1])
    with pytest.raises(ValueError, match="SkipLayerGuidance: no pass answers 'pred_cond_skip'"):
        DiffusersGuider(guider=skip)
    assert set(DiffusersGuider(guider=skip, answers={"pred_cond_skip": "weak"}).passes) == {"unconditional", "weak"}
    auto = make("AutoGuidance", guidance_scale=2.0, auto_guidance_layers=[1], dropout=0.1)
    with pytest.raises(ValueError, match="AutoGuidance: no pass answers 'pred_uncond'"):
        DiffusersGuider(guider=auto)
    delta = DiffusersGuider(guider=auto, answers={"pred_uncond": "weak"}).delta(state())
    same(delta, {n: v - state().predictions["weak"][n] for n, v in state().conditional.items()})
