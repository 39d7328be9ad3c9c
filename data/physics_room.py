"""The room of the physics world: the fixed camera, the light, and the empty picture of each floor.

The camera looks along +y, slightly down; x points right and z up. Lengths are in metres.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

SIZE, RAYS = 64, 2  # pixels a side; rays a pixel and side
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


def project(points: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel coordinates (x, y) `[N, 2]` of world points `[N, 3]` and pixels per metre there `[N]`."""
    right, down, forward = _axes()
    offset = points - torch.tensor(CAMERA)
    scale = _focal() / (offset * forward).sum(1)
    return torch.stack([(offset * right).sum(1) * scale, (offset * down).sum(1) * scale], 1) + SIZE / 2, scale


def lights() -> Tensor:
    """Unit directions to the light `[4, 3]`, one for each ray of a pixel."""
    shift = torch.tensor([[-1.0, -0.4, 0.0], [0.4, -1.0, 0.0], [-0.4, 1.0, 0.0], [1.0, 0.4, 0.0]]) * 0.05
    return torch.nn.functional.normalize(torch.tensor(LIGHT) + shift, dim=1)


@cache
def background(floor: str) -> tuple[Tensor, Tensor, Tensor]:
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


def _axes() -> tuple[Tensor, Tensor, Tensor]:
    """The camera's unit vectors: right, down, forward."""
    forward = torch.nn.functional.normalize(torch.tensor(TARGET) - torch.tensor(CAMERA), dim=0)
    right = torch.tensor([1.0, 0.0, 0.0])
    return right, torch.linalg.cross(forward, right), forward


def _focal() -> float:
    """Focal length in pixels."""
    distance = float(np.linalg.norm(np.subtract(TARGET, CAMERA)))
    return SIZE * distance / WIDTH
