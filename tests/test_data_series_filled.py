"""What was generated stands in the rows of the table, and nothing else of it has changed."""

from __future__ import annotations

import numpy as np
import pytest

from counterpoint.data.series_columns import read_columns
from counterpoint.data.series_filled import columns_of, last_stretches, plan_ahead, plan_filled
from counterpoint.data.series_given import read_given
from counterpoint.data.series_table import Channel
from counterpoint.data.series_write import write_columns

CHANNELS = (Channel("x", "m"), Channel("y", "N", 2))


def read(tmp_path, text, step=0.5, time="time"):
    path = tmp_path / "given.csv"
    path.write_text(text, encoding="utf-8")
    return read_given(path, CHANNELS, step, time, "who", ["kind"])


def made_for(table, samples=1):
    """Cell c of channel k of sample s is 100 s + 10 k + c."""
    shape = [(samples, *own.values.shape) for own in table.stretches]
    return [100.0 * s + 10 * k + c for s, c, k in (np.indices(own, np.float32) for own in shape)]


def test_rows_keep_their_times_and_numbers_and_gaps_become_rows(tmp_path):
    text = "who,time [ms],x [m],kind,y [N]\na,3,0.1234567890123,low,\na,498,,low,7\na,2001,5,high,\nb,0,,,1\n"
    table = read(tmp_path, text)
    columns = columns_of(table, plan_filled(table), made_for(table))
    np.testing.assert_allclose(columns["time [ms]"], [3, 498, 1001, 1501, 2001, 0], atol=1)
    np.testing.assert_array_equal(columns["time [ms]"][[0, 1, 4, 5]], [3, 498, 2001, 0])
    np.testing.assert_array_equal(columns["x [m]"], [0.1234567890123, 1, 2, 3, 5, 0])
    np.testing.assert_array_equal(columns["y [N]"], [10, 7, 12, 13, 14, 1])
    assert columns["kind"].tolist() == ["low", "low", "low", "low", "high", ""]
    assert columns["who"].tolist() == ["a"] * 5 + ["b"]


def test_a_clock_that_trembles_gets_no_rows_of_its_own(tmp_path):
    times = np.arange(40) * 0.5 + np.random.default_rng(0).uniform(-0.2, 0.2, 40)
    table = read(tmp_path, "time,x [m],y [N]\n" + "".join(f"{t:.4f},1,\n" for t in times))
    columns = columns_of(table, plan_filled(table), made_for(table))
    np.testing.assert_array_equal(columns["time"], np.round(times, 4))
    np.testing.assert_array_equal(columns["y [N]"], 10 + np.arange(40))


def test_what_another_row_of_the_cell_has_is_not_made_again(tmp_path):
    table = read(tmp_path, "time,x [m],y [N]\n0,1,\n0.1,,2\n0.5,3,\n1,4,\n1.5,5,\n2,6,\n")
    columns = columns_of(table, plan_filled(table), made_for(table))
    np.testing.assert_array_equal(columns["x [m]"], [1, np.nan, 3, 4, 5, 6])
    np.testing.assert_array_equal(columns["y [N]"], [np.nan, 2, 11, 12, 13, 14])


def test_rows_that_stay_empty_are_left_out_unless_the_file_has_them(tmp_path):
    table = read(tmp_path, "time,x [m],y [N]\n0,1,\n0.5,,\n2,2,\n")
    (made,) = made_for(table)
    made[:, 1:3] = np.nan
    assert columns_of(table, plan_filled(table), [made])["time"].tolist() == [0, 0.5, 1.5, 2]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("2016-07-01 00:00:00", "2016-07-01 00:00:01", ["2016-07-01T00:00:01", "2016-07-01T00:00:02"]),
        ("2016-07-01T02:00:00+02:00", "2016-07-01T02:00:01+02:00", None),
    ],
)
def test_dates_go_on_in_their_own_form(tmp_path, first, second, expected):
    table = read(tmp_path, f"when,x [m],y [N]\n{first},1,1\n{second},2,2\n", 1.0, "when")
    made = [np.ones((1, 1, 2), np.float32)]
    out = write_columns(tmp_path / "made.csv", columns_of(table, plan_ahead(table, 1), made))
    again = read_given(out, CHANNELS, 1.0, "when")
    assert again.times[0] == table.times[1] + 1
    if expected:
        filled = columns_of(table, plan_ahead(table, 1), made)["when"]
        assert filled.astype(str).tolist() == expected[1:]


def test_samples_stand_below_and_quantiles_beside_one_another(tmp_path):
    table = read(tmp_path, "who,time,x [m],y [N]\na,0,1,1\na,0.5,2,2\nb,7,3,3\n")
    made = [own[:, :1] for own in made_for(table, samples=3)]
    ahead = plan_ahead(table, 1)
    assert [own.group for own in last_stretches(table)] == ["a", "b"]
    columns = columns_of(table, ahead, made)
    assert columns["time"].tolist() == [1, 1, 1, 7.5, 7.5, 7.5]
    assert columns["sample"].tolist() == [0, 1, 2, 0, 1, 2]
    assert columns["x [m]"].tolist() == [0, 100, 200, 0, 100, 200]
    columns = columns_of(table, ahead, made, [0.1, 0.5, 0.9])
    assert columns["who"].tolist() == ["a", "b"]
    assert columns["y q0.9 [N]"].tolist() == [210, 210]
    out = write_columns(tmp_path / "made.npz", columns)
    assert [own.header for own in read_columns(out)] == list(columns)
