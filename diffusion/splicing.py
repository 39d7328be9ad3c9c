"""Given samples put back, bit by bit, into a generated track: at the given rate, size and units.

Decoders look at neighbours and lose detail, so what was decoded of a known cell is replaced by what was given. At a
seam the difference between the two fades out on the generated side (in video, only the mean colour's).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..modalities.clip import Clip, Track
from ..modalities.clip_resample import nearest, resize, to_rate
from .conditions import Condition, Fit
from .given import EDGE, TINY, Stretch, clip_of, runs

FADES = {"video": 0.2, "audio": 0.01, "sensor": 0.05}  # seconds


def finish(made: Clip, condition: Condition | None, metadata: Mapping[str, Any]) -> Clip:
    """The clip of what is given and what was generated: `made` on the model's clock, from 0 to the clip's end."""
    tracks = dict(made.tracks)
    if condition is not None:
        tracks = {name: _until(track, condition.seconds) for name, track in tracks.items()}
        for name, given in condition.clip.tracks.items():
            if name in made.tracks:
                given = splice(given, made.tracks[name], condition.seconds, condition.stretches, condition.fits[name])
            tracks[name] = given
    return replace(clip_of(tracks), metadata=dict(metadata))


def _until(track: Track, seconds: float) -> Track:
    count = max(1, round((seconds - track.start) * track.rate))
    values = track.values[:count] if track.values.ndim == 4 else track.values[:, :count]
    return replace(track, values=values)


def splice(
    given: Track, made: Track, seconds: float, stretches: Sequence[Stretch] | None = None, fit: Fit | None = None
) -> Track:
    """The given track where it is known, the generated one elsewhere, from 0 to `seconds`.

    Args:
        given: at any rate, size and unit; what its mask leaves out is generated.
        made: the same modality as decoded, on the model's clock, from 0 to at least `seconds`.
        stretches: where the given track is known; None is wherever it was recorded.
        fit: of a sensor: how the given channels became the model's.

    Returns:
        A track like `given`, every known value of it bit-identical.
    """
    before = max(0, int((given.start + TINY) * given.rate)) if given.start > EDGE else 0
    start = given.start - before / given.rate
    count = before + given.samples
    if given.end < seconds - EDGE:
        count = max(count, round((seconds - start) * given.rate))
    times = start + np.arange(count) / given.rate
    known = np.zeros((*_rows(given), count), bool)
    known[..., before : before + given.samples] = True if given.mask is None else given.mask
    if stretches is not None:
        known &= np.any([(times >= a - TINY) & (times < b - TINY) for a, b in stretches], axis=0)
    blank = np.zeros((count, *given.values.shape[1:]) if given.values.ndim == 4 else known.shape, given.values.dtype)
    track = replace(given, values=blank, start=start, mask=None)
    if given.values.ndim == 4:
        track.values[before : before + given.samples] = given.values
        _fill_frames(track, made, known)
        return track
    track.values[:, before : before + given.samples] = given.values
    mask = _fill_samples(track, made, known, fit)
    return replace(track, mask=None if mask.all() else mask)


def _rows(track: Track) -> tuple[int, ...]:
    return () if track.values.ndim == 4 else (track.values.shape[0],)


def _fill_samples(track: Track, made: Track, known: np.ndarray, fit: Fit | None) -> np.ndarray:
    """Writes generated samples where `known` `[C, N]` is False; returns what is told of by either, `[C, N]`."""
    told = known.copy()
    if fit is None or not fit.index:  # sound: every channel is the model's single one
        whole = to_rate(made.values, made.rate, track.rate)[0]
        place = np.clip(round((track.start - made.start) * track.rate) + np.arange(known.shape[1]), 0, len(whole) - 1)
        sources = dict.fromkeys(range(len(known)), whole[place])
        fade = FADES["audio"]
    else:
        rows = zip(fit.index, made.values, fit.factor, strict=True)
        sources = {i: np.interp(track.times(), made.times(), row) / factor for i, row, factor in rows}
        fade = FADES["sensor"]
    for channel, source in sources.items():
        row, unknown = track.values[channel], ~known[channel]
        row[unknown] = (source + seams(row - source, known[channel], round(fade * track.rate)))[unknown]
        told[channel] = True
    return told


def _fill_frames(track: Track, made: Track, known: np.ndarray) -> None:
    """Writes generated frames where `known` `[F]` is False."""
    index = np.clip(nearest(made.times(), track.times()), 0, made.samples - 1)
    around = np.flatnonzero(~known | ~np.roll(known, 1) | ~np.roll(known, -1))  # the unknown and their neighbours
    fresh = {int(i): _placed(made.values[index[i]], track.values, _nearest_known(known, int(i))) for i in around}
    difference = np.zeros((len(known), 3))
    for i in (i for i in fresh if known[i]):
        difference[i] = track.values[i].astype(float).mean((0, 1)) - fresh[i].astype(float).mean((0, 1))
    count = max(1, round(FADES["video"] * track.rate))
    shift = np.stack([seams(column, known, count) for column in difference.T], axis=1)  # [F, 3]
    for i in np.flatnonzero(~known):
        track.values[i] = np.clip(np.round(fresh[int(i)] + shift[i]), 0, 255).astype(np.uint8)


def _nearest_known(known: np.ndarray, i: int) -> int | None:
    there = np.flatnonzero(known)
    return int(there[np.abs(there - i).argmin()]) if len(there) else None


def _placed(image: np.ndarray, frames: np.ndarray, border: int | None) -> np.ndarray:
    """The model's square picture in the middle of a frame; around it stays the nearest given frame."""
    height, width = frames.shape[1:3]
    if image.shape[:2] == (height, width):
        return image
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    frame = np.zeros_like(frames[0]) if border is None else frames[border].copy()
    frame[top : top + side, left : left + side] = resize(image[None], (side, side))[0]
    return frame


def seams(difference: np.ndarray, known: np.ndarray, count: int) -> np.ndarray:
    """What is added to generated values `[N]`, so that they begin and end at the given ones.

    Args:
        difference: `[N]`, given minus generated; only read where known.
        known: `[N]` bool.
        count: samples after which the difference has faded out.
    """
    added = np.zeros(len(known))
    for start, stop in runs(~known):
        length = min(max(count, 1), stop - start)
        ramp = 1 - np.arange(1, length + 1) / (length + 1)
        if start > 0:
            added[start : start + length] += difference[start - 1] * ramp
        if stop < len(known):
            added[stop - length : stop] += difference[stop] * ramp[::-1]
    return added
