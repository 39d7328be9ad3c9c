"""Auto-guidance: away from what a smaller or less trained model of the same kind would do (arXiv:2406.02507)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from torch import Tensor

from .interface import Contrast, Denoiser, Guidance


class WeakModel(Protocol):
    """What answers the weak pass: a `CounterpointPipeline` does."""

    def denoiser(self, prompts: Sequence[str], negative_prompt: str = "") -> Denoiser:
        """The network with its prompts bound."""
        ...


@dataclass(frozen=True)
class AutoGuidance(Contrast):
    """`v = v_cond + (scale − 1)·(v_cond − v_weak)`; scale 1 is no guidance.

    Args:
        weak: the worse model, with the same modalities and codecs; `with_weak` sends the pass `"weak"` to it. None: the
            denoiser that is sampled with answers that pass itself.

    Other options as in `ScaledGuidance`.
    """

    weak: WeakModel | None = field(default=None, kw_only=True, repr=False)
    other: ClassVar[str] = "weak"


def with_weak(
    denoiser: Denoiser, guidances: Sequence[Guidance], prompts: Sequence[str], negative_prompt: str = ""
) -> Denoiser:
    """`denoiser`, but with the pass `"weak"` answered by the model that an `AutoGuidance` among `guidances` brings.

    Raises:
        ValueError: the guidances bring different models.
    """
    models = [guidance.weak for guidance in guidances if isinstance(guidance, AutoGuidance)]
    models = [model for model in models if model is not None]
    if not models:
        return denoiser
    if any(model is not models[0] for model in models):
        raise ValueError("auto-guidance: two different weak models; give one")
    weak = models[0].denoiser(prompts, negative_prompt)

    def routed(name: str, latents: dict[str, Tensor], sigma: dict[str, Tensor]) -> dict[str, Tensor]:
        if name == AutoGuidance.other:
            return weak("conditional", latents, sigma)
        return denoiser(name, latents, sigma)

    return routed
