"""A melody is heard, found again in an index at another key and speed, and not found where it is another one."""

import numpy as np
import pytest

from counterpoint.evaluation.music_melody import FIGURE, copied, figures, index, melody, transcribe

RATE = 16000
TUNE = [67, 69, 71, 72, 74, 71, 67, 66, 64, 69, 73, 71, 74, 76, 79, 78]


def play(pitches, seconds=0.3, bass=None):
    """Notes with six partials; under them a softer bass, if any."""
    time = np.arange(round(seconds * RATE)) / RATE
    envelope = np.minimum(time / 0.01, 1) * np.exp(-3 * time)

    def note(pitch, level):
        frequency = 440 * 2 ** ((pitch - 69) / 12)
        return level * envelope * sum(0.6**k * np.sin(2 * np.pi * frequency * k * time) for k in range(1, 7))

    notes = [note(p, 0.3) + (0 if bass is None else note(bass[i % len(bass)], 0.02)) for i, p in enumerate(pitches)]
    return np.concatenate(notes).astype(np.float32)


def test_a_single_line_is_heard():
    assert transcribe(play(TUNE), RATE) == TUNE


def test_a_line_over_a_softer_bass_is_heard():
    assert transcribe(play(TUNE, bass=[43, 48, 50, 40]), RATE) == TUNE


def test_silence_has_no_melody():
    assert transcribe(np.zeros(RATE, np.float32), RATE) == []


def test_a_planted_copy_is_found_in_any_key_and_tempo():
    known = index([[60, 62, 60, 65, 60, 62, 60, 67, 65, 60], TUNE])
    copy = copied([transcribe(play([p - 5 for p in TUNE], seconds=0.2), RATE)], known)
    assert copy == {"share": 1, "longest": len(TUNE), "figures": len(TUNE) - FIGURE}
    other = np.random.default_rng(0).integers(60, 80, 30).tolist()
    assert copied([other], known)["share"] == 0
    assert copied([other, TUNE], known)["longest"] == len(TUNE)


def test_the_highest_note_of_every_onset_counts_once():
    notes = [(0, 60), (0.01, 67), (0.5, 67), (1.0, 65), (1.0, 50), (1.5, 67)]
    assert melody(notes) == [67, 65, 67]
    assert melody([]) == []


def test_figures_need_nine_notes():
    assert figures(TUNE[:8]) == []
    assert figures(TUNE[:9]) == [tuple(np.diff(TUNE[:9]))]
    assert figures([60, 60, *TUNE[:9]]) == figures([60, *TUNE[:9]])
    assert copied([TUNE[:5]], index([TUNE])) == {"share": None, "longest": 0, "figures": 0}


@pytest.mark.parametrize("rate", [16000, 24000])
def test_other_rates(rate):
    time = np.arange(rate) / rate
    tone = np.sin(2 * np.pi * 440 * time) + 0.5 * np.sin(2 * np.pi * 880 * time)
    assert transcribe(tone.astype(np.float32), rate) == [69]
