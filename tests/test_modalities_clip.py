"""Tracks, clips and their resampling onto a clock: known answers."""

import numpy as np
import pytest

from counterpoint.modalities.clip import Clip, ClipError, Clock, Track, resample


def sensor(values, rate=100.0, start=0.0, mask=None):
    return Track(np.atleast_2d(np.asarray(values, np.float32)), rate, start, mask=mask)


def test_times_and_durations():
    track = sensor(np.zeros(5), rate=10, start=0.5)
    assert track.times() == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9])
    assert (track.duration, track.end) == pytest.approx((0.5, 1.0))
    video = Track(np.zeros((4, 2, 2, 3), np.uint8), 25)
    clip = Clip(video=video, sensor={"force": track, "accelerometer": track})
    assert clip.duration == pytest.approx(1.0)
    assert list(clip.tracks) == ["video", "accelerometer", "force"]
    assert Clip().duration == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Clip(audio=sensor([0, np.nan, np.nan, np.nan])), "audio: 3 samples are NaN"),
        (lambda: Clip(audio=sensor([0, np.inf])), "audio: 1 sample is infinite"),
        (lambda: Clip(sensor={"force": sensor([0, np.nan])}), "force: 1 value is NaN; the mask must be False"),
        (lambda: Clip(audio=sensor(np.zeros((1, 0)))), r"audio: shape is \(1, 0\)"),
        (lambda: Clip(audio=Track(np.zeros((1, 9), np.int16), 100)), "audio: values are int16"),
        (lambda: Clip(video=Track(np.zeros((0, 4, 4, 3), np.uint8), 25)), "video: shape is .* at least one frame"),
        (lambda: Clip(video=Track(np.zeros((1, 4, 4, 1), np.uint8), 25)), "video: values are uint8"),
        (lambda: Clip(sensor={"audio": sensor([0])}), "'audio' can't be the name"),
        (lambda: sensor([0], rate=0), "rate is 0"),
        (lambda: sensor([0], start=np.nan), "start is nan"),
        (lambda: sensor([0, 0], mask=np.ones((1, 3), bool)), "mask is bool"),
        (lambda: Track(np.zeros((2, 3), np.float32), 1, names=("x",)), "1 names for 2 channels"),
        (lambda: Clock(fps=0), "clock: fps is 0"),
    ],
)
def test_bad_values_are_named_in_one_line(make, message):
    with pytest.raises(ClipError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_sensor_may_hold_nan_where_it_was_not_measured():
    Clip(sensor={"force": sensor([0, np.nan], mask=np.array([[True, False]]))})


def test_resampling_onto_its_own_clock_changes_nothing():
    rng = np.random.default_rng(0)
    clip = Clip(
        Track(rng.uniform(-1, 1, (1, 40960)).astype(np.float32), 16000),
        Track(rng.integers(0, 256, (64, 64, 64, 3), dtype=np.uint8), 25),
        {"force": sensor(rng.normal(size=256))},
        events=(0.5, 3.0),
    )
    out = resample(clip)
    for name, track in clip.tracks.items():
        np.testing.assert_array_equal(out.tracks[name].values, track.values)
        assert out.tracks[name].mask is None
    assert out.events == (0.5,)


def test_every_track_gets_the_clocks_size():
    clip = Clip(
        Track(np.zeros((2, 48000 * 3), np.float32), 48000),
        Track(np.zeros((90, 48, 96, 3), np.uint8), 30000 / 1001),
        {"gyroscope": sensor(np.zeros((3, 1200)), rate=400)},
    )
    out = resample(clip, Clock()).tracks
    shapes = {k: t.values.shape for k, t in out.items()}
    assert shapes == {"video": (64, 64, 64, 3), "audio": (1, 40960), "gyroscope": (3, 256)}
    out = resample(clip, Clock(seconds=1.0, fps=10, audio_rate=8000, sensor_rate=50, size=(32, 48))).tracks
    shapes = {k: t.values.shape for k, t in out.items()}
    assert shapes == {"video": (10, 32, 48, 3), "audio": (1, 8000), "gyroscope": (3, 50)}


def test_video_takes_the_nearest_frame():
    values = np.arange(30, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    clip = Clip(video=Track(values, 30, start=0.1))
    out = resample(clip, Clock(seconds=1, fps=10, size=(2, 2))).video
    assert out is not None
    assert out.values[:, 0, 0, 0].tolist() == [0, 0, 3, 6, 9, 12, 15, 18, 21, 24]  # 0.1 s is frame 0
    assert out.mask is not None
    assert out.mask.tolist() == [False] + [True] * 9


def test_frames_are_cropped_about_the_centre_and_averaged():
    image = np.zeros((1, 8, 16, 3), np.uint8)
    image[:, :, 4:12] = 200  # what a square crop keeps
    image[:, ::2, 4:12] = 100  # finer than the new pixels: must be averaged, not picked
    out = resample(Clip(video=Track(image, 25)), Clock(seconds=0.04, size=(2, 2))).video
    assert out is not None
    assert np.abs(out.values.astype(int) - 150).max() <= 15


def test_audio_is_band_limited_and_keeps_its_time():
    rate, t = 48000, np.arange(48000 * 2) / 48000
    tone = np.sin(2 * np.pi * 440 * t) + np.sin(2 * np.pi * 11000 * t)  # the second can't live at 16 kHz
    out = resample(Clip(audio=Track(np.stack([tone, tone]).astype(np.float32), rate)), Clock(seconds=1)).audio
    assert out is not None
    expected = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert np.abs(out.values[0, 200:] - expected[200:]).max() < 0.01


def test_late_audio_is_silent_and_masked_before():
    click = np.zeros((1, 8000), np.float32)
    click[0, 4000] = 1  # 0.25 s after its beginning
    out = resample(Clip(audio=Track(click, 16000, start=0.5)), Clock(seconds=1.5)).audio
    assert out is not None
    assert np.flatnonzero(out.values[0]).tolist() == [12000]
    assert out.mask is not None
    assert np.flatnonzero(np.diff(out.mask[0])).tolist() == [7999, 15999]


def test_a_later_stretch_starts_at_zero():
    click = np.zeros((1, 64000), np.float32)
    click[0, 40000] = 1
    line = sensor(np.arange(400))
    out = resample(Clip(audio=Track(click, 16000), sensor={"force": line}), Clock(seconds=1), start=2.0)
    assert out.audio is not None
    assert np.flatnonzero(out.audio.values[0]).tolist() == [8000]
    assert out.sensor["force"].values[0] == pytest.approx(np.arange(200, 300), abs=1e-3)
    assert resample(Clip(audio=Track(click, 16000)), Clock(seconds=1), start=9.0).audio is None


def test_sensor_interpolates_by_time():
    out = resample(Clip(sensor={"force": sensor(np.arange(60), rate=50, start=0.005)}), Clock(seconds=1))
    force = out.sensor["force"]
    expected = (np.arange(100) / 100 - 0.005) * 50
    assert force.values[0, 1:] == pytest.approx(expected[1:], abs=1e-4)
    assert force.mask is None  # 5 ms before the first sample is within its reach


def test_sensor_gap_is_masked_and_does_not_leak():
    mask = np.ones((1, 100), bool)
    mask[0, 40:60] = False
    values = np.where(mask[0], 1.0, np.nan)
    force = resample(Clip(sensor={"force": sensor(values, mask=mask)}), Clock(seconds=1)).sensor["force"]
    assert force.mask is not None
    assert (force.mask == mask).all()
    assert (force.values[force.mask] == 1).all()
    assert (force.values[~force.mask] == 0).all()


def test_decimated_sensor_does_not_alias():
    t = np.arange(1000) / 1000
    values = np.sin(2 * np.pi * 5 * t) + np.sin(2 * np.pi * 95 * t)  # 95 Hz would look like 5 Hz at 100 Hz
    force = resample(Clip(sensor={"force": sensor(values, rate=1000)}), Clock(seconds=1)).sensor["force"]
    expected = np.sin(2 * np.pi * 5 * np.arange(100) / 100)
    assert np.abs(force.values[0, 10:-10] - expected[10:-10]).max() < 0.02
