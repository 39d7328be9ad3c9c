"""Known answers of mechanics: fall times, restitution, momentum, sensors, and where rays meet bodies."""

import numpy as np
import pytest
import torch

from counterpoint.data.physics_scene import Layout, Placement, Scene
from counterpoint.data.physics_sensors import find_events, find_impacts, read_sensors
from counterpoint.data.physics_shapes import Part, meet
from counterpoint.data.physics_simulation import BOUNCE, FLOOR_BOUNCE, GRAVITY, SHAPE_BOUNCE, STEP, mass_of, run

BALL = Scene(0, "train", "rubber", "ball", "medium", "stone", "drop")


@pytest.fixture(scope="module")
def fall():
    motion = run(BALL, Layout(0.1, (Placement((0.0, 0.0, 0.5 + 0.105)),)))
    return motion, find_impacts(BALL, motion)


def test_first_contact_comes_after_the_time_of_free_fall(fall):
    assert find_events(fall[1])[0] == pytest.approx(0.1 + np.sqrt(2 * 0.5 / GRAVITY), abs=0.0015)


def test_bounces_follow_the_coefficient_of_restitution(fall):
    expected = BOUNCE["rubber"] * SHAPE_BOUNCE["ball"] * FLOOR_BOUNCE["stone"]
    times = find_events(fall[1])
    speed = np.sqrt(2 * GRAVITY * 0.5)
    assert (times[1] - times[0]) * GRAVITY / 2 / speed == pytest.approx(expected, abs=0.06)
    assert fall[1][0].speed == pytest.approx(speed * (1 + expected), rel=0.06)  # change of speed at the impact


def test_the_plate_receives_the_momentum_of_the_fall(fall):
    motion, _ = fall
    mass = mass_of(BALL, 0)
    falling = motion.plate.shape[0] * STEP - 0.1  # all of gravity since the release ends on the plate
    assert motion.plate.sum() * STEP == pytest.approx(mass * GRAVITY * falling, rel=0.02)


def test_sensor_spikes_are_not_delayed(fall):
    motion, impacts = fall
    force = read_sensors(motion)["force"][0]
    peak = int(np.argmax(force))
    centre = (force[peak - 2 : peak + 3] * np.arange(peak - 2, peak + 3)).sum() / force[peak - 2 : peak + 3].sum() / 100
    assert centre == pytest.approx(impacts[0].time + 0.0025, abs=0.002)  # the middle of a contact of 5 ms


def test_a_collision_keeps_momentum():
    scene = Scene(0, "train", "metal", "ball", "small", "wood", "collide", "wood")
    mover = Placement((-0.3, 0.0, 0.07), velocity=(1.0, 0.0, 0.0), spin=(0.0, 1.0 / 0.07, 0.0))
    motion = run(scene, Layout(0.0, (mover, Placement((0.0, 0.0, 0.07)))))
    hit = next(impact for impact in find_impacts(scene, motion) if impact.pair == (0, 1))
    speed = np.gradient(motion.position[..., 0], STEP, axis=0)
    before, after = speed[hit.step - 8], speed[hit.step + 8]
    masses = np.array([mass_of(scene, 0), mass_of(scene, 1)])
    assert masses @ after == pytest.approx(masses @ before, rel=0.08)  # the floor and the spin take some
    assert hit.time == pytest.approx(0.16, abs=0.01)


def test_chatter_is_one_event():
    scene = Scene(0, "train", "wood", "block", "medium", "stone", "drop")
    motion = run(scene, Layout(0.0, (Placement((0.0, 0.0, 0.5), (0.0, 0.05, 0.03)),)))
    events = find_events(find_impacts(scene, motion))
    assert events
    assert np.all(np.diff(events) > 0.07)


@pytest.mark.parametrize(
    ("shape", "extents", "distance"),
    [("ball", (0.2, 0.2, 0.2), 0.8), ("block", (0.1, 0.3, 0.2), 0.7), ("rod", (0.5, 0.1, 0.1), 0.9)],
)
def test_rays_meet_bodies_where_they_are(shape, extents, distance):
    part = Part(shape, "wood", extents, torch.zeros(1, 3), torch.eye(3)[None])
    origin = torch.tensor([[0.0, -1.0, 0.0], [0.0, -1.0, 0.0]])
    direction = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])  # at it, past it
    hit, far, normal, _ = meet(part, torch.zeros(2, dtype=torch.long), origin, direction, surface=True)
    assert hit.tolist() == [0]
    torch.testing.assert_close(far, torch.tensor([distance]))
    torch.testing.assert_close(normal, torch.tensor([[0.0, -1.0, 0.0]]))


def test_a_ray_along_a_rod_meets_its_cap():
    part = Part("rod", "wood", (0.5, 0.1, 0.1), torch.zeros(1, 3), torch.eye(3)[None])
    ray = torch.tensor([[-2.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    _, far, normal, _ = meet(part, torch.zeros(1, dtype=torch.long), *ray, surface=True)
    torch.testing.assert_close(far, torch.tensor([1.5]))
    torch.testing.assert_close(normal, torch.tensor([[-1.0, 0.0, 0.0]]))
