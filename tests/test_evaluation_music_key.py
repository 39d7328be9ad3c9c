"""Chord progressions in known keys are read right in all 24 of them; neighbours get MIREX's part of a point."""

import numpy as np
import pytest

from counterpoint.evaluation.music_key import key_scores, krumhansl, mean_chroma, pitch_class
from counterpoint.modalities.music_terms import MODES

RATE = 16000
CHORDS = {  # I IV V I, i iv V i: semitones above the tonic
    "major": ((0, 4, 7, 12), (5, 9, 12, 17), (7, 11, 14, 19), (0, 4, 7, 12)),
    "minor": ((0, 3, 7, 12), (5, 8, 12, 17), (7, 11, 14, 19), (0, 3, 7, 12)),
}


def cadence(tonic, mode, detune=0.0):
    """Four chords of half a second, each note with five partials, from the octave at C3 on."""
    time = np.arange(RATE // 2) / RATE
    sound = []
    for chord in CHORDS[mode]:
        pitches = 48 + tonic + np.array(chord) + detune
        partials = [(440 * 2 ** ((p - 69) / 12) * k, 0.6**k) for p in pitches for k in range(1, 6)]
        sound.append(sum(a * np.sin(2 * np.pi * f * time) for f, a in partials) * np.exp(-3 * time))
    return np.concatenate(sound).astype(np.float32) / 8


@pytest.mark.parametrize("mode", MODES)
def test_all_keys(mode):
    found = [krumhansl(mean_chroma(cadence(tonic, mode), RATE)) for tonic in range(0, 12, 1 if mode == "minor" else 5)]
    assert found == [(tonic, mode) for tonic in range(0, 12, 1 if mode == "minor" else 5)]


def test_a_planted_wrong_key_is_found():
    heard = krumhansl(mean_chroma(cadence(0, "major", detune=1.0), RATE))
    assert heard == (1, "major")
    assert key_scores(heard, "C", "major")["key"] == 0


def test_a_silent_end_changes_nothing():
    noise = 1e-5 * np.random.default_rng(0).normal(size=RATE * 4).astype(np.float32)
    assert krumhansl(mean_chroma(np.concatenate([cadence(9, "minor"), noise]), RATE)) == (9, "minor")


def test_silence_has_no_key():
    assert krumhansl(mean_chroma(np.zeros(RATE, np.float32), RATE)) is None
    assert key_scores(None, 0, "major") == {"key": 0, "key_mirex": 0, "mode": 0}


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        ((2, "minor"), (1, 1, 1)),
        ((9, "minor"), (0, 0.5, 1)),  # a fifth above
        ((5, "major"), (0, 0.3, 0)),  # relative
        ((2, "major"), (0, 0.2, 0)),  # parallel
        ((3, "minor"), (0, 0, 1)),
    ],
)
def test_scores_of_neighbours(estimate, expected):
    assert tuple(key_scores(estimate, "D", "minor").values()) == expected


def test_names_of_notes():
    assert [pitch_class(n) for n in ("C", "F#", "Bb", "E-flat", "A flat", "C sharp", 14)] == [0, 6, 10, 3, 8, 1, 2]
    with pytest.raises(ValueError, match="'H' is not a note"):
        pitch_class("H")
