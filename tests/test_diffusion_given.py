"""What is given: tracks from files and memory, and which cells of the grid they tell."""

import math
from pathlib import Path

import numpy as np
import pytest

from counterpoint.diffusion.given import Given, known_cells, runs, sha256, slots_of, without
from counterpoint.modalities.clip import Clip, ClipError, Track


def force(seconds: float, rate: float = 100, start: float = 0.0, lost: slice | None = None) -> Track:
    values = np.zeros((1, round(seconds * rate)), np.float32)
    mask = np.ones(values.shape, bool)
    if lost is not None:
        mask[:, lost] = False
    return Track(values, rate, start, ("z",), ("N",), mask)


def video(seconds: float, fps: float = 25) -> Track:
    return Track(np.zeros((round(seconds * fps), 2, 2, 3), np.uint8), fps)


def pattern(cells: np.ndarray) -> str:
    return "".join("k" if known else "." for known in cells)


@pytest.mark.parametrize(
    ("track", "seconds", "stretches", "expected"),
    [
        (force(0.64), 0.64, None, "kkkk"),
        (force(0.4), 0.64, None, "kk.."),
        (force(0.64, start=0.2), 0.8, None, "..kkk"),
        (force(0.64, start=0.05), 0.64, None, "kkkk"),  # less than half a slot late: held
        (force(0.6), 0.64, None, "kkkk"),
        (force(0.5), 0.5, None, "kkkk"),  # the last slot is not full
        (force(0.64, lost=slice(20, 21)), 0.64, None, "k.kk"),
        (force(0.64, rate=1000, lost=slice(161, 162)), 0.64, None, "k.kk"),
        (force(0.64), 0.64, [(0.0, 0.2), (0.48, math.inf)], "k..k"),
        (force(0.64), 0.64, [], "...."),
        (video(0.6), 0.64, None, "kkkk"),
        (force(3.0), 0.32, None, "kk"),
    ],
)
def test_known_cells(track, seconds, stretches, expected):
    assert pattern(known_cells(track, seconds, stretches)) == expected
    assert slots_of(seconds) == len(expected)


def test_what_is_left_without_stretches():
    assert without([(0.8, 1.6)]) == ((0.0, 0.8), (1.6, math.inf))
    assert without([(1.0, 2.0), (0.0, 0.5)], 2.0) == ((0.5, 1.0),)
    assert without([(0.0, 2.0)], 2.0) == ()


def test_runs():
    assert runs(np.array([True, True, False, True])) == [(0, 2), (3, 4)]
    assert runs(np.zeros(3, bool)) == []


def test_tracks_from_memory_and_from_files(tmp_path: Path):
    path = tmp_path / "log.csv"
    Clip(sensor={"force": force(0.32), "lid": force(0.32)}).save(path)
    both = Given.read({"video": video(0.64), "force": path})
    assert list(both.clip.tracks) == ["video", "force"]
    assert both.files == ({"path": str(path), "tracks": ["force"], "sha256": sha256(path)},)
    assert both.groups == ("video", "sensor")
    assert both.seconds == 0.64
    assert both.finished(0.64) == ("video",)  # the force ends earlier
    assert both.finished(0.32) == ("video", "sensor")
    assert list(Given.read(path).clip.tracks) == ["force", "lid"]
    clip = Clip(video=video(0.6))
    assert Given.read(clip).clip is clip
    assert Given.read(clip, [(0, 0.2)]).known == ((0.0, 0.2),)


def test_a_track_that_is_given_whole_is_not_made():
    given = Given(Clip(video=video(1.0), sensor={"force": force(1.0)}))
    given.check(("audio", "sensor"), 1.0)  # other sensors may be left to make
    given.check(("video",), 2.0)
    with pytest.raises(ClipError, match="video is given, and can't be generated as well"):
        given.check(("audio", "video"), 1.0)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "no track"),
        (Clip(), "no track"),
        ({"sensor": force(1.0)}, "name the sensor"),
        ({"video": 3}, "video is a int"),
        ({"video": "nowhere.mp4"}, "nowhere.mp4: no such file"),
        ({"force": force(1.0), "video": force(1.0)}, "video: values are"),
    ],
)
def test_what_cannot_be_given(source, message):
    with pytest.raises(ClipError, match=message):
        Given.read(source)


def test_a_file_without_the_track(tmp_path: Path):
    path = tmp_path / "log.csv"
    Clip(sensor={"force": force(0.32)}).save(path)
    with pytest.raises(ClipError, match=r"log.csv: no audio stream"):
        Given.read({"audio": path})
    with pytest.raises(ClipError, match=r"log.csv: no sensor lid; it has force"):
        Given.read({"lid": path})
    with pytest.raises(ClipError, match="force is given twice"):
        Given.of_files([(None, path), ("sensor", path)])
    with pytest.raises(ClipError, match="no stretch"):
        Given.read(path, [(1.0, 0.5)])
