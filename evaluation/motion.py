"""Contacts seen in a video: moving things are tracked to a fraction of a pixel, and their tracks are read like an
accelerometer.

A falling thing accelerates by g; a blow changes its velocity at once. In positions `p` at frame times the second
difference `a[t] = p[t+1] − 2 p[t] + p[t−1]` then has two neighbouring spikes, of sizes `Δv (1 − s)` and `Δv s` for a
blow at frame t + s: their sum is the change of velocity, their centroid the time, both exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..modalities.clip import Track
from .events import merge

FOREGROUND = 0.12  # least distance to the background (RGB in [0, 1]) of a pixel that belongs to a thing
SHADOW = 0.05  # a pixel this close to a darker background is shadow
GRAVITY = 0.9  # px/frame² at 64 pixels for 1.12 m and 25 frames a second
BLOW = 1.3  # px/frame: least change of velocity that counts as a blow
LEAST_AREA = 6.0  # pixels
VIDEO_LAG = 0.003  # seconds: half the time a contact lasts


@dataclass(frozen=True)
class Path:
    """One thing's way through the picture: centre `[F, 2]` (x, y in pixels, y down) and area `[F]` in pixels."""

    centre: np.ndarray
    area: np.ndarray


def video_events(track: Track, backgrounds: np.ndarray | None = None) -> np.ndarray:
    """Contacts of the things that move in a video.

    Args:
        track: video `[F, H, W, 3]` uint8.
        backgrounds: empty scenes `[K, H, W, 3]` uint8, the nearest one is used; without them the background is the
            median over time, which shows a thing where it lies longer than half of the clip.

    Returns: times in seconds `[events]`.
    """
    video = np.asarray(track.values, np.float32) / 255
    weights = foreground(video, background(video, backgrounds))
    times = [blows(path) for path in paths(weights)]
    found = np.concatenate(times) / track.rate if times else np.zeros(0)
    return merge(found) + track.start - VIDEO_LAG


def background(video: np.ndarray, backgrounds: np.ndarray | None = None) -> np.ndarray:
    """The scene without its things `[H, W, 3]` in [0, 1]; video `[F, H, W, 3]` in [0, 1].

    The known background tells which of a pixel's own values are background; the median of those follows the clip's
    light and blur better than the known one does.
    """
    if backgrounds is None or not len(backgrounds):
        return np.median(video, axis=0)
    known = np.asarray(backgrounds, np.float32) / 255
    frames = video[:: max(len(video) // 8, 1)]
    distance = np.stack([np.median(np.abs(frames - k).mean(-1)) for k in known])
    nearest = known[distance.argmin()]
    own = np.abs(video - nearest).mean(-1) < FOREGROUND  # [F, H, W]
    seen = own.sum(0) >= 3
    values = np.where(own[..., None], video, np.nan)
    values[:, ~seen] = nearest[~seen]
    return np.nanmedian(values, axis=0)


def foreground(video: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """How much each pixel belongs to a thing `[F, H, W]` in 0 … 1: unlike the background and unlike its shadow."""
    difference = np.linalg.norm(video - empty, axis=-1)
    share = (video * empty).sum(-1) / np.maximum((empty**2).sum(-1), 1e-3)
    residue = np.linalg.norm(video - share[..., None] * empty, axis=-1)
    shadow = (share > 0.4) & (share < 1) & (residue < SHADOW)
    weights = ((difference - FOREGROUND / 2) / FOREGROUND).clip(0, 1) * ~shadow
    solid = ndimage.uniform_filter(weights, (0, 3, 3)) > 0.3  # lone pixels are noise
    return weights * solid


def paths(weights: np.ndarray) -> list[Path]:
    """Follow one or two things through `[F, H, W]`.

    There are two where two large connected pieces are seen in a quarter of the frames; those frames start a division
    into the nearer of two moving centres, which keeps two things apart that touch.
    """
    F, H, W = weights.shape
    if weights.sum((1, 2)).max() < LEAST_AREA:
        return []
    pieces = [_pieces(frame) for frame in weights]
    start = [t for t in range(F) if len(pieces[t]) == 2]
    rows, columns = np.mgrid[:H, :W]
    grid = np.stack([columns.ravel(), rows.ravel()], -1).astype(np.float64)  # [pixels, 2] as x, y
    flat = weights.reshape(F, -1).astype(np.float64)
    if len(start) < F / 4:
        return [_path(flat, grid)]
    centres = np.full((F, 2, 2), np.nan)  # [F, things, xy]
    centres[start[0]] = pieces[start[0]]
    areas = np.zeros((F, 2))
    for step in (1, -1):
        frames = range(start[0], F) if step > 0 else range(start[0] - 1, -1, -1)
        for t in frames:
            guess = centres[t] if t == start[0] else _predict(centres, t, step)
            centres[t], areas[t] = _divide(flat[t], grid, guess)
    return [Path(centres[:, k], areas[:, k]) for k in range(2)]


def _pieces(frame: np.ndarray) -> np.ndarray:
    """Centres (x, y) of the connected pieces that are large and at least a quarter of the largest, from the left."""
    labels, n = ndimage.label(frame > 0.3, np.ones((3, 3)))
    index = np.arange(1, n + 1)
    area = ndimage.sum_labels(frame, labels, index) if n else np.zeros(0)
    index = index[area > max(LEAST_AREA, 0.25 * area.max(initial=0))]
    centres = np.array(ndimage.center_of_mass(frame, labels, index)).reshape(-1, 2)[:, ::-1]
    return centres[np.argsort(centres[:, 0])]


def _path(flat: np.ndarray, grid: np.ndarray) -> Path:
    area = flat.sum(1)
    return Path(np.where(area[:, None] < LEAST_AREA, np.nan, flat @ grid / np.maximum(area, 1e-6)[:, None]), area)


def _predict(centres: np.ndarray, t: int, step: int) -> np.ndarray:
    """Centres at frame t from the one or two frames before (after, for step −1) at constant velocity `[2, 2]`."""
    last, other = centres[t - step], t - 2 * step
    if 0 <= other < len(centres) and np.isfinite(centres[other]).all():
        return last + 0.7 * (last - centres[other])
    return last


def _divide(weight: np.ndarray, grid: np.ndarray, guess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two means of the weighted pixels from a guess: centres `[2, 2]` and areas `[2]`."""
    on = weight > 0
    weight, grid, centres = weight[on], grid[on], guess.copy()
    areas = np.zeros(2)
    for _ in range(4):
        mine = np.argmin(((grid[:, None] - centres[None]) ** 2).sum(-1), axis=1)
        for k in range(2):
            areas[k] = weight[mine == k].sum()
            if areas[k] >= LEAST_AREA:
                centres[k] = weight[mine == k] @ grid[mine == k] / areas[k]
    return centres, areas


def blows(path: Path) -> np.ndarray:
    """Times in frames at which a thing's velocity jumps `[blows]`."""
    centre = _filled(path.centre)
    if len(centre) < 5:
        return np.zeros(0)
    second = np.zeros_like(centre)
    second[1:-1] = centre[2:] - 2 * centre[1:-1] + centre[:-2]
    force = np.linalg.norm(np.array([0.0, GRAVITY]) - second, axis=1)  # what an accelerometer would feel
    force[[0, -1]] = force[[1, -2]]
    excess = np.maximum(force - ndimage.median_filter(force, 7, mode="nearest"), 0)
    padded = np.pad(excess, 1)
    speed = padded[:-2] + padded[1:-1] + padded[2:]
    top = (excess > padded[:-2]) & (excess >= padded[2:]) & (speed >= BLOW)
    peaks = np.flatnonzero(top)
    return peaks + (padded[peaks + 2] - padded[peaks]) / speed[peaks]


def _filled(centre: np.ndarray) -> np.ndarray:
    """Frames in which nothing is seen are left out at the ends and bridged in between."""
    known = np.flatnonzero(np.isfinite(centre).all(1))
    if len(known) == 0:
        return np.zeros((0, 2))
    frames = np.arange(len(centre))
    return np.stack([np.interp(frames, known, centre[known, k]) for k in range(2)], axis=1)
