"""What happens in a clip of the physics world: its attributes, and the numbers drawn for them.

Lengths are in metres, angles in radians, velocities in m/s. The camera looks along +y; x points right, z up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

MATERIALS: tuple[str, ...] = ("wood", "metal", "glass", "rubber", "stone")
SHAPES: tuple[str, ...] = ("ball", "block", "rod")
SIZES: tuple[str, ...] = ("small", "medium", "large")
FLOORS: tuple[str, ...] = ("wood", "metal", "glass", "rubber", "stone")
ACTIONS: tuple[str, ...] = ("drop", "tilted drop", "throw", "roll", "collide", "two objects", "struck")
SPLITS: tuple[str, ...] = ("train", "test", "unseen")

SCALE = {"small": 0.07, "medium": 0.105, "large": 0.15}  # radius of the ball; blocks and rods follow it
MASS = {"wood": 0.5, "metal": 1.6, "glass": 1.0, "rubber": 0.7, "stone": 1.3}  # kg at medium size; bodies are hollow
SHAPE_ACTIONS = {  # what a shape can do: a tilted ball is no different, a block does not roll, rods miss each other
    "ball": ("drop", "throw", "roll", "collide", "two objects", "struck"),
    "block": ("drop", "tilted drop", "throw", "collide", "two objects", "struck"),
    "rod": ("drop", "tilted drop", "throw", "roll", "two objects", "struck"),
}
PAIR_SIZES = ("small", "medium")  # two large objects would not fit into the picture
RUN_UP = 0.08  # seconds that a collision's first object has been under way when the clip begins


@dataclass(frozen=True)
class Scene:
    """One clip to be: the first object is the one that is named first and carries the sensors.

    Args:
        seed: what every random draw of the clip starts from.
        split: "train", "test" (same combinations, other draws) or "unseen" (combinations held out of training).
        material, shape, size: of the first object; a second one has the same shape and size.
        floor: material of the floor.
        action: one of `ACTIONS`.
        second: material of the second object, or None.
    """

    seed: int
    split: str
    material: str
    shape: str
    size: str
    floor: str
    action: str
    second: str | None = None

    @property
    def count(self) -> int:
        """Number of objects (the mallet is not counted)."""
        return 1 if self.second is None else 2

    @property
    def attributes(self) -> dict[str, str | int]:
        """The facts of the clip by name: material, shape, size, floor, action, count."""
        return {
            "material": self.material,
            "shape": self.shape,
            "size": self.size,
            "floor": self.floor,
            "action": self.action,
            "count": self.count,
        }

    @property
    def materials(self) -> tuple[str, ...]:
        """Material of each object."""
        return (self.material,) if self.second is None else (self.material, self.second)


@dataclass(frozen=True)
class Placement:
    """Where one object starts: position of its centre, Euler angles (z · y · x), velocity and spin (world frame)."""

    position: tuple[float, float, float]
    euler: tuple[float, float, float] = (0.0, 0.0, 0.0)
    velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)
    spin: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Layout:
    """Numbers drawn for a scene: seconds held before release (negative: under way), objects, the mallet's strikes."""

    hold: float
    placements: tuple[Placement, ...]
    strikes: tuple[float, ...] = ()


@cache
def held_out() -> frozenset[tuple[str, str, str]]:
    """The 12 of 75 (material, shape, floor) triples that training never sees.

    Each (material, floor) pair loses at most one of its three shapes, so every pair stays in training.
    """
    triples = set()
    for m, material in enumerate(MATERIALS):
        for f, floor in enumerate(FLOORS):
            diagonal = (m + 2 * f) % 5
            if diagonal in (0, 2) or (diagonal == 4 and m < 2):
                triples.add((material, SHAPES[(m + f) % 3], floor))
    return frozenset(triples)


def rng_of(seed: int, split: str, *stream: int) -> np.random.Generator:
    """A generator for one purpose (`stream`) of one clip; independent of every other."""
    return np.random.default_rng([SPLITS.index(split), *stream, seed])


def sample_scene(seed: int, split: str = "train", draw: int = 0) -> Scene:
    """Draw the attributes of one clip.

    Args:
        seed: non-negative integer; the same seed of another split gives an unrelated scene.
        split: "train" and "test" share combinations, "unseen" draws the first object from the held-out ones.
        draw: another scene for the same seed, for seeds whose first scene cannot be filmed.

    Raises:
        ValueError: unknown split or negative seed.
    """
    if split not in SPLITS:
        raise ValueError(f"split: {split!r} is not one of {', '.join(SPLITS)}")
    if seed < 0:
        raise ValueError(f"seed: {seed} is negative")
    rng = rng_of(seed, split, 0, *([draw] if draw else []))
    while True:
        material, shape, size, floor = (str(rng.choice(names)) for names in (MATERIALS, SHAPES, SIZES, FLOORS))
        if ((material, shape, floor) in held_out()) == (split == "unseen"):
            break
    action = str(rng.choice(SHAPE_ACTIONS[shape]))
    if action not in ("collide", "two objects"):
        return Scene(seed, split, material, shape, size, floor, action)
    seconds = [m for m in MATERIALS if split == "unseen" or (m, shape, floor) not in held_out()]
    return Scene(seed, split, material, shape, str(rng.choice(PAIR_SIZES)), floor, action, str(rng.choice(seconds)))


def half_extents(shape: str, size: str) -> tuple[float, float, float]:
    """Half lengths along the body's x, y, z: ball (r, r, r), block (a, b, c), rod (half length with caps, r, r)."""
    s = SCALE[size]
    return {"ball": (s, s, s), "block": (s, 0.8 * s, 0.8 * s), "rod": (1.75 * s, 0.42 * s, 0.42 * s)}[shape]


def draw_layout(scene: Scene, attempt: int = 0) -> Layout:
    """Draw the numbers of a scene; later attempts move more slowly, so that the objects stay in the picture."""
    rng = rng_of(scene.seed, scene.split, 1, attempt)
    draw = {
        "drop": _drop,
        "tilted drop": _drop,
        "throw": _throw,
        "roll": _roll,
        "collide": _collide,
        "two objects": _pair,
        "struck": _struck,
    }[scene.action]
    return draw(scene, rng, 0.98**attempt)


def _turn(scene: Scene, rng: np.random.Generator, tilt: float = 0.0) -> tuple[float, float, float]:
    """Euler angles: a modest turn about the vertical and a tilt in the plane of the picture."""
    jitter = rng.uniform(-0.03, 0.03, 2)
    yaw = rng.uniform(-0.4, 0.4)
    return (float(yaw), float(tilt + jitter[0]), float(jitter[1]))


def _rise(scene: Scene, tilt: float) -> float:
    """Height of the centre when the lowest point touches the floor at this tilt."""
    a, _, c = half_extents(scene.shape, scene.size)
    if scene.shape == "ball":
        return c
    if scene.shape == "rod":
        return c + (a - c) * abs(np.sin(tilt))
    return float(a * abs(np.sin(tilt)) + c * np.cos(tilt))


def _drop(scene: Scene, rng: np.random.Generator, pace: float) -> Layout:
    tilt = 0.0
    if scene.action == "tilted drop":
        tilt = float(rng.choice([-1, 1]) * rng.uniform(0.35, 0.7))
    height = rng.uniform(0.34, 0.66) - (0.08 if tilt and scene.size == "large" else 0.0)
    position = (rng.uniform(-0.2, 0.2) * pace, rng.uniform(-0.08, 0.08), height + _rise(scene, tilt))
    return Layout(rng.uniform(0.06, 0.5), (Placement(position, _turn(scene, rng, tilt)),))


def _throw(scene: Scene, rng: np.random.Generator, pace: float) -> Layout:
    side = float(rng.choice([-1, 1]))
    tilt = 0.0 if scene.shape == "ball" else rng.uniform(-0.3, 0.3)
    position = (side * rng.uniform(0.2, 0.34), rng.uniform(-0.08, 0.08), rng.uniform(0.2, 0.45) + _rise(scene, tilt))
    velocity = (-side * rng.uniform(0.45, 0.8) * pace, 0.0, rng.uniform(0.2, 1.3))
    spin = (0.0, rng.uniform(-4, 4) * pace, 0.0)
    return Layout(0.0, (Placement(position, _turn(scene, rng, tilt), velocity, spin),))


def _rolling(scene: Scene, side: float, heading: float, speed: float, position: tuple) -> Placement:
    """An object that rolls (or, a block, slides) towards -side · (cos, sin) of its heading."""
    direction = np.array([-side * np.cos(heading), -side * np.sin(heading), 0.0])
    spin = np.zeros(3) if scene.shape == "block" else np.cross([0, 0, 1], direction) * speed / _rise(scene, 0.0)
    yaw = heading + np.pi / 2 if scene.shape == "rod" else 0.0
    velocity, turn = tuple(map(float, direction * speed)), tuple(map(float, spin))
    return Placement(position, (yaw, 0.0, 0.0), velocity, turn)  # type: ignore[arg-type]


def _roll(scene: Scene, rng: np.random.Generator, pace: float) -> Layout:
    side = float(rng.choice([-1, 1]))
    heading = float(rng.choice([-1, 1]) * rng.uniform(0.45, 0.7)) if scene.shape == "rod" else rng.uniform(-0.15, 0.15)
    start, height = rng.uniform(0.22, 0.36), rng.uniform(0.05, 0.13)
    position = (side * start, side * start * np.sin(heading) * 0.7, height + _rise(scene, 0.0))
    return Layout(0.0, (_rolling(scene, side, heading, rng.uniform(0.5, 0.9) * pace, position),))


def _collide(scene: Scene, rng: np.random.Generator, pace: float) -> Layout:
    side = float(rng.choice([-1, 1]))
    a, _, c = half_extents(scene.shape, scene.size)
    heading = float(rng.choice([-1, 1]) * rng.uniform(0.45, 0.7)) if scene.shape == "rod" else 0.0
    reach = {"ball": 2 * c, "block": 2 * a, "rod": 2 * c}[scene.shape]
    direction = np.array([-side * np.cos(heading), -side * np.sin(heading)])
    target = np.array([-side * rng.uniform(0.0, 0.12), rng.uniform(-0.03, 0.03)])
    gap = rng.uniform(0.14, 0.27)
    speed = (rng.uniform(1.3, 1.7) if scene.shape == "block" else rng.uniform(0.8, 1.3)) * pace
    start = target - direction * (reach + gap + RUN_UP * speed)
    mover = _rolling(scene, side, heading, speed, (start[0], start[1], c))
    yaw = heading + np.pi / 2 if scene.shape == "rod" else rng.uniform(-0.1, 0.1)
    return Layout(-RUN_UP, (mover, Placement((target[0], target[1], c), (yaw, 0.0, 0.0))))


def _pair(scene: Scene, rng: np.random.Generator, pace: float) -> Layout:
    side = float(rng.choice([-1, 1]))
    heights = np.sort(rng.uniform(0.0, 0.22, 2) + np.array([0.12, 0.42]))[:: int(rng.choice([-1, 1]))]
    rise, placements = _rise(scene, 0.0), []
    for k, height in enumerate(heights):
        yaw, tilt, roll = _turn(scene, rng)
        yaw = yaw + np.pi / 3 if scene.shape == "rod" else yaw  # rods side by side, not end to end
        place = (side * (1 - 2 * k) * rng.uniform(0.22, 0.28), rng.uniform(-0.05, 0.05), height + rise)
        placements.append(Placement(place, (yaw, tilt, roll)))
    return Layout(rng.uniform(0.06, 0.5), tuple(placements))


def _struck(scene: Scene, rng: np.random.Generator, pace: float) -> Layout:
    yaw = rng.uniform(-0.3, 0.3)
    position = (rng.uniform(-0.2, 0.05), rng.uniform(-0.05, 0.05), half_extents(scene.shape, scene.size)[2])
    first, gaps = rng.uniform(0.3, 0.8), rng.uniform(0.4, 0.75, int(rng.integers(0, 3)))
    strikes = tuple(float(t) for t in first + np.concatenate([[0.0], np.cumsum(gaps)]))
    return Layout(0.0, (Placement(position, (yaw, 0.0, 0.0)),), strikes)
