"""Click tracks of known tempo and accented beats of known meter are read right; silence has no tempo."""

import math

import numpy as np
import pytest

from counterpoint.evaluation.music_rhythm import (
    meter,
    meter_class,
    meter_strengths,
    onset_envelope,
    tempo,
    tempo_scores,
)

RATE = 16000


def beats(bpm, accents=(1.0,), seconds=10.24):
    """Short tones on every beat, their loudness going round `accents`; some noise."""
    audio = 1e-4 * np.random.default_rng(0).normal(size=round(seconds * RATE))
    time = np.arange(RATE // 10) / RATE
    tone = np.exp(-40 * time) * np.sin(2 * np.pi * 440 * time)
    for i, start in enumerate(np.arange(0.2, seconds - 0.1, 60 / bpm)):
        at = round(start * RATE)
        audio[at : at + len(tone)] += 0.5 * accents[i % len(accents)] * tone
    return audio.astype(np.float32)


@pytest.mark.parametrize("bpm", [50, 63, 97, 132, 186.5])
def test_the_tempo_of_a_click_track(bpm):
    estimate = tempo(onset_envelope(beats(bpm), RATE))
    scores = tempo_scores(estimate, bpm)
    assert scores["tempo_octave"] == 1
    nearest = min((estimate * f for f in (0.5, 1, 2)), key=lambda e: abs(e / bpm - 1))
    assert nearest == pytest.approx(bpm, rel=0.005)  # well inside the 4 %


def test_a_planted_wrong_tempo_is_found():
    estimate = tempo(onset_envelope(beats(106), RATE))
    assert tempo_scores(estimate, 100) == {"tempo": 0, "tempo_octave": 0, "tempo_accuracy2": 0}
    assert tempo_scores(estimate, 106)["tempo"] == 1


def test_readings_of_one_estimate():
    assert tempo_scores(100.0, 103.9) == {"tempo": 1, "tempo_octave": 1, "tempo_accuracy2": 1}
    assert tempo_scores(100.0, 50.0) == {"tempo": 0, "tempo_octave": 1, "tempo_accuracy2": 1}
    assert tempo_scores(66.0, 198.0) == {"tempo": 0, "tempo_octave": 0, "tempo_accuracy2": 1}
    assert tempo_scores(math.nan, 100.0) == {"tempo": 0, "tempo_octave": 0, "tempo_accuracy2": 0}


def test_silence_has_no_tempo():
    assert math.isnan(tempo(onset_envelope(np.zeros(RATE * 4, np.float32), RATE)))


@pytest.mark.parametrize(
    ("accents", "expected"), [((1, 0.3), "duple"), ((1, 0.3, 0.3), "triple"), ((1, 0.25, 0.5, 0.25), "duple")]
)
def test_meter_from_accents(accents, expected):
    envelope = onset_envelope(beats(120, accents), RATE)
    assert meter(meter_strengths(envelope, 120)) == expected


def test_meter_of_what_is_too_short_or_unknown():
    envelope = onset_envelope(beats(50, seconds=3), RATE)
    assert meter(meter_strengths(envelope, 50)) is None
    assert meter(meter_strengths(envelope, math.nan)) is None
    names = ("2/4", "4/4", "2/2", "6/8", "12/8", "3/4", "3/8", "9/8", "5/4")
    assert [meter_class(n) for n in names] == ["duple"] * 5 + ["triple"] * 3 + [None]
