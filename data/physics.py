"""The physics world: clips of bodies that drop, roll, collide or are struck, with video, sound and sensors in step.

MuJoCo simulates a scene (`physics_simulation`); the motion is drawn by a ray caster (`physics_render`), heard through
modal synthesis (`physics_sound`) and felt by an accelerometer, a gyroscope and a force plate (`physics_sensors`).
The times of all contacts are known. Everything follows from (seed, split): the same pair gives the same bits.

    clip = simulate(sample_scene(7))
    clip.metadata["prompt"]      # "a small glass ball drops on a wooden floor and bounces"
    clip.events                  # seconds at which impacts begin
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch

from ..modalities.clip import Clip, Track
from .physics_captions import write_captions
from .physics_render import FRAME_RATE, render, visible
from .physics_scene import (
    ACTIONS,
    FLOORS,
    MATERIALS,
    SHAPES,
    SIZES,
    SPLITS,
    Layout,
    Scene,
    draw_layout,
    half_extents,
    held_out,
    sample_scene,
)
from .physics_sensors import SENSOR_RATE, Impact, find_events, find_impacts, read_sensors
from .physics_simulation import Motion, run
from .physics_sound import AUDIO_RATE, synthesize

__all__ = [
    "ACTIONS",
    "FLOORS",
    "MATERIALS",
    "SHAPES",
    "SIZES",
    "SPLITS",
    "Scene",
    "generate",
    "held_out",
    "sample_scene",
    "simulate",
]

ATTEMPTS = 24
BOUNCE_HEIGHT = 0.035  # metres: two pixels, the least that is called a bounce
CHANNELS = {
    "accelerometer": (("x", "y", "z"), "m/s²"),
    "gyroscope": (("x", "y", "z"), "rad/s"),
    "force": (("z",), "N"),
}


def simulate(scene: Scene) -> Clip:
    """Make the clip of a scene: 2.56 s of video, audio and sensors, with `events` and captions.

    Returns:
        audio `[1, 40960]` at 16 kHz, video `[64, 64, 64, 3]` at 25 fps, sensor accelerometer `[3, 256]` m/s²,
        gyroscope `[3, 256]` rad/s and force `[1, 256]` N at 100 Hz;
        metadata: captions, prompt, attributes, seed, split.

    Raises:
        RuntimeError: no attempt kept the objects in the picture and let them meet; `generate` then draws another scene.
    """
    layout, motion, impacts, events = _act(scene)
    with _one_thread():
        video = render(scene, motion)
    sensors = {
        name: Track(values, SENSOR_RATE, names=CHANNELS[name][0], units=(CHANNELS[name][1],) * len(values))
        for name, values in read_sensors(motion).items()
    }
    captions = write_captions(scene, _bounces(scene, motion, impacts), len(layout.strikes))
    metadata = {
        "captions": captions,
        "prompt": captions[0],
        "attributes": scene.attributes,
        "seed": scene.seed,
        "split": scene.split,
    }
    audio = Track(synthesize(scene, motion, impacts), AUDIO_RATE)
    return Clip(audio, Track(video, FRAME_RATE), sensors, events, metadata)


def generate(seeds: Iterable[int], split: str = "train", workers: int = 1) -> Iterator[Clip]:
    """Clips of these seeds, in their order.

    Args:
        workers: processes; 1 stays in this one. The clips are the same for any number.
    """
    make = partial(_make, split=split)
    if workers <= 1:
        yield from map(make, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(make, seeds, chunksize=8)


def _make(seed: int, split: str) -> Clip:
    for draw in range(ATTEMPTS):
        try:
            return simulate(sample_scene(int(seed), split, draw))
        except RuntimeError:  # about one scene in a thousand, e.g. heavy blocks that never reach each other
            continue
    raise RuntimeError(f"seed {seed} ({split}): no scene can be filmed")


def _act(scene: Scene) -> tuple[Layout, Motion, list[Impact], tuple[float, ...]]:
    """The first attempt in which everything stays in the picture and what the caption says happens."""
    for attempt in range(ATTEMPTS):
        layout = draw_layout(scene, attempt)
        motion = run(scene, layout)
        impacts = find_impacts(scene, motion)
        events = find_events(impacts)
        if events and _in_view(scene, motion) and _true(scene, layout, impacts, events):
            return layout, motion, impacts, events
    raise RuntimeError(f"seed {scene.seed} ({scene.split}): no attempt kept the objects in the picture")


def _in_view(scene: Scene, motion: Motion) -> bool:
    reach = half_extents(scene.shape, scene.size)[0] * (0.9 if scene.shape == "ball" else 0.75)
    return visible(motion.position[::80].reshape(-1, 3), reach)


def _true(scene: Scene, layout: Layout, impacts: list[Impact], events: tuple[float, ...]) -> bool:
    """Whether the action is there to be perceived, and early enough to be followed."""
    if events[0] > 1.6:
        return False
    if scene.action == "collide":
        return any(impact.pair == (0, 1) and impact.speed >= impact.audible for impact in impacts)
    if scene.action == "struck":
        hits = [impact.time for impact in impacts if impact.pair[0] == "mallet" and impact.speed > 0.8]
        return all(any(abs(hit - strike) < 0.2 for hit in hits) for strike in layout.strikes)
    return True


def _bounces(scene: Scene, motion: Motion, impacts: list[Impact]) -> bool:
    """Whether the first object visibly leaves the floor after it first met it."""
    first = next((impact.step for impact in impacts if impact.pair == ("floor", 0)), None)
    if first is None:
        return False
    up = np.abs(motion.rotation[first::40, 0, 2, :])  # how much of each body axis points up
    a, b, c = half_extents(scene.shape, scene.size)
    below = {"ball": up[:, 0] * 0 + a, "block": up @ np.array([a, b, c]), "rod": c + (a - c) * up[:, 0]}[scene.shape]
    return bool((motion.position[first::40, 0, 2] - below).max() > BOUNCE_HEIGHT)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small tensors are fastest on one thread, and the sums are the same on any machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)
