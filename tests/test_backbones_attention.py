"""Attention: the short kernel against PyTorch's, and the module as diffusers sees it."""

import pytest
import torch
from diffusers.models import attention_dispatch
from torch.nn.functional import scaled_dot_product_attention

from counterpoint.backbones import attention
from counterpoint.backbones.attention import Attention, short_attention, timestep_features, zero_
from counterpoint.backbones.transformer import CounterpointTransformer, Modality

SHAPES = [
    (6, 22, 22, 4, 16), (5, 16, 16, 2, 8), (2, 40, 12, 4, 16),  # space, time, text: B, N, L, H, E
    (7, 3, 3, 4, 8), (3, 6, 4, 2, 16), (2, 5, 5, 2, 8),  # as few keys as a window of 24 has slots, and about the limit
]  # fmt: skip


def _pytorchs(*inputs: torch.Tensor) -> torch.Tensor:
    return scaled_dot_product_attention(*(x.transpose(1, 2) for x in inputs)).transpose(1, 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_short_attention_equals_pytorchs(shape: tuple[int, int, int, int, int]) -> None:
    batch, queries, keys, heads, channels = shape
    generator = torch.Generator().manual_seed(0)
    q, k, v, up = (torch.randn(batch, n, heads, channels, generator=generator) for n in (queries, keys, keys, queries))
    grads = []
    outs = []
    for attend in (short_attention, _pytorchs):
        inputs = [t.clone().requires_grad_() for t in (q, k, v)]
        out = attend(*inputs)
        grads.append(torch.autograd.grad((out * up).sum(), inputs))
        outs.append(out)
    torch.testing.assert_close(outs[0], outs[1], atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    rounded = short_attention(*(t.bfloat16() for t in (q, k, v)))
    torch.testing.assert_close(rounded, outs[1].bfloat16(), atol=0.03, rtol=0.03)


def test_queries_and_keys_are_normalized() -> None:
    torch.manual_seed(0)
    module = Attention(16, 2)
    x = torch.randn(2, 5, 16)
    before = module(x)
    with torch.no_grad():
        module.to_q.weight *= 4.0
        module.to_k.weight *= 8.0
    torch.testing.assert_close(module(x), before, atol=1e-3, rtol=1e-3)  # scores do not grow with the weights
    with torch.no_grad():
        module.to_v.weight *= 2.0
    torch.testing.assert_close(module(x), 2 * before, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("queries", [1, 5])
def test_a_single_key_needs_no_softmax(queries: int) -> None:
    torch.manual_seed(0)
    module = Attention(16, 2)
    x, context = torch.randn(2, queries, 16), torch.randn(2, 1, 16)
    twice = context.expand(-1, 2, -1)  # the same key again: the same mean of values, by way of the softmax
    out = module(x, context)
    assert out.shape == x.shape
    torch.testing.assert_close(out, module(x, twice))
    out.sum().backward()
    assert module.to_q.weight.grad is None
    assert module.to_v.weight.grad is not None


def test_cross_attention_reads_a_context_of_another_width() -> None:
    assert Attention(16, 2, context_width=10)(torch.randn(2, 5, 16), torch.randn(2, 7, 10)).shape == (2, 5, 16)
    with pytest.raises(ValueError, match="heads: 3 does not divide the width 16"):
        Attention(16, 3)


def test_zeroed_projection_and_features() -> None:
    linear = zero_(torch.nn.Linear(4, 4))
    assert not linear(torch.randn(3, 4)).any()
    features = timestep_features(torch.tensor([0.0, 0.3, 0.301, 1.0]), 64)
    assert features.shape == (4, 64)
    torch.testing.assert_close(features[0], torch.cat([torch.ones(32), torch.zeros(32)]))
    torch.testing.assert_close(features.square().sum(1), torch.full((4,), 32.0))  # cos² + sin²
    assert (features[1] - features[2]).abs().max() > 0.5  # the fastest frequency tells levels .001 apart


def test_native_backend_equals_the_cpu_path(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = attention_dispatch._AttentionBackendRegistry
    for name in ("_active_backend", "_checks_enabled"):
        monkeypatch.setattr(registry, name, getattr(registry, name))  # what is set for the whole process is undone
    torch.manual_seed(0)
    modalities = [Modality("audio", 4, 6, "audio"), Modality("force", 1, 8, "sensor")]
    model = CounterpointTransformer(CounterpointTransformer.describe(modalities), 16, 1, 2, text_dim=5, multiple=2)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    latents = {"audio": torch.randn(2, 5, 4, 6), "force": torch.randn(2, 5, 1, 8)}
    inputs = latents, {n: torch.rand(2, 5) for n in latents}, torch.randn(2, 5, 5)
    calls = []
    monkeypatch.setattr(attention, "short_attention", lambda *x: calls.append(1) or short_attention(*x))
    with torch.no_grad():
        exact = model(*inputs)
        assert not calls, "the short kernel is for bf16"
        with torch.autocast("cpu", torch.bfloat16):
            mine = model(*inputs)
            assert len(calls) == 3
            model.set_attention_backend("native")
            theirs = model(*inputs)
        assert len(calls) == 3, "the short kernel must not run where a backend is set"
        model.reset_attention_backend()
        model(latents, inputs[1], inputs[2][:, :4])
        assert len(calls) == 4, "four keys are few in fp32 as well"
    for name, v in exact.items():
        assert v.std() > 0.01
        torch.testing.assert_close(mine[name].float(), v, atol=0.05 * float(v.std()), rtol=0.05)
        torch.testing.assert_close(theirs[name].float(), mine[name].float(), atol=0.05 * float(v.std()), rtol=0.05)
