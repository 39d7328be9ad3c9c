"""A trained network for codecs with more channels, or with a part that it did not have: the start of more training.

What is new says nothing at first: the grown network is the same function of what the old one knew.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from counterpoint.backbones.transformer import CounterpointTransformer, Modality
from counterpoint.modalities.clip import ClipError


@torch.no_grad()
def grow(
    network: CounterpointTransformer, modalities: Sequence[Modality], text_modulation: bool, seed: int, name: str = ""
) -> CounterpointTransformer:
    """The network itself where nothing is to be added, or a larger one with its weights.

    Args:
        network: what is started from.
        modalities: those of the codecs, with the channels and tokens that they have now.
        text_modulation: whether the prompt as a whole is to modulate (a network that has it keeps it).
        seed: of the weights that are new.
        name: of the network, for errors.

    Raises:
        ClipError: codecs for other tracks, with other tokens, or with fewer channels than the network knows.
    """
    now, then = {m.name: m for m in modalities}, network.modalities
    text_modulation |= network.text_pool is not None
    if now == then and text_modulation == (network.text_pool is not None):
        return network
    for key in dict.fromkeys((*then, *now)):
        old, new = then.get(key), now.get(key)
        if old is None or new is None or (old.tokens, old.group) != (new.tokens, new.group):
            raise ClipError(f"{name}: knows {_said(old)} as {key}, the codecs make {_said(new)}")
        if old.channels > new.channels:
            raise ClipError(f"{name}: {key} has {old.channels} channels, the codec makes {new.channels}")
    known = {key: value for key, value in network.config.items() if not key.startswith("_")}
    described = CounterpointTransformer.describe([now[key] for key in then])
    torch.manual_seed(seed)
    grown = CounterpointTransformer(**{**known, "modalities": described, "text_modulation": text_modulation})
    weights = grown.state_dict()
    for key, learned in network.state_dict().items():
        if weights[key].shape != learned.shape:
            weights[key].zero_()
        weights[key][tuple(slice(size) for size in learned.shape)] = learned
    grown.load_state_dict(weights)
    return grown


def _said(modality: Modality | None) -> str:
    return "nothing" if modality is None else f"{modality.tokens} tokens a slot ({modality.group})"
