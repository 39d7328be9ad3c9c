"""Tables to fill: rows on a model's grid; what doesn't fit the model is said."""

from __future__ import annotations

import numpy as np
import pytest

from counterpoint.data.series_given import read_given
from counterpoint.data.series_table import Channel
from counterpoint.modalities.clip import ClipError

CHANNELS = (Channel("x", "m"), Channel("y", "N"))


def read(tmp_path, text, **options):
    path = tmp_path / "given.csv"
    path.write_text(text, encoding="utf-8")
    return read_given(path, CHANNELS, 0.5, "time", "who", ["kind"], ["mass"], **options)


def test_rows_and_channels_without_a_value_stay(tmp_path):
    table = read(tmp_path, "time,x [m],y [N]\n0,,\n0.5,1,\n1.5,2,\n2,,\n")
    (own,) = table.stretches
    np.testing.assert_array_equal(own.values[:, 0], [np.nan, 1, np.nan, 2, np.nan])
    assert np.isnan(own.values[:, 1]).all()
    assert (own.cells.tolist(), own.row_of.tolist()) == ([0, 1, 3, 4], [0, 1, -1, 2, 3])


def test_groups_conditions_and_pauses(tmp_path):
    rows = ["who,kind,mass,time,x [m],y [N]", "b,low,3,5,1,", "b,low,3,5.5,1,2", "a,,,0,3,4", "b,high,3,1000,5,6"]
    table = read(tmp_path, "\n".join(rows))
    assert [(own.group, own.start, len(own.values)) for own in table.stretches] == [
        ("b", 5.0, 2), ("b", 1000.0, 1), ("a", 0.0, 1),
    ]  # fmt: skip
    assert [own.labels[0, 0] for own in table.stretches] == ["low", "high", ""]
    np.testing.assert_array_equal([own.static[0] for own in table.stretches], [3, 3, np.nan])


def test_the_order_of_the_columns_makes_no_difference(tmp_path):
    table = read(tmp_path, "y [N],x [m],time [ms],note\n1,2,0,hm\n3,4,500,\n", spare=["note"])
    np.testing.assert_array_equal(table.stretches[0].values, [[2, 1], [4, 3]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,x [m]\n0,1\n1,2\n", r"no column 'y \[N\]'"),
        ("time,x [m],Y [N]\n0,1,2\n1,2,3\n", "did you mean 'Y'"),
        ("time,x [g],y [N]\n0,1,2\n", r"column 'x \[g\]', expected 'x \[m\]'"),
        ("time,x [m],y [N],z\n0,1,2,3\n", "column 'z': no such channel in the model"),
        ("time,x [m],y [N]\n0,1,oops\n", "column 'y', row 1: 'oops' is no number"),
        ("time,x [m],y [N]\n0,1,2\n,3,4\n", "row 2: no timestamp"),
        ("time,x [m],y [N]\n1,1,2\n0,3,4\n", "row 2 goes back to 0"),
        ("when,x [m],y [N]\n1,1,2\n", "time=time: no such column"),
        ("time,x [m],y [N]\n0,1,2\n0.01,1,2\n0.02,1,2\n0.03,1,2\n", "closer than the step of 0.5 s, 6 samples"),
        ("time,x [m],y [N]\n0,1,2\n3600,1,2\n", "3600 s apart, a window of the model is 4 s"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, text, message):
    with pytest.raises(ClipError, match=message):
        read(tmp_path, text, window=8)


def test_finer_rows_are_thinned_as_in_training_where_that_is_wanted(tmp_path):
    text = "time,x [m],y [N]\n0,1,2\n0.15,3,4\n0.5,5,6\n0.62,7,8\n1,9,10\n"
    (own,) = read(tmp_path, text, finer=True).stretches
    np.testing.assert_array_equal(own.values, [[1, 2], [5, 6], [9, 10]])
