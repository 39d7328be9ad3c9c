"""The benchmark's sets: known windows, the code's sines, files that are not what they should be."""

import numpy as np
import pytest

from counterpoint.data.series import SETS, cut, find_set, load_windows, min_max, sines
from counterpoint.modalities.clip import ClipError


def write_stocks(path, rows):
    header = "Open,High,Low,Close,Adj_Close,Volume"
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def test_windows_are_scaled_by_the_whole_series_and_move_by_one_step(tmp_path):
    rows = np.array([[10, 0, 5, 1, 1, 100], [20, 4, 5, 2, 2, 300], [15, 2, 5, 3, 3, 200], [10, 1, 5, 5, 5, 100]])
    windows = load_windows("stocks", 2, write_stocks(tmp_path / "stock_data.csv", rows))
    assert (windows.name, len(windows), windows.length, windows.channels) == ("Stocks", 3, 2, 6)
    expected = np.array([[0, 0, 0, 0, 0, 0], [1, 1, 0, 0.25, 0.25, 1], [0.5, 0.5, 0, 0.5, 0.5, 0.5]])
    assert windows.values.dtype == np.float32
    np.testing.assert_allclose(windows.values[0], expected[:2])
    np.testing.assert_allclose(windows.values[1], expected[1:])
    np.testing.assert_array_equal(windows.low, [10, 0, 5, 1, 1, 100])
    np.testing.assert_array_equal(windows.high, [20, 4, 5, 5, 5, 300])
    assert windows.overlapping


def test_cut_takes_every_window():
    series = np.arange(12.0).reshape(6, 2)
    windows = cut(series, 3)
    assert windows.shape == (4, 3, 2)
    for i, window in enumerate(windows):
        np.testing.assert_array_equal(window, series[i : i + 3])


def test_min_max_of_a_constant_channel_is_zero():
    values = np.array([[1.0, 7.0], [3.0, 7.0]])
    np.testing.assert_array_equal(min_max(values, values.min(0), values.max(0)), [[0, 0], [1, 0]])


def test_sines_are_drawn_in_the_order_of_the_published_code():
    """One frequency, then one phase, channel by channel, window by window, from NumPy's old generator."""
    draws = np.random.RandomState(123)
    for window in sines(3, 10, 2):
        for channel in range(2):
            frequency, phase = draws.uniform(0, 0.1), draws.uniform(0, 0.1)
            expected = (np.sin(frequency * np.arange(10) + phase) + 1) / 2
            np.testing.assert_allclose(window[:, channel], expected, atol=1e-6)


def test_the_paper_s_sines_fill_the_whole_range():
    assert sines(200, 24).min() >= 0.5  # the code's never fall below zero before scaling
    waves = sines(200, 24, formula="paper")
    assert waves.min() < 0.01
    assert waves.max() > 0.99
    with pytest.raises(ClipError, match="neither"):
        sines(1, 2, formula="blog")


def test_sines_need_no_file():
    windows = load_windows("sines", 24)
    assert windows.values.shape == (10_000, 24, 5)
    assert not windows.overlapping


def test_runs_are_scaled_over_all_of_them_and_not_cut(tmp_path):
    runs = np.random.default_rng(0).normal(size=(6, 4, 14))
    np.save(tmp_path / "hopper_6.npy", runs)
    windows = load_windows("MuJoCo", 4, tmp_path)
    assert windows.values.shape == (6, 4, 14)
    np.testing.assert_allclose(windows.values.min(axis=(0, 1)), 0, atol=1e-6)
    np.testing.assert_allclose(windows.values.max(axis=(0, 1)), 1, atol=1e-6)
    with pytest.raises(ClipError, match="runs of 4 steps, not of 24"):
        load_windows("MuJoCo", 24, tmp_path)


def test_the_date_column_of_etth1_is_left_out(tmp_path):
    lines = ["date,HUFL,HULL,MUFL,MULL,LUFL,LULL,OT"]
    lines += [f"2016-07-01 0{i}:00:00," + ",".join(str(i * k) for k in range(1, 8)) for i in range(4)]
    (tmp_path / "ETTh1.csv").write_text("\n".join(lines))
    windows = load_windows("ETTh1", 4, tmp_path)
    np.testing.assert_allclose(windows.values[0, :, 0], [0, 1 / 3, 2 / 3, 1], atol=1e-6)


def test_fmri_is_read_from_the_matlab_file(tmp_path):
    from scipy.io import savemat

    savemat(tmp_path / "sim4.mat", {"ts": np.random.default_rng(0).normal(size=(30, 50)), "net": np.zeros(3)})
    assert load_windows("fMRI", 24, tmp_path / "sim4.mat").values.shape == (7, 24, 50)


@pytest.mark.parametrize("name", [name for name, known in SETS.items() if known.file])
def test_a_missing_file_says_which_and_how_to_get_it(tmp_path, name):
    for path in (None, tmp_path, tmp_path / "nothing.csv"):
        with pytest.raises(ClipError, match=name) as caught:
            load_windows(name, 24, path)
        assert SETS[name].file in str(caught.value)
        assert "http" in str(caught.value)


def test_what_is_not_the_set_is_refused(tmp_path):
    with pytest.raises(ClipError, match="'Sinus' is none of Sines"):
        find_set("Sinus")
    with pytest.raises(ClipError, match="length: 1"):
        load_windows("Sines", 1)
    short = write_stocks(tmp_path / "short.csv", np.ones((3, 6)))
    with pytest.raises(ClipError, match="3 steps, fewer than a window's 24"):
        load_windows("Stocks", 24, short)
    with pytest.raises(ClipError, match="not Energy, of 28 channels"):
        load_windows("Energy", 2, short)
    gap = write_stocks(tmp_path / "gap.csv", [[1, 2, 3, 4, 5, 6], [1, 2, "nan", 4, 5, 6]])
    with pytest.raises(ClipError, match="row 1, column 2 is not a number"):
        load_windows("Stocks", 2, gap)
    text = tmp_path / "text.csv"
    text.write_text("Open,High,Low,Close,Adj_Close,Volume\n1,2,3,4,5,many\n")
    with pytest.raises(ClipError, match="can't be read as Stocks"):
        load_windows("Stocks", 2, text)
