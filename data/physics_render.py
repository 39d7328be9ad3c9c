"""A ray caster vectorized in torch: balls, blocks, rods and the mallet over a textured floor, 64×64 at 25 fps.

All rays of all frames that can meet an object or its shadow are cast in one pass; the rest of the picture is the
floor's cached background. Four rays a pixel; each of the four sees a slightly different light, which softens shadows.
Shapes: N rays, F frames, K parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from .physics_scene import Scene, half_extents
from .physics_simulation import MALLET_LENGTH, MALLET_RADIUS, STEP, Motion

SIZE, FRAMES, FRAME_RATE, RAYS = 64, 64, 25, 2
CAMERA, TARGET, WIDTH = (0.0, -2.1, 0.75), (0.0, 0.0, 0.42), 1.12  # metres; width of the picture at the target
WALL = 1.0  # y of the wall behind
LIGHT = (-0.18, -0.22, 1.0)
FLOOR_COLOURS = {  # light and dark of the texture
    "wood": ((0.86, 0.70, 0.47), (0.70, 0.53, 0.32)),
    "metal": ((0.52, 0.60, 0.76), (0.42, 0.50, 0.66)),
    "glass": ((0.80, 0.95, 0.93), (0.62, 0.85, 0.84)),
    "rubber": ((0.20, 0.44, 0.27), (0.16, 0.37, 0.22)),
    "stone": ((0.74, 0.70, 0.64), (0.56, 0.52, 0.47)),
}
COLOURS = {
    "wood": (0.56, 0.30, 0.10),
    "metal": (0.86, 0.88, 0.93),
    "glass": (0.25, 0.80, 0.95),
    "rubber": (0.85, 0.10, 0.14),
    "stone": (0.27, 0.25, 0.26),
    "mallet": (0.95, 0.80, 0.10),
    "handle": (0.35, 0.20, 0.12),
}


@dataclass(frozen=True)
class Part:
    """Something to draw: ball, block or rod with its half lengths, centre `[F, 3]` and body-to-world `[F, 3, 3]`."""

    shape: str
    material: str
    extents: tuple[float, float, float]
    centre: Tensor
    rotation: Tensor

    @property
    def shadow(self) -> bool:
        """Whether it darkens the floor (the thin handle does not)."""
        return self.material != "handle"

    @property
    def radius(self) -> float:
        """Radius of the sphere around it."""
        a, b, c = self.extents
        return (a * a + b * b + c * c) ** 0.5 if self.shape == "block" else a


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
    pixels, scale = _project(torch.as_tensor(centre, dtype=torch.float32))
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
        Part("ball", "mallet", (MALLET_RADIUS,) * 3, head, rotation),
    ]


def _draw(parts: list[Part], floor: str, frames: int) -> Tensor:
    """Frames `[F, 64, 64, 3]` uint8."""
    plain, rays, ground = _background(floor)
    video = plain.mean(2).repeat(frames, 1, 1, 1)  # [F, 64, 64, 3]
    mask = torch.zeros(frames, SIZE, SIZE, dtype=torch.bool)
    for part in parts:
        mask |= _footprint(part)
    frame, row, column = mask.nonzero().T
    direction = rays[row, column].flatten(0, 1)  # [N, 3], four rays a pixel
    place, colour = ground[row, column].flatten(0, 1), plain[row, column].flatten(0, 1)
    frame = frame.repeat_interleave(RAYS * RAYS)
    light = _lights().repeat(len(row), 1)
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
        hit, distance, normal, local = _meet(part, frame, origin.expand(len(frame), 3), direction, surface=True)
        closer = distance < nearest[hit]
        hit, distance, normal, local = hit[closer], distance[closer], normal[closer], local[closer]
        colour = colour.clone()
        colour[hit] = _surface(part, normal, direction[hit], local, colour[hit])
        nearest[hit] = distance
    return colour


def _shade(parts: list[Part], frame: Tensor, place: Tensor, light: Tensor) -> Tensor:
    """Share of the light `[N]` that reaches the floor."""
    share = torch.ones(len(frame))
    for part in filter(lambda part: part.shadow, parts):
        hit = _meet(part, frame, place, light, surface=False)[0]
        share[hit] *= 0.62 if part.material == "glass" else 0.42
    return share


def _meet(part: Part, frame: Tensor, origin: Tensor, direction: Tensor, surface: bool) -> tuple[Tensor, ...]:
    """Which rays meet the part, and there: distance, normal (world) and place in the body's frame, scaled to ±1."""
    offset = origin - part.centre[frame]
    along = (offset * direction).sum(1)
    near = (offset * offset).sum(1) - along**2 < part.radius**2 * 1.001
    index = near.nonzero()[:, 0]
    rotation = part.rotation[frame[index]]
    o = torch.einsum("nij,ni->nj", rotation, offset[index])
    d = torch.einsum("nij,ni->nj", rotation, direction[index])
    meet: Callable = {"ball": _meet_ball, "block": _meet_block, "rod": _meet_rod}[part.shape]
    distance, normal = meet(o, d, torch.tensor(part.extents))
    good = (distance > 1e-4) & torch.isfinite(distance)
    if not surface:
        return (index[good],)
    index, distance, normal = index[good], distance[good], normal[good]
    local = (o[good] + distance[:, None] * d[good]) / torch.tensor(part.extents)
    return index, distance, torch.einsum("nij,nj->ni", rotation[good], normal), local


def _meet_ball(o: Tensor, d: Tensor, extents: Tensor) -> tuple[Tensor, Tensor]:
    b, c = (o * d).sum(1), (o * o).sum(1) - extents[0] ** 2
    root = b * b - c
    distance = torch.where(root > 0, -b - root.clamp(min=0).sqrt(), torch.inf)
    return distance, (o + distance[:, None] * d) / extents[0]


def _meet_block(o: Tensor, d: Tensor, extents: Tensor) -> tuple[Tensor, Tensor]:
    d = torch.where(d.abs() < 1e-7, 1e-7, d)
    low, high = (-extents - o) / d, (extents - o) / d
    enter, axis = torch.minimum(low, high).max(1)
    leave = torch.maximum(low, high).amin(1)
    distance = torch.where(enter < leave, enter, torch.inf)
    normal = torch.zeros_like(o).scatter_(1, axis[:, None], -d.gather(1, axis[:, None]).sign())
    return distance, normal


def _meet_rod(o: Tensor, d: Tensor, extents: Tensor) -> tuple[Tensor, Tensor]:
    """A capsule along the body's x: the cylinder where it is met between the caps, else the nearer cap."""
    radius, half = extents[1], extents[0] - extents[1]
    a = (d[:, 1:] ** 2).sum(1).clamp(min=1e-9)
    b, c = (o[:, 1:] * d[:, 1:]).sum(1), (o[:, 1:] ** 2).sum(1) - radius**2
    root = b * b - a * c
    distance = torch.where(root > 0, (-b - root.clamp(min=0).sqrt()) / a, torch.inf)
    beside = ~((o[:, 0] + distance * d[:, 0]).abs() <= half)
    for end in (-half, half):
        cap = o - torch.stack([end, end * 0, end * 0])
        b, c = (cap * d).sum(1), (cap * cap).sum(1) - radius**2
        root = b * b - c
        at_cap = torch.where(root > 0, -b - root.clamp(min=0).sqrt(), torch.inf)
        distance = torch.where(beside & (at_cap < distance.where(~beside, torch.inf)), at_cap, distance)
        beside = beside & ~torch.isfinite(at_cap)
    distance = torch.where(beside, torch.inf, distance)
    place = o + distance[:, None] * d
    spine = torch.stack([place[:, 0].clamp(-half, half), place[:, 0] * 0, place[:, 0] * 0], 1)
    return distance, (place - spine) / radius


def _surface(part: Part, normal: Tensor, direction: Tensor, local: Tensor, behind: Tensor) -> Tensor:
    """Colour `[N, 3]` of a material where it is seen; a darker band around the body shows how it turns."""
    colour = torch.tensor(COLOURS[part.material])
    light = torch.nn.functional.normalize(torch.tensor(LIGHT) + torch.tensor((-0.25, -0.5, 0.0)), dim=0)
    diffuse = 0.42 + 0.68 * (normal * light).sum(1).clamp(min=0)
    facing = -(normal * direction).sum(1).clamp(max=0)
    mirror = direction + 2 * facing[:, None] * normal
    gloss = (mirror * light).sum(1).clamp(min=0)
    band = torch.ones(len(normal))
    if part.material not in ("mallet", "handle"):
        wide = local[:, 0].abs() < (0.25 if part.shape == "rod" else 0.3)
        band = torch.where(wide, 0.68, 1.0) if part.shape != "block" else 1.0 - 0.25 * (local[:, 2] > 0.55).float()
    shade = (diffuse * band)[:, None]
    if part.material == "metal":
        sky = (mirror[:, 2:] * 3 + 0.6).clamp(0, 1)
        return colour * band[:, None] * (0.72 + 0.36 * sky) + 0.9 * (gloss**24)[:, None]
    if part.material == "glass":
        rim = (0.35 + 0.5 * (1 - facing) ** 2)[:, None]
        tint = behind * (0.55 + 0.45 * colour)
        return tint * (1 - rim) + colour * rim * (0.6 + 0.4 * shade) + 1.0 * (gloss**40)[:, None]
    if part.material == "wood":
        grain = torch.sin(9 * local[:, 1] + 6 * local[:, 2] + 2 * torch.sin(2 * local[:, 0]))
        return colour * shade * (1 + 0.22 * grain[:, None]) + 0.08 * (gloss**8)[:, None]
    if part.material == "stone":
        speckle = torch.sin(23 * local[:, 0] + 3) * torch.sin(19 * local[:, 1] + 1) * torch.sin(21 * local[:, 2])
        return colour * shade * (1 + 1.1 * speckle[:, None].clamp(min=0) - 0.3 * speckle[:, None].clamp(max=0))
    return colour * shade


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
    pixels, scale = _project(centre)
    half = torch.stack([radius * scale, radius * scale * flat], 1) * 1.06 + 1.0
    low, high = pixels - half, pixels + half
    grid = torch.arange(SIZE) + 0.5
    x = (grid > low[:, :1]) & (grid < high[:, :1])
    y = (grid > low[:, 1:]) & (grid < high[:, 1:])
    return y[:, :, None] & x[:, None, :]


def _axes() -> tuple[Tensor, Tensor, Tensor]:
    """The camera's unit vectors: right, down, forward."""
    forward = torch.nn.functional.normalize(torch.tensor(TARGET) - torch.tensor(CAMERA), dim=0)
    right = torch.tensor([1.0, 0.0, 0.0])
    return right, torch.linalg.cross(forward, right), forward


def _focal() -> float:
    """Focal length in pixels."""
    distance = float(np.linalg.norm(np.subtract(TARGET, CAMERA)))
    return SIZE * distance / WIDTH


def _project(points: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel coordinates (x, y) `[N, 2]` of world points `[N, 3]` and pixels per metre there `[N]`."""
    right, down, forward = _axes()
    offset = points - torch.tensor(CAMERA)
    scale = _focal() / (offset * forward).sum(1)
    return torch.stack([(offset * right).sum(1) * scale, (offset * down).sum(1) * scale], 1) + SIZE / 2, scale


def _lights() -> Tensor:
    """Unit directions to the light `[4, 3]`, one for each ray of a pixel."""
    shift = torch.tensor([[-1.0, -0.4, 0.0], [0.4, -1.0, 0.0], [-0.4, 1.0, 0.0], [1.0, 0.4, 0.0]]) * 0.05
    return torch.nn.functional.normalize(torch.tensor(LIGHT) + shift, dim=1)


@cache
def _background(floor: str) -> tuple[Tensor, Tensor, Tensor]:
    """The empty room: colours, ray directions and points on the floor, each `[64, 64, 4, 3]`."""
    right, down, forward = _axes()
    steps = (torch.arange(SIZE * RAYS) + 0.5) / RAYS - SIZE / 2
    grid = torch.nn.functional.normalize(
        forward * _focal() + steps[None, :, None] * right + steps[:, None, None] * down, dim=-1
    )
    rays = grid.view(SIZE, RAYS, SIZE, RAYS, 3).transpose(1, 2).reshape(SIZE, SIZE, RAYS * RAYS, 3)
    origin = torch.tensor(CAMERA)
    ground = origin + rays * (-origin[2] / rays[..., 2:].clamp(max=-1e-6))
    on_floor = ground[..., 1:2] < WALL
    height = origin[2] + rays[..., 2:] / rays[..., 1:2] * (WALL - origin[1])
    wall = torch.tensor([0.93, 0.93, 0.95]) * (0.92 + 0.06 * height.clamp(0, 1.4))
    ground = torch.where(on_floor, ground, torch.tensor([0.0, 50.0, 0.0]))
    return torch.where(on_floor, _floor_colour(floor, ground), wall), rays, ground


def _floor_colour(floor: str, ground: Tensor) -> Tensor:
    light, dark = (torch.tensor(colour) for colour in FLOOR_COLOURS[floor])
    x, y = ground[..., :1], ground[..., 1:2]
    if floor == "wood":  # planks that run away from the camera
        share = ((x / 0.16).floor() % 2) * 0.6 + 0.15 * torch.sin(x * 140)
    elif floor == "metal":  # brushed across, with a sheen
        share = 0.5 + 0.35 * torch.sin(y * 60) - 0.6 * torch.exp(-((x + 0.25) ** 2) * 8)
    elif floor == "glass":  # panes with a diagonal reflection
        share = ((x + 0.5 * y + 0.1) % 0.5 < 0.12).float()
    elif floor == "rubber":  # a mat with dots
        share = ((torch.sin(x * 45) * torch.sin(y * 45)) > 0.35).float()
    else:  # flagstones with dark joints
        row = (y / 0.3).floor()
        share = (((y % 0.3) < 0.03) | (((x + 0.13 * row) % 0.36) < 0.03)).float() + 0.12 * torch.sin(x * 50 + y * 31)
    return light + (dark - light) * share.clamp(-0.3, 1)
