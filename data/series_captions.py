"""Sentences as conditions of series: token states of a frozen encoder, each sentence encoded once.

Legend: `B` sentences, `L` tokens, `D` channels of a token state.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from ..modalities.text import TextEncoder

CHANNELS = 384  # of a token state of the packaged encoder
LEAST = 16  # tokens that a model with text has room for, however short its captions are
AT_ONCE = 64  # sentences


class SentenceStates:
    """Remembers the states of every sentence it was asked for; the encoder is loaded with the first one."""

    def __init__(self) -> None:
        self._encoder: TextEncoder | None = None
        self._known = {"": torch.zeros(0, CHANNELS)}

    def __call__(self, sentences: Sequence[str]) -> list[Tensor]:
        """The token states `[L, D]` of each sentence, without padding; `[0, D]` of an empty one."""
        each = [sentence.strip() for sentence in sentences]
        new = [sentence for sentence in dict.fromkeys(each) if sentence not in self._known]
        if new and self._encoder is None:
            self._encoder = TextEncoder()
        for first in range(0, len(new), AT_ONCE):
            part = new[first : first + AT_ONCE]
            states, mask = self._encoder(part, trim=True)  # pyright: ignore[reportOptionalCall]
            self._known |= {own: s[m].clone() for own, s, m in zip(part, states, mask, strict=True)}
        return [self._known[sentence] for sentence in each]


def room(states: Sequence[Tensor]) -> int:
    """Tokens that a model needs for these sentences: those of the longest, and at least `LEAST`."""
    return max([LEAST, *(len(own) for own in states)])


def padded(states: Sequence[Tensor], length: int) -> tuple[Tensor, Tensor]:
    """`[B, length, D]` and which tokens stand `[B, length]`; longer sentences are cut, with a warning."""
    out = torch.zeros(len(states), length, CHANNELS)
    mask = torch.zeros(len(states), length, dtype=torch.bool)
    longest = max((len(own) for own in states), default=0)
    if longest > length:
        warnings.warn(f"text: {longest} tokens, the model reads the first {length} only", stacklevel=2)
    for row, own in enumerate(states):
        out[row, : len(own)], mask[row, : len(own)] = own[:length], True
    return out, mask
