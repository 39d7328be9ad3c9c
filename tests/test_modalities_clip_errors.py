"""Bad input and failed writing: one line that names the culprit, and no file left behind."""

import os

import av
import numpy as np
import pytest

from counterpoint.modalities.clip import Clip, ClipError, Track

SOUND = Track(np.zeros((1, 8000), np.float32), 16000)
FORCE = Track(np.ones((1, 50), np.float32), 100.0, names=("z",), units=("N",))
PICTURE = Track(np.zeros((12, 16, 16, 3), np.uint8), 25)
CLIP = Clip(SOUND, PICTURE, {"force": FORCE})


def one_line(error, *words):
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


def read_error(path, **options):
    with pytest.raises(ClipError) as error:
        Clip.read(path, **options)
    return one_line(error, path.name)


def test_missing_unknown_and_folder(tmp_path):
    assert read_error(tmp_path / "in.mp4").endswith("in.mp4: no such file")
    (tmp_path / "in.gif").write_bytes(b"GIF89a")
    assert 'unknown kind of file ".gif"' in read_error(tmp_path / "in.gif")
    (tmp_path / "in.wav").mkdir()
    assert read_error(tmp_path / "in.wav").endswith("is a folder")


def test_lacking_tracks(tmp_path):
    Clip(video=PICTURE).save(tmp_path / "in.mp4")
    CLIP.save(tmp_path / "in.wav")
    CLIP.save(tmp_path / "in.csv")
    assert read_error(tmp_path / "in.mp4", tracks=("audio",)).endswith("in.mp4: no audio stream")
    assert read_error(tmp_path / "in.wav", tracks=("video",)).endswith("in.wav: no video stream")
    assert read_error(tmp_path / "in.csv", tracks=("audio",)).endswith("in.csv: no audio stream")
    assert "sensors are read from .csv or .parquet" in read_error(tmp_path / "in.wav", tracks=("audio", "sensor"))
    with pytest.raises(ClipError, match='unknown "audoi"'):
        Clip.read(tmp_path / "in.wav", tracks=("audoi",))
    with pytest.raises(ClipError, match="no file"):
        Clip.read()


def test_the_same_track_twice(tmp_path):
    CLIP.save(tmp_path / "a.mp4")
    CLIP.save(tmp_path / "b.wav")
    with pytest.raises(ClipError) as error:
        Clip.read(tmp_path / "a.mp4", tmp_path / "b.wav")
    one_line(error, "b.wav", "audio is in another")


@pytest.mark.parametrize(
    ("kind", "sound", "message"),
    [
        ("mkv", True, "no frames in the video stream"),
        ("mkv", False, "can't be read: empty or cut off"),
        ("mp4", False, "no video and no audio stream"),  # MP4 forgets a stream without frames
    ],
)
def test_empty_video(tmp_path, kind, sound, message):
    path = tmp_path / f"in.{kind}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        if sound:
            stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16000, 0
            container.mux(stream.encode(frame))
        container.start_encoding()
    assert read_error(path).endswith(f"in.{kind}: {message}")


@pytest.mark.parametrize("kind", ["mp4", "mkv", "webm", "wav", "flac", "mp3", "parquet", "csv"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfenothing of the kind\x00" * 50])
def test_corrupt_files(tmp_path, kind, content):
    path = tmp_path / f"in.{kind}"
    path.write_bytes(content)
    read_error(path)


def test_cut_off_file(tmp_path):
    Clip(SOUND, PICTURE).save(tmp_path / "whole.mp4")
    content = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "in.mp4").write_bytes(content[: len(content) // 2])
    read_error(tmp_path / "in.mp4")


def test_nan_in_a_sound_file(tmp_path):
    path = tmp_path / "in.wav"
    data = np.zeros((1, 1024), np.float32)
    data[0, 3:6] = np.nan
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(data, format="flt", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert "3 audio samples are NaN" in read_error(path)


def save_error(clip, path, **options):
    before = {p.name: p.read_bytes() for p in path.parent.iterdir() if p.is_file()}
    with pytest.raises(ClipError) as error:
        clip.save(path, **options)
    after = {p.name: p.read_bytes() for p in path.parent.iterdir() if p.is_file()}
    assert before == after, "a failed save must leave the folder as it was"
    return one_line(error)


@pytest.mark.parametrize("taken", ["drop.mp4", "drop.csv", "drop.png"])
def test_nothing_is_overwritten_silently(tmp_path, taken):
    (tmp_path / taken).write_text("mine")
    assert f"{taken}: exists already" in save_error(CLIP, tmp_path / "drop.mp4")
    CLIP.save(tmp_path / "drop.mp4", overwrite=True)
    assert (tmp_path / taken).read_bytes() != b"mine"


def test_nothing_to_write(tmp_path):
    assert "no sensor track to write" in save_error(Clip(SOUND), tmp_path / "a.csv")
    assert "no audio track to write" in save_error(Clip(video=PICTURE), tmp_path / "a.wav")
    assert "no video or audio track" in save_error(Clip(sensor={"force": FORCE}), tmp_path / "a.mp4")
    assert 'unknown kind of file ".avi"' in save_error(CLIP, tmp_path / "a.avi")
    with pytest.raises(ClipError, match="there is no folder"):
        CLIP.save(tmp_path / "none" / "a.mp4")


def test_what_can_not_be_written_leaves_nothing(tmp_path):
    assert "metadata: can't be kept" in save_error(Clip(SOUND, metadata={"x": object()}), tmp_path / "a.mp4")
    early = Clip(SOUND, Track(PICTURE.values, 25, start=-1.0))
    assert "video: starts at -1 s" in save_error(early, tmp_path / "a.mp4")
    many = Clip(Track(np.zeros((5, 100), np.float32), 16000))
    assert "5 channels" in save_error(many, tmp_path / "a.wav")
    odd = Track(FORCE.values, 100.0, names=("z",), units=("N[2]",))  # fails after the media file was encoded
    assert "can't be read back" in save_error(Clip(SOUND, sensor={"force": odd}), tmp_path / "a.mp4")


def test_failed_renaming_takes_back_what_was_renamed(tmp_path, monkeypatch):
    replace, calls = os.replace, []

    def second_fails(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", second_fails)
    assert "No space left" in save_error(CLIP, tmp_path / "a.mp4")
    assert len(calls) == 2
