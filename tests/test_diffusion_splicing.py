"""Given samples come back bit by bit, generated ones meet them without a jump."""

import numpy as np
import pytest

from counterpoint.diffusion.conditions import Fit
from counterpoint.diffusion.splicing import seams, splice
from counterpoint.modalities.clip import Track

DRAWS = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return DRAWS.normal(size=shape).astype(np.float32) * 0.1


def test_seams_fade_on_the_generated_side():
    known = np.array([True, True, False, False, False, False, True])
    added = seams(np.array([0.0, 3.0, 9, 9, 9, 9, 6.0]), known, 2)
    assert added == pytest.approx([0, 0, 2, 1, 2, 4, 0])
    assert not seams(np.ones(3), np.ones(3, bool), 2).any()


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (48000, 2), (22050, 1)])
def test_sound_that_goes_on(rate, channels):
    given, made = Track(noise(channels, rate // 2), rate), Track(noise(1, 16000) + 0.5, 16000.0)
    out = splice(given, made, 1.0)
    assert out.rate == rate
    assert out.values.shape == (channels, rate)
    assert np.array_equal(out.values[:, : rate // 2], given.values)
    first = out.values[:, rate // 2 : rate // 2 + 2]
    late = out.values[:, rate // 2 + rate // 50 :].mean()
    assert abs(float((first - given.values[:, -1:]).mean())) < 0.25  # without the fade: 0.5
    assert late == pytest.approx(0.5, abs=0.01)  # 20 ms later the generated sound is as it was made


def test_a_stretch_in_the_middle_and_a_late_start():
    given, made = Track(noise(1, 900), 1000.0, 0.1005), Track(np.full((1, 16000), 0.3, np.float32), 16000.0)
    out = splice(given, made, 1.0, [(0.0, 0.4), (0.6, 2.0)])
    assert out.start == pytest.approx(0.0005)  # the given samples keep their times
    times = out.times()
    kept = (times > 0.1) & ((times < 0.4) | (times >= 0.6))
    assert np.array_equal(out.values[0][kept], given.values[0][(given.times() < 0.4) | (given.times() >= 0.6)])
    assert out.values[0][(times > 0.45) & (times < 0.55)] == pytest.approx(0.3)


def test_gaps_of_a_sensor_are_filled_in_its_own_units():
    mask = np.ones((2, 40), bool)
    mask[0, 10:20] = False
    given = Track(noise(2, 40), 200.0, names=("y", "x"), units=("g", "g"), mask=mask)
    made = Track(np.full((2, 32), 19.6133, np.float32), 100.0)
    out = splice(given, made, 0.2, fit=Fit((1, 0), (9.80665, 9.80665)))
    assert out.mask is None
    assert np.array_equal(out.values[mask], given.values[mask])
    ends = sorted((given.values[0, 9], given.values[0, 20]))
    assert (out.values[0, 10:20] >= ends[0] - 1e-5).all()  # a constant 2 g, faded to both ends
    assert (out.values[0, 10:20] <= ends[1] + 1e-5).all()
    wide = splice(given, made, 0.2, [(0.0, 0.02), (0.18, 1.0)], Fit((1, 0), (9.80665, 9.80665)))
    assert wide.values[1, 18:20] == pytest.approx(2.0, abs=1e-5)  # amid a longer gap: the generated 2 g
    assert (out.names, out.units) == (("y", "x"), ("g", "g"))


def test_a_channel_that_the_model_does_not_know_stays_unmeasured():
    given = Track(noise(2, 10), 100.0, names=("z", "temperature"))
    out = splice(given, Track(noise(1, 32), 100.0), 0.32, fit=Fit((0,), (1.0,)))
    assert out.values.shape == (2, 32)
    assert out.mask is not None
    assert out.mask.sum(1).tolist() == [32, 10]


@pytest.mark.parametrize("size", [(8, 8), (6, 10)])
def test_frames(size):
    given = Track(DRAWS.integers(0, 256, (12, *size, 3)).astype(np.uint8), 25.0)
    made = Track(np.full((24, 4, 4, 3), 90, np.uint8), 25.0)
    out = splice(given, made, 0.96, [(0.0, 0.2), (0.4, 9.0)])
    assert out.values.shape == (24, *size, 3)
    kept = [i for i in range(12) if i < 5 or i >= 10]
    assert np.array_equal(out.values[kept], given.values[kept])
    assert (out.values[-1, 2:-2, 3:-3] == 90).all()  # long after the seam: the generated picture
    if size == (6, 10):
        assert np.array_equal(out.values[-1, :, 0], given.values[11, :, 0])  # beside it: the nearest given frame
