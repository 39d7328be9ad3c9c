"""One clip of 2.56 s, three tracks, default steps, from the prompt to files.

    python benchmarks/generate.py [--model joint]

Prints the seconds after the model is loaded, the seconds of the whole command (`counterpoint generate` in a process of
its own) and its peak memory, beside the machine's bf16 matrix rate measured in the same run.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROMPT = "a small glass ball drops on a wooden floor and bounces"


def command(model: str, device: str, folder: Path) -> tuple[float, float]:
    """Seconds and peak memory in MB of the whole command, whose process is the only child so far."""
    program = "from counterpoint.cli.main import main; main()"
    options = ["--model", model, "--device", device, "--seed", "7", "-o", str(folder / "whole.mp4")]
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", program, "generate", PROMPT, *options], check=True)
    took = time.perf_counter() - start
    unit = 1e6 if sys.platform == "darwin" else 1e3  # ru_maxrss is in bytes there, in KiB elsewhere
    return took, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit


def loaded(model: str, device: str, folder: Path, repeats: int) -> tuple[float, float, list[float]]:
    """Seconds to import and load, peak matrix rate in GFLOP/s, and seconds of each clip from prompt to files."""
    start = time.perf_counter()
    import torch

    from counterpoint.diffusion.pipeline import CounterpointPipeline

    pipeline = CounterpointPipeline.from_pretrained(model, device=device)
    ready = time.perf_counter() - start
    times = []
    for i in range(repeats):
        start = time.perf_counter()
        pipeline(PROMPT, seed=7).save(folder / f"clip{i}.mp4")
        times.append(time.perf_counter() - start)
    size = 2048
    a, b = (torch.randn(size, size, dtype=torch.bfloat16, device=pipeline.device) for _ in range(2))
    rates = []
    for _ in range(10):
        start = time.perf_counter()
        (a @ b)[0, 0].item()
        rates.append(2e-9 * size**3 / (time.perf_counter() - start))
    return ready, max(rates), times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="joint", help="a shipped model or a folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3, help="clips made after loading")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        whole, memory = command(args.model, args.device, Path(folder))
        ready, peak, times = loaded(args.model, args.device, Path(folder), args.repeats)
    print(f"whole command: {whole:.1f} s, peak memory {memory:.0f} MB")
    print(f"import and load: {ready:.1f} s")
    print(f"prompt to files once loaded: first {times[0]:.1f} s, median {sorted(times)[len(times) // 2]:.1f} s")
    print(f"bf16 matrix rate, same run: {peak:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
