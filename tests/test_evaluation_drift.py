"""Drift and seams against clips whose drift and seams are planted."""

import numpy as np
import pytest

from counterpoint.evaluation import drift
from counterpoint.modalities.clip import Clip, Track

SECONDS = 5.12


def clip(grey: tuple[int, int] = (100, 100), gain: tuple[float, float] = (0.1, 0.1), step: float = 0.0) -> Clip:
    """Two segments: video of two greys with a wandering dot, a hum of two loudnesses, a noisy sensor with a step."""
    draws = np.random.default_rng(0)
    half = round(SECONDS * 25) // 2
    video = np.repeat(np.array(grey, np.uint8), half)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    for frame, place in enumerate(draws.integers(0, 64, len(video))):
        video[frame, place // 8, place % 8] = draws.integers(0, 256)
    time = np.arange(round(SECONDS * 16000)) / 16000
    sound = np.where(time < SECONDS / 2, *gain) * np.sin(2 * np.pi * 220 * time)
    force = draws.normal(size=(1, 512)).cumsum(1)
    force[:, 256:] += step
    return Clip(
        Track(sound[None].astype(np.float32), 16000.0), Track(video, 25.0),
        {"force": Track(force.astype(np.float32), 100.0)},
    )  # fmt: skip


def test_segments_are_whole_and_begin_at_0():
    cut = drift.segments(clip(), 2.4)
    assert len(cut) == 2
    for part in cut:
        assert [track.samples for track in part.tracks.values()] == [60, 38400, 240]
        assert all(track.start == 0 for track in part.tracks.values())
    whole = clip()
    assert whole.audio is not None
    assert cut[1].audio is not None
    assert (cut[1].audio.values == whole.audio.values[:, 38400:76800]).all()


def test_planted_drift_is_measured():
    first, second = drift.segments(clip((100, 120), (0.1, 0.01)), 2.56)
    found = drift.distances(drift.summary([second]), drift.summary([first]))
    assert found["colour"] == pytest.approx(20, abs=1)
    assert found["level_db"] == pytest.approx(20, abs=0.1)
    assert found["level_change_db"] == -found["level_db"]
    assert abs(found["motion_change"]) < 1
    same = drift.distances(drift.summary([first]), drift.summary([first]))
    assert set(same.values()) == {0}


def test_what_is_missing_is_nan():
    silent = Clip(video=clip().video)
    assert np.isnan(drift.level(silent))
    assert np.isnan(drift.colour(Clip(audio=clip().audio))).all()


def test_a_seam_stands_out_where_it_was_planted():
    times = [1.28, 2.56, 3.84]
    whole, cut = drift.seam_ranks(clip(), times), drift.seam_ranks(clip((100, 140), (0.1, 0.02), 30.0), times)
    for track in ("video", "audio", "sensor"):
        assert cut[track][1] > 0.99
    for track in ("video", "sensor"):
        assert whole[track].shape == (3,)
        assert cut[track][0] == pytest.approx(whole[track][0], abs=0.05)
    assert drift.standing_out(cut["sensor"]) >= 1 / 3


def test_without_seams_ranks_are_even():
    ranks = [drift.seam_ranks(Clip(sensor=clip().sensor), [0.16 * k])["sensor"][0] for k in range(1, 32)]
    assert np.mean(ranks) == pytest.approx(0.5, abs=0.15)
    still = Clip(video=Track(np.zeros((64, 4, 4, 3), np.uint8), 25.0))
    assert drift.seam_ranks(still, [1.28])["video"] == pytest.approx(0.5)
