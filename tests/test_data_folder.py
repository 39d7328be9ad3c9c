"""A folder of recordings becomes clips on the clock."""

import numpy as np
import pytest

from counterpoint.data.folder import FolderClips
from counterpoint.modalities.clip import Clip, ClipError, Clock, Track

CLOCK = Clock(seconds=1.0, fps=10, audio_rate=8000, sensor_rate=50, size=(16, 16))


def recording(seconds=3.3, rate=16000, fps=30):
    """A click, a brighter frame and a force of 1 at every half second."""
    audio = np.zeros((1, round(seconds * rate)), np.float32)
    video = np.full((round(seconds * fps), 32, 48, 3), 40, np.uint8)
    force = np.zeros((1, round(seconds * 50)), np.float32)
    for t in np.arange(0.5, seconds, 1.0):
        audio[0, round(t * rate)] = 0.9
        video[round(t * fps)] = 240
        force[0, round(t * 50)] = 1
    return Clip(Track(audio, rate), Track(video, fps), {"force": Track(force, 50.0, names=("z",), units=("N",))})


def test_long_recordings_are_cut_in_step(tmp_path):
    recording().save(tmp_path / "cup.mp4")
    (tmp_path / "cup.txt").write_text("a cup falls\n\nsomething breaks\n")
    clips = FolderClips(tmp_path, CLOCK)
    assert len(clips) == 3  # the last 0.3 s are no clip
    for i, clip in enumerate(clips):
        assert clip.video is not None
        assert clip.audio is not None
        assert clip.video.values.shape == (10, 16, 16, 3)
        assert clip.audio.values.shape == (1, 8000)
        assert clip.sensor["force"].values.shape == (1, 50)
        assert clip.video.values.mean((1, 2, 3)).argmax() == 5
        assert abs(int(np.abs(clip.audio.values[0]).argmax()) - 4000) <= 1
        assert clip.sensor["force"].values[0].argmax() == 25
        assert clip.video.mask is clip.audio.mask is clip.sensor["force"].mask is None
        assert clip.metadata["prompt"] == "a cup falls"
        assert clip.metadata["prompts"] == ["a cup falls", "something breaks"]
        assert (clip.metadata["source"], clip.metadata["start"]) == ("cup", float(i))
    assert len(clips[1:]) == 2
    assert clips[-1].metadata["start"] == 2.0
    with pytest.raises(IndexError):
        clips[3]


def test_absent_tracks_captions_and_folders(tmp_path):
    (tmp_path / "deep").mkdir()
    whole = recording(seconds=1.0)
    whole.save(tmp_path / "a.wav")
    whole.save(tmp_path / "deep" / "b.csv")
    Clip(video=whole.video).save(tmp_path / "c.webm")
    (tmp_path / "a.json").write_text('{"prompt": ["one", "two"], "room": "kitchen"}')
    (tmp_path / "notes.txt").write_text("belongs to nothing")
    a, c, b = FolderClips(tmp_path, CLOCK)
    assert [list(x.tracks) for x in (a, b, c)] == [["audio"], ["force"], ["video"]]
    assert a.metadata == {"prompt": "one", "prompts": ["one", "two"], "room": "kitchen", "source": "a", "start": 0.0}
    assert b.metadata["source"] == "deep/b"
    assert "prompt" not in b.metadata


def test_a_sound_file_wins_over_the_films_sound(tmp_path):
    film = recording(seconds=1.0)
    film.save(tmp_path / "a.mp4")
    assert film.audio is not None
    Clip(audio=Track(np.full((1, 16000), 0.5, np.float32), 16000)).save(tmp_path / "a.wav")
    (clip,) = FolderClips(tmp_path, CLOCK)
    assert clip.audio is not None
    assert clip.audio.values[0, 1000:7000] == pytest.approx(0.5, abs=0.01)


def test_a_short_recording_is_masked(tmp_path):
    recording(seconds=0.6).save(tmp_path / "a.wav")
    (clip,) = FolderClips(tmp_path, CLOCK)
    assert clip.audio is not None
    assert clip.audio.mask is not None
    assert clip.audio.mask.sum() == 4800


def test_errors_name_the_file(tmp_path):
    def error():
        with pytest.raises(ClipError) as caught:
            list(FolderClips(tmp_path, CLOCK))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no recordings" in error()
    with pytest.raises(ClipError, match="no such folder"):
        FolderClips(tmp_path / "none")
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    assert "x.csv: no time column" in error()
    (tmp_path / "x.csv").unlink()
    recording(seconds=1.0).save(tmp_path / "a.wav")
    for text in ("{", "{}", "[1]", '{"prompt": 3}'):
        (tmp_path / "a.json").write_text(text)
        assert "a.json" in error()
    (tmp_path / "a.json").unlink()
    recording(seconds=1.0).save(tmp_path / "a.flac")
    assert "a.wav: a.flac is there too" in error()
    (tmp_path / "a.flac").unlink()
    (tmp_path / "b.mp4").write_bytes(b"no film")
    assert "b.mp4: can't be read" in error()
