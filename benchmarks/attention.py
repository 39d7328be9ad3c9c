"""Attention of short sequences: `short_attention` against PyTorch's fused kernel.

    python benchmarks/attention.py

Forward and backward, at the shapes that the preset `small` has in training: space attention within a slot, time
attention along a token, cross-attention to the text; and over the three slots of a window of sensors.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from counterpoint.backbones.attention import short_attention

SHAPES = {"space": (16, 23, 23), "time": (23, 16, 16), "text": (1, 368, 48), "window": (64, 3, 3)}
"""Sequences a clip, queries, keys."""


def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """PyTorch's kernel on `[B, N, H, E]`."""
    return scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value))).transpose(1, 2)


def seconds(attend: Callable[..., Tensor], inputs: list[Tensor], repeats: int) -> float:
    """Median of forward and backward."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        torch.autograd.grad(attend(*inputs).sum(), inputs)
        if inputs[0].is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[repeats // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="clips")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    print(f"{'attention':<10}{'dtype':<10}{'short ms':>10}{'fused ms':>10}{'fused / short':>15}")
    for name, (sequences, queries, keys) in SHAPES.items():
        for dtype in (torch.bfloat16, torch.float32):
            lengths = (queries, keys, keys)
            inputs = [
                torch.randn(args.batch * sequences, n, args.heads, args.head_dim, dtype=dtype, device=args.device)
                for n in lengths
            ]
            inputs = [x.requires_grad_() for x in inputs]
            short, other = (seconds(attend, inputs, args.repeats) for attend in (short_attention, fused))
            kind = str(dtype).removeprefix("torch.")
            print(f"{name:<10}{kind:<10}{1e3 * short:>10.2f}{1e3 * other:>10.2f}{other / short:>15.2f}")


if __name__ == "__main__":
    main()
