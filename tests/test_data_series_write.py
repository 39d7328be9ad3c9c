"""What is written is read back: values, gaps, units, times, classes."""

import numpy as np
import pytest

from counterpoint.data.series_table import Channel, read_series
from counterpoint.data.series_write import write_series
from counterpoint.modalities.clip import ClipError

CHANNELS = (Channel("acc", "m/s²"), Channel("pulse", "1/min", 2), Channel("bare"))


def made(*shape):
    windows = np.random.default_rng(0).standard_normal((*shape, 3)).astype(np.float32)
    windows[..., 1::2, 1] = np.nan
    return windows


@pytest.mark.parametrize("name", ["made.csv", "made.parquet", "made.npz"])
@pytest.mark.parametrize(("time", "dates"), [("stamp [ms]", False), ("time [s]", False), ("date", True)])
def test_what_is_written_is_read_back(tmp_path, name, time, dates):
    windows = made(3, 6)
    told = {"activity": ["walk", "sit", "walk"], "age": 31.5}
    path = write_series(
        tmp_path / name, windows, CHANNELS, 0.02, time, start=[1e9, 2e9, 3e9], dates=dates, told=told
    )  # fmt: skip
    table = read_series(path, time, "window", ["activity"], ["age"])
    assert table.channels == CHANNELS
    assert table.step == pytest.approx(0.02, rel=1e-4)
    assert table.groups == ("0", "1", "2")
    assert [r.start for r in table.recordings] == pytest.approx([1e9, 2e9, 3e9])
    for own, window, activity in zip(table.recordings, windows, (1, 0, 1), strict=True):
        np.testing.assert_array_equal(np.where(own.mask, own.values, np.nan), window)
        assert (own.labels == activity).all()
        assert own.static.tolist() == [31.5]
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_samples_of_an_ensemble_have_names_of_their_own(tmp_path):
    ensemble = made(2, 3, 4)
    table = read_series(write_series(tmp_path / "e.csv", ensemble, CHANNELS, 1.0), "time", "window")
    assert table.groups == ("0s0", "1s0", "2s0", "0s1", "1s1", "2s1")
    last = table.recordings[-1]
    np.testing.assert_array_equal(np.where(last.mask, last.values, np.nan), ensemble[1, 2])


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ClipError, match="unknown kind"):
        write_series(tmp_path / "e.xls", made(1, 4), CHANNELS, 1.0)
    with pytest.raises(ClipError, match=r"\[1, 4, 3\], expected \[windows, steps, 2\]"):
        write_series(tmp_path / "e.csv", made(1, 4), CHANNELS[:2], 1.0)
    with pytest.raises(ClipError, match="called 'window'"):
        write_series(tmp_path / "e.csv", made(1, 4), CHANNELS, 1.0, time="window")
