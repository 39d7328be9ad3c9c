"""Windows of recordings: never across groups, split by subject or time, scaled by the training part."""

import json

import numpy as np
import pytest

from counterpoint.data.series_table import Channel, Recording
from counterpoint.data.series_windows import Scale, Windows, split_groups, split_time
from counterpoint.modalities.clip import ClipError

CHANNELS = (Channel("x", "m"), Channel("y", "s", 2))


def recording(group, length, offset=0.0, label=0):
    values = np.stack([offset + np.arange(length), offset - np.arange(length)], axis=1).astype(np.float32)
    mask = np.ones((length, 2), bool)
    mask[1::2, 1] = False
    times = np.where(mask, np.arange(length)[:, None] + 0.25, np.nan)
    labels = np.full((length, 1), label)
    return Recording(group, np.where(mask, values, 0), mask, times, 0.0, 1.0, labels, np.array([offset], np.float32))


def test_windows_stay_in_their_recording_and_the_last_ends_with_it():
    windows = Windows([recording("a", 10), recording("b", 3, 100)], length=4, stride=4)
    assert windows.index == [(0, 0), (0, 4), (0, 6), (1, 0)]
    assert windows.groups == ["a", "a", "a", "b"]
    batch = windows.batch([2, 3])
    assert batch.values[0, :, 0].tolist() == [6, 7, 8, 9]
    assert batch.values[1, :, 0].tolist() == [100, 101, 102, 0]
    assert batch.mask[1].tolist() == [[True, True], [True, False], [True, True], [False, False]]
    assert batch.static.tolist() == [[0], [100]]
    np.testing.assert_equal(windows.times(3)[:, 0], [0.25, 1.25, 2.25, np.nan])


def test_the_scale_is_that_of_measured_samples_and_survives_json():
    parts = [recording("a", 10), recording("b", 6, 50)]
    scale = Scale.fit(parts, CHANNELS)
    x, y = (np.concatenate([p.values[p.mask[:, c], c] for p in parts]) for c in (0, 1))
    np.testing.assert_allclose(scale.mean, [x.mean(), y.mean()])
    np.testing.assert_allclose(scale.std, [x.std(), y.std()])
    assert Scale.from_dict(json.loads(json.dumps(scale.to_dict()))) == scale
    batch = Windows(parts, 4).batch(range(4), scale)
    assert (batch.values[~batch.mask] == 0).all()
    raw = Windows(parts, 4).batch(range(4))
    np.testing.assert_allclose(scale.undo(batch.values)[batch.mask], raw.values[raw.mask], rtol=1e-5, atol=1e-5)
    flat = [p.__class__(**{**p.__dict__, "values": np.zeros_like(p.values)}) for p in parts]
    with pytest.raises(ClipError, match=r"channel 'x' is constant \(0\) in the training part"):
        Scale.fit(flat, CHANNELS)


def test_held_out_groups_are_held_out_whole():
    parts = [recording(name, 5) for name in "abcdeabcde"]
    train, test = split_groups(parts, share=0.4, seed=1)
    kept, held = {p.group for p in train}, {p.group for p in test}
    assert len(held) == 2
    assert len(test) == 4
    assert kept | held == set("abcde")
    assert not kept & held
    assert {p.group for p in split_groups(parts, 0.4, 1)[1]} == held
    assert {p.group for p in split_groups(parts, hold=["c"])[1]} == {"c"}
    with pytest.raises(ClipError, match="hold=z: no such group; there are a, b"):
        split_groups(parts, hold=["z"])
    with pytest.raises(ClipError, match="leaves none"):
        split_groups(parts, hold=list("abcde"))


def test_the_last_part_in_time_shares_no_sample_with_the_first():
    train, test = split_time([recording("a", 10), recording("a", 10, 100), recording("b", 10)], 0.3)
    assert [(p.group, len(p.values)) for p in train] == [("a", 10), ("a", 4), ("b", 7)]
    assert [(p.group, len(p.values), p.start) for p in test] == [("a", 6, 4.0), ("b", 3, 7.0)]
    assert test[0].values[0, 0] == 104
    np.testing.assert_equal(test[1].times[:, 0], [7.25, 8.25, 9.25])


def test_a_window_has_a_label_where_nine_tenths_of_it_agree():
    own = recording("a", 40, label=1)
    own.labels[20:] = 2
    own.labels[38:] = -1
    batch = Windows([own], 20, 20).batch([0, 1])
    assert batch.labels.tolist() == [[1], [2]]
    assert Windows([own], 20, 10).batch([1]).labels.tolist() == [[-1]]


def test_windows_almost_without_samples_are_left_out():
    own = recording("a", 40)
    own.mask[10:30] = False
    assert [start for _, start in Windows([own], 10, 10).index] == [0, 30]
    with pytest.raises(ClipError, match="no window with samples"):
        Windows([], 4)
    with pytest.raises(ClipError, match="stride=0"):
        Windows([own], 4, 0)
