"""The training step of the preset `small` on random latents, beside the machine's own matrix peak.

    python benchmarks/training.py [--device cuda]

Counts the floating-point operations of a step (forward and backward, `torch.utils.flop_counter`), times it, and prints
its rate as a share of the rate of a 2048³ (8192³ on a GPU) matrix product that is measured in the same run, both in
bfloat16 where the machine is fast at it, else in float32.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from counterpoint.backbones.transformer import CounterpointTransformer, Modality
from counterpoint.diffusion.pipeline import choose_dtype, fast_bf16
from counterpoint.diffusion.training import JointTraining
from counterpoint.recipes.joint import PRESETS

MODALITIES = [
    Modality("video", 16, 64, "video"),
    Modality("audio", 4, 32, "audio"),
    Modality("accelerometer", 1, 48, "sensor"),
    Modality("gyroscope", 1, 48, "sensor"),
    Modality("force", 1, 16, "sensor"),
]
SLOTS, TEXT_TOKENS, TEXT_DIM = 16, 48, 384


def seconds(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median after one call that warms up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[repeats // 2]


def matrix_peak(device: torch.device, repeats: int = 10) -> float:
    """GFLOP/s of a matrix product in the type of number that the machine trains in."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, dtype=choose_dtype("auto", device), device=device) for _ in range(2))
    return 2e-9 * size**3 / seconds(lambda: a @ b, repeats, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=list(PRESETS), default="small")
    parser.add_argument("--batch", type=int, help="clips a step; default: the preset's")
    parser.add_argument("--steps", type=int, default=5, help="steps timed; the median counts")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device, settings = torch.device(args.device), PRESETS[args.preset]()
    batch, model = args.batch or settings.batch, settings.model
    torch.manual_seed(0)
    network = CounterpointTransformer(
        modalities=CounterpointTransformer.describe(MODALITIES), width=model.width, depth=model.depth,
        heads=model.heads, text_dim=TEXT_DIM, feed_forward=model.feed_forward, multiple=model.multiple,
        experts=model.experts, active=model.active,
    ).to(device)  # fmt: skip
    module = JointTraining(network, settings.loss, settings.optimizer, settings.steps, 0)
    optimizer = module.configure_optimizers()["optimizer"]
    data = {
        "latents": {m.name: torch.randn(batch, SLOTS, m.tokens, m.channels, device=device) for m in MODALITIES},
        "text": torch.randn(batch, TEXT_TOKENS, TEXT_DIM, device=device),
        "text_mask": torch.ones(batch, TEXT_TOKENS, dtype=torch.bool, device=device),
    }

    def gradients() -> None:
        optimizer.zero_grad()
        # the same generator each time, so that every step has all modalities and costs the same
        with torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16(device)):
            losses = module.losses(data, torch.Generator().manual_seed(1))
        sum(losses.values(), torch.zeros((), device=device)).backward()

    def step() -> None:
        gradients()
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.optimizer.clip)
        optimizer.step()

    with FlopCounterMode(display=False) as counter:
        gradients()
    work = counter.get_total_flops() / 1e9
    before = matrix_peak(device)
    took = seconds(step, args.steps, device)
    peak = max(before, matrix_peak(device))
    count = sum(p.numel() for p in network.parameters()) / 1e6
    print(f"preset {args.preset}: {count:.1f} M parameters, batch {batch}, {device}, {torch.get_num_threads()} threads")
    print(f"a step: {work:.0f} GFLOP, {took:.3f} s, {batch / took:.1f} clips/s, {work / took:.0f} GFLOP/s")
    print(f"{str(choose_dtype('auto', device)).removeprefix('torch.')} matrix peak, same run: {peak:.0f} GFLOP/s")
    print(f"ratio: {100 * work / took / peak:.0f} %")


if __name__ == "__main__":
    main()
