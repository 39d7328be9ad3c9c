"""The overview PNG: what is drawn sits where its time says."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from counterpoint.modalities.clip import Clip, ClipError, Track
from counterpoint.modalities.overview import draw, overview


def clip_of(video=True, audio=True, sensor=True, **facts):
    frames = np.full((64, 64, 64, 3), 30, np.uint8)
    frames[32:] = 220  # bright from 1.28 s on
    sound = np.zeros((1, 40960), np.float32)
    sound[0, 20480:20600] = 0.5
    force = np.zeros((1, 256), np.float32)
    force[0, 128] = 10
    return Clip(
        Track(sound, 16000) if audio else None,
        Track(frames, 25) if video else None,
        {"force": Track(force, 100.0, names=("z",), units=("N",))} if sensor else {},
        **facts,
    )


def test_png_has_the_clip_on_one_axis(tmp_path):
    overview(clip_of(events=(1.28,), metadata={"prompt": "a ball", "seed": 7}), tmp_path / "a.png")
    image = imread(tmp_path / "a.png")
    assert image.shape[1] == 1600
    assert 500 < image.shape[0] < 1300
    content = (tmp_path / "a.png").read_bytes()
    text = json.dumps({"prompt": "a ball", "seed": 7, "events": [1.28]}).encode()
    assert b"tEXtComment\x00" + text in content


def test_panels_share_the_axis_and_events_cross_them():
    figure = draw(clip_of(events=(0.4, 1.28)), events=(0.4, 1.28))
    panels = [ax for ax in figure.axes if ax.get_xlim() == (0.0, 2.56)]
    assert len(panels) == 4  # strip, waveform, mel, force
    boxes = [ax.get_position() for ax in panels]
    assert len({(round(b.x0, 6), round(b.x1, 6)) for b in boxes}) == 1
    for ax in panels:
        lines = [np.asarray(line.get_xdata()).tolist() for line in ax.lines]
        assert [0.4, 0.4] in lines
        assert [1.28, 1.28] in lines
    assert [ax.get_xlabel() for ax in panels] == ["", "", "", "time (s)"]


def test_frames_and_spectrogram_sit_at_their_time():
    strip, _, mel = draw(clip_of()).axes[:3]
    for image in strip.images:
        left, right, _, _ = image.get_extent()
        level = np.asarray(image.get_array()).mean()
        assert level == (30 if (left + right) / 2 < 1.28 - 0.02 else 220)
    left, right, _, _ = mel.images[0].get_extent()
    loudness = np.asarray(mel.images[0].get_array()).mean(0)
    times = left + (np.arange(len(loudness)) + 0.5) * (right - left) / len(loudness)
    assert times[loudness > -79].mean() == pytest.approx(1.2838, abs=0.01)  # the middle of the sound


@pytest.mark.parametrize(
    "tracks", [{"audio": False}, {"video": False}, {"sensor": False}, {"video": False, "audio": False}]
)
def test_missing_tracks_leave_no_panel(tracks):
    figure = draw(clip_of(**tracks))
    assert isinstance(figure, Figure)
    named = {text.get_text() for ax in figure.axes for text in ax.texts}
    assert ("Video" in named) == tracks.get("video", True)
    assert ("Audio" in named) == tracks.get("audio", True)
    assert ("Force" in named) == tracks.get("sensor", True)


def test_a_sensors_gap_is_a_gap():
    mask = np.ones((1, 100), bool)
    mask[0, 40:60] = False
    clip = Clip(sensor={"force": Track(np.ones((1, 100), np.float32), 100.0, mask=mask)})
    (line,) = draw(clip).axes[0].lines
    assert np.isnan(np.asarray(line.get_ydata())).tolist() == (~mask[0]).tolist()


def test_silence_and_an_empty_clip(tmp_path):
    overview(Clip(audio=Track(np.zeros((1, 300), np.float32), 16000)), tmp_path / "silence.png")
    with pytest.raises(ClipError, match="no tracks to draw"):
        overview(Clip(), tmp_path / "none.png")
    assert [p.name for p in tmp_path.iterdir()] == ["silence.png"]
