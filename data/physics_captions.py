"""Captions of a scene in several wordings. They state only what the clip shows: "bounces" is said if it was seen."""

from __future__ import annotations

import numpy as np

from .physics_scene import Scene, rng_of

MATERIAL_WORDS = {
    "wood": ("wooden", "wood"),
    "metal": ("metal", "metallic"),
    "glass": ("glass",),
    "rubber": ("rubber",),
    "stone": ("stone",),
}
FLOOR_WORDS = {
    "wood": ("a wooden floor", "a wood floor"),
    "metal": ("a metal floor", "a metallic floor"),
    "glass": ("a glass floor",),
    "rubber": ("a rubber floor", "a rubber mat"),
    "stone": ("a stone floor",),
}
SHAPE_WORDS = {"ball": ("ball",), "block": ("block",), "rod": ("rod",)}
SIZE_WORDS = {"small": ("small", "little"), "medium": ("medium-sized", "medium"), "large": ("large", "big")}

# {one}: a small glass ball; {floor}: a wooden floor; the part in brackets is kept only if the object bounces.
TEMPLATES = {
    "drop": (
        "{one} drops on {floor}[ and bounces]",
        "{one} falls on {floor}[ and bounces]",
        "{one} is dropped onto {floor}[ and bounces]",
        "{one} falls straight down onto {floor}[, bouncing]",
        "a drop of {one} onto {floor}[ with a bounce]",
        "{one} lands on {floor}[ and bounces]",
        "on {floor}, {one} is dropped[ and bounces]",
    ),
    "tilted drop": (
        "{one} drops tilted on {floor}[ and bounces]",
        "{one} falls at an angle on {floor}[ and bounces]",
        "a tilted drop of {one} on {floor}",
        "{one}, held at a slant, is dropped onto {floor}[ and bounces]",
        "{one} falls on {floor} with one end first[ and bounces]",
        "tilted, {one} falls onto {floor}[ and bounces]",
    ),
    "throw": (
        "{one} is thrown on {floor}[ and bounces]",
        "{one} is tossed across {floor}[ and bounces]",
        "{one} flies in an arc and lands on {floor}[, bouncing]",
        "someone throws {one} onto {floor}[ and it bounces]",
        "a throw of {one} onto {floor}[ with a bounce]",
        "on {floor}, {one} is thrown[ and bounces]",
    ),
    "roll": (
        "{one} rolls on {floor}",
        "{one} rolls across {floor}",
        "{one} lands on {floor} and rolls",
        "{one} is set rolling on {floor}",
        "rolling {one} over {floor}",
        "on {floor}, {one} rolls along",
    ),
    "collide": (
        "{one} collides with {other} on {floor}",
        "{one} hits {other} on {floor}",
        "{one} {moves} into {other} on {floor}",
        "{one} bumps into {other} on {floor}",
        "on {floor}, {one} strikes {other}",
        "{one} knocks against {other} on {floor}",
    ),
    "two objects": (
        "{one} and {other} drop on {floor}",
        "{one} and {other} fall on {floor} one after the other",
        "two objects, {one} and {other}, are dropped onto {floor}",
        "{one} and {other} are dropped on {floor} from different heights",
        "dropping {one} and {other} on {floor}",
        "on {floor}, {one} and {other} fall",
    ),
    "struck": (
        "{one} on {floor} is struck with a mallet[ {times}]",
        "a mallet hits {one} on {floor}[ {times}]",
        "{one} resting on {floor} is hit by a mallet[ {times}]",
        "a mallet strikes {one} that lies on {floor}[ {times}]",
        "striking {one} on {floor} with a mallet[ {times}]",
        "on {floor}, {one} is struck by a mallet[ {times}]",
    ),
}


def write_captions(scene: Scene, bounces: bool, strikes: int, count: int = 4) -> list[str]:
    """Captions in `count` different wordings, seeded by the scene.

    Args:
        bounces: the first object visibly leaves the floor after its first contact.
        strikes: number of strikes of the mallet.
    """
    rng = rng_of(scene.seed, scene.split, 3)
    templates = TEMPLATES[scene.action]
    return [_fill(templates[i], scene, bounces, strikes, rng) for i in rng.permutation(len(templates))[:count]]


def _fill(template: str, scene: Scene, bounces: bool, strikes: int, rng: np.random.Generator) -> str:
    def pick(words: tuple[str, ...]) -> str:
        return words[int(rng.integers(len(words)))]

    size, shape, floor = pick(SIZE_WORDS[scene.size]), pick(SHAPE_WORDS[scene.shape]), pick(FLOOR_WORDS[scene.floor])
    names = [f"a {size} {pick(MATERIAL_WORDS[material])} {shape}" for material in scene.materials]
    other = names[-1] if scene.second != scene.material else f"another {size} {shape} of {scene.material}"
    said = strikes > 0 if scene.action == "struck" else bounces
    said = said and bool(rng.random() < 0.7)
    text = template.replace("[", "").replace("]", "") if said else _without(template)
    times = {1: "once", 2: "twice"}.get(strikes, f"{strikes} times")
    moves = "slides" if scene.shape == "block" else "rolls"
    return text.format(one=names[0], other=other, floor=floor, times=times, moves=moves)


def _without(template: str) -> str:
    start, stop = template.find("["), template.find("]")
    return template if start < 0 else template[:start] + template[stop + 1 :]
