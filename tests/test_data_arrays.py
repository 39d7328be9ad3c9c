"""Arrays on disk: what is written comes back, what is missing, unfinished or of another shape is named."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from counterpoint.data.arrays import SENSORS, audio_rate_of, read_arrays, write_arrays
from counterpoint.modalities.clip import Clip, ClipError, Track


def clips(count: int, seed: int = 0) -> Iterator[Clip]:
    """Short clips of noise: 0.16 s at 8×8 pixels."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        sensor = {
            name: Track(rng.normal(size=(len(c), 16)).astype(np.float32), 100.0, names=c, units=(unit,) * len(c))
            for name, (c, unit) in SENSORS.items()
        }
        yield Clip(
            audio=Track(rng.uniform(-1, 1, (1, 2560)).astype(np.float32), 16000.0),
            video=Track(rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8), 25.0),
            sensor=sensor,
            events=(0.01 * i, 0.1),
            metadata={"captions": [f"clip {i}"], "seed": i},
        )


def test_round_trip(tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "set", clips(3), 3)
    assert len(data) == 3
    names = ["audio.npy", "clips.json", "sensor.npy", "sensors.json", "video.npy"]
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == names
    assert (data.video.shape, data.video.dtype) == ((3, 4, 8, 8, 3), np.uint8)
    assert (data.audio.shape, data.audio.dtype) == ((3, 2560), np.float16)
    assert (data.sensor.shape, data.sensor.dtype) == ((3, 7, 16), np.float32)
    for got, want in zip(read_arrays(str(tmp_path / "set")), clips(3), strict=True):
        assert np.array_equal(got.tracks["video"].values, want.tracks["video"].values)
        assert np.abs(got.tracks["audio"].values - want.tracks["audio"].values).max() < 1e-3  # float16
        for name, (channels, unit) in SENSORS.items():
            assert np.array_equal(got.sensor[name].values, want.sensor[name].values)
            assert (got.sensor[name].names, got.sensor[name].units[0]) == (channels, unit)
        assert got.events == want.events
        assert got.metadata == want.metadata
        assert [t.rate for t in got.tracks.values()] == [25.0, 16000.0, 100.0, 100.0, 100.0]


def test_arrays_are_not_read_into_memory(tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "set", clips(2), 2)
    assert isinstance(data.video, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        data.video[0] = 0
    data.clip(0).tracks["video"].values[:] = 0  # a clip is a copy
    assert data.video[0].any()


def test_a_finished_set_is_not_written_over(tmp_path: Path) -> None:
    write_arrays(tmp_path, clips(1), 1)
    with pytest.raises(ClipError, match="holds a data set already"):
        write_arrays(tmp_path, clips(1, seed=1), 1)
    assert np.array_equal(read_arrays(tmp_path).clip(0).tracks["video"].values, next(clips(1)).tracks["video"].values)


@pytest.mark.parametrize(("come", "announced", "message"), [
    (2, 3, "2 clips came, 3 were announced"), (3, 2, "more clips came than the 2 that were announced"),
])  # fmt: skip
def test_another_number_of_clips(tmp_path: Path, come: int, announced: int, message: str) -> None:
    with pytest.raises(ClipError, match=message):
        write_arrays(tmp_path, clips(come), announced)
    with pytest.raises(ClipError, match=r"video\.npy: no such file; make a data set with: counterpoint data physics"):
        read_arrays(tmp_path)  # nothing that looks complete
    write_arrays(tmp_path, clips(2), 2)  # and it can be made again
    assert not list(tmp_path.glob("*.part"))


def test_clips_that_do_not_fit_are_named(tmp_path: Path) -> None:
    first, second = clips(2)
    force = second.sensor["force"]
    cut = replace(second, metadata={"prompts": ["a"], "source": "kitchen/cup", "start": 2.56})
    for clip, message in (
        (replace(second, audio=None), "clip 1: has no audio, the first clip has; all clips need the same tracks"),
        (replace(cut, video=None), r"clip 1 \(kitchen/cup from 2.56 s\): has no video, the first clip has"),
        (replace(second, sensor={"force": force}), "clip 1: has no accelerometer"),
        (replace(second, sensor={**second.sensor, "heat": force}), "clip 1: has heat, the first clip has not"),
        (replace(second, sensor={**second.sensor, "force": replace(force, units=("lbf",))}),
         r"clip 1: force has z \[lbf\], the first clip's has z \[N\]"),
        (replace(second, sensor={**second.sensor, "force": replace(force, rate=50.0)}),
         "clip 1: force has 16 samples at 50 a second, accelerometer 16 at 100"),
        (replace(second, sensor={n: replace(t, rate=50.0) for n, t in second.sensor.items()}),
         "clip 1: sensors at 50 Hz, the first clip's at 100 Hz"),
        (replace(second, audio=Track(np.zeros((1, 5120), np.float32), 16000.0)),
         r"clip 1: audio is \(5120,\), the first clip's is \(2560,\)"),
        (replace(second, audio=Track(np.zeros((1, 2560), np.float32), 8000.0)),
         "clip 1: audio has 8000 samples a second, expected 16000 or 24000"),
        (replace(second, audio=Track(np.zeros((1, 2560), np.float32), 24000.0)),
         "clip 1: sound at 24000 Hz, the first clip's at 16000 Hz"),
        (replace(second, audio=Track(np.zeros((2, 2560), np.float32), 16000.0)),
         "clip 1: audio has 2 channels, expected 1"),
        (replace(second, metadata={"captions": "a ball"}), "clip 1: captions are 'a ball', expected a list"),
        (Clip(), "clip 1: no video, audio or sensor in it"),
    ):  # fmt: skip
        with pytest.raises(ClipError, match=message):
            write_arrays(tmp_path, [first, clip], 2)
        assert not (tmp_path / "clips.json").exists()


def test_only_some_tracks(tmp_path: Path) -> None:
    (whole,) = clips(1)
    for name, clip in (("video", Clip(video=whole.video)), ("audio", Clip(audio=whole.audio)),
                       ("sensor", Clip(sensor=whole.sensor))):  # fmt: skip
        data = write_arrays(tmp_path / name, [clip], 1)
        files = {p.name for p in (tmp_path / name).iterdir()}
        assert files == {f"{name}.npy", "clips.json", "sensors.json"}
        assert [track for track in ("video", "audio", "sensor") if getattr(data, track) is not None] == [name]
        assert list(data.clip(0).tracks) == list(clip.tracks)
        assert data.entries[0]["captions"] == [""]
        (tmp_path / name / f"{name}.npy").unlink()
        with pytest.raises(ClipError, match=rf"{name}\.npy: no such file"):
            read_arrays(tmp_path / name)


@pytest.mark.parametrize("rate", [16000, 24000])
def test_the_rate_of_the_sound(tmp_path: Path, rate: int) -> None:
    sound = np.linspace(-0.5, 0.5, rate // 10, dtype=np.float32)[None]
    data = write_arrays(tmp_path, [Clip(audio=Track(sound, float(rate)))], 1)
    assert data.audio_rate == audio_rate_of(tmp_path) == rate
    assert json.loads((tmp_path / "sensors.json").read_text())["audio_rate"] == rate
    track = read_arrays(tmp_path).clip(0).audio
    assert track is not None
    assert (track.rate, track.samples) == (rate, rate // 10)


def test_a_folder_that_tells_no_rate_is_of_16_khz(tmp_path: Path) -> None:
    write_arrays(tmp_path, clips(1), 1)
    said = json.loads((tmp_path / "sensors.json").read_text())
    del said["audio_rate"]
    (tmp_path / "sensors.json").write_text(json.dumps(said))
    assert read_arrays(tmp_path).audio_rate == audio_rate_of(tmp_path) == 16000
    (tmp_path / "sensors.json").unlink()
    assert read_arrays(tmp_path).clip(0).tracks["audio"].rate == 16000


def test_any_sensors_with_what_was_not_measured(tmp_path: Path) -> None:
    """Channels, units and rate come back, masks too; what was not measured is NaN on disk and 0 in the clip."""
    heat = np.arange(8, dtype=np.float32).reshape(2, 4)
    mask = np.array([[1, 1, 0, 1], [1, 1, 1, 1]], bool)
    given = Clip(
        sensor={
            "heat": Track(heat, 25.0, names=("in", "out"), units=("°C", "K"), mask=mask),
            "plain": Track(heat[:1] + 50, 25.0),
            "force": Track(heat[1:] - 9, 25.0),
        },
        metadata={"prompts": ["it warms up", "heat"], "prompt": "it warms up"},
    )
    data = write_arrays(tmp_path, [given, replace(given, sensor=dict(reversed(given.sensor.items())))], 2)
    assert list(data.sensors) == ["force", "heat", "plain"]
    assert (data.sensors["heat"], data.sensor_rate) == ((("in", "out"), ("°C", "K")), 25.0)
    assert np.isnan(data.sensor).sum() == 2
    assert np.isnan(data.sensor_values(0, 1)["heat"][0, 0, 2])
    for clip in data:
        assert clip.sensor["heat"].names == ("in", "out")
        assert clip.sensor["heat"].units == ("°C", "K")
        assert clip.sensor["heat"].rate == 25.0
        assert np.array_equal(clip.sensor["heat"].mask, mask)
        assert np.array_equal(clip.sensor["heat"].values, np.where(mask, heat, 0))
        assert (clip.sensor["plain"].names, clip.sensor["plain"].mask) == (("0",), None)
        assert np.array_equal(clip.sensor["plain"].values, heat[:1] + 50)
        assert (clip.sensor["force"].names, clip.sensor["force"].units) == (("z",), ("N",))  # a built-in one
        assert clip.metadata["captions"] == ["it warms up", "heat"]


def test_a_folder_without_a_description_has_the_built_in_sensors(tmp_path: Path) -> None:
    write_arrays(tmp_path, clips(1), 1)
    (tmp_path / "sensors.json").unlink()  # as folders were before it came
    (clip,) = read_arrays(tmp_path)
    assert {n: (t.names, t.units[0]) for n, t in clip.sensor.items()} == SENSORS
    np.save(tmp_path / "sensor.npy", np.zeros((1, 6, 16), np.float32))
    with pytest.raises(ClipError, match=r"sensor\.npy: 6 channels, sensors\.json should describe them"):
        read_arrays(tmp_path)
    (tmp_path / "sensors.json").write_text("[]")
    with pytest.raises(ClipError, match=r"sensors\.json: not a description"):
        read_arrays(tmp_path)


@pytest.mark.parametrize("name", ["video.npy", "audio.npy", "sensor.npy", "clips.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write_arrays(tmp_path, clips(1), 1)
    (tmp_path / name).unlink()
    with pytest.raises(ClipError, match=f"{name}: no such file"):
        read_arrays(tmp_path)
