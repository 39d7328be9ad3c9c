"""A classifier of noised latents: log p(attribute = value | x_σ, σ) for every σ, for classifier guidance.

The trunk is a small `CounterpointTransformer` that hears no text; its tokens are pooled over time and space, and a
linear layer per attribute reads them.

Legend: `B` batch, `T` slots, `S` tokens, `C` channels, `D` width, `A` classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from .transformer import CounterpointTransformer


class LatentClassifier(ModelMixin, ConfigMixin):
    """Reads attributes from noised latents of any subset of the modalities.

    Args:
        modalities: one mapping per signal with the fields of `Modality`.
        classes: the values of each attribute, e.g. `{"material": ["glass", "metal"]}`.
        width, depth, heads, multiple: size of the trunk, as in `CounterpointTransformer`.
    """

    @register_to_config
    def __init__(
        self,
        modalities: list[dict[str, Any]],
        classes: dict[str, list[str]],
        width: int = 96,
        depth: int = 3,
        heads: int = 3,
        multiple: int = 2,
    ) -> None:
        super().__init__()
        self.classes = {attribute: tuple(values) for attribute, values in classes.items()}
        self.trunk = CounterpointTransformer(
            modalities=modalities, width=width, depth=depth, heads=heads, text_dim=1, multiple=multiple
        )
        self.trunk.modulation_out = self.trunk.proj_out = nn.ModuleDict()  # it predicts no velocity
        self.norm = nn.LayerNorm(2 * width)
        self.readers = nn.ModuleDict({a: nn.Linear(2 * width, len(values)) for a, values in self.classes.items()})

    def forward(self, latents: Mapping[str, Tensor], sigma: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`{attribute: log-probabilities [B, A]}`.

        Args:
            latents: `{modality: [B, T, S, C]}`, noised.
            sigma: `{modality: [B, T]}`, the noise level of every cell.
        """
        first = next(iter(latents.values()))
        silence = first.new_zeros(len(first), 1, 1)  # [B, L = 1, text_dim = 1]
        nobody = torch.zeros(len(first), 1, dtype=torch.bool, device=first.device)
        tokens = self.trunk.hidden(latents, sigma, silence, nobody)[0].flatten(1, 2)  # [B, T·S, D]
        pooled = self.norm(torch.cat([tokens.mean(1), tokens.amax(1)], dim=-1))  # [B, 2·D]
        return {a: head(pooled).float().log_softmax(-1) for a, head in self.readers.items()}

    def log_probability(
        self, latents: Mapping[str, Tensor], sigma: Mapping[str, Tensor], attribute: str, value: str
    ) -> Tensor:
        """`log p(attribute = value | x_σ)` of each clip, `[B]`; what `guidance.classifier.Classifier` asks for.

        Raises:
            ValueError: an unknown attribute or class.
        """
        number = self.number(attribute, value)
        return self(latents, sigma)[attribute][:, number]

    def number(self, attribute: str, value: str) -> int:
        """The class number of a value; a ValueError says which attributes or values there are."""
        if attribute not in self.classes:
            raise ValueError(f"classifier: no attribute {attribute!r}; known are {', '.join(self.classes)}")
        if value not in self.classes[attribute]:
            raise ValueError(f"classifier: {attribute} {value!r} is none of {', '.join(self.classes[attribute])}")
        return self.classes[attribute].index(value)

    def targets(self, attributes: Sequence[Mapping[str, object]]) -> dict[str, Tensor]:
        """Class numbers `{attribute: int64 [B]}`; −1 where a clip does not state the attribute."""
        return {
            a: torch.tensor([-1 if row.get(a) is None else self.number(a, str(row[a])) for row in attributes])
            for a in self.classes
        }
