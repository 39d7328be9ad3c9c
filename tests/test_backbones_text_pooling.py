"""The pooled prompt: it reads what stands there and nothing else, and begins without a say."""

from typing import Any

import pytest
import torch

from counterpoint.backbones.text_pooling import TextPooling


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
