"""The physics world: clips of things that fall, roll and are struck, with exact contact times.

    for clip in generate(range(100), split="train", workers=2): ...

MuJoCo moves the bodies, a ray caster draws them, the contact impulses ring their modes, and three sensors are read:
all from one simulation, so that video, sound and sensors agree to the millisecond. A clip is a function of its seed
and split alone. The parts: `physics_scene` (what happens), `physics_simulation`, `physics_render`, `physics_sound`,
`physics_sensors`, `physics_captions`.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
import torch

from ..modalities.clip import Clip, Track
from .physics_captions import captions
from .physics_render import FRAME_RATE, FRAMES, render, visible
from .physics_scene import (
    ACTIONS,
    FLOORS,
    MATERIALS,
    SCALE,
    SHAPES,
    SIZES,
    SPLITS,
    Scene,
    draw_layout,
    half_extents,
    held_out,
    sample_scene,
)
from .physics_sensors import SENSOR_RATE, Impact, find_events, find_impacts, read_sensors
from .physics_simulation import STEP, Motion, run
from .physics_sound import AUDIO_RATE, synthesize

ATTEMPTS = 12  # layouts drawn, each slower than the one before, until the clip is one that can be seen and heard
UNITS = {"accelerometer": ("xyz", "m/s²"), "gyroscope": ("xyz", "rad/s"), "force": ("z", "N")}


def simulate(scene: Scene) -> Clip:
    """The clip of a scene: 2.56 s of video 64×64 at 25 fps, sound at 16 kHz, sensors at 100 Hz, and contact times.

    Raises:
        RuntimeError: no layout of the scene stays in the picture and makes an audible contact.
    """
    for attempt in range(ATTEMPTS):
        motion = run(scene, draw_layout(scene, attempt))
        impacts = find_impacts(scene, motion)
        events = find_events(impacts)
        if events and _stays_visible(scene, motion):
            return _clip(scene, motion, impacts, events)
    raise RuntimeError(f"{scene}: no layout can be seen and heard")


def generate(seeds: Iterable[int], split: str = "train", workers: int = 1) -> Iterator[Clip]:
    """Clips of a split in the order of their seeds, made by a pool of processes.

    Args:
        seeds: one clip each.
        split: `train`, `test` (same combinations, other draws) or `unseen` (combinations never in training).
        workers: processes; 1 makes the clips in this one.
    """
    make = partial(_make, split=split)
    if workers <= 1:
        yield from map(make, seeds)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.imap(make, seeds, chunksize=4)


def _make(seed: int, split: str) -> Clip:
    return simulate(sample_scene(int(seed), split))


def _stays_visible(scene: Scene, motion: Motion) -> bool:
    steps = np.round(np.arange(FRAMES) / FRAME_RATE / STEP).astype(int)
    reach = 0.9 * max(half_extents(scene.shape, scene.size))
    return all(bool(np.all(visible(motion.position[steps, k], reach))) for k in range(scene.count))


def _clip(scene: Scene, motion: Motion, impacts: list[Impact], events: tuple[float, ...]) -> Clip:
    sensor = {
        name: Track(values, float(SENSOR_RATE), names=tuple(UNITS[name][0]), units=(UNITS[name][1],) * len(values))
        for name, values in read_sensors(motion).items()
    }
    said = captions(scene, len(events))
    metadata = {
        "captions": said,
        "prompt": said[0],
        "attributes": scene.attributes,
        "seed": scene.seed,
        "split": scene.split,
    }
    sound = synthesize(scene, motion, impacts).astype(np.float32)
    return Clip(
        audio=Track(sound, float(AUDIO_RATE)),
        video=Track(render(scene, motion), float(FRAME_RATE)),
        sensor=sensor,
        events=tuple(round(float(t), 4) for t in events),
        metadata=metadata,
    )


__all__ = [
    "ACTIONS", "FLOORS", "MATERIALS", "SCALE", "SHAPES", "SIZES", "SPLITS", "Scene", "generate", "held_out",
    "sample_scene", "simulate",
]  # fmt: skip
