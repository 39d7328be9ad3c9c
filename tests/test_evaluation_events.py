"""Planted contacts are found in each track on its own, to a few milliseconds."""

import numpy as np
import pytest

from counterpoint.evaluation.events import AIR, audio_events, clip_events, merge, sensor_events, video_events
from counterpoint.evaluation.motion import GRAVITY
from counterpoint.modalities.clip import Clip, Track

TIMES = np.array([0.4, 0.83, 1.31])


def knocks(times, rate=16000, pitch=900.0, decay=40.0):
    """Damped tones, each 0.7 as loud as the one before, over faint noise."""
    time = np.arange(round(2.56 * rate)) / rate
    wave = 1e-4 * np.random.default_rng(0).normal(size=time.size)
    for k, start in enumerate(times):
        age = time - start
        wave += np.where(age > 0, 0.5 * 0.7**k * np.exp(-decay * age.clip(0)) * np.sin(2 * np.pi * pitch * age), 0)
    return Track(wave[None].astype(np.float32), rate)


def felt(times, rest=9.81, size=150.0, rate=100, channels=3):
    """10 ms pulses seen through a 20 ms window, on one axis of a sensor at rest."""
    fine = np.arange(2560) / 1000
    pulse = sum((np.abs(fine - t - 0.0025) < 0.005 for t in times), np.zeros(2560))
    smooth = np.convolve(size * pulse, np.hanning(21) / np.hanning(21).sum(), "same")
    values = np.zeros((channels, 256), np.float32)
    values[-1] = (rest + smooth)[:: 1000 // rate]
    return Track(values, rate)


def bouncing(noise=0.0, column=30.0):
    """A disc that falls and bounces on a line; returns its video and the exact bounce times."""
    frames = np.arange(0, 64, 0.01)
    height, speed, path, hits = 30.0, 0.0, [], []
    for k, _ in enumerate(frames):
        path.append(height)
        speed -= GRAVITY * 0.01
        height += speed * 0.01
        if height < 0 and speed < 0:
            if speed < -1.0:
                hits.append(k / 100 / 25)
            height, speed = 0.0, (-0.6 * speed if speed < -1.0 else 0.0)
    rows, columns = np.mgrid[:64, :64]
    video = np.full((64, 64, 64, 3), 200.0)
    for t, h in enumerate(path[::100]):
        cover = (5.5 - np.hypot(rows - (50 - h), columns - column)).clip(0, 1)[..., None]
        video[t] = video[t] * (1 - cover) + np.array([180, 30, 20]) * cover
    video += noise * np.random.default_rng(0).normal(size=video.shape)
    return Track(video.clip(0, 255).round().astype(np.uint8), 25.0), np.array(hits)


EMPTY = np.full((1, 64, 64, 3), 200, np.uint8)


@pytest.mark.parametrize("pitch", [300.0, 900.0, 4000.0])
def test_sounds_are_found_within_two_milliseconds(pitch):
    found = audio_events(knocks(TIMES, pitch=pitch))
    assert found + AIR == pytest.approx(TIMES, abs=0.002)


def test_a_shift_of_the_sound_is_a_shift_of_its_events():
    first, second = audio_events(knocks(TIMES)), audio_events(knocks(TIMES + 0.03))
    assert second - first == pytest.approx([0.03] * 3, abs=0.001)
    late = knocks(TIMES)
    assert audio_events(Track(late.values, late.rate, start=0.5)) == pytest.approx(first + 0.5)


def test_silence_and_a_steady_tone_have_no_events():
    assert audio_events(Track(np.zeros((1, 40960), np.float32), 16000)).size == 0
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(48000) / 16000)[None, 4000:44960]
    assert (audio_events(Track(tone.astype(np.float32), 16000)) > 0.02).sum() == 0


def test_blows_are_felt_within_five_milliseconds():
    assert sensor_events({"accelerometer": felt(TIMES)}) == pytest.approx(TIMES, abs=0.005)
    assert sensor_events({"force": felt(TIMES, channels=1)}) == pytest.approx(TIMES, abs=0.005)
    both = {"accelerometer": felt(TIMES[:2]), "force": felt(TIMES, channels=1)}
    assert sensor_events(both) == pytest.approx(TIMES, abs=0.005)  # one event per blow, the plate adds the third


def test_a_sensor_at_rest_feels_nothing():
    assert sensor_events({"accelerometer": felt([]), "force": felt([], channels=1)}).size == 0
    assert sensor_events({"gyroscope": felt(TIMES)}).size == 0


@pytest.mark.parametrize("noise", [0.0, 4.0])
def test_bounces_are_seen_within_ten_milliseconds(noise):
    video, hits = bouncing(noise)
    found = video_events(video, EMPTY)
    assert len(hits) >= 3
    for hit in hits[:3]:
        assert np.abs(found - hit).min() < (0.005 if noise == 0 else 0.01)
    assert len(found) <= len(hits) + 1


def test_a_video_in_which_nothing_moves_has_no_events():
    still = Track(np.repeat(bouncing()[0].values[:1], 64, axis=0), 25.0)
    assert video_events(still, EMPTY).size == video_events(still).size == 0


def test_two_things_side_by_side_are_followed_apart():
    one, hits = bouncing(column=15.0)
    later, _ = bouncing(column=48.0)
    video = one.values.copy()
    video[:, :, 32:] = np.concatenate([later.values[:1].repeat(4, 0), later.values[:-4]])[:, :, 32:]
    found = video_events(Track(video, 25.0), EMPTY)
    for hit in [*hits[:2], *(hits[:2] + 0.16)]:
        assert np.abs(found - hit).min() < 0.005


def test_merge_keeps_the_first_of_a_chain():
    assert merge([1.2, 1.0, 1.06, 1.12, 1.5]).tolist() == [1.0, 1.2, 1.5]
    assert merge([]).size == 0


def test_only_the_tracks_that_are_there_are_read():
    found = clip_events(Clip(audio=knocks(TIMES)))
    assert list(found) == ["audio"]
    video, _ = bouncing()
    assert set(clip_events(Clip(video=video, sensor={"accelerometer": felt(TIMES)}))) == {"video", "sensor"}
