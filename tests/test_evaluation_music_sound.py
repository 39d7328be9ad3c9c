"""Faults that are planted into clean music show in their score, and in no other."""

import math

import numpy as np
import pytest

from counterpoint.evaluation.music_sound import clicks, hiss, loudness, sound_scores, wobble

RATE = 16000
TIME = np.arange(4 * RATE) / RATE


def plucked(drift=0.0):
    """Four plucked notes a second with eight partials that ring into one another, fading at both ends."""
    audio = np.zeros(len(TIME))
    for i in range(15):
        age = TIME - 0.05 - i / 4
        frequency = 220 * 2 ** ([0, 4, 7, 12, 7][i % 5] / 12)
        for k in range(1, 9):
            phase = frequency * k * (age + drift * np.sin(2 * np.pi * 3 * TIME) / (2 * np.pi * 3))
            envelope = np.minimum(age.clip(0) / 0.005, 1) * np.exp(-5 * age.clip(0))
            audio += 0.12 / k * envelope * np.sin(2 * np.pi * phase)
    return audio * np.clip((4 - TIME) / 0.2, 0, 1)


CLEAN = sound_scores(plucked(), RATE)


def changed(audio):
    """Names of the scores that differ clearly from those of the clean sound."""
    bounds = {"loudness_lufs": 1, "clipped": 0, "silent": 0.02, "clicks": 0, "hiss_db": 6, "wobble_cents": 4}
    scores = sound_scores(audio, RATE)
    return {name for name, value in scores.items() if abs(value - CLEAN[name]) > bounds.get(name, 0.5)}


def test_clean_music():
    assert CLEAN["clipped"] == CLEAN["clicks"] == CLEAN["start_click"] == CLEAN["end_click"] == 0
    assert CLEAN["end_db"] < -20
    assert CLEAN["wobble_cents"] < 5
    assert changed(plucked() * 0.95) == set()


def test_planted_clicks_are_found_where_they_are():
    audio = plucked()
    audio[20000] += 0.2
    audio[41003:] *= -1  # a jump of phase
    start, inside, end = clicks(audio, RATE)
    assert not start
    assert not end
    assert len(inside) == 2
    assert np.abs(inside - [20000, 41003]).max() <= 1
    assert changed(audio) == {"clicks"}


def test_cut_ends_are_clicks_at_the_ends():
    cut = plucked()[9003:30007]
    cut[0], cut[-1] = 0.2, 0.2
    start, inside, end = clicks(cut, RATE)
    assert start
    assert end
    assert len(inside) == 0
    assert sound_scores(cut, RATE)["end_db"] > -10


def test_noise_and_attacks_are_not_clicks():
    noise = 0.1 * np.random.default_rng(0).normal(size=RATE)
    drum = np.where(np.arange(RATE) > 5000, noise * np.exp(-np.arange(-5000, RATE - 5000).clip(0) / 800), 0)
    assert len(clicks(noise, RATE)[1]) == 0
    assert len(clicks(drum, RATE)[1]) == 0


def test_clipping():
    assert {"clipped"} <= changed(np.clip(plucked() * 6, -1, 1))


def test_hiss_is_read_in_decibels():
    noise = np.random.default_rng(0).normal(size=len(TIME))
    for level in (-60, -45):
        assert hiss(plucked() + 10 ** (level / 20) * noise, RATE) == pytest.approx(level, abs=2.5)
    assert CLEAN["hiss_db"] < -75
    assert changed(plucked() + 1e-3 * noise) == {"hiss_db", "end_db"}  # it goes on after the last note


def test_wobble_is_read_in_cents():
    cents = 30
    drift = 2 ** (cents / 1200) - 1
    assert wobble(plucked(drift), RATE) == pytest.approx(cents / math.sqrt(2), rel=0.35)
    assert wobble(plucked() * 0.1, RATE) == pytest.approx(CLEAN["wobble_cents"], abs=0.5)


def test_loudness_of_the_standard():
    sine = np.sin(2 * np.pi * 997 * np.arange(RATE * 2) / RATE)
    assert loudness(sine, RATE) == pytest.approx(-3.01, abs=0.1)  # BS.1770-4: 0 dBFS at 997 Hz
    assert loudness(sine / 10, RATE) == pytest.approx(-23.01, abs=0.1)


def test_silence():
    scores = sound_scores(np.zeros(RATE), RATE)
    assert scores["silent"] == 1
    assert [name for name, value in scores.items() if math.isnan(value)] == ["loudness_lufs", "hiss_db", "wobble_cents"]
    assert sound_scores(np.concatenate([plucked(), np.zeros(4 * RATE)]), RATE)["silent"] == pytest.approx(0.5, abs=0.04)
