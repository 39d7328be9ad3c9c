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

FOREGROUND = 0.12  # least distance to the background (RGB in [0, 1]) of a pixel that belongs to a thing
SHADOW = 0.05  # a pixel this close to a darker background is shadow
GRAVITY = 0.9  # px/frame² at 64 pixels for 1.12 m and 25 frames a second
SIDEWAYS = 0.35  # weight of a push that is not upwards, where nothing else is there to push: what tumbles sways
BLOW = 1.1  # px/frame: least change of velocity that counts as a blow
HAMMER = 0.6  # share of its hardest blow below which a hammer only swings
NOISE = 4.0  # times the median distance to the background: no thing is fainter than that
JITTER = 9.0  # times the median unsteadiness of a path: no blow is weaker than that
FLAT = np.zeros((3, 3, 3))  # pixels are neighbours within a frame
FLAT[1] = 1
LEAST_AREA = 6.0  # pixels


@dataclass(frozen=True)
class Path:
    """One thing's way through the picture: centre `[F, 2]` (x, y in pixels, y down); is it a hammer in a hand?"""

    centre: np.ndarray
    hammer: bool = False
    sideways: float = SIDEWAYS


def background(video: np.ndarray, backgrounds: np.ndarray | None = None) -> np.ndarray:
    """The scene without its things `[3, H, W]` in [0, 1]; video `[3, F, H, W]` in [0, 1].

    The known background tells which of a pixel's own values are background; the mean of those follows the clip's
    light and blur better than the known one does.
    """
    if backgrounds is None or not len(backgrounds):
        return np.median(video, axis=1)
    known = np.asarray(backgrounds, np.float32).transpose(0, 3, 1, 2) / 255
    frames = video[:, :: max(video.shape[1] // 8, 1)]
    nearest = known[np.argmin([np.abs(frames - k[:, None]).clip(max=0.2).mean() for k in known])]
    own = (np.abs(video - nearest[:, None]).sum(0) < 1.5 * FOREGROUND).astype(np.float32)  # [F, H, W]
    seen = own.sum(0)
    return np.where(seen >= 3, (own * video).sum(1) / np.maximum(seen, 1), nearest)


def foreground(video: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """How much each pixel belongs to a thing `[F, H, W]` in 0 … 1: unlike the background and unlike its shadow."""
    vv, ve = np.einsum("cfhw,cfhw->fhw", video, video), np.einsum("cfhw,chw->fhw", video, empty)
    ee = np.maximum((empty**2).sum(0), 1e-3)
    difference = np.sqrt((vv - 2 * ve + ee).clip(min=0))
    share = ve / ee
    shadow = (share > 0.4) & (share < 1) & (vv - share * ve < SHADOW**2)  # residue from share · background
    threshold = max(FOREGROUND, NOISE * float(np.median(difference[:, ::2, ::2])))
    weights = ((difference - threshold / 2) / threshold).clip(0, 1) * ~shadow
    return _solid(weights * (ndimage.uniform_filter(weights, [0, 3, 3]) > 0.3))  # pyright: ignore


def _label(mask: np.ndarray, neighbours: np.ndarray) -> tuple[np.ndarray, int]:
    """Connected pieces, numbered from 1, and how many there are."""
    labels = np.zeros(mask.shape, np.int32)
    return labels, int(ndimage.label(mask, neighbours, output=labels))  # pyright: ignore


def _solid(weights: np.ndarray) -> np.ndarray:
    """Without the pieces that are smaller than `LEAST_AREA` or than an eighth of their frame's largest."""
    labels, n = _label(weights > 0.1, FLAT)
    area = np.bincount(labels.ravel(), weights.ravel(), n + 1)
    area[0] = 0
    of_pixel = area[labels]  # [F, H, W]
    least = np.maximum(of_pixel.max((1, 2), keepdims=True) / 8, LEAST_AREA)
    return weights * (of_pixel >= least)


def paths(weights: np.ndarray) -> list[Path]:
    """Follow one or two things through `[F, H, W]`.

    There are two where two large connected pieces are seen in a quarter of the frames; those frames start a division
    into the nearer of two moving centres, which keeps two things apart that touch.
    """
    F, H, W = weights.shape
    if weights.sum((1, 2)).max() < LEAST_AREA:
        return []
    rows, columns = np.mgrid[:H, :W]
    grid = np.stack([columns.ravel(), rows.ravel()], -1).astype(np.float32)  # [pixels, 2] as x, y
    if (hammer := _without_struck(weights)) is not None:
        return [Path(_centre(hammer.reshape(F, -1), grid), hammer=True)]
    pieces = {t: _pieces(weights[t]) for t in range(0, F, 2)}
    start = [t for t, found in pieces.items() if len(found) == 2]
    flat = weights.reshape(F, -1)
    if len(start) < F / 8:
        return [Path(_centre(flat, grid))]
    centres = np.full((F, 2, 2), np.nan)  # [F, things, xy]
    centres[start[0]] = pieces[start[0]]
    for step in (1, -1):
        frames = range(start[0], F) if step > 0 else range(start[0] - 1, -1, -1)
        for t in frames:
            guess = centres[t] if t == start[0] else _predict(centres, t, step)
            centres[t] = _divide(flat[t], grid, guess)
    return [Path(centres[:, k], sideways=2 * SIDEWAYS) for k in range(2)]


def _without_struck(weights: np.ndarray) -> np.ndarray | None:
    """The weights of a hammer alone, where there is one: at rest it reaches in from a side of the picture, and what
    it strikes lies still beside it."""
    still = np.median(weights, axis=0)
    labels, n = _label(still > 0.3, np.ones((3, 3)))
    edges = set(np.unique(labels[:, [0, -1]])) - {0}
    lying = np.isin(labels, [k for k in range(1, n + 1) if k not in edges])
    if not edges or lying.sum() < LEAST_AREA or (weights[:, :, [0, -1]] > 0.3).any((1, 2)).mean() < 0.9:
        return None
    return weights * ~np.asarray(ndimage.binary_dilation(lying), bool)


def _pieces(frame: np.ndarray) -> np.ndarray:
    """Centres (x, y) of the connected pieces that are large and at least a quarter of the largest, from the left."""
    labels, n = _label(frame > 0.3, np.ones((3, 3)))
    rows, columns = np.nonzero(labels)
    label, weight = labels[rows, columns], frame[rows, columns]
    area, x, y = (np.bincount(label, weight * v, n + 1)[1:] for v in (1.0, columns, rows))
    large = area > max(LEAST_AREA, 0.25 * area.max(initial=0))
    centres = np.stack([x[large], y[large]], axis=1) / area[large, None]
    return centres[np.argsort(centres[:, 0])]


def _centre(flat: np.ndarray, grid: np.ndarray) -> np.ndarray:
    area = flat.sum(1, keepdims=True)
    return np.where(area < LEAST_AREA, np.nan, flat @ grid / np.maximum(area, 1e-6))


def _predict(centres: np.ndarray, t: int, step: int) -> np.ndarray:
    """Centres at frame t from the one or two frames before (after, for step −1) at constant velocity `[2, 2]`."""
    last, other = centres[t - step], t - 2 * step
    if 0 <= other < len(centres) and np.isfinite(centres[other]).all():
        return last + 0.7 * (last - centres[other])
    return last


def _divide(weight: np.ndarray, grid: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """Two means of the weighted pixels from a guess: centres `[2, 2]`."""
    on = weight > 0
    weight, grid, centres = weight[on], grid[on], guess.copy()
    for _ in range(4):
        mine = np.argmin(((grid[:, None] - centres[None]) ** 2).sum(-1), axis=1)
        for k in range(2):
            area = weight[mine == k].sum()
            if area >= LEAST_AREA:
                centres[k] = weight[mine == k] @ grid[mine == k] / area
    return centres


def blows(path: Path) -> np.ndarray:
    """Times in frames at which a thing is stopped or thrown back `[blows]`.

    Floors, walls and other things push a thing against its way and never pull it down, so a thing that speeds up
    (a hammer that is lifted) or is slowed by a hand above it is not struck.
    """
    centre = _filled(path.centre)
    if len(centre) < 5:
        return np.zeros(0)
    second = np.zeros_like(centre)
    second[1:-1] = centre[2:] - 2 * centre[1:-1] + centre[:-2]
    push = second - np.array([0.0, GRAVITY])  # what an accelerometer would feel, [F, 2]
    push[[0, -1]] = push[[1, -2]]
    excess = push - ndimage.median_filter(push, (7, 1), mode="nearest")
    excess = np.hypot(path.sideways * excess[:, 0], np.minimum(excess[:, 1], 0))  # sideways and up, [F]
    padded = np.pad(excess, 1)
    speed = padded[:-2] + padded[1:-1] + padded[2:]
    least = max(BLOW, JITTER * float(np.median(excess)), HAMMER * speed.max() if path.hammer else 0.0)
    peaks = np.flatnonzero((excess > padded[:-2]) & (excess >= padded[2:]) & (speed >= least))
    way = centre[np.maximum(peaks - 1, 0)] - centre[np.maximum(peaks - 2, 0)]  # velocity before, [peaks, 2]
    against = ((way * push[peaks]).sum(1) < 0) & (push[peaks, 1] < np.abs(push[peaks, 0]))
    peaks = peaks[against]
    return peaks + (padded[peaks + 2] - padded[peaks]) / speed[peaks]


def _filled(centre: np.ndarray) -> np.ndarray:
    """Frames in which nothing is seen are left out at the ends and bridged in between."""
    known = np.flatnonzero(np.isfinite(centre).all(1))
    if len(known) == 0:
        return np.zeros((0, 2))
    frames = np.arange(len(centre))
    return np.stack([np.interp(frames, known, centre[known, k]) for k in range(2)], axis=1)
