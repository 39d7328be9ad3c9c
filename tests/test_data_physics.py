"""The physics world's clips: contents, timing against the true contacts, determinism, held-out combinations."""

from itertools import product

import numpy as np
import pytest

from counterpoint.data.physics import ACTIONS, FLOORS, MATERIALS, SHAPES, generate, held_out, sample_scene, simulate
from counterpoint.data.physics_scene import Scene


@pytest.fixture(scope="module")
def drop():
    return simulate(Scene(3, "test", "wood", "ball", "medium", "stone", "drop"))


def test_tracks_have_the_clip_s_shapes_and_ranges(drop):
    assert drop.video.values.shape == (64, 64, 64, 3)
    assert drop.video.values.dtype == np.uint8
    assert drop.audio.values.shape == (1, 40960)
    assert 0.05 < np.abs(drop.audio.values).max() <= 1
    assert {name: track.values.shape for name, track in drop.sensor.items()} == {
        "accelerometer": (3, 256),
        "gyroscope": (3, 256),
        "force": (1, 256),
    }
    assert all(track.values.dtype == np.float32 and track.rate == 100 for track in drop.sensor.values())
    assert (drop.audio.rate, drop.video.rate) == (16000, 25)


def test_a_drop_is_held_falls_and_lands(drop):
    first = round(drop.events[0] * 100)
    specific_force = np.linalg.norm(drop.sensor["accelerometer"].values, axis=0)
    assert specific_force[0] == pytest.approx(9.81, abs=0.01)  # held: gravity
    assert specific_force[first - 10] < 0.01  # free fall
    assert specific_force[first : first + 2].max() > 100
    assert drop.sensor["force"].values[0, : first - 1].max() == 0  # nothing on the plate yet
    assert drop.sensor["force"].values[0, -1] == pytest.approx(0.5 * 9.81, rel=0.05)  # its weight, in the end


def test_sound_sensors_and_picture_meet_at_the_first_contact(drop):
    contact = drop.events[0]
    sound = np.abs(drop.audio.values[0])
    onset = np.argmax(sound > 0.1 * sound.max()) / 16000
    assert 0.004 < onset - contact < 0.010  # 2.1 to 2.3 m of air
    assert abs(np.argmax(drop.sensor["force"].values[0]) / 100 - contact) <= 0.01
    ball = (drop.video.values[..., 0].astype(int) - drop.video.values[..., 2] > 60).nonzero()  # brown
    lowest = np.array([ball[1][ball[0] == frame].max() for frame in range(int(25 * drop.events[1]))])
    assert abs(np.argmax(lowest) / 25 - contact) <= 0.04


def test_the_same_seed_gives_the_same_bits_in_any_process():
    here = list(generate(range(40, 42), "test"))
    there = list(generate(range(40, 42), "test", workers=2))
    for one, two in zip(here, there, strict=True):
        np.testing.assert_array_equal(one.video.values, two.video.values)
        np.testing.assert_array_equal(one.audio.values, two.audio.values)
        for name, track in one.sensor.items():
            np.testing.assert_array_equal(track.values, two.sensor[name].values)
        assert (one.events, one.metadata) == (two.events, two.metadata)


def test_held_out_triples_leave_every_pair_in_training():
    assert len(held_out()) == 12
    seen = set(product(MATERIALS, SHAPES, FLOORS)) - held_out()
    for one, two in ((0, 1), (0, 2), (1, 2)):
        everything = set(product((MATERIALS, SHAPES, FLOORS)[one], (MATERIALS, SHAPES, FLOORS)[two]))
        assert {(triple[one], triple[two]) for triple in seen} == everything


@pytest.mark.parametrize(("split", "held"), [("train", False), ("test", False), ("unseen", True)])
def test_splits_keep_their_combinations(split, held):
    scenes = [sample_scene(seed, split) for seed in range(300)]
    assert all(((s.material, s.shape, s.floor) in held_out()) == held for s in scenes)
    if not held:
        assert not any((s.second, s.shape, s.floor) in held_out() for s in scenes)
    assert {s.action for s in scenes} == set(ACTIONS)


def test_seeds_of_two_splits_are_unrelated():
    same = sum(sample_scene(k, "train").attributes == sample_scene(k, "test").attributes for k in range(200))
    assert same < 10


def test_bad_split_and_seed_are_named():
    with pytest.raises(ValueError, match="split: 'valid' is not one of train, test, unseen"):
        sample_scene(0, "valid")
    with pytest.raises(ValueError, match="seed: -1 is negative"):
        sample_scene(-1)
