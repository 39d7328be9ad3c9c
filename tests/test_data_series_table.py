"""Tables of recordings: grids, gaps, rates, units, labels, and an error of one line for everything that is wrong."""

import numpy as np
import pytest

from counterpoint.data.series_table import PAUSE, read_series
from counterpoint.modalities.clip import ClipError

GOOD = """timestamp [ms],subject,activity,age,acc [m/s²],pulse [1/min]
0,anna,walk,31,1,70
20,anna,walk,31,2,
41,anna,sit,31,3,72
60,anna,sit,31,,
120,anna,,31,5,76
1000,ben,sit,44,6,80
1020,ben,sit,44,7,81
1040,ben,walk,44,8,82
"""


def written(tmp_path, text, name="walks.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def read(tmp_path, text=GOOD, **changes):
    parts = {"time": "timestamp", "group": "subject", "label": ["activity"], "static": ["age"], **changes}
    return read_series(written(tmp_path, text), **parts)


def test_samples_lie_in_their_cells_with_units_gaps_and_true_times(tmp_path):
    table = read(tmp_path)
    assert [(c.name, c.unit, c.header) for c in table.channels] == [
        ("acc", "m/s²", "acc [m/s²]"), ("pulse", "1/min", "pulse [1/min]"),
    ]  # fmt: skip
    assert table.step == pytest.approx(0.020)
    assert table.groups == ("anna", "ben")
    assert table.classes == {"activity": ("sit", "walk")}
    assert table.statics == ("age",)
    anna, ben = table.recordings
    assert anna.mask[:, 0].tolist() == [True, True, True, False, False, False, True]
    assert anna.values[:, 0].tolist() == [1, 2, 3, 0, 0, 0, 5]
    assert anna.mask[:, 1].tolist() == [True, False, True, False, False, False, True]
    np.testing.assert_allclose(anna.times[:, 0], [0, 0.02, 0.041, np.nan, np.nan, np.nan, 0.12])
    assert anna.labels[:, 0].tolist() == [1, 1, 0, -1, -1, -1, -1]
    assert ben.static.tolist() == [44]
    assert len(ben.values) == 3
    assert ben.start == pytest.approx(1.0, abs=0.001)
    assert table.dropped == 0


def test_the_three_kinds_of_file_and_three_kinds_of_time_agree(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    values, times = np.array([1.0, 2.0, np.nan, 4.0]), np.array([0, 1, 2, 4])
    stamps = np.array(["2024-02-28T23:59:59", "2024-02-29T00:00:00", "2024-02-29T00:00:01", "2024-02-29T00:00:03"])
    np.savez(tmp_path / "a.npz", **{"t": times, "x [m]": values})
    np.savez(tmp_path / "b.npz", **{"t": stamps, "x [m]": values})
    pq.write_table(pa.table({"t": times * 1000 + 10**6, "x [m]": values}), tmp_path / "c.parquet")
    pq.write_table(pa.table({"t": pa.array(stamps.astype("datetime64[ms]")), "x [m]": values}), tmp_path / "d.parquet")
    written(tmp_path, "t;x [m]\n" + "".join(f"{s}+02:00;{v}\n" for s, v in zip(stamps, values, strict=True)), "e.csv")
    for name in ("a.npz", "b.npz", "c.parquet", "d.parquet", "e.csv"):
        table = read_series(tmp_path / name, "t")
        (own,) = table.recordings
        assert own.values[:, 0].tolist() == [1, 2, 0, 0, 4], name
        assert own.mask[:, 0].tolist() == [True, True, False, False, True], name
        assert table.step == (1000 if name == "c.parquet" else 1), name
        assert table.dates == (name not in ("a.npz", "c.parquet")), name
        assert table.channels[0].unit == "m", name
    assert read_series(tmp_path / "b.npz", "t").recordings[0].start == 1709164799
    assert read_series(tmp_path / "e.csv", "t").recordings[0].start == 1709164799 - 7200


def test_channels_of_different_rates_and_clocks_share_the_finest_grid(tmp_path):
    """A fast channel every 10 ms and one every 40 ms, 3 ms later, in rows of their own."""
    fast, slow = np.arange(200) * 10.0, np.arange(50) * 40.0 + 3
    times = np.concatenate([fast, slow])
    a, b = np.concatenate([np.sin(fast), np.full(50, np.nan)]), np.concatenate([np.full(200, np.nan), slow])
    order = times.argsort()
    np.savez(tmp_path / "two.npz", **{"time [ms]": times[order], "a": a[order], "b": b[order]})
    table = read_series(tmp_path / "two.npz", "time")
    assert table.step == pytest.approx(0.010)
    assert [c.every for c in table.channels] == [1, 4]
    (own,) = table.recordings
    assert own.mask.sum(axis=0).tolist() == [200, 50]
    assert own.values[own.mask[:, 1], 1].tolist() == slow.tolist()
    np.testing.assert_allclose(own.times[own.mask[:, 1], 1], slow / 1000)
    assert own.mask[::4, 1].all()


def test_jitter_stays_on_the_grid_and_missing_cells_are_not_another_rate(tmp_path):
    rng = np.random.default_rng(0)
    times = np.arange(500) * 20.0 + rng.uniform(-4, 4, 500)
    values = rng.standard_normal(500)
    values[rng.random(500) < 0.3] = np.nan
    np.savez(tmp_path / "jitter.npz", time=times, x=values)
    table = read_series(tmp_path / "jitter.npz", "time", rate=0.05)
    (own,) = table.recordings
    kept = ~np.isnan(values)
    first = int(kept.argmax())
    assert table.channels[0].every == 1
    assert table.dropped == 0
    assert own.mask[:, 0].tolist() == kept[first : len(own.mask) + first].tolist()
    np.testing.assert_allclose(own.times[own.mask[:, 0], 0], times[kept])
    near = read_series(tmp_path / "jitter.npz", "time", rate=0.01)  # five samples to a cell: one stays
    assert near.dropped == kept.sum() - near.recordings[0].mask.sum()


def test_repeated_timestamps_are_one_sample_where_that_is_asked_for(tmp_path):
    twice = GOOD.replace("41,anna,sit,31,3,72", "20,anna,sit,31,3,72")
    with pytest.raises(ClipError, match="repeats=merge takes them as one"):
        read(tmp_path, twice)
    table = read(tmp_path, twice, repeats="merge")
    anna = table.recordings[0]
    assert anna.values[:2].tolist() == [[1, 70], [3, 72]]
    assert table.dropped == 1
    with pytest.raises(ClipError, match="goes back"):
        read(tmp_path, twice.replace("1020,ben", "999,ben"), repeats="merge")
    for wrong in ({"repeats": "mean"}, {"rate": 0.0}):
        with pytest.raises(ClipError, match=next(iter(wrong))):
            read(tmp_path, **wrong)


def test_a_long_pause_parts_a_recording(tmp_path):
    times = np.concatenate([np.arange(10.0), 10 + PAUSE + np.arange(5.0)])
    np.savez(tmp_path / "pause.npz", time=times, x=np.arange(15.0))
    parts = read_series(tmp_path / "pause.npz", "time").recordings
    assert [len(p.values) for p in parts] == [10, 5]
    assert parts[1].start == 10 + PAUSE


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("41,anna", "20,anna", "row 3 of group 'anna' repeats the timestamp of row 2"),
        ("41,anna", "12,anna", "row 3 of group 'anna' goes back behind that of row 2"),
        ("41,anna", ",anna", "row 3 of group 'anna': no timestamp"),
        (",44,8,82", ",45,8,82", "'age' is static, but is 44 and 45 in group 'ben'"),
        ("1,70\n", "1,7O\n", "column 'pulse' holds text or dates ('7O' in row 1)"),
        ("1,70\n", "1,inf\n", "column 'pulse', row 1 is infinite"),
        ("41,anna", "41,", "column 'subject', row 3 names no group"),
        ("pulse [1/min]", "acc", "two columns are called 'acc'"),
        ("[ms]", "[parsec]", "no such unit of time"),
        ("\n41,anna,sit,31,3,72", "\n41,anna,sit,31", "can't be read as a table"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path, old, new, told):
    assert old in GOOD
    with pytest.raises(ClipError) as caught:
        read(tmp_path, GOOD.replace(old, new, 1))
    assert told in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "walks.csv"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"label": []},
            "column 'activity' holds text or dates ('walk' in row 1), expected numbers; name it with label=",
        ),
        ({"group": "subjects"}, "group=subjects: no such column; did you mean 'subject'?"),
        ({"time": "zzz"}, "time=zzz: no such column; it has timestamp, subject"),
        ({"label": ["activity", "subject"]}, "column 'subject' is asked for twice"),
        ({"static": ["age"], "drop": ["acc", "pulse"]}, "no channel"),
    ],
)
def test_a_wrong_request_is_named_in_one_line(tmp_path, changes, told):
    with pytest.raises(ClipError) as caught:
        read(tmp_path, **changes)
    assert told in str(caught.value)


def test_a_constant_channel_an_empty_one_and_an_empty_group_are_named(tmp_path):
    rows = "t,who,x,y\n0,a,1,{}\n1,a,2,{}\n0,b,{},{}\n1,b,{},{}\n"
    for cells, told in (
        (("5", "5", "1", "5", "3", "5"), "column 'y' is constant (5)"),
        (("", "", "1", "", "3", ""), "column 'y' has no value"),
        (("5", "6", "", "", "nan", "NA"), "no channel has a value in any row of group 'b'"),
    ):
        with pytest.raises(ClipError, match=r"walks\.csv: ") as caught:
            read_series(written(tmp_path, rows.format(*cells)), "t", "who")
        assert told in str(caught.value)
    table = read_series(written(tmp_path, rows.format("5", "5", "1", "5", "3", "5")), "t", "who", drop=["y"])
    assert [c.name for c in table.channels] == ["x"]


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(ClipError, match="no such file"):
        read_series(tmp_path / "none.csv", "t")
    with pytest.raises(ClipError, match="unknown kind"):
        read_series(written(tmp_path, "x", "a.xlsx"), "t")
    np.savez(tmp_path / "bad.npz", t=np.arange(3), x=np.arange(4))
    with pytest.raises(ClipError, match=r"array 't' is \[3\], expected one value a row, \[4\]"):
        read_series(tmp_path / "bad.npz", "t")
