"""Attention: the short kernel against PyTorch's, and the module as diffusers sees it."""

import subprocess
import sys

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from counterpoint.backbones.attention import Attention, short_attention, timestep_features, zero_

SHAPES = [(6, 22, 22, 4, 16), (5, 16, 16, 2, 8), (2, 40, 12, 4, 16)]  # space, time, text: B, N, L, H, E


def _pytorchs(*inputs: torch.Tensor) -> torch.Tensor:
    return scaled_dot_product_attention(*(x.transpose(1, 2) for x in inputs)).transpose(1, 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_short_attention_equals_pytorchs(shape: tuple[int, int, int, int, int]) -> None:
    batch, queries, keys, heads, channels = shape
    generator = torch.Generator().manual_seed(0)
    q, k, v, up = (
        torch.randn(batch, n, heads, channels, generator=generator) for n in (queries, keys, keys, queries)
    )
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


def test_queries_and_keys_are_normalized() -> None:
    torch.manual_seed(0)
    attention = Attention(16, 2)
    x = torch.randn(2, 5, 16)
    before = attention(x)
    with torch.no_grad():
        attention.to_q.weight *= 10.0
        attention.to_k.weight *= 0.1
    torch.testing.assert_close(attention(x), before, atol=1e-3, rtol=1e-3)  # scores do not grow with the weights
    with torch.no_grad():
        attention.to_v.weight *= 2.0
    torch.testing.assert_close(attention(x), 2 * before, atol=2e-3, rtol=2e-3)


def test_cross_attention_reads_a_context_of_another_width() -> None:
    attention = Attention(16, 2, context_width=10)
    assert attention(torch.randn(2, 5, 16), torch.randn(2, 7, 10)).shape == (2, 5, 16)
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


def test_native_backend_equals_the_cpu_path() -> None:
    """In a process of its own: `set_attention_backend` changes diffusers' default for the whole process."""
    script = """
import torch
from counterpoint.backbones import attention
from counterpoint.backbones.transformer import CounterpointTransformer, Modality
torch.manual_seed(0)
modalities = CounterpointTransformer.describe([Modality("audio", 2, 6, "audio"), Modality("force", 1, 8, "sensor")])
model = CounterpointTransformer(modalities, width=16, depth=1, heads=2, text_dim=5, multiple=2).eval()
for p in model.parameters():
    torch.nn.init.normal_(p, std=0.2)
inputs = {"audio": torch.randn(2, 3, 2, 6), "force": torch.randn(2, 3, 1, 8)}, {
    "audio": torch.rand(2, 3), "force": torch.rand(2, 3)}, torch.randn(2, 4, 5)
calls = []
short, attention.short_attention = attention.short_attention, lambda *x: calls.append(1) or short(*x)
with torch.no_grad():
    mine = model(*inputs)
    assert len(calls) == 3, calls
    model.set_attention_backend("native")
    theirs = model(*inputs)
assert len(calls) == 3, "the short kernel must not run when a backend is set"
print(max(float((mine[n] - theirs[n]).abs().max()) for n in mine) < 1e-5)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr
