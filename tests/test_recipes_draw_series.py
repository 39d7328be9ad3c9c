"""Pictures of real against generated series, and the files that they are drawn of."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from counterpoint.data.series_table import Channel
from counterpoint.data.series_write import write_series
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes import draw_series
from counterpoint.recipes.draw_series import draw, main, pages
from counterpoint.recipes.draw_series_files import read_pair

CHANNELS = (Channel("acc", "m/s²"), Channel("pulse", "1/min", 4))


def waves(count, length, seed, gaps=0.0):
    rng = np.random.default_rng(seed)
    wave = np.sin(np.arange(length) / 3 + rng.uniform(0, 6, (count, 1)))
    windows = np.stack([wave, 70 + wave], axis=2) + 0.1 * rng.standard_normal((count, length, 2))
    windows[rng.random((count, length)) < gaps] = np.nan
    windows[:, np.arange(length) % 4 > 0, 1] = np.nan
    return windows.astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    real = write_series(folder / "real.csv", waves(6, 64, 0, 0.1), CHANNELS, 0.02, group="subject", told={"kind": "a"})
    samples = np.stack([waves(2, 48, 1), waves(2, 48, 2)])[..., ::-1]  # the channels the other way round
    return real, write_series(folder / "made.parquet", samples, CHANNELS[::-1], 0.02)


def test_two_tables_are_windows_of_the_same_channels(files):
    real, made, channels, step = read_pair(*files, {})
    assert channels == CHANNELS
    assert step == pytest.approx(0.02)
    assert (real.shape, made.shape) == ((6, 48, 2), (4, 48, 2))
    assert np.nanmean(real[:, :, 1]) == pytest.approx(70, abs=0.2)
    assert np.nanmean(made[:, :, 1]) == pytest.approx(70, abs=0.2)


def test_what_is_told_and_what_cannot_be_read(files, tmp_path):
    _, _, channels, step = read_pair(*files, {"time": "time", "group": "subject", "drop": "pulse"}, 0.019)
    assert ([channel.name for channel in channels], step) == (["acc"], 0.019)
    array = tmp_path / "made.npy"
    np.save(array, waves(3, 30, 4))
    assert read_pair(files[0], array, {})[0].shape == (12, 30, 2)
    assert read_pair(array, array, {})[3] is None
    np.save(array, np.zeros((3, 30, 5)))
    with pytest.raises(ClipError, match="5 channels, but the other file has 2"):
        read_pair(files[0], array, {})
    np.save(array, np.zeros((3, 30)))
    with pytest.raises(ClipError, match="expected numbers"):
        read_pair(files[0], array, {})
    (tmp_path / "other.csv").write_text("time,z\n0,1\n1,2\n")
    with pytest.raises(ClipError, match="no channel of"):
        read_pair(files[0], tmp_path / "other.csv", {})


def test_both_are_in_the_picture(files, tmp_path):
    (path,) = main([str(file) for file in files] + [str(tmp_path / "out.png")])
    image = imread(path)
    assert image.shape[1] == 1600
    for colour in (0x4D, 0x5B, 0x6A), (0xE0, 0x8A, 0x1E):
        near = np.abs(image[..., :3] - np.array(colour) / 255).max(axis=2) < 0.02
        assert near.mean() > 0.002


def test_many_channels_make_pages(tmp_path, monkeypatch):
    assert [file.name for file in pages(12, "out.png")] == ["out.png"]
    assert [file.name for file in pages(13, "out.png")] == ["out-1.png", "out-2.png"]
    monkeypatch.setattr(draw_series, "PAGE", 1)
    windows = np.random.default_rng(0).standard_normal((3, 16, 2)).astype(np.float32)
    windows[:, :, 1] = np.nan  # next to nothing to see on the second page
    windows[0, 0, 1] = 1.0
    written = draw(windows, windows[:, :12], [Channel("a"), Channel("b")], None, tmp_path / "out.png")
    assert [file.name for file in written] == ["out-1.png", "out-2.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in written)


def test_mistakes_are_said(tmp_path):
    windows = waves(2, 8, 0)
    with pytest.raises(ClipError, match=r"generated: \[2, 8, 1\], expected \[windows, steps, 2\]"):
        draw(windows, windows[:, :, :1], CHANNELS, 0.1, tmp_path / "x.png")
    with pytest.raises(ClipError, match="real: no values"):
        draw(windows * np.nan, windows, CHANNELS, 0.1, tmp_path / "x.png")
    with pytest.raises(ClipError, match="give REAL GENERATED PICTURE"):
        main(["a.csv"])
    with pytest.raises(ClipError, match="colour=: unknown"):
        main(["a.csv", "b.csv", "c.png", "colour=red"])
    with pytest.raises(ClipError, match="step=fast"):
        main(["a.csv", "b.csv", "c.png", "step=fast"])
