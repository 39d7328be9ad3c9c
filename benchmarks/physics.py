"""Clips of the physics world per CPU-second, rendering and sound included.

    python benchmarks/physics.py [--clips 100]

The target is at least 4 on one core. CPU time is measured, so a busy machine changes the result little.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict

from counterpoint.data.physics import generate


def main() -> None:
    """Print the rate over all scenes and the CPU milliseconds of each action."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=100)
    count = parser.parse_args().clips
    times: dict[str, list[float]] = defaultdict(list)
    next(generate(range(1)))  # caches
    start = last = time.process_time()
    for clip in generate(range(count)):
        now = time.process_time()
        times[clip.metadata["attributes"]["action"]].append(now - last)
        last = now
    print(f"{count / (last - start):.1f} clips per CPU-second")
    for action, seconds in sorted(times.items()):
        print(f"{action:12} {1000 * sum(seconds) / len(seconds):4.0f} ms over {len(seconds)} clips")


if __name__ == "__main__":
    main()
