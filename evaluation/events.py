"""When do things meet? Contact times in seconds, found in each track on its own.

Each detector reads one track and nothing else, so that two tracks which agree do so because the clip is in step.
An event is what can be seen, heard and felt; knocks that follow one another within `MERGE` seconds are one event,
which begins with the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.ndimage import maximum_filter1d, median_filter, uniform_filter1d
from scipy.signal import find_peaks

from ..modalities.clip import Clip, Track
from .motion import background, blows, foreground, paths

MERGE = 0.07  # seconds
AIR = 0.0065  # seconds from the contact to the microphone (2.2 m of air)


def clip_events(clip: Clip, backgrounds: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The events of every track that the clip has: `{"audio" | "video" | "sensor": times in seconds [events]}`.

    `backgrounds` are the empty scenes of `video_events`.
    """
    found = {}
    if clip.audio is not None:
        found["audio"] = audio_events(clip.audio)
    if clip.video is not None:
        found["video"] = video_events(clip.video, backgrounds)
    if clip.sensor:
        found["sensor"] = sensor_events(clip.sensor)
    return found


def merge(times: Sequence[float] | np.ndarray, gap: float = MERGE) -> np.ndarray:
    """Chains of events closer than `gap` become one event at the time of the first."""
    times = np.sort(np.asarray(times, float))
    return times[np.diff(times, prepend=-np.inf) > gap]


AUDIO_HOP, AUDIO_WINDOW = 0.002, 0.008  # seconds
BANDS = (0, 250, 500, 1000, 1500, 2000, 3000, 4000, 5500, 8000)  # Hz
AUDIO_LEVEL = 0.03  # share of the clip's loudest moment at which loudness turns from linear to logarithmic
AUDIO_RISE = 0.6  # least rise of that logarithmic loudness, mean of the four bands that rise most
AUDIO_FLOOR = 2e-3  # amplitude of a clip that is silent


def audio_events(track: Track) -> np.ndarray:
    """Onsets of sounds: sudden broadband rises of short-time energy above everything in the 16 ms before.

    Returns: times in seconds `[events]`, less the time the sound travels (`AIR`).
    """
    wave = np.asarray(track.values, np.float64).mean(0)
    hop, window = round(AUDIO_HOP * track.rate), round(AUDIO_WINDOW * track.rate)
    bands = _band_amplitudes(wave, track.rate, hop, window)  # [bands, frames]
    peak = bands.sum(0).max()
    if peak < AUDIO_FLOOR:
        return np.zeros(0)
    level = np.log1p(bands / (AUDIO_LEVEL * peak))
    before = maximum_filter1d(np.pad(level, ((0, 0), (9, 0)))[:, :-9], 8, axis=1, origin=-3)  # t-9 … t-2 frames
    rise = np.sort(np.maximum(level - before, 0), axis=0)[-4:].mean(0)
    peaks, _ = find_peaks(rise, height=AUDIO_RISE, distance=5)
    times = [_steepest(wave, p * hop, track.rate) for p in peaks]
    return merge(times) + track.start - AIR


def _band_amplitudes(wave: np.ndarray, rate: float, hop: int, window: int) -> np.ndarray:
    """Root of the energy in each band, frames centred on multiples of hop, `[bands, frames]`."""
    padded = np.pad(wave, (window // 2, window))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[: len(wave) : hop] * np.hanning(window)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2 / window**2
    frequency = np.fft.rfftfreq(window, 1 / rate)
    edges = np.searchsorted(frequency, [b for b in BANDS if b <= rate / 2])
    return np.sqrt(np.add.reduceat(power, edges[:-1], axis=1)).T


def _steepest(wave: np.ndarray, center: int, rate: float) -> float:
    """Time near a frame at which the amplitude grows most: after minus before, in 1 ms windows."""
    width, reach = round(0.001 * rate), round(0.008 * rate)
    low, high = max(center - reach, 0), min(center + reach, len(wave))
    envelope = np.convolve(np.abs(np.pad(wave[low:high], (width, width))), np.ones(width), "full")
    growth = envelope[2 * width - 1 :][: high - low + 1] - envelope[width - 1 :][: high - low + 1]
    return (low + int(growth.argmax())) / rate


SPEED = 0.8  # m/s: least change of speed that counts as a blow
PLATE = 0.45  # m/s: the same for the force plate where the accelerometer is quiet: then the load has a second object
QUIET = 0.06  # seconds around a blow to the plate in which the accelerometer has to be quiet
BLOW = 0.01  # seconds before and after the peak over which a blow is summed up
SENSOR_LAG = 0.002  # seconds from first touch to the peak of the force
GRAVITY = 9.81


def sensor_events(tracks: Mapping[str, Track]) -> np.ndarray:
    """Blows felt by the accelerometer or the force plate, merged; the gyroscope is not read.

    A blow is a peak of |acceleration| (or of the plate's force over its load) above the local median whose area is a
    change of speed of at least `SPEED` m/s.

    Returns: times in seconds `[events]`.
    """
    times, felt = np.zeros(0), np.zeros(0)
    if "accelerometer" in tracks:
        size = np.linalg.norm(np.asarray(tracks["accelerometer"].values, np.float64), axis=0)
        times, speed = _blows(size, tracks["accelerometer"])
        times, felt = times[speed >= SPEED], times[speed >= PLATE / 2]
    if "force" in tracks:
        force = np.asarray(tracks["force"].values, np.float64).sum(0)
        mass = max(np.percentile(force, 60) / GRAVITY, 0.25)  # kg, what lies on the plate most of the time
        knocks, speed = _blows(force / mass, tracks["force"])
        alone = np.abs(knocks[:, None] - felt[None]).min(1, initial=np.inf) > QUIET
        times = np.concatenate([times, knocks[speed >= np.where(alone, PLATE, SPEED)]])
    return merge(times)


def _blows(size: np.ndarray, track: Track) -> tuple[np.ndarray, np.ndarray]:
    """Times (s) of the peaks of `size` (m/s², `[samples]`), and their areas over the local median (m/s)."""
    excess = np.maximum(size - median_filter(size, round(0.15 * track.rate) | 1, mode="nearest"), 0)
    width = 2 * round(BLOW * track.rate) + 1
    speed = uniform_filter1d(excess, width, mode="constant") * width / track.rate
    peaks, _ = find_peaks(np.pad(excess, 1), distance=3)
    peaks = peaks - 1
    return track.start + (peaks + _parabola(excess, peaks)) / track.rate - SENSOR_LAG, speed[peaks]


def _parabola(values: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Offsets in samples, -0.5 … 0.5, of the tops of the parabolas through each peak and its neighbours."""
    padded = np.pad(values, 1, mode="edge")
    before, at, after = padded[peaks], padded[peaks + 1], padded[peaks + 2]
    curve = before - 2 * at + after
    return np.where(curve < 0, 0.5 * (before - after) / np.where(curve < 0, curve, -1), 0).clip(-0.5, 0.5)


VIDEO_LAG = 0.001  # seconds from first touch to the middle of the turn


def video_events(track: Track, backgrounds: np.ndarray | None = None) -> np.ndarray:
    """Contacts of the things that move in a video: jumps of the velocity along their tracks (`evaluation.motion`).

    Args:
        track: video `[F, H, W, 3]` uint8.
        backgrounds: empty scenes `[K, H, W, 3]` uint8, the nearest one is used; without them the background is the
            median over time, which takes a thing that lies longer than half of the clip for part of the scene.

    Returns: times in seconds `[events]`.
    """
    video = np.asarray(track.values).transpose(3, 0, 1, 2).astype(np.float32) / 255  # [3, F, H, W]
    times = [blows(path) for path in paths(foreground(video, background(video, backgrounds)))]
    return merge(np.concatenate([np.zeros(0), *times]) / track.rate) + track.start - VIDEO_LAG
