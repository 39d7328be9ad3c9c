"""Arrays on disk: what is written comes back, what is missing, unfinished or of another shape is named."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from counterpoint.data.arrays import SENSORS, read_arrays, write_arrays
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
    names = ["audio.npy", "clips.json", "sensor.npy", "video.npy"]
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
    with pytest.raises(ClipError, match="clip 1: needs video, audio and accelerometer, gyroscope, force"):
        write_arrays(tmp_path / "a", [first, replace(second, audio=None)], 2)
    with pytest.raises(ClipError, match="clip 0: needs"):
        write_arrays(tmp_path / "b", [replace(first, sensor={"force": first.sensor["force"]})], 1)
    longer = replace(second, audio=Track(np.zeros((1, 5120), np.float32), 16000.0))
    with pytest.raises(ClipError, match=r"clip 1: audio is \(5120,\), the first clip's is \(2560,\)"):
        write_arrays(tmp_path / "c", [first, longer], 2)


@pytest.mark.parametrize("name", ["video.npy", "audio.npy", "sensor.npy", "clips.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write_arrays(tmp_path, clips(1), 1)
    (tmp_path / name).unlink()
    with pytest.raises(ClipError, match=f"{name}: no such file"):
        read_arrays(tmp_path)
