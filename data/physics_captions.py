"""Captions of the physics world: many wordings, each of which states only what can be seen and heard in the clip."""

from __future__ import annotations

import numpy as np

from .physics_scene import Scene, rng_of

ADJECTIVE = {
    "wood": ("wooden", "wood"),
    "metal": ("metal", "metallic"),
    "glass": ("glass",),
    "rubber": ("rubber",),
    "stone": ("stone",),
}
SIZE_WORD = {"small": ("small", "little"), "medium": ("medium", "medium-sized"), "large": ("large", "big")}
SHAPE_WORD = {"ball": ("ball", "sphere"), "block": ("block", "box"), "rod": ("rod", "bar")}
FLOOR_WORD = ("floor", "floor", "surface")

TEMPLATES: dict[str, tuple[str, ...]] = {
    "drop": (
        "{a} drops on {floor}{after}",
        "{a} falls onto {floor}{after}",
        "{a} is dropped on {floor}{after}",
        "{floor}: {a} falls straight down{after}",
        "dropping {a} on {floor}",
        "{a} hits {floor} after a fall",
    ),
    "tilted drop": (
        "{a} drops at an angle on {floor}{after}",
        "{a} falls tilted onto {floor}{after}",
        "a tilted drop of {a} on {floor}",
        "{a}, tilted, is dropped on {floor}{after}",
        "{floor}: {a} falls tilted and lands on its edge",
        "{a} falls at a slant and hits {floor}",
    ),
    "throw": (
        "{a} is thrown across {floor}{after}",
        "{a} is tossed onto {floor}{after}",
        "someone throws {a} onto {floor}",
        "{a} flies in an arc and lands on {floor}{after}",
        "throwing {a} across {floor}",
        "{floor}: {a} is thrown sideways{after}",
    ),
    "roll": (
        "{a} rolls on {floor}",
        "{a} lands and rolls across {floor}",
        "{a} rolling over {floor}",
        "{floor}: {a} comes down and rolls",
        "{a} touches down on {floor} and rolls along",
        "a rolling motion: {a} on {floor}",
    ),
    "collide": (
        "{a} collides with {b} on {floor}",
        "{a} runs into {b} on {floor}",
        "{a} hits {b} on {floor}",
        "a collision: {a} against {b} on {floor}",
        "{floor}: {a} bumps into {b}",
        "two objects collide on {floor}, {a} and {b}",
    ),
    "two objects": (
        "{a} and {b} drop on {floor}",
        "{a} and {b} fall onto {floor}",
        "two objects, {a} and {b}, are dropped on {floor}",
        "{a} falls on {floor}, and so does {b}",
        "{floor}: {a} and {b} fall one after the other",
        "dropping {a} and {b} on {floor}",
    ),
    "struck": (
        "{a} on {floor} is struck by a mallet{times}",
        "a mallet strikes {a} on {floor}{times}",
        "{a} lying on {floor} is hit with a mallet{times}",
        "{floor}: a mallet hits {a}{times}",
        "striking {a} on {floor} with a mallet{times}",
        "a stick with a yellow head taps {a} on {floor}{times}",
    ),
}
TIMES = {1: ("", " once"), 2: (" twice",), 3: (" three times",)}
LANDINGS = ("", " and bounces")


def captions(scene: Scene, events: int, wordings: int = 4) -> list[str]:
    """Different captions of one clip, the first of them its prompt.

    Args:
        scene: what happens.
        events: number of perceptible contacts; "bounces" is said of a ball that meets the floor at least twice.
        wordings: how many.
    """
    rng = rng_of(scene.seed, scene.split, 2)
    order = rng.permutation(len(TEMPLATES[scene.action]))[:wordings]
    return [_fill(TEMPLATES[scene.action][i], scene, events, rng) for i in order]


def _fill(template: str, scene: Scene, events: int, rng: np.random.Generator) -> str:
    floor = f"{_article(pick := _word(ADJECTIVE[scene.floor], rng))} {pick} {_word(FLOOR_WORD, rng)}"
    bounces = scene.shape == "ball" and events >= 2
    after = _word(LANDINGS if bounces else ("",), rng)
    return template.format(
        a=_object(scene, 0, rng),
        b=_object(scene, 1, rng) if scene.count == 2 else "",
        floor=floor,
        after=after,
        times=_word(TIMES.get(events, ("",)), rng),
    )


def _object(scene: Scene, k: int, rng: np.random.Generator) -> str:
    size = _word(SIZE_WORD[scene.size], rng)
    return f"a {size} {_word(ADJECTIVE[scene.materials[k]], rng)} {_word(SHAPE_WORD[scene.shape], rng)}"


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _word(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
