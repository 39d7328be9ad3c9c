"""A seam that was planted ranks first; where nothing was joined the ranks are spread evenly."""

import numpy as np
import pytest

from counterpoint.evaluation.music_seams import seam_report, seams

RATE = 16000


def music(seconds=8, seed=0):
    """Notes with six partials at irregular times, over a little noise."""
    draws = np.random.default_rng(seed)
    time = np.arange(seconds * RATE) / RATE
    audio = 1e-3 * draws.normal(size=len(time))
    for start in np.cumsum(draws.uniform(0.1, 0.4, 4 * seconds)):
        age, frequency = time - start, 110 * 2 ** (draws.integers(0, 36) / 12)
        envelope = np.sin(np.pi / 2 * (age / 0.01).clip(0, 1)) ** 2 * np.exp(-4 * age.clip(0))
        audio += 0.1 * envelope * sum(np.sin(2 * np.pi * frequency * k * age) / k for k in range(1, 7))
    return audio


TIMES = [1.3, 3.9, 6.4]


def test_other_music_joined_on_is_a_seam():
    one, two = music(seed=1), music(seed=2)
    joined = one.copy()
    for i, start in enumerate(TIMES):
        if i % 2 == 0:
            stop = TIMES[i + 1] if i + 1 < len(TIMES) else 8
            joined[round(start * RATE) : round(stop * RATE)] = two[round(start * RATE) : round(stop * RATE)]
    ranks = seams(joined, RATE, TIMES)
    assert ranks["any"].min() > 0.95
    assert ranks["step"][:2].min() > 0.99  # at the third the two waveforms happen to meet
    assert seam_report([ranks])["any"] == 1


def test_a_jump_of_phase_is_a_seam():
    joined, at = music(seed=3), round(3.9 * RATE)
    joined[at:] = np.roll(joined, 25)[at:]
    ranks = seams(joined, RATE, [3.9])
    assert ranks["phase"][0] > 0.9
    assert ranks["any"][0] > 0.95


def test_music_without_seams_ranks_evenly():
    ranks = [seams(music(seed=s), RATE, np.linspace(0.5, 7.5, 29)) for s in range(3)]
    for name, share in seam_report(ranks).items():
        assert share < 0.15, name
        assert np.concatenate([r[name] for r in ranks]).mean() == pytest.approx(0.5, abs=0.12)


def test_a_time_outside_is_refused():
    with pytest.raises(ValueError, match=r"outside the 8\.00 s"):
        seams(music(), RATE, [9.0])
