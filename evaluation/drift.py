"""Does a long clip stay what it was? Colour, loudness and motion of its segments, and jumps where windows were joined.

Legend: `N` samples or frames of a track, `F` frames, `K` channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..modalities.clip import Clip, Track
from .music_seams import seams

SILENT = 1e-5  # RMS added before the logarithm: -100 dBFS
RANK = 0.95  # a seam stands out when it exceeds this share of the other times


def segments(clip: Clip, seconds: float) -> list[Clip]:
    """The clip in whole segments of this length, each beginning at 0; what is left at the end is not used."""
    count = int(min(track.end for track in clip.tracks.values()) / seconds + 1e-6)
    return [_part(clip, index * seconds, seconds) for index in range(count)]


def _part(clip: Clip, start: float, seconds: float) -> Clip:
    def cut(track: Track) -> Track:
        first, length = round(start * track.rate), round(seconds * track.rate)
        index = np.s_[first : first + length] if track.values.ndim == 4 else np.s_[:, first : first + length]
        return replace(track, values=track.values[index], start=0.0, mask=None)

    return Clip(
        audio=None if clip.audio is None else cut(clip.audio),
        video=None if clip.video is None else cut(clip.video),
        sensor={name: cut(track) for name, track in clip.sensor.items()},
    )


def colour(clip: Clip) -> np.ndarray:
    """Mean RGB `[3]` of all pixels and frames, in 8-bit levels; NaN without video."""
    return np.full(3, np.nan) if clip.video is None else clip.video.values.mean((0, 1, 2), dtype=np.float64)


def level(clip: Clip) -> float:
    """Root mean square of the sound in dBFS; NaN without sound."""
    if clip.audio is None:
        return float("nan")
    return float(20 * np.log10(np.sqrt(np.square(clip.audio.values, dtype=np.float64).mean()) + SILENT))


def motion(clip: Clip) -> float:
    """Mean change of a pixel from frame to frame, in 8-bit levels; NaN without video."""
    return float("nan") if clip.video is None else float(jumps(clip.video)[1:].mean())


def summary(clips: Sequence[Clip]) -> dict[str, np.ndarray]:
    """`colour [clips, 3]`, `level [clips]` and `motion [clips]`."""
    return {
        "colour": np.stack([colour(clip) for clip in clips]),
        "level": np.array([level(clip) for clip in clips]),
        "motion": np.array([motion(clip) for clip in clips]),
    }


def distances(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means over clips of how far two `summary`s of as many clips are apart.

    Returns:
        `colour`: root mean square over the channels, in 8-bit levels; `level_db`: absolute; `level_change_db` and
        `motion_change`: signed, ours less theirs.
    """
    change = ours["level"] - theirs["level"]
    return {
        "colour": float(np.sqrt(np.square(ours["colour"] - theirs["colour"]).mean(-1)).mean()),
        "level_db": float(np.abs(change).mean()),
        "level_change_db": float(change.mean()),
        "motion_change": float((ours["motion"] - theirs["motion"]).mean()),
    }


def jumps(*tracks: Track) -> np.ndarray:
    """How much every frame, or sample, differs from the one before it `[N]`; 0 for the first.

    Video: mean absolute difference in 8-bit levels. Sensors: the channels' absolute differences, each over its mean,
    summed over the channels of all tracks, which have the same rate and length.
    """
    if tracks[0].values.ndim == 4:
        frames = tracks[0].values.astype(np.int16)
        change = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
        return np.concatenate([np.zeros(1), change])
    signals = np.concatenate([track.values for track in tracks]).astype(np.float64)  # [K, N]
    change = np.abs(np.diff(signals, axis=1, prepend=signals[:, :1]))
    return (change / (change.mean(1, keepdims=True) + 1e-9)).sum(0)


def seam_ranks(clip: Clip, times: Sequence[float]) -> dict[str, np.ndarray]:
    """Where each time's jump ranks among those at all other times, `{"video" | "audio" | "sensor": [times]}` in [0, 1].

    Without a seam the ranks are spread evenly. Sound is judged by `music_seams.seams` (its `any`).

    Args:
        clip: with the tracks to judge; sensors share a rate.
        times: seconds at which the clip was joined, inside the clip.
    """
    found = {}
    if clip.video is not None:
        found["video"] = _ranks(jumps(clip.video), clip.video.rate, times)
    if clip.audio is not None:
        found["audio"] = seams(clip.audio.values.mean(0), round(clip.audio.rate), times)["any"]
    if clip.sensor:
        tracks = list(clip.sensor.values())
        found["sensor"] = _ranks(jumps(*tracks), tracks[0].rate, times)
    return found


def _ranks(jump: np.ndarray, rate: float, times: Sequence[float]) -> np.ndarray:
    """Share of the jumps at other times that the jump at each time exceeds; equal ones count half."""
    at = np.array([round(time * rate) for time in times], int)
    elsewhere = np.ones(len(jump), bool)
    elsewhere[0] = False
    elsewhere[at] = False
    others = np.sort(jump[elsewhere])
    below, upto = np.searchsorted(others, jump[at], "left"), np.searchsorted(others, jump[at], "right")
    return (below + upto) / 2 / max(len(others), 1)


def standing_out(ranks: np.ndarray) -> float:
    """Share of seams that exceed 95 % of the other times: .05 where there is nothing to be seen, heard or felt."""
    return float((ranks > RANK).mean())
