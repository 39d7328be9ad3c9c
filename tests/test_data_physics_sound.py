"""The modal sound: pitch and decay of the bodies, delay of the air, loudness of impacts."""

import numpy as np
import pytest

from counterpoint.data.physics_scene import Layout, Placement, Scene
from counterpoint.data.physics_sensors import find_impacts
from counterpoint.data.physics_simulation import run
from counterpoint.data.physics_sound import AUDIO_RATE, BODY, PITCH, synthesize


def sound_of(material: str, floor: str = "stone", size: str = "medium", height: float = 0.4) -> tuple[np.ndarray, list]:
    scene = Scene(0, "train", material, "ball", size, floor, "drop")
    motion = run(scene, Layout(0.0, (Placement((0.0, 0.0, height + 0.2)),)))
    impacts = find_impacts(scene, motion)
    return synthesize(scene, motion, impacts)[0], impacts


def spectrum_peak(sound: np.ndarray, low: float, high: float) -> float:
    spectrum = np.abs(np.fft.rfft(sound))
    frequencies = np.fft.rfftfreq(len(sound), 1 / AUDIO_RATE)
    band = (frequencies > low) & (frequencies < high)
    return float(frequencies[band][np.argmax(spectrum[band])])


@pytest.mark.parametrize("size", ["small", "large"])
def test_the_pitch_follows_material_and_size(size):
    sound, _ = sound_of("metal", size=size)
    expected = BODY["metal"][0] * PITCH[size]
    assert spectrum_peak(sound, 0.8 * expected, 1.2 * expected) == pytest.approx(expected, rel=0.01)


def test_metal_rings_longer_than_stone():
    def ring(material: str) -> float:
        sound, impacts = sound_of(material)
        start = round(impacts[0].time * AUDIO_RATE)
        assert impacts[1].time - impacts[0].time > 0.25  # the next bounce is not in the window
        return float(np.abs(sound[start + 3200 : start + 4000]).max() / np.abs(sound[start : start + 800]).max())

    assert ring("metal") > 3 * ring("stone")


def test_it_is_silent_until_the_sound_has_travelled():
    sound, impacts = sound_of("wood")
    arrival = impacts[0].time + 2.23 / 343
    assert np.abs(sound[: round((arrival - 0.001) * AUDIO_RATE)]).max() < 1e-6
    assert np.abs(sound[: round((arrival + 0.005) * AUDIO_RATE)]).max() > 0.05


def test_rubber_is_duller_than_glass():
    def centroid(material: str) -> float:
        power = np.abs(np.fft.rfft(sound_of(material)[0])) ** 2
        return float((power * np.fft.rfftfreq(40960, 1 / AUDIO_RATE)).sum() / power.sum())

    assert centroid("rubber") < 0.3 * centroid("glass")
