"""The pooled prompt: it reads what stands there and nothing else, and begins without a say."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from counterpoint.backbones.text_pooling import TextPooling
from counterpoint.backbones.transformer import CounterpointTransformer, Modality
from counterpoint.recipes.joint import with_text_modulation


def pooling(seed: int = 0) -> TextPooling:
    torch.manual_seed(seed)
    pool = TextPooling(7, 16, heads=4)
    last: Any = pool.mix[-1]
    last.weight.data.normal_()
    return pool


@torch.no_grad()
def test_padding_is_not_read() -> None:
    pool, text = pooling(), torch.randn(3, 5, 7)
    mask = torch.arange(5) < torch.tensor([5, 2, 0])[:, None]
    pooled = pool(text, mask)
    assert torch.allclose(pooled[1], pool(text[1:2, :2])[0], atol=1e-6)
    assert torch.equal(pooled, pool(torch.where(mask[..., None], text, 9.0), mask))
    assert torch.allclose(pooled[2], pool(torch.zeros(1, 1, 7))[0], atol=1e-6)  # no prompt is a prompt of zeros
    assert not torch.allclose(pooled[0], pooled[1])


@torch.no_grad()
def test_heads_look_at_different_tokens() -> None:
    pool, text = pooling(), torch.randn(1, 2, 7)
    pool.score.weight.zero_()
    pool.score.weight[0, 0] = 50.0
    text[0, :, 0] = torch.tensor([1.0, -1.0])
    pool.mix = torch.nn.Sequential(torch.nn.Identity())
    values = pool(text)[0]
    first, mean = pool.value(text)[0, 0], pool.value(text)[0].mean(dim=0)
    assert torch.allclose(values[:4], first[:4], atol=1e-5)
    assert torch.allclose(values[4:], mean[4:], atol=1e-5)


def test_width_and_heads_must_fit() -> None:
    with pytest.raises(ValueError, match="heads: 3 does not divide the width 16"):
        TextPooling(7, 16, heads=3)


def network() -> CounterpointTransformer:
    """A tiny one of sound, whose projections that start at zero are filled."""
    torch.manual_seed(0)
    described = CounterpointTransformer.describe([Modality("audio", 2, 6, "audio")])
    made = CounterpointTransformer(described, width=16, depth=2, heads=2, text_dim=7, multiple=2)
    for p in made.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.3)
    return made.eval()


@torch.no_grad()
def test_a_network_that_gets_it_stays_the_same_function_until_it_learns(tmp_path: Path) -> None:
    plain, text, mask = network(), torch.randn(2, 5, 7), torch.ones(2, 5, dtype=torch.bool)
    sound, level = torch.randn(2, 3, 2, 6), torch.rand(2, 3)

    def say(model: torch.nn.Module, text: Tensor = text, mask: Tensor = mask) -> Tensor:
        return model({"audio": sound}, {"audio": level}, text, mask)["audio"]

    grown = with_text_modulation(plain, seed=3)
    assert grown.text_pool is not None
    assert torch.equal(say(plain), say(grown.eval()))
    assert with_text_modulation(grown, seed=4) is grown
    last: Any = grown.text_pool.mix[-1]
    last.weight.normal_()
    assert not torch.allclose(say(plain), say(grown), atol=1e-3)
    grown.save_pretrained(tmp_path)
    again = CounterpointTransformer.from_pretrained(str(tmp_path), low_cpu_mem_usage=False)
    assert torch.equal(say(grown), say(again))
    mask[:, -1] = False
    noisy = torch.where(mask[..., None], text, 9.0)
    assert torch.equal(say(grown, text, mask), say(grown, noisy, mask))
