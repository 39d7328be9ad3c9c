"""`counterpoint data folder`: recordings become arrays, values and captions as they were recorded."""

import json

import numpy as np

from counterpoint.data.arrays import read_arrays
from counterpoint.modalities.clip import Clip, Track


def recording(seconds: float, beat: float) -> Clip:
    """At `beat` seconds of each 2.56: a bright frame, a click and a push; the heat rises evenly."""
    video = np.full((round(seconds * 25), 64, 64, 3), 40, np.uint8)
    audio = np.zeros((1, round(seconds * 16000)), np.float32)
    push = np.zeros((2, round(seconds * 100)), np.float32)
    for start in np.arange(0, seconds, 2.56):
        video[round((start + beat) * 25)] = 240
        audio[0, round((start + beat) * 16000)] = 0.9
        push[1, round((start + beat) * 100)] = 7
    heat = np.linspace(20, 21, push.shape[1], dtype=np.float32)[None]
    return Clip(
        Track(audio, 16000.0),
        Track(video, 25.0),
        {
            "push": Track(push, 100.0, names=("left", "right"), units=("N", "N")),
            "heat": Track(heat, 100.0, names=("oven",), units=("°C",)),
        },
    )


def test_two_recordings(run, tmp_path):
    recordings, out = tmp_path / "recordings", tmp_path / "runs" / "mine"
    recordings.mkdir()
    recording(5.12, 0.8).save(recordings / "cup.mp4")
    recording(2.56, 1.6).save(recordings / "pan.mp4")
    assert (recordings / "cup.csv").is_file()
    (recordings / "cup.txt").write_text("a cup falls\nsomething breaks\n")
    assert run("data", "folder", recordings, out)[:2] == (0, f"{out}\n")
    names = {"video.npy", "audio.npy", "sensor.npy", "sensors.json", "clips.json"}
    assert {p.name for p in out.iterdir()} == names
    data = read_arrays(out)
    assert (data.video.shape, data.audio.shape, data.sensor.shape) == ((3, 64, 64, 64, 3), (3, 40960), (3, 3, 256))
    push = {"channels": ["left", "right"], "units": ["N", "N"]}
    said = json.loads((out / "sensors.json").read_text())
    assert said["sensors"] == {"push": push, "heat": {"channels": ["oven"], "units": ["°C"]}}
    assert [(e["source"], e["start"]) for e in data.entries] == [("cup", 0.0), ("cup", 2.56), ("pan", 0.0)]
    assert [e["captions"] for e in data.entries] == [["a cup falls", "something breaks"]] * 2 + [[""]]
    for clip, beat in zip(data, (0.8, 0.8, 1.6), strict=True):
        tracks = clip.tracks
        assert tracks["video"].values.mean((1, 2, 3)).argmax() == round(beat * 25)
        assert abs(int(np.abs(tracks["audio"].values[0]).argmax()) - beat * 16000) <= 1
        assert tracks["push"].values[1].argmax() == round(beat * 100)
        assert tracks["push"].values.max() == 7
        assert tracks["push"].units == ("N", "N")
    assert np.allclose(data.clip(0).sensor["heat"].values, np.linspace(20, 21, 512)[:256], atol=1e-5)


def test_video_only(run, tmp_path):
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    Clip(video=recording(2.56, 1.0).video).save(recordings / "a.mp4")
    assert run("data", "folder", recordings, tmp_path / "out")[0] == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"video.npy", "sensors.json", "clips.json"}
    (clip,) = read_arrays(tmp_path / "out")
    assert list(clip.tracks) == ["video"]
    assert clip.tracks["video"].values.mean((1, 2, 3)).argmax() == 25


def test_a_sensor_that_ends_early_is_masked(run, tmp_path):
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    Clip(sensor={"push": Track(np.full((1, 128), 7, np.float32), 100.0, names=("z",))}).save(recordings / "a.csv")
    assert run("data", "folder", recordings, tmp_path / "out")[0] == 0
    (clip,) = read_arrays(tmp_path / "out")
    mask = clip.sensor["push"].mask
    assert mask is not None
    assert mask[0].tolist() == [True] * 128 + [False] * 128
    assert np.array_equal(clip.sensor["push"].values[0], 7.0 * mask[0])


def test_a_mixture_names_the_recording(refuse, tmp_path):
    recordings, out = tmp_path / "recordings", tmp_path / "out"
    recordings.mkdir()
    whole = recording(2.56, 1.0)
    Clip(whole.audio, whole.video).save(recordings / "a.mp4")
    Clip(video=whole.video).save(recordings / "silent.mp4")
    said = refuse("data", "folder", recordings, out)
    assert said == "clip 1 (silent from 0.0 s): has no audio, the first clip has; all clips need the same tracks"
    assert not out.exists()


def test_bad_input_leaves_nothing(refuse, tmp_path):
    recordings, out = tmp_path / "recordings", tmp_path / "out"
    assert refuse("data", "folder", recordings, out) == f"{recordings}: no such folder"
    recordings.mkdir()
    assert refuse("data", "folder", recordings, out).startswith(f"{recordings}: no recordings")
    (recordings / "a.mp4").write_bytes(b"no film")
    assert f"{recordings / 'a.mp4'}: can't be read" in refuse("data", "folder", recordings, out)
    assert list(tmp_path.iterdir()) == [recordings]
    assert refuse("data", "folder", recordings, recordings) == f"{recordings}: is there already; name a new folder"
