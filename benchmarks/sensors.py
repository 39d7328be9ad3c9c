"""Windows of sensors: CPU-seconds for 1,000 of them, by how many tokens are sampled at once.

    python benchmarks/sensors.py --set fMRI --data sim4.mat --tokens 1500 3000 6000

The network is that of `counterpoint train sensors`, untrained, and calibrated, since `sample` then does as much as for
a trained one. The numbers of tokens take turns.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

import counterpoint.recipes.sensors_generator as sensors_generator
from counterpoint.data.series import load_windows
from counterpoint.data.window_start import WindowStart
from counterpoint.diffusion.model_files import fast_bf16
from counterpoint.recipes.sensors import Settings, build_transformer, fit_codec, some_latents, walk
from counterpoint.recipes.sensors_generator import SeriesGenerator


def untrained(settings: Settings, data: Path | None) -> SeriesGenerator:
    """A generator with the codec of a set's windows and a network that says something."""
    windows = load_windows(settings.set, settings.length, data, settings.series_seed)
    codec = fit_codec(settings, windows.values)
    transformer = build_transformer(settings, codec)
    for parameter in transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    facts = {"length": settings.length, **walk(settings, codec)}
    latents = some_latents(codec, windows.values)
    generator = SeriesGenerator(codec, transformer, facts, start=WindowStart.fit(latents))
    generator.calibrate(windows.values, latents, 256, not windows.overlapping)
    return generator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="Sines")
    parser.add_argument("--length", type=int, default=24)
    parser.add_argument("--data", type=Path, help="the set's file or a folder with it; none for Sines")
    parser.add_argument("--solver", default="", help="angle, or another; the recipe's own if none is given")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1500, sensors_generator.TOKENS, 6000])
    parser.add_argument("--windows", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    generator = untrained(Settings(set=args.set, length=args.length, solver=args.solver), args.data)
    bf16 = fast_bf16(torch.device("cpu"))
    facts = generator.facts
    print(f"{args.set} at {args.length}, {facts['solver']}, {facts['steps']} steps, {'bf16' if bf16 else 'fp32'}")
    print(f"{'tokens':>8}{'windows':>9}  CPU-seconds for 1,000 windows")
    seconds: dict[int, list[float]] = {tokens: [] for tokens in args.tokens}
    for repeat in range(args.repeats):
        for tokens, own in seconds.items():
            sensors_generator.TOKENS = tokens
            start = time.process_time()
            generator.sample(args.windows, seed=repeat, bf16=bf16)
            own.append((time.process_time() - start) * 1000 / args.windows)
    for tokens, own in seconds.items():
        sensors_generator.TOKENS = tokens
        print(f"{tokens:>8}{generator.batch:>9}  {'  '.join(f'{s:.2f}' for s in sorted(own))}")


if __name__ == "__main__":
    main()
