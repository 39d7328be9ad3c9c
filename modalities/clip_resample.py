"""A clip onto a clock: every track is sampled anew by its timestamps.

Video takes the frame nearest in time, audio a band-limited polyphase filter, sensors linear interpolation
(after a low-pass filter when there are fewer samples than before). Masks stay False in gaps.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
from scipy.signal import firwin, oaconvolve, resample_poly

from .clip import Clip, Clock, Track

REACH = 0.75  # a value counts as measured when a measured sample lies within this many sample periods


def resample(clip: Clip, clock: Clock, start: float = 0.0) -> Clip:
    """Samples every track of `clip` on `clock`, from `start` seconds on, which becomes time 0.

    Shapes of the result: video `[fps·seconds, *clock.size, 3]`, audio `[1, audio_rate·seconds]`,
    sensor `[channels, sensor_rate·seconds]`. What was not recorded is the nearest frame, silence or 0, with
    mask False; a track of which nothing was recorded in this stretch is absent. Events outside are dropped.
    """
    video = None if clip.video is None else _video(clip.video, clock, start)
    audio = None if clip.audio is None else _audio(clip.audio, clock, start)
    sensor = {name: _sensor(track, clock, start) for name, track in clip.sensor.items()}
    return replace(
        clip,
        video=video,
        audio=audio,
        sensor={name: track for name, track in sensor.items() if track is not None},
        events=tuple(t - start for t in clip.events if 0 <= t - start < clock.seconds),
    )


def nearest(times: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Index into the rising `times` `[N]` of the one nearest to each of `grid` `[M]`; the earlier of two as near."""
    middles = (times[1:] + times[:-1]) / 2
    return np.searchsorted(middles, grid - 1e-9)


def resize(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Frames `[F, H, W, 3]` uint8 cropped about the centre to the aspect of `size`, then scaled with antialiasing."""
    h, w = size
    if frames.shape[1:3] == (h, w):
        return frames
    import torch
    from torch.nn.functional import interpolate

    H, W = frames.shape[1:3]
    crop_h, crop_w = min(H, max(1, round(W * h / w))), min(W, max(1, round(H * w / h)))
    top, left = (H - crop_h) // 2, (W - crop_w) // 2
    x = torch.from_numpy(np.ascontiguousarray(frames[:, top : top + crop_h, left : left + crop_w]))
    x = interpolate(x.permute(0, 3, 1, 2), size=size, mode="bilinear", antialias=True)  # [F, 3, h, w]
    return np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy())


def interpolate_channel(
    times: np.ndarray, values: np.ndarray, grid: np.ndarray, period: float
) -> tuple[np.ndarray, np.ndarray]:
    """Measured `values` `[N]` at rising `times` `[N]` onto `grid` `[M]` → values `[M]`, mask `[M]`.

    The mask is True where a measured sample lies within `REACH` periods; elsewhere the value is 0.
    """
    if len(times) == 0:
        return np.zeros(len(grid), np.float32), np.zeros(len(grid), bool)
    mask = np.abs(times[nearest(times, grid)] - grid) <= REACH * period
    return np.where(mask, np.interp(grid, times, values), 0).astype(np.float32), mask


def to_rate(samples: np.ndarray, rate: float, new_rate: float) -> np.ndarray:
    """`[..., N]` at `rate` → `[..., ~N·new_rate/rate]`, band-limited, the first sample at the same time as before."""
    ratio = Fraction(new_rate / rate).limit_denominator(2000)
    if ratio == 1:
        return samples
    return resample_poly(samples, ratio.numerator, ratio.denominator, axis=-1).astype(np.float32)


def _kept(mask: np.ndarray) -> np.ndarray | None:
    return None if mask.all() else mask


def _video(track: Track, clock: Clock, start: float) -> Track | None:
    grid = start + np.arange(clock.count(clock.fps)) / clock.fps
    position = (grid - track.start) * track.rate  # in frames
    index = np.clip(np.floor(position + 0.5 - 1e-6), 0, track.samples - 1).astype(int)
    mask = (position > -0.5 - 1e-6) & (position < track.samples - 1e-6)  # a frame is seen until the next
    if track.mask is not None:
        mask &= track.mask[index]
    if not mask.any():
        return None
    used, back = np.unique(index, return_inverse=True)
    return Track(resize(track.values[used], clock.size)[back], clock.fps, mask=_kept(mask))


def _audio(track: Track, clock: Clock, start: float) -> Track | None:
    n, margin = clock.count(clock.audio_rate), 0.1  # the filter sees a little of what lies outside
    first = max(0, int((start - margin - track.start) * track.rate))
    last = max(0, int(np.ceil((start + clock.seconds + margin - track.start) * track.rate)))
    mono = track.values[:, first:last].mean(0, dtype=np.float64)  # [samples]
    if len(mono) == 0:
        return None
    known = np.ones(len(mono), bool)
    if track.mask is not None:
        known &= track.mask[:, first:last].all(0)
    sound = to_rate(np.where(known, mono, 0), track.rate, clock.audio_rate)
    begin = track.start + first / track.rate - start  # of `sound` on the clock, in seconds
    place = np.arange(n) - round(begin * clock.audio_rate)  # of each new sample in `sound`
    origin = np.floor(place * track.rate / clock.audio_rate + 0.5).astype(int)  # … and in `known`
    mask = (origin >= 0) & (origin < len(known)) & known[np.clip(origin, 0, len(known) - 1)]
    if not mask.any():
        return None
    inside = (place >= 0) & (place < len(sound)) & mask
    values = np.where(inside, sound[np.clip(place, 0, len(sound) - 1)], 0).astype(np.float32)
    return Track(values[None], clock.audio_rate, mask=_kept(mask[None]))


def _sensor(track: Track, clock: Clock, start: float) -> Track | None:
    grid = start + np.arange(clock.count(clock.sensor_rate)) / clock.sensor_rate
    times, period = track.times(), 1 / track.rate
    values, masks = [], []
    for channel, row in enumerate(track.values):
        known = np.ones(len(row), bool) if track.mask is None else track.mask[channel]
        if known.any() and track.rate > 1.01 * clock.sensor_rate:
            row = _low_pass(np.interp(times, times[known], row[known]), track.rate, clock.sensor_rate)
        value, mask = interpolate_channel(times[known], row[known], grid, period)
        values.append(value)
        masks.append(mask)
    if not np.any(masks):
        return None
    return replace(track, values=np.stack(values), rate=clock.sensor_rate, start=0.0, mask=_kept(np.stack(masks)))


def _low_pass(row: np.ndarray, rate: float, new_rate: float) -> np.ndarray:
    """Symmetric FIR filter (no delay): half at 0.4, nothing from 0.5 of the new rate on."""
    half = int(np.ceil(8 * rate / new_rate))
    taps = firwin(2 * half + 1, 0.4 * new_rate, fs=rate)
    return oaconvolve(np.pad(row, half, mode="edge"), taps, mode="valid")
