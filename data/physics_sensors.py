"""What is read from a motion at 100 Hz, and when its impacts begin.

An event is an impact that can be perceived in video, sound and sensors: it changes the speed of the lighter body by
at least `EVENT_SPEED` (`COLLISION_SPEED` between two objects). Impacts that follow another within `DEBOUNCE` seconds
(the corners of a block that lands) belong to the same event, which begins with the first of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import find_peaks

from .physics_scene import Scene
from .physics_simulation import GRAVITY, MALLET_MASS, STEP, Motion, mass_of

SENSOR_RATE = 100
EVENT_SPEED, COLLISION_SPEED = 0.7, 0.5  # m/s; between two objects, where nothing else happens, a little is enough
IMPACT_SPEED = 0.06  # m/s: slower impacts make no sound
DEBOUNCE = 0.07  # seconds
ACCELEROMETER_RANGE = 16 * GRAVITY  # ± m/s²
GYROSCOPE_RANGE = 35.0  # ± rad/s
PLATE_RANGE = 1000.0  # N


@dataclass(frozen=True)
class Impact:
    """One impact: when it begins (s), who meets whom, the change of speed (m/s), where (m, world), at which step."""

    time: float
    pair: tuple[str | int, int]
    speed: float
    place: np.ndarray
    step: int

    @property
    def audible(self) -> float:
        """The change of speed (m/s) from which such an impact is an event."""
        return EVENT_SPEED if isinstance(self.pair[0], str) else COLLISION_SPEED


def find_impacts(scene: Scene, motion: Motion) -> list[Impact]:
    """All impacts in order of time, from the peaks of each pair's contact force."""
    impacts = []
    for pair, (force, place) in motion.contacts.items():
        mass = _lighter(scene, pair)
        weight = 1.5 * mass * GRAVITY if pair[0] == "floor" else 0.0
        excess = np.maximum(force - weight, 0.0)
        impulse = np.concatenate([[0.0], np.cumsum(excess) * STEP])
        least = IMPACT_SPEED * mass / 0.01  # N: that impulse spread over 10 ms
        peaks, _ = find_peaks(excess, height=least, distance=10, prominence=least)
        for peak in peaks:
            window = excess[max(peak - 12, 0) : peak + 1]
            low = np.flatnonzero(window < 0.05 * excess[peak])
            start = peak - (len(window) - 1 - low[-1]) + 1 if len(low) else peak - int(np.argmin(window[::-1]))
            speed = (impulse[min(peak + 11, len(impulse) - 1)] - impulse[max(peak - 10, 0)]) / mass
            if speed >= IMPACT_SPEED:
                impacts.append(Impact(start * STEP, pair, float(speed), place[peak], int(peak)))
    return sorted(impacts, key=lambda impact: (impact.time, str(impact.pair)))


def find_events(impacts: list[Impact]) -> tuple[float, ...]:
    """Times at which perceptible impacts begin, chatter merged."""
    events: list[float] = []
    last = -1.0
    for impact in impacts:
        if impact.speed < impact.audible:
            continue
        if impact.time - last > DEBOUNCE:
            events.append(impact.time)
        last = impact.time
    return tuple(events)


def read_sensors(motion: Motion) -> dict[str, np.ndarray]:
    """Accelerometer `[3, N]` m/s², gyroscope `[3, N]` rad/s and force plate `[1, N]` N at 100 Hz, in range."""
    ranges = {
        "accelerometer": (motion.accelerometer, -ACCELEROMETER_RANGE, ACCELEROMETER_RANGE),
        "gyroscope": (motion.gyroscope, -GYROSCOPE_RANGE, GYROSCOPE_RANGE),
        "force": (motion.plate[:, None], 0.0, PLATE_RANGE),
    }
    return {
        name: np.clip(_sample(values), low, high).astype(np.float32) for name, (values, low, high) in ranges.items()
    }


def _sample(values: np.ndarray) -> np.ndarray:
    """`[steps, channels]` → `[channels, N]`: a Hann low pass of 20 ms without delay, then every 10 ms."""
    kernel = np.hanning(43)[1:-1]
    kernel /= kernel.sum()
    padded = np.pad(values, ((20, 20), (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 41, axis=0)[:: round(1 / STEP / SENSOR_RATE)]
    return (windows * kernel).sum(-1).T


def _lighter(scene: Scene, pair: tuple[str | int, int]) -> float:
    one, two = pair
    mass = mass_of(scene, one) if isinstance(one, int) else {"floor": np.inf, "mallet": MALLET_MASS}[one]
    return min(mass, mass_of(scene, two))
