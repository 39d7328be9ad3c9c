"""Sensor tables: values, masks, units and irregular times."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from counterpoint.modalities.clip import Clip, ClipError, Track

UNITS = ("m/s²",) * 3


def sensors():
    rng = np.random.default_rng(0)
    mask = np.ones((1, 256), bool)
    mask[0, 100:120] = mask[0, :3] = False
    force = np.where(mask, rng.normal(size=(1, 256)), np.nan).astype(np.float32)
    return {
        "accelerometer": Track(rng.normal(size=(3, 256)).astype(np.float32), 100.0, 0.5, ("x", "y", "z"), UNITS),
        "force": Track(force, 100.0, 0.5, ("z",), ("N",), mask),
    }


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_values_masks_names_and_units_come_back(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    original = sensors()
    assert Clip(sensor=original).save(path) == [path]
    back = Clip.read(path).sensor
    assert list(back) == ["accelerometer", "force"]
    for name, track in original.items():
        known = np.ones(track.values.shape, bool) if track.mask is None else track.mask
        np.testing.assert_array_equal(back[name].values[known], track.values[known])
        assert (back[name].rate, back[name].start) == (100, 0.5)
        assert (back[name].names, back[name].units) == (track.names, track.units)
        got = back[name].mask
        assert (known if got is None else got).tolist() == known.tolist()


def test_csv_is_plain_and_says_its_units(tmp_path):
    force = Track(np.array([[19.62, 0.5]], np.float32), 100.0, names=("z",), units=("N",))
    Clip(sensor={"force": force}, metadata={"prompt": "p"}).save(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "time [s],force.z [N]\n0,19.6200008\n0.01,0.5\n"


def test_parquet_carries_metadata(tmp_path):
    Clip(sensor=sensors(), events=(0.25,), metadata={"prompt": "p"}).save(tmp_path / "a.parquet")
    back = Clip.read(tmp_path / "a.parquet")
    assert (back.metadata, back.events) == ({"prompt": "p"}, (0.25,))
    assert pq.read_table(tmp_path / "a.parquet").column_names[0] == "time [s]"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_sensors_of_different_rates_share_a_table(tmp_path, kind):
    fast = Track(np.arange(1000, dtype=np.float32)[None], 1000.0, names=("z",))
    slow = Track(np.arange(100, dtype=np.float32)[None], 100.0, names=("x",))
    Clip(sensor={"force": fast, "gyroscope": slow}).save(tmp_path / f"a.{kind}")
    back = Clip.read(tmp_path / f"a.{kind}").sensor
    for name, track in {"force": fast, "gyroscope": slow}.items():
        assert back[name].rate == track.rate
        assert back[name].mask is None
        np.testing.assert_array_equal(back[name].values, track.values)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("header", ["time", "time_s", "time [s]", "Time (s)", "t", "timestamp"])
def test_headers_of_the_time_column(tmp_path, header):
    path = write(tmp_path / "a.csv", f"{header},imu.x [g],temperature\n0.0,1,20\n0.1,2,21\n0.2,3,22\n")
    back = Clip.read(path).sensor
    assert back["imu"].units == ("g",)
    assert back["temperature"].names == ("value",)
    assert back["imu"].rate == 10
    assert back["imu"].values.tolist() == [[1, 2, 3]]


def test_milliseconds_semicolons_comments_and_missing_cells(tmp_path):
    text = "# logger 3\ntime [ms];force.z [N]\n1000;1\n1010;\n1020;nan\n1030;NA\n\n1040;5\n"
    force = Clip.read(write(tmp_path / "a.csv", text)).sensor["force"]
    assert (force.start, force.rate) == (1.0, 100)
    assert force.mask is not None
    assert force.mask[0].tolist() == [True, False, False, False, True]
    assert force.values[0].tolist() == [1, 0, 0, 0, 5]


def test_irregular_times_are_interpolated_with_a_mask(tmp_path):
    rng = np.random.default_rng(2)
    times = np.arange(100) / 50 + rng.uniform(-0.004, 0.004, 100)
    times = np.delete(times, np.arange(40, 50))  # the logger paused
    rows = "\n".join(f"{t:.6f},{3 * t + 1:.6f}" for t in times)
    track = Clip.read(write(tmp_path / "a.csv", f"time,ramp.v\n{rows}\n")).sensor["ramp"]
    assert track.rate == pytest.approx(50, rel=0.1)  # the median interval
    assert track.mask is not None
    known, grid = track.mask[0], track.times()
    np.testing.assert_allclose(track.values[0][known], 3 * grid[known] + 1, atol=1e-4)
    inside = (grid > times[39] + 0.02) & (grid < times[40] - 0.02)
    assert inside.any()
    assert not known[inside].any()
    assert known[~inside].mean() > 0.95


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x,y\n1,2\n", ["no time column", '"time [s]"', '"x"']),
        ("time [s],force.z [N]\n0,1\n0.01,abc\n", ["line 3", '"force.z [N]"', '"abc" is not a number']),
        ("time,force.z\n0,1\n\n0.01,inf\n", ["line 4", "not finite"]),
        ("time,force.z\n0,1\n0.02,1\n0.01,1\n", ["row 3", "time must increase"]),
        ("time,force.z\n0,1\n,1\n", ["row 2 has no time"]),
        ("time,force.z\n0,1\n0.1\n", ["line 3 has 1 cells, the header has 2"]),
        ("time,force.z\n", ["no rows"]),
        ("time\n0\n1\n", ["no column beside the time"]),
        ("time,force.z,force.z\n0,1,2\n", ["column 3", "only once"]),
        ("", ["empty file"]),
    ],
)
def test_bad_tables_name_line_and_column(tmp_path, text, words):
    with pytest.raises(ClipError) as error:
        Clip.read(write(tmp_path / "x.csv", text))
    message = str(error.value)
    assert "x.csv" in message
    assert "\n" not in message
    for word in words:
        assert word in message
