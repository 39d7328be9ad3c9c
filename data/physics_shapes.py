"""What can be drawn: where rays meet balls, blocks and rods, and how materials look there. N rays, F frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .physics_room import LIGHT

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


def meet(part: Part, frame: Tensor, origin: Tensor, direction: Tensor, surface: bool) -> tuple[Tensor, ...]:
    """Which rays meet the part, and there: distance, normal (world) and place in the body's frame, scaled to ±1."""
    offset = origin - part.centre[frame]
    along = (offset * direction).sum(1)
    near = (offset * offset).sum(1) - along**2 < part.radius**2 * 1.001
    index = near.nonzero()[:, 0]
    rotation = part.rotation[frame[index]]
    o = torch.einsum("nij,ni->nj", rotation, offset[index])
    d = torch.einsum("nij,ni->nj", rotation, direction[index])
    solve: Callable = {"ball": _meet_ball, "block": _meet_block, "rod": _meet_rod}[part.shape]
    distance, normal = solve(o, d, torch.tensor(part.extents))
    good = (distance > 1e-4) & torch.isfinite(distance)
    if not surface:
        return (index[good],)
    index, distance, normal = index[good], distance[good], normal[good]
    local = (o[good] + distance[:, None] * d[good]) / torch.tensor(part.extents)
    return index, distance, torch.einsum("nij,nj->ni", rotation[good], normal), local


def surface(part: Part, normal: Tensor, direction: Tensor, local: Tensor, behind: Tensor) -> Tensor:
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
