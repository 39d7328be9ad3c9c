"""Matching and scores have known answers."""

import itertools

import numpy as np
import pytest

from counterpoint.evaluation.sync import agreement, match, mismatched, offsets, synchronization


def test_a_planted_shift_is_measured():
    events = [np.array([0.2, 0.7, 1.5]), np.array([0.4]), np.array([])]
    score = synchronization(events, [e + 0.03 for e in events])
    assert score["precision"] == score["recall"] == score["f1"] == 1
    assert score["median_ms"] == pytest.approx(30)
    assert score["p95_ms"] == pytest.approx(30)
    assert score["bias_ms"] == pytest.approx(30)
    assert (score["n"], score["reference_events"]) == (3, 4)
    assert synchronization(events, [e - 0.03 for e in events])["bias_ms"] == pytest.approx(-30)


def test_a_shift_beyond_the_window_matches_nothing():
    score = synchronization([[0.5]], [[0.5401]])
    assert (score["f1"], score["median_ms"]) == (0, None)
    assert synchronization([[0.5]], [[0.54]])["f1"] == 1


def test_two_detections_near_one_event_count_once():
    score = synchronization([[1.0]], [[0.99, 1.005]])
    assert (score["precision"], score["recall"], score["f1"]) == (0.5, 1, pytest.approx(2 / 3))
    assert score["median_ms"] == pytest.approx(5)


def test_matching_finds_more_pairs_than_nearest_first():
    # nearest first takes 0.10-0.11 and leaves 0.07 and 0.14 alone
    assert match([0.07, 0.11], [0.10, 0.14]).tolist() == [[0, 0], [1, 1]]
    assert match([], [0.1]).shape == match([0.1], []).shape == (0, 2)


def test_matching_is_optimal():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.uniform(0, 0.3, 4), rng.uniform(0, 0.3, 4)
        best = max(
            (sum(d <= 0.04 for d in distances), -sum(d for d in distances if d <= 0.04))
            for order in itertools.permutations(range(4))
            for distances in [[abs(a[i] - b[j]) for i, j in enumerate(order)]]
        )
        found = offsets(a, b)
        assert len(found) == best[0]
        assert np.abs(found).sum() == pytest.approx(-best[1])


def test_micro_average_pools_events_not_clips():
    score = synchronization([[0.1, 0.5, 0.9], [1.0]], [[0.1, 0.5, 0.9], [2.0, 2.2]])
    assert score["precision"] == pytest.approx(3 / 5)
    assert score["recall"] == pytest.approx(3 / 4)


def test_tracks_of_one_clip_agree():
    times = [0.5, 1.0]
    assert agreement({"audio": times, "video": times, "sensor": times}) == 1
    late = [0.52, 1.02]  # half a window: each of two pairs of tracks counts ¾, the third 1
    assert agreement({"audio": times, "video": late, "sensor": times}) == pytest.approx((0.75 + 0.75 + 1) / 3)
    assert agreement({"audio": times, "video": [0.54, 2.0]}) == pytest.approx(2 * 0.5 / 4)
    assert agreement({"audio": [0.5], "video": [0.5, 1.0, 1.5]}) == pytest.approx(0.5)
    assert agreement({"audio": times, "sensor": []}) == 0
    assert agreement({"audio": [], "video": []}) == 0
    assert agreement({"video": times, "sensor": times}) == 1


def test_mismatched_pairs_are_chance():
    events = [[0.1 * k] for k in range(24)]
    assert synchronization(events, events)["f1"] == 1
    score = mismatched(events, events)
    assert (score["f1"], score["n"]) == (0, 72)
    same = [[0.5]] * 4  # shifts of 1, 7 and 19 all move among four clips
    assert mismatched(same, same)["f1"] == 1
    with pytest.raises(ValueError, match="2 clips"):
        mismatched([[0.1]], [[0.1]])


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="reference has 2"):
        synchronization([[0.1], [0.2]], [[0.1]])
