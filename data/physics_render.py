"""A ray caster vectorized in torch: balls, blocks, rods and the mallet over a textured floor, 64×64 at 25 fps.

All rays of all frames that can meet an object or its shadow are cast in one pass; the rest of the picture is the
floor's cached background. Four rays a pixel; each of the four sees a slightly different light, which softens shadows.
Shapes: N rays, F frames.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .physics_room import CAMERA, LIGHT, RAYS, SIZE, background, lights, project
from .physics_scene import Scene, half_extents
from .physics_shapes import Part, meet, surface
from .physics_simulation import MALLET_LENGTH, MALLET_RADIUS, STEP, Motion

FRAMES, FRAME_RATE = 64, 25


def render(scene: Scene, motion: Motion) -> np.ndarray:
    """The video of a clip `[64, 64, 64, 3]` uint8 RGB; frame `i` shows the world at `i / 25` seconds."""
    parts = _parts(scene, motion)
    moved = torch.zeros(FRAMES, dtype=torch.bool)
    moved[0] = True
    for part in parts:
        pose = torch.cat([part.centre, part.rotation.flatten(1) * part.radius], 1)
        moved[1:] |= ((pose[1:] - pose[:-1]).abs() > 1e-4).any(1)
    keep = moved.nonzero()[:, 0]
    parts = [Part(p.shape, p.material, p.extents, p.centre[keep], p.rotation[keep]) for p in parts]
    frames = _draw(parts, scene.floor, len(keep))
    return frames[(torch.cumsum(moved, 0) - 1)].numpy()


def visible(centre: np.ndarray, radius: float) -> bool:
    """Whether balls of this radius around the centres `[N, 3]` (m) stay inside the picture."""
    pixels, scale = project(torch.as_tensor(centre, dtype=torch.float32))
    margin = radius * scale[:, None]
    return bool(((pixels - margin >= -0.5) & (pixels + margin <= SIZE + 0.5)).all())


def _parts(scene: Scene, motion: Motion) -> list[Part]:
    steps = np.round(np.arange(FRAMES) / FRAME_RATE / STEP).astype(int)
    parts = []
    for k, material in enumerate(scene.materials):
        centre = torch.from_numpy(motion.position[steps, k]).float()
        rotation = torch.from_numpy(motion.rotation[steps, k]).float()
        parts.append(Part(scene.shape, material, half_extents(scene.shape, scene.size), centre, rotation))
    if motion.mallet is None:
        return parts
    angle = torch.from_numpy(motion.mallet[0][steps]).float()
    pivot = torch.from_numpy(motion.mallet[1]).float()
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros(FRAMES), torch.ones(FRAMES)
    rotation = torch.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], 1).view(FRAMES, 3, 3)
    head = pivot - MALLET_LENGTH * rotation[:, :, 0]
    handle = pivot - 0.5 * MALLET_LENGTH * rotation[:, :, 0]
    return [
        *parts,
        Part("rod", "handle", (MALLET_LENGTH / 2, 0.016, 0.016), handle, rotation),
        Part("ball", "mallet", (MALLET_RADIUS, MALLET_RADIUS, MALLET_RADIUS), head, rotation),
    ]


def _draw(parts: list[Part], floor: str, frames: int) -> Tensor:
    """Frames `[F, 64, 64, 3]` uint8."""
    plain, rays, ground = background(floor)
    video = plain.mean(2).repeat(frames, 1, 1, 1)  # [F, 64, 64, 3]
    mask = torch.zeros(frames, SIZE, SIZE, dtype=torch.bool)
    for part in parts:
        mask |= _footprint(part)
    frame, row, column = mask.nonzero().T
    direction = rays[row, column].flatten(0, 1)  # [N, 3], four rays a pixel
    place, colour = ground[row, column].flatten(0, 1), plain[row, column].flatten(0, 1)
    frame = frame.repeat_interleave(RAYS * RAYS)
    light = lights().repeat(len(row), 1)
    colour = colour * _shade(parts, frame, place, light)[:, None]
    colour = _cast(parts, frame, direction, colour)
    video[mask] = colour.view(len(row), RAYS * RAYS, 3).mean(1)
    return (video.clamp(0, 1) * 255).round().to(torch.uint8)


def _cast(parts: list[Part], frame: Tensor, direction: Tensor, colour: Tensor) -> Tensor:
    """Colour `[N, 3]` of the nearest part on each ray over what lies behind; glass lets it through."""
    origin = torch.tensor(CAMERA)
    order = sorted(parts, key=lambda part: part.material == "glass")
    nearest = torch.full((len(frame),), torch.inf)
    for part in order:
        hit, distance, normal, local = meet(part, frame, origin.expand(len(frame), 3), direction, surface=True)
        closer = distance < nearest[hit]
        hit, distance, normal, local = hit[closer], distance[closer], normal[closer], local[closer]
        colour = colour.clone()
        colour[hit] = surface(part, normal, direction[hit], local, colour[hit])
        nearest[hit] = distance
    return colour


def _shade(parts: list[Part], frame: Tensor, place: Tensor, light: Tensor) -> Tensor:
    """Share of the light `[N]` that reaches the floor."""
    share = torch.ones(len(frame))
    for part in filter(lambda part: part.shadow, parts):
        hit = meet(part, frame, place, light, surface=False)[0]
        share[hit] *= 0.62 if part.material == "glass" else 0.42
    return share


def _footprint(part: Part) -> Tensor:
    """Pixels that the part or its shadow can touch `[F, 64, 64]`; a rod is covered by balls along its axis."""
    if part.shape != "rod":
        return _cover(part.centre, part.radius, part.shadow)
    half, radius = part.extents[0], part.extents[1]
    count = int(np.ceil(half / radius / 2)) + 1
    mask = torch.zeros(len(part.centre), SIZE, SIZE, dtype=torch.bool)
    for shift in np.linspace(-1, 1, count) * (half - radius):
        mask |= _cover(part.centre + float(shift) * part.rotation[:, :, 0], 1.6 * radius, part.shadow)
    return mask


def _cover(centre: Tensor, reach: float, shadow: bool) -> Tensor:
    around = _box(centre, torch.full_like(centre[:, 0], reach), 1.0)
    if not shadow:
        return around
    ground = (centre - centre[:, 2:] * torch.tensor(LIGHT)) * torch.tensor([1.0, 1.0, 0.0])
    return around | _box(ground, reach * 1.12 + 0.06 * centre[:, 2].clamp(min=0), 0.6)


def _box(centre: Tensor, radius: Tensor, flat: float) -> Tensor:
    pixels, scale = project(centre)
    half = torch.stack([radius * scale, radius * scale * flat], 1) * 1.06 + 1.0
    low, high = pixels - half, pixels + half
    grid = torch.arange(SIZE) + 0.5
    x = (grid > low[:, :1]) & (grid < high[:, :1])
    y = (grid > low[:, 1:]) & (grid < high[:, 1:])
    return y[:, :, None] & x[:, None, :]
