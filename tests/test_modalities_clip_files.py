"""Files: a click and a flash keep their time through every container, values and metadata come back."""

from fractions import Fraction

import av
import numpy as np
import pytest

from counterpoint.modalities.clip import Clip, Clock, Track, resample
from counterpoint.modalities.clip_read import read_clip
from counterpoint.modalities.clip_write import write_media

VIDEO_KINDS = ["mp4", "mov", "mkv", "webm"]
AUDIO_KINDS = ["wav", "flac", "mp3"]
METADATA = {"prompt": 'ein Glas, "zerbrochen" – 玻璃', "seed": 7, "settings": {"steps": 12, "guidance": 3.5}}


def flash_and_click(frame=30, fps=25.0, rate=16000, start=0.0, size=(64, 64), channels=1) -> Clip:
    """A white frame, and a click at the very time of that frame."""
    video = np.full((64, *size, 3), (40, 80, 160), np.uint8)
    video[frame] = 255
    audio = np.zeros((channels, round(2.56 * rate)), np.float32)
    audio[:, round(frame / fps * rate)] = 0.9
    return Clip(Track(audio, rate, start), Track(video, fps, start), metadata=METADATA)


def peak(track: Track) -> float:
    """Time of the loudest sample or the brightest frame."""
    v = track.values.astype(np.float64)
    power = np.abs(v).sum(0) if v.ndim == 2 else v.mean((1, 2, 3))
    return float(track.times()[np.argmax(power)])


@pytest.mark.parametrize("start", [0.0, 0.513])
@pytest.mark.parametrize("kind", VIDEO_KINDS)
def test_flash_and_click_stay_together(tmp_path, kind, start):
    path = tmp_path / f"a.{kind}"
    write_media(flash_and_click(start=start), path, f".{kind}")
    clip = Clip.read(path)
    assert clip.audio is not None
    assert clip.video is not None
    assert peak(clip.video) == pytest.approx(1.2 + start, abs=0.0006)  # Matroska rounds to milliseconds
    assert peak(clip.audio) == pytest.approx(1.2 + start, abs=0.0003)
    assert clip.video.values.shape == (64, 64, 64, 3)
    assert clip.video.rate == 25
    assert clip.audio.end == pytest.approx(2.56 + start, abs=1e-3)
    assert clip.metadata == METADATA


@pytest.mark.parametrize("kind", AUDIO_KINDS)
@pytest.mark.parametrize("start", [0.0, 0.5])
def test_click_in_sound_files(tmp_path, kind, start):
    path = tmp_path / f"a.{kind}"
    assert flash_and_click(start=start).save(path) == [path]
    clip = Clip.read(path)
    assert clip.audio is not None
    assert peak(clip.audio) == pytest.approx(1.2 + start, abs=1e-4)
    assert clip.audio.values.shape == (1, 40960 + round(start * 16000))
    assert clip.metadata == METADATA


@pytest.mark.parametrize(("rate", "channels"), [(44100, 2), (10000, 1)])
@pytest.mark.parametrize("kind", [*VIDEO_KINDS, *AUDIO_KINDS])
def test_other_rates_and_stereo(tmp_path, kind, rate, channels):
    path = tmp_path / f"a.{kind}"
    write_media(flash_and_click(rate=rate, channels=channels), path, f".{kind}")
    audio = read_clip(path, tracks=["audio"]).audio
    assert audio is not None
    assert peak(audio) == pytest.approx(1.2, abs=3e-4)
    assert audio.duration == pytest.approx(2.56, abs=2e-3)
    assert audio.values.shape[0] == channels


@pytest.mark.parametrize(("kind", "fps"), [(k, 30000 / 1001) for k in VIDEO_KINDS] + [("mp4", 12.5), ("mkv", 60.0)])
def test_rational_rates_and_odd_sizes(tmp_path, kind, fps):
    path = tmp_path / f"a.{kind}"
    write_media(flash_and_click(fps=fps, size=(35, 51), frame=20), path, f".{kind}")
    video = Clip.read(path).video
    assert video is not None
    assert video.rate == pytest.approx(fps, rel=1e-5)
    assert video.values.shape == (64, 36, 52, 3)  # even, as 4:2:0 needs
    assert peak(video) == pytest.approx(20 / fps, abs=0.0006)


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_sound_comes_back_exactly(tmp_path, kind):
    values = np.random.default_rng(0).integers(-32768, 32768, (2, 5000)).astype(np.float32) / 32768
    values[0, :3] = [1.0, -1.0, 1.5]  # too loud: limited, not wrapped
    Clip(audio=Track(values, 16000)).save(tmp_path / f"a.{kind}")
    audio = Clip.read(tmp_path / f"a.{kind}").audio
    assert audio is not None
    np.testing.assert_allclose(audio.values, np.clip(values, -1, 32767 / 32768), atol=1e-7)


@pytest.mark.parametrize("kind", VIDEO_KINDS)
def test_colours_come_back(tmp_path, kind):
    image = np.zeros((10, 64, 64, 3), np.uint8)
    for i, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 180, 20)]):
        image[:, :, 16 * i : 16 * i + 16] = colour
    write_media(Clip(video=Track(image, 25)), tmp_path / f"a.{kind}", f".{kind}")
    video = Clip.read(tmp_path / f"a.{kind}").video
    assert video is not None
    inner = np.concatenate([np.arange(4, 12) + 16 * i for i in range(4)])  # away from the edges: chroma is halved
    error = np.abs(video.values[:, :, inner].astype(int) - image[:, :, inner])
    assert error.max() <= 12
    assert error.mean() < 4


def encode_frames(path, ticks, time_base=Fraction(1, 1000), rotation=0):
    """H.264 whose frame `i` is presented at `ticks[i]`; its grey level is `3 · i`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        stream.codec_context.time_base = time_base
        if rotation:
            stream.set_display_rotation(rotation)
        for i, tick in enumerate(ticks):
            image = np.full((16, 32, 3), 3 * i, np.uint8)
            image[:, :8] = 250  # a bright left edge
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = int(tick), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def levels(video):
    return video.values[:, :, 16:].mean((1, 2, 3)) / 3


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_variable_frame_rate_follows_the_timestamps(tmp_path, kind):
    path = tmp_path / f"vfr.{kind}"
    gaps = np.random.default_rng(1).choice([20, 40, 90], 60)
    ticks = 200 + np.concatenate([[0], np.cumsum(gaps)])
    encode_frames(path, ticks)
    whole = Clip.read(path).video
    assert whole is not None
    assert (whole.rate, whole.start) == pytest.approx((25, 0.2))
    for video, clock_times in (
        (whole, whole.times()),
        (read_clip(path, fps=25).video, None),
        (resample(read_clip(path, fps=25), Clock(size=(16, 32))).video, None),
    ):
        assert video is not None
        times = video.times() if clock_times is None else clock_times
        expected = [int(np.argmin(np.abs(ticks / 1000 - t + 1e-6))) for t in times]
        # two frames may be as near as each other: then either will do
        got = np.round(levels(video)).astype(int)
        away = np.abs(ticks[np.clip(got, 0, 60)] / 1000 - times) - np.abs(ticks[expected] / 1000 - times)
        assert away.max() < 1e-6


def test_a_stretch_of_a_long_video(tmp_path):
    path = tmp_path / "long.mp4"
    encode_frames(path, np.arange(80) * 125)  # 8 frames a second
    part = read_clip(path, fps=8, start=6.0, seconds=1.0)
    out = resample(part, Clock(seconds=1.0, fps=8, size=(16, 32)), start=6.0).video
    assert out is not None
    assert np.round(levels(out)).tolist() == list(range(48, 56))
    assert read_clip(path, start=60.0, seconds=1.0).video is None


def test_a_turned_film_is_upright(tmp_path):
    path = tmp_path / "turned.mp4"
    encode_frames(path, np.arange(3) * 40, rotation=90)
    video = Clip.read(path).video
    assert video is not None
    assert video.values.shape == (3, 32, 16, 3)
    bottom, top = video.values[0, 26:].mean(), video.values[0, :6].mean()
    assert bottom > 200 > 50 > top  # a quarter turn counterclockwise brings the left edge to the bottom


def test_sound_that_begins_late_and_has_a_gap(tmp_path):
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for start in (8000, 9600, 24000):  # 0.5, 0.6 and, after a gap, 1.5 s
            data = np.full((1, 1600), 8192, np.int16)
            frame = av.AudioFrame.from_ndarray(data, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    audio = Clip.read(path).audio
    assert audio is not None
    assert (audio.start, audio.end) == pytest.approx((0.5, 1.6))
    assert audio.mask is not None
    assert audio.times()[np.flatnonzero(np.diff(audio.mask[0]))] == pytest.approx([0.7, 1.5], abs=1e-3)
    assert (audio.values[audio.mask] == 0.25).all()
    on_clock = resample(Clip(audio=audio), Clock(seconds=2.0)).audio
    assert on_clock is not None
    assert on_clock.mask is not None
    assert on_clock.mask.sum() == 4800


def test_video_file_has_table_and_picture_beside_it(tmp_path):
    clip = flash_and_click()
    force = Track(np.arange(256, dtype=np.float32)[None], 100.0, names=("z",), units=("N",))
    clip = Clip(clip.audio, clip.video, {"force": force}, events=(0.5, 1.25), metadata=METADATA)
    written = clip.save(tmp_path / "drop.mp4")
    assert [p.name for p in written] == ["drop.mp4", "drop.csv", "drop.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["drop.csv", "drop.mp4", "drop.png"]
    back = Clip.read(*written[:2])
    assert list(back.tracks) == ["video", "audio", "force"]
    assert back.events == (0.5, 1.25)
    assert back.metadata == METADATA
    assert list(Clip.read(*written[:2], tracks=("audio", "sensor")).tracks) == ["audio", "force"]


def test_a_foreign_comment_is_kept_as_text(tmp_path):
    path = tmp_path / "a.flac"
    with av.open(str(path), "w") as container:
        container.metadata["comment"] = "recorded at home"
        stream = container.add_stream("flac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert Clip.read(path).metadata == {"comment": "recorded at home"}
