"""Given tracks as conditions: resampled onto the model's clock, encoded, and placed on the grid of noise levels.

Legend: `B` batch, `T` slots of 0.16 s, `S` tokens of a slot, `C` channels of a token.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..modalities.clip import Clip, ClipError, Clock, Track
from ..modalities.clip_resample import resample
from ..modalities.codecs import FPS, SLOT_SECONDS, Codecs, from_frames
from ..modalities.video import SPATIAL
from .given import EDGE, Given, Stretch, clip_of, group_of, known_cells, runs, slots_of

PIECE, REACH = 16, 4  # slots encoded at once, and how many more the codec looks at on both sides
PLAIN = {"m/s2": "m/s²", "m/s^2": "m/s²", "°/s": "deg/s", "dps": "deg/s", "G": "g", "rad/sec": "rad/s"}
FACTORS = {("g", "m/s²"): 9.80665, ("deg/s", "rad/s"): math.pi / 180, ("kN", "N"): 1e3, ("mN", "N"): 1e-3}


@dataclass(frozen=True)
class Fit:
    """How a given sensor becomes the model's: channel `i` of the model is channel `index[i]` times `factor[i]`."""

    index: tuple[int, ...]
    factor: tuple[float, ...]


@dataclass(frozen=True)
class Condition:
    """What the network is told of a clip.

    Args:
        clip: the given tracks, cut to the clip's length and otherwise untouched.
        seconds: length of the clip to make.
        stretches: where the tracks are known; None is wherever they were recorded.
        known: `{modality: [T]}` bool of the modalities that the network can be told.
        latents: `{modality: [T, S, C]}`; zero in cells that are not known.
        fits: of the given sensors that the network knows.
        notes: a line on everything that could not be used as it is.
        start: `{modality: [T]}`, the σ at which the cells of what is varied begin; such tracks are not in `clip`.
    """

    clip: Clip
    seconds: float
    stretches: tuple[Stretch, ...] | None
    known: Mapping[str, Tensor]
    latents: Mapping[str, Tensor]
    fits: Mapping[str, Fit]
    notes: tuple[str, ...] = ()
    start: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    @torch.no_grad()
    def create(cls, given: Given, codecs: Codecs, seconds: float, device: torch.device | str = "cpu") -> Condition:
        """Encodes what is given of a clip of `seconds`.

        Each run of known slots is encoded on its own, so that nothing of what is to be generated leaks into it.

        Raises:
            ClipError: a track that begins after the end of the clip, or stretches outside of it.
        """
        for start, _ in given.known or ():
            if start >= seconds:
                raise ClipError(f"known: {start:g} s lies outside the clip, which is {seconds:g} s long")
        notes: list[str] = []
        tracks = {name: _cut(name, track, seconds, notes) for name, track in given.clip.tracks.items()}
        known, latents, fits = {}, {}, {}
        for name, track in tracks.items():
            fit = _fit(name, track, codecs, notes)
            if fit is None:
                continue
            heard = fitted(track, fit) if group_of(name) == "sensor" else track
            cells = known_cells(heard, seconds, given.known)
            lost = int((~known_cells(heard, seconds)).sum())
            if lost:
                notes.append(f"{name}: {lost} of {len(cells)} slots of 0.16 s were not recorded, and are generated")
            known[name] = torch.from_numpy(cells)
            latents[name] = encode(codecs, name, heard, cells, device)
            fits[name] = fit
        return cls(clip_of(tracks), seconds, given.known, known, latents, fits, tuple(notes))

    def varied(self, tracks: Sequence[str], strength: float) -> Condition:
        """The same, but of the `tracks` asked for every slot begins at σ = `strength` instead of staying as it is.

        Slots that were not recorded begin at σ = 1, as do tracks that are not given; given tracks that are not asked
        for are known as ever.

        Raises:
            ClipError: none of the tracks is given, or a strength that is not above 0 and at most 1.
        """
        if not 0 < strength <= 1:
            raise ClipError(f"strength: {strength:g} is not above 0 and at most 1")
        names = [name for name in self.known if group_of(name) in tracks]
        if not names:
            raise ClipError(f"strength: nothing to vary is given of {', '.join(tracks)}")
        clip = clip_of({name: track for name, track in self.clip.tracks.items() if name not in names})
        start = {name: torch.where(self.known[name], strength, 1.0) for name in names}
        known = {**self.known, **{name: torch.zeros_like(self.known[name]) for name in names}}
        return replace(self, clip=clip, known=known, start=start)

    @property
    def whole(self) -> tuple[str, ...]:
        """The modalities known in every slot."""
        return tuple(name for name, cells in self.known.items() if bool(cells.all()))

    @property
    def unused(self) -> tuple[str, ...]:
        """The given tracks that the network can't be told; they stay in the clip."""
        return tuple(name for name in self.clip.tracks if name not in self.known)


def _cut(name: str, track: Track, seconds: float, notes: list[str]) -> Track:
    """The track without what lies after the end of the clip; the track itself if that is less than half a slot."""
    if track.start >= seconds:
        raise ClipError(f"{name}: begins at {track.start:g} s, after the end of the clip ({seconds:g} s)")
    if track.end <= seconds + EDGE:
        return track
    count = max(1, round((seconds - track.start) * track.rate))
    notes.append(f"{name}: {track.end:g} s are given, of which the clip holds {seconds:g} s")
    index: Any = slice(count) if name == "video" else (slice(None), slice(count))
    return replace(track, values=track.values[index], mask=None if track.mask is None else track.mask[index])


def _fit(name: str, track: Track, codecs: Codecs, notes: list[str]) -> Fit | None:
    """How the model reads a track, None (and a note) if it can't."""
    if name not in codecs.shapes():
        known = ", ".join(codecs.shapes())
        notes.append(f"{name}: kept, but not used: this model knows {known}")
        return None
    if name == "video":
        h, w = track.values.shape[1:3]
        if h != w:
            side = min(h, w)
            notes.append(f"video: frames are {w}×{h}, of which the model sees the middle {side}×{side}")
    if group_of(name) != "sensor" or codecs.sensor is None:
        return Fit((), ())
    channels = codecs.sensor.channels[name]
    own = list(track.names) or [channel.name for channel in channels][: len(track.values)]
    index, factors = [], []
    for channel in channels:
        if channel.name not in own and not (len(own) == len(channels) == 1):
            notes.append(f"{name}: kept, but not used: it has no channel {channel.name}")
            return None
        place = own.index(channel.name) if channel.name in own else 0
        unit = track.units[place] if track.units else ""
        factor = conversion(unit, channel.unit)
        if factor is None:
            notes.append(f"{name}: kept, but not used: {unit} can't be converted to {channel.unit}")
            return None
        index.append(place)
        factors.append(factor)
    if not track.units or not all(track.units[i] for i in index):
        notes.append(f"{name}: no unit is given, {channels[0].unit} is taken")
    extra = [channel for i, channel in enumerate(own) if i not in index]
    if extra:
        notes.append(f"{name}: kept, but not used: channel {', '.join(extra)}")
    return Fit(tuple(index), tuple(factors))


def conversion(unit: str, wanted: str) -> float | None:
    """What a value in `unit` is multiplied with to be in `wanted`; None if that is not known."""
    unit, wanted = PLAIN.get(unit, unit), PLAIN.get(wanted, wanted)
    if unit == wanted or not unit:
        return 1.0
    if (wanted, unit) in FACTORS:
        return 1 / FACTORS[wanted, unit]
    return FACTORS.get((unit, wanted))


def fitted(track: Track, fit: Fit) -> Track:
    """The channels of a sensor that the model knows, in its order and its units."""
    index, factor = list(fit.index), np.array(fit.factor, np.float32)[:, None]
    mask = None if track.mask is None else track.mask[index]
    return Track(track.values[index] * factor, track.rate, track.start, mask=mask)


def encode(codecs: Codecs, name: str, track: Track, cells: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Latents `[T, S, C]` float32 (CPU) of the known cells `[T]` of a track; zero elsewhere."""
    tokens, channels, _ = codecs.shapes()[name]
    latents = torch.zeros(len(cells), tokens, channels)
    if not cells.any():
        return latents
    values = _tensor(codecs, name, track, len(cells)).to(device)
    axis = 2
    each = values.shape[axis] // len(cells)  # frames or samples of a slot
    for start, stop, low, high in _pieces(cells):
        piece = values.narrow(axis, low * each, (high - low) * each)
        latents[start:stop] = codecs.encode({name: piece})[name][0, start - low : stop - low].cpu()
    return latents


def _pieces(cells: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """(start, stop, low, high): slots start … stop are to be encoded, and low … high looked at."""
    for begin, end in runs(cells):
        for start in range(begin, end, PIECE):
            stop = min(start + PIECE, end)
            yield start, stop, max(begin, start - REACH), min(end, stop + REACH)


def _tensor(codecs: Codecs, name: str, track: Track, slots: int) -> Tensor:
    """A track on the model's clock: video `[1, 3, F, H, W]`, audio and sensors `[1, channels, samples]`."""
    side = SPATIAL * round(codecs.shapes()["video"][0] ** 0.5) if name == "video" else SPATIAL
    rate = codecs.sensor.rate if codecs.sensor is not None else 100.0
    clock = Clock(slots * SLOT_SECONDS, FPS, codecs.audio_rate, int(rate), (side, side))
    placed = resample(clip_of({name: track}), clock).tracks[name]
    if name == "video":
        return from_frames(placed.values[None])
    values = placed.values
    if placed.mask is not None and name != "audio":  # a sensor is held at the ends, where 0 would be a jump
        at = np.arange(values.shape[1])
        held = [np.interp(at, at[m], row[m]) if m.any() else row for row, m in zip(values, placed.mask, strict=True)]
        values = np.stack(held).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(values))[None]


def slots_known(condition: Condition | None, name: str, slots: int) -> Tensor:
    """`[slots]` bool; what lies after the condition's end is not known."""
    cells = torch.zeros(slots, dtype=torch.bool)
    if condition is not None and name in condition.known:
        count = min(slots, slots_of(condition.seconds))
        cells[:count] = condition.known[name][:count]
    return cells


def slots_start(condition: Condition | None, name: str, slots: int) -> Tensor:
    """`[slots]`, the σ at which the cells begin: 0 where they are known, that of `Condition.start` or else 1."""
    start = (~slots_known(condition, name, slots)).float()
    if condition is not None and name in condition.start:
        varied = condition.start[name][:slots]
        start[: len(varied)] = varied
    return start
