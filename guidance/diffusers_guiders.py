"""The guiders of diffusers (`diffusers.guiders`), one per modality, as a guidance of this house.

A guider takes tensors, not dicts of tracks, and remembers its step and its momentum. So every walk works with copies,
one per modality, which lie in the memory of the walk (`WalkState.memory`) and are gone with it: momentum runs from step
to step, a new walk starts afresh, and the guiders that were given never change.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .interface import ScaledGuidance, WalkState

PASSES = {"pred_cond": "conditional", "pred_uncond": "unconditional", "pred_cond_modality": "isolated"}
"""Predictions as diffusers names them, and the passes that answer them here."""
PROBES = 20  # steps of the walk in which a guider is asked what it needs


@dataclass(frozen=True)
class DiffusersGuider(ScaledGuidance):
    """What a guider of diffusers makes of the passes, less the conditional velocity.

    Any guider whose call takes one tensor per pass: `ClassifierFreeGuidance`, `ClassifierFreeZeroStarGuidance`,
    `TangentialClassifierFreeGuidance`, `AdaptiveProjectedGuidance`, `AdaptiveProjectedMixGuidance`,
    `MagnitudeAwareGuidance`, `LTX2Guidance` with its isolated pass. Guiders that perturb layers of the network
    (`SkipLayerGuidance`, `PerturbedAttentionGuidance`, `SmoothedEnergyGuidance`, `AutoGuidance`) get the perturbed
    prediction from the pass that `answers` names.

    Args:
        guider: for all modalities; it is never changed.
        guiders: exceptions per modality.
        answers: passes for predictions, e.g. `{"pred_cond_skip": "weak"}`, besides those of `PASSES`.

    The guiders' own `guidance_scale`, `start` and `stop` hold; `scale` (1 unless given) multiplies what they add. Other
    options as in `ScaledGuidance`.

    Raises:
        ValueError: a guider needs a prediction that no pass answers.
    """

    guider: Any = field(kw_only=True, repr=False)
    guiders: Mapping[str, Any] = field(default_factory=dict, kw_only=True, repr=False)
    answers: Mapping[str, str] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        _ = self.passes

    @property
    def passes(self) -> tuple[str, ...]:
        """The union of what the guiders need at any step."""
        needed = dict.fromkeys(
            self._pass(guider, prediction)
            for guider in (self.guider, *self.guiders.values())
            for prediction in _predictions(guider)
        )
        return tuple(name for name in needed if name != "conditional")

    def direction(self, state: WalkState) -> dict[str, Tensor]:
        """`guided − v_cond` of every modality."""
        return {name: self._guided(name, state) - v for name, v in state.conditional.items()}

    def _guided(self, name: str, state: WalkState) -> Tensor:
        guider = state.memory.get(name)
        if guider is None:
            guider = state.memory[name] = _started(self.guiders.get(name, self.guider), state.steps)
        guider.set_state(state.step, state.steps, torch.tensor(1000.0 * state.level))
        batches = guider.prepare_inputs({})
        for batch in batches:
            prediction = getattr(batch, guider._identifier_key)
            v = state.predictions[self._pass(guider, prediction)][name]  # [B, T, S, C]
            batch.noise_pred = v.flatten(1, 2)  # [B, N, C], the sequence that guiders know from other transformers
        return guider(batches).pred.unflatten(1, state.latents[name].shape[1:3])

    def _pass(self, guider: Any, prediction: str) -> str:
        """The pass that answers a prediction of a guider."""
        if prediction in self.answers:
            return self.answers[prediction]
        kind = type(guider).__name__
        if prediction not in PASSES or (kind == "AutoGuidance" and prediction == "pred_uncond"):
            raise ValueError(f"{kind}: no pass answers {prediction!r}; name one in `answers`, e.g. the pass 'weak'")
        return PASSES[prediction]


def _started(guider: Any, steps: int) -> Any:
    """A copy at step 0, where guiders make their momentum."""
    own = copy.copy(guider)
    own.set_state(0, steps, torch.tensor(1000.0))
    own.prepare_inputs({})
    return own


def _predictions(guider: Any) -> list[str]:
    """What a guider needs at any step of a walk, as diffusers names it."""
    own, needed = copy.copy(guider), dict[str, None]()
    for step in range(PROBES):
        own.set_state(step, PROBES, torch.tensor(0.0))
        needed |= dict.fromkeys(getattr(batch, own._identifier_key) for batch in own.prepare_inputs({}))
    return list(needed)
