"""Modal synthesis: every impact rings the bodies that meet, the floor and a small room.

A body is a bank of damped modes. An impact is a pulse of force: its length is the contact time of the two materials
(soft ones don't excite high modes), its strength follows the change of speed, and where it acts decides how much of
each mode it rings (van den Doel & Pai, "The sounds of physical shapes", 1998).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.fft import irfft, rfft
from scipy.signal import lfilter

from .physics_scene import SCALE, Scene, half_extents, rng_of
from .physics_sensors import Impact
from .physics_simulation import GRAVITY, SECONDS, STEP, Motion, mass_of

AUDIO_RATE = 16_000
SAMPLES = round(SECONDS * AUDIO_RATE)
MICROPHONE = np.array([0.0, -2.1, 0.75])  # where the camera is
SPEED_OF_SOUND = 343.0

# Lowest mode in Hz at medium size, seconds to -60 dB, fall of that time with frequency, brightness, gain.
BODY = {
    "wood": (430.0, 0.16, 0.5, 0.65, 1.0),
    "metal": (900.0, 0.9, 0.25, 0.95, 0.8),
    "glass": (1900.0, 0.4, 0.3, 0.8, 0.8),
    "rubber": (135.0, 0.09, 0.6, 0.4, 1.2),
    "stone": (1150.0, 0.045, 0.2, 1.0, 1.0),
    "mallet": (600.0, 0.03, 0.5, 0.6, 0.3),
}
RATIOS = {
    "ball": (1.0, 1.47, 2.09, 2.56, 3.37, 4.2, 5.1),
    "block": (1.0, 1.31, 1.83, 2.45, 3.1, 3.9, 4.6),
    "rod": (1.0, 2.76, 5.4, 8.93, 13.3, 18.6, 24.8),
}
PITCH = {"small": 1.5, "medium": 1.0, "large": 0.66}
LOWER = {"ball": 1.0, "block": 0.85, "rod": 0.6}  # a rod's lowest mode lies below that of a ball
FLOOR = {  # modes in Hz, seconds to -60 dB, gain
    "wood": ((85.0, 142.0, 210.0, 333.0), 0.16, 0.75),
    "metal": ((230.0, 417.0, 655.0, 1040.0, 1610.0, 2380.0), 0.5, 0.4),
    "glass": ((1350.0, 2140.0, 3300.0, 4700.0), 0.1, 0.35),
    "rubber": ((58.0, 95.0), 0.07, 0.7),
    "stone": ((180.0, 390.0, 760.0), 0.05, 0.4),
}
SOFTNESS = {"wood": 0.35, "metal": 0.1, "glass": 0.1, "rubber": 1.6, "stone": 0.12, "mallet": 0.3}  # ms of contact
FLOOR_SOFTNESS = {"wood": 0.35, "metal": 0.12, "glass": 0.1, "rubber": 1.1, "stone": 0.1}
GAIN, LOUD_SPEED = 0.5, 4.0  # an impact of LOUD_SPEED (m/s) peaks near GAIN


def synthesize(scene: Scene, motion: Motion, impacts: list[Impact]) -> np.ndarray:
    """The sound of a clip `[1, samples]` float32 in [-1, 1] at 16 kHz."""
    sound = np.zeros(SAMPLES)
    for k, material in enumerate(scene.materials):
        hits = [impact for impact in impacts if k in impact.pair]
        sound += _ring(*_body_modes(material, scene.shape, scene.size), _body_drive(scene, motion, hits, k, material))
    floor_hits = [impact for impact in impacts if impact.pair[0] == "floor"]
    frequencies, times, gains = _floor_modes(scene.floor)
    drive = np.zeros((len(frequencies), SAMPLES))
    for hit in floor_hits:
        _add_pulse(drive, hit, gains * _strength(hit), _contact_time(scene, hit))
    sound += _ring(frequencies, times, drive)
    mallet = np.zeros((1, SAMPLES))
    for hit in impacts:
        if hit.pair[0] == "mallet":
            _add_pulse(mallet, hit, np.array([BODY["mallet"][4] * _strength(hit)]), _contact_time(scene, hit))
    if mallet.any():
        sound += _ring(np.array([BODY["mallet"][0]]), np.array([BODY["mallet"][1]]), mallet)
    return _limit(_room(GAIN * sound))[None].astype(np.float32)


def _body_modes(material: str, shape: str, size: str) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in Hz and decay times in s of the modes below 7.5 kHz."""
    lowest, seconds, fall, _, _ = BODY[material]
    frequencies = lowest * LOWER[shape] * PITCH[size] * np.array(RATIOS[shape])
    frequencies = frequencies[frequencies < 7500]
    return frequencies, seconds * (frequencies / frequencies[0]) ** -fall


def _body_drive(scene: Scene, motion: Motion, hits: list[Impact], k: int, material: str) -> np.ndarray:
    """Force on each mode `[modes, samples]`: pulses of the impacts and the rustle of rolling or sliding."""
    frequencies, _ = _body_modes(material, scene.shape, scene.size)
    order = np.arange(len(frequencies))
    loudness = BODY[material][3] ** order
    drive = np.zeros((len(frequencies), SAMPLES))
    extent = np.array(half_extents(scene.shape, scene.size))
    for hit in hits:
        local = (hit.place - motion.position[hit.step, k]) @ motion.rotation[hit.step, k] / extent
        shape = 0.45 + 0.55 * np.abs(np.cos((order + 1) * (1.3 * local[0] + 0.4 * local[1]) + 0.7 * order * local[2]))
        seconds = _contact_time(scene, hit)
        heard = float(np.sum(loudness * _spectrum(frequencies, seconds)))
        gains = loudness * shape * BODY[material][4] * _strength(hit) / max(heard, 0.02) ** 0.75
        _add_pulse(drive, hit, gains, seconds)
    return drive + np.outer(loudness, _rustle(scene, motion, k))


def _rustle(scene: Scene, motion: Motion, k: int) -> np.ndarray:
    """Noise while the object rolls or slides `[samples]`: the contact force times the speed along the floor."""
    force, _ = motion.contacts["floor", k]
    weight = mass_of(scene, k) * GRAVITY
    speed = np.linalg.norm(np.gradient(motion.position[:, k, :2], STEP, axis=0), axis=1)
    load = np.where(force > 0, np.minimum(force / weight, 1.5), 0.0) * np.maximum(speed - 0.03, 0.0)
    smooth = np.convolve(load, np.full(60, 1 / 60), mode="same")
    if smooth.max() < 1e-3:
        return np.zeros(SAMPLES)
    delay = np.linalg.norm(MICROPHONE) / SPEED_OF_SOUND
    time = np.arange(SAMPLES) / AUDIO_RATE - delay
    level = np.interp(time, np.arange(len(smooth)) * STEP, smooth, left=0.0)
    return 0.0025 * level * rng_of(scene.seed, scene.split, 2, k).standard_normal(SAMPLES)


def _floor_modes(floor: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    frequencies, seconds, gain = FLOOR[floor]
    order = np.arange(len(frequencies))
    return np.array(frequencies), seconds * 0.88**order, gain * 0.85**order


def _strength(hit: Impact) -> float:
    """Loudness from the change of speed: fixed gain; impacts too weak to be events fade away quickly."""
    return (hit.speed / LOUD_SPEED) ** 0.7 * min(1.0, hit.speed / hit.audible) ** 1.5


def _contact_time(scene: Scene, hit: Impact) -> float:
    """Seconds two materials touch: the softer, the larger and the slower, the longer."""
    one, two = hit.pair
    other = FLOOR_SOFTNESS[scene.floor] if one == "floor" else SOFTNESS["mallet"]
    other = SOFTNESS[scene.materials[one]] if isinstance(one, int) else other
    size = SCALE[scene.size] / SCALE["medium"]
    return 0.001 * (SOFTNESS[scene.materials[two]] + other) * size**0.5 * max(hit.speed, 0.2) ** -0.2 * 1.4


def _spectrum(frequencies: np.ndarray, seconds: float) -> np.ndarray:
    """Size of the spectrum of a Hann pulse of unit area at these frequencies."""
    x = frequencies * seconds
    return np.abs(np.sinc(x) / np.where(np.abs(1 - x**2) < 1e-3, 1e-3, 1 - x**2)).clip(0, 1)


def _add_pulse(drive: np.ndarray, hit: Impact, gains: np.ndarray, seconds: float) -> None:
    """Add a Hann pulse of unit area, when it is heard at the microphone."""
    start = (hit.time + np.linalg.norm(hit.place - MICROPHONE) / SPEED_OF_SOUND) * AUDIO_RATE
    length = max(seconds * AUDIO_RATE, 2.0)
    index = np.arange(int(np.ceil(start)), int(start + length) + 1)
    index = index[index < SAMPLES]
    if len(index):
        drive[:, index] += np.outer(gains, 1 - np.cos(2 * np.pi * (index - start) / length)) / length


def _ring(frequencies: np.ndarray, times: np.ndarray, drive: np.ndarray) -> np.ndarray:
    """Sum of damped modes `[samples]`, each a two-pole resonator driven by its row of `drive`."""
    active = np.flatnonzero(drive[0])
    sound = np.zeros(SAMPLES)
    if not len(active):
        return sound
    first = active[0]
    for frequency, seconds, force in zip(frequencies, times, drive, strict=True):
        radius, angle = np.exp(-6.91 / (seconds * AUDIO_RATE)), 2 * np.pi * frequency / AUDIO_RATE
        sound[first:] += lfilter([np.sin(angle)], [1, -2 * radius * np.cos(angle), radius**2], force[first:])
    return sound


@cache
def _room_spectrum() -> np.ndarray:
    """Transfer function of a small room: the direct sound, four early reflections and a short tail."""
    rng = np.random.default_rng(343)
    response = np.zeros(4096)
    response[0] = 1.0
    for milliseconds, gain in ((5.3, 0.16), (8.9, -0.12), (12.7, 0.1), (19.1, -0.07)):
        response[round(milliseconds * AUDIO_RATE / 1000)] += gain
    time = np.arange(len(response)) / AUDIO_RATE
    response += 0.012 * rng.standard_normal(len(response)) * np.exp(-6.91 * time / 0.2) * (time > 0.006)
    return np.asarray(rfft(response, 46080))


def _room(sound: np.ndarray) -> np.ndarray:
    return np.asarray(irfft(rfft(sound, 46080) * _room_spectrum(), 46080))[:SAMPLES]


def _limit(sound: np.ndarray) -> np.ndarray:
    """Linear up to 0.6, then bent so that it stays below 0.95."""
    size = np.abs(sound)
    return np.where(size < 0.6, sound, np.sign(sound) * (0.6 + 0.35 * np.tanh((size - 0.6) / 0.35)))
