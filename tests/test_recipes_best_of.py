"""The best of several tries is the clip that is in step with itself, whatever it shows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from counterpoint.modalities.clip import Clip, ClipError, Track
from counterpoint.recipes import best_of
from counterpoint.recipes.best_of import APART, agreement_of, best, tries
from counterpoint.recipes.evaluate_joint import samples


def clip(heard: float, felt: float, pitch: float = 900.0) -> Clip:
    """A knock that is heard at one time and felt at another."""
    time = np.arange(16000) / 16000 - heard
    wave = np.where(time > 0, 0.5 * np.exp(-40 * time.clip(0)) * np.sin(2 * np.pi * pitch * time), 0)
    values = np.zeros((3, 100), np.float32)
    values[2] = 9.81 + 150 * (np.abs(np.arange(100) / 100 - felt - 0.002) < 0.006)
    audio = Track(wave[None].astype(np.float32), 16000.0)
    sensor = Track(values, 100.0, names=("x", "y", "z"), units=("m/s²",) * 3)
    return Clip(audio=audio, sensor={"accelerometer": sensor})


def test_the_clip_in_step_is_kept():
    clips = [clip(0.2, 0.7), clip(0.31, 0.3), clip(0.5, 0.47), clip(0.31, 0.3)]
    assert best(clips) is clips[1]
    scores = [agreement_of(one) for one in clips]
    assert scores[0] == 0
    assert scores[1] > scores[2] > 0.5
    assert best(clips[:1]) is clips[0]


def test_given_tracks_of_another_rate_are_read_on_the_clock(monkeypatch):
    one = clip(0.31, 0.3)
    fast = one.sensor["accelerometer"]
    slow = replace(one, sensor={"accelerometer": replace(fast, values=np.repeat(fast.values, 4, axis=1), rate=400.0)})
    assert agreement_of(slow, given=True) == pytest.approx(agreement_of(one), abs=0.15)
    rates = []
    monkeypatch.setattr(best_of, "clip_events", lambda c: rates.append(c.sensor["accelerometer"].rate) or {})
    for given in (False, True):
        agreement_of(slow, given)
    assert rates == [400.0, 100.0]


def test_one_track_has_nothing_to_agree_with():
    with pytest.raises(ClipError, match="a clip of one track has nothing to agree with"):
        best([Clip(audio=clip(0.2, 0.2).audio)] * 2)


def test_tries_have_seeds_of_their_own():
    assert tries(7, 3) == [7, 7 + APART, 7 + 2 * APART]
    ranges = [set(tries(seed, 8)) for seed in range(1000)]
    assert len(set.union(*ranges)) == 8000


def test_samples_are_the_best_of_their_tries():
    """Each prompt has a good try of its own."""
    asked: list[tuple[list[str], list[int]]] = []

    def pipeline(prompts: list[str], seed: list[int], **_: Any) -> list[Clip]:
        asked.append((prompts, seed))
        return [
            replace(clip(0.31, 0.3 if s // APART == int(p) else 0.8), metadata={"seed": s, "prompt": p})
            for p, s in zip(prompts, seed, strict=True)
        ]

    made = list(samples(pipeline, ["0", "1", "2"], [10, 11, 12], best_of=3))  # pyright: ignore[reportArgumentType]
    assert [one.metadata for one in made] == [{"seed": 10 + k + APART * k, "prompt": str(k)} for k in range(3)]
    assert asked == [(["0", "1", "2"], [10 + APART * k, 11 + APART * k, 12 + APART * k]) for k in range(3)]
