"""WFDB records, made with the package wfdb itself: names, units, rates, gaps, annotations; and ours, read back."""

import sys
from datetime import UTC, date, datetime, time
from typing import Any

import numpy as np
import pytest
import wfdb

from counterpoint.data.series_table import Channel, read_series
from counterpoint.data.series_write import write_series
from counterpoint.modalities.clip import ClipError

CHANNELS = (Channel("acc", "m/s²"), Channel("pulse", "1/min", 4), Channel("µ force", ""))


def record(folder, name="rec", length=400, **changes):
    """Two signals at 250 Hz in 16 bits; sample 5 of the first is invalid."""
    steps = np.arange(length, dtype=float)
    signals = np.stack([np.sin(steps / 9), 20 + np.cos(steps / 5)], axis=1)
    signals[5, 0] = np.nan
    told = {"fs": 250, "units": ["mV", "NU"], "sig_name": ["MLII", "resp"], "fmt": ["16", "16"], **changes}
    wfdb.wrsamp(name, p_signal=signals.copy(), write_dir=str(folder), **told)
    return signals


def windows(count=1, length=40, seed=0):
    made = np.random.default_rng(seed).standard_normal((count, length, 3)).astype(np.float32)
    made[..., 1] = np.where(np.arange(length) % 4 == 0, 1000 + made[..., 1], np.nan)
    made[:, 7:11, 0] = np.nan
    return made


def given(own):
    return np.where(own.mask, own.values, np.nan)


def test_names_units_rate_and_invalid_samples_are_those_of_the_record(tmp_path):
    signals = record(tmp_path)
    table = read_series(tmp_path / "rec.hea", "auto")
    assert [(c.name, c.unit, c.every) for c in table.channels] == [("MLII", "mV", 1), ("resp", "", 1)]
    assert table.step == 1 / 250
    assert (table.time, table.dates, table.groups) == ("time [s]", False, ("rec",))
    (own,) = table.recordings
    np.testing.assert_allclose(given(own), signals, atol=1e-4)
    assert np.flatnonzero(~own.mask.all(axis=1)).tolist() == [5]
    np.testing.assert_allclose(own.times[:, 1], np.arange(400) / 250)
    assert own.start == pytest.approx(0, abs=1e-9)
    np.testing.assert_array_equal(read_series(tmp_path / "rec").recordings[0].values, own.values)


def test_times_count_from_the_header(tmp_path):
    record(tmp_path, "a", base_time=time(1, 2, 3, 500_000))
    record(tmp_path, "b", base_time=time(1, 2, 3), base_date=date(2021, 4, 5))
    midnight, dated = (read_series(tmp_path / f"{name}.hea") for name in "ab")
    assert midnight.recordings[0].start == pytest.approx(3723.5)
    assert not midnight.dates
    assert dated.recordings[0].start == pytest.approx(datetime(2021, 4, 5, 1, 2, 3, tzinfo=UTC).timestamp())
    assert dated.dates
    assert len(dated.recordings[0].values) == 400


def test_a_long_record_with_a_date_keeps_every_sample_at_an_odd_rate(tmp_path):
    """360 Hz in seconds since 1970: a step taken from the rounded timestamps would drift by cells."""
    record(tmp_path, length=60_000, fs=360, base_time=time(1), base_date=date(2021, 4, 5))
    table = read_series(tmp_path / "rec.hea")
    assert table.step == 1 / 360
    assert table.dropped == 0
    assert [len(own.values) for own in table.recordings] == [60_000]


def test_signals_with_several_samples_a_frame_are_channels_of_other_rates(tmp_path):
    fast, slow = np.arange(300) * 0.5, 100 - np.arange(75) * 1.0
    wfdb.wrsamp(
        "multi", 25, ["mV", "C"], ["ecg", "temp"], e_p_signal=[fast.copy(), slow.copy()], samps_per_frame=[4, 1],
        fmt=["16", "16"], adc_gain=[100.0, 100.0], baseline=[0, 0], write_dir=str(tmp_path),
    )  # fmt: skip
    table = read_series(tmp_path / "multi.hea")
    (own,) = table.recordings
    assert table.step == 1 / 100
    assert [c.every for c in table.channels] == [1, 4]
    assert own.values[own.mask[:, 0], 0].tolist() == fast.tolist()
    assert own.values[own.mask[:, 1], 1].tolist() == slow.tolist()
    np.testing.assert_allclose(own.times[own.mask[:, 1], 1], np.arange(75) / 25)


def test_units_and_names_that_the_package_garbles(tmp_path):
    record(tmp_path)
    header = tmp_path / "rec.hea"
    header.write_text(header.read_text().replace("/mV", "/µV").replace("MLII", "Ableitung Größe").replace("/NU", ""))
    theirs: Any = wfdb.rdheader(str(tmp_path / "rec"))
    assert theirs.units[0] == "V"
    table = read_series(header)
    assert [(c.name, c.unit) for c in table.channels] == [("Ableitung Größe", "µV"), ("resp", "mV")]
    header.write_text(header.read_text(), encoding="latin-1")
    assert read_series(header).channels == table.channels


def test_annotations_and_comments_are_labels_where_they_are_named(tmp_path):
    record(tmp_path, comments=["age: 65", "sex: F", "recorded at night"])
    wfdb.wrann(
        "rec", "atr", np.array([50, 100, 200, 300]), symbol=["+", "N", "V", "+"], aux_note=["(N", "", "", "(AFIB"],
        write_dir=str(tmp_path),
    )  # fmt: skip
    plain = read_series(tmp_path / "rec.hea")
    assert (len(plain.channels), plain.classes, plain.statics) == (2, {}, ())
    table = read_series(tmp_path / "rec.hea", label=["atr", "atr.rhythm", "sex"], static=["age"])
    assert table.classes == {"atr": ("N", "V"), "atr.rhythm": ("AFIB", "N"), "sex": ("F",)}
    (own,) = table.recordings
    assert own.static.tolist() == [65]
    expected = [-1] * 100 + [0] * 100 + [1] * 200, [-1] * 50 + [1] * 250 + [0] * 100
    assert (own.labels[:, 0].tolist(), own.labels[:, 1].tolist()) == expected
    assert (own.labels[:, 2] == 0).all()
    with pytest.raises(ClipError, match="label=qrs: no such column"):
        read_series(tmp_path / "rec.hea", label=["qrs"])
    (tmp_path / "rec.bad").write_bytes(b"\xff" * 7)
    with pytest.raises(ClipError, match=r"rec\.bad: can't be read as WFDB annotations"):
        read_series(tmp_path / "rec.hea", label=["bad"])


def test_records_of_a_folder_are_groups_and_segments_are_not(tmp_path):
    record(tmp_path, "p2", 200, comments=["age: 40"])
    record(tmp_path, "p1", 100, fs=125, comments=["age: 50"])
    table = read_series(tmp_path, static=["age"])
    assert [(own.group, own.mask[:, 1].sum(), own.static[0]) for own in table.recordings] == [
        ("p1", 100, 50), ("p2", 200, 40)
    ]  # fmt: skip
    (tmp_path / "whole.hea").write_text("whole/2 2 250 300\np2 200\np2 100\n")
    assert read_series(tmp_path).groups == ("p1", "whole")
    (tmp_path / "RECORDS").write_text("p2\nsub/\n")
    (tmp_path / "sub").mkdir()
    record(tmp_path / "sub", "q")
    assert read_series(tmp_path).groups == ("p2", "sub/q")
    record(tmp_path / "sub", "q", units=["uV", "NU"])
    with pytest.raises(ClipError, match=r"'sub/q' has 'MLII \[uV\]', others 'MLII \[mV\]'"):
        read_series(tmp_path)


def test_what_is_written_is_read_back(tmp_path):
    made = windows()
    path = write_series(
        tmp_path / "made.hea", made, CHANNELS, 0.02, start=1e9 + 0.25, told={"activity": "brisk walk", "age": 31.5}
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made.dat", "made.hea"]
    table = read_series(path, "auto", label=["activity"], static=["age"])
    assert table.channels == CHANNELS
    assert table.step == pytest.approx(0.02)
    assert table.classes == {"activity": ("brisk walk",)}
    (own,) = table.recordings
    assert (own.group, own.start, own.static[0]) == ("made", 1e9 + 0.25, 31.5)
    length = len(own.values)
    np.testing.assert_array_equal(own.mask, ~np.isnan(made[0, :length]))
    np.testing.assert_allclose(given(own), made[0, :length], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(given(own)[:, 1], made[0, :length, 1])  # near its largest: to the bit


def test_others_read_what_is_written(tmp_path):
    made = windows()
    write_series(tmp_path / "made.hea", made, CHANNELS, 0.02, start=30.5)
    theirs: Any = wfdb.rdrecord(str(tmp_path / "made"), smooth_frames=False)
    assert theirs.units == ["m/s^2", "1/min", "NU"]
    assert theirs.sig_name == ["acc", "pulse", "u_force"]
    assert (theirs.fs, theirs.samps_per_frame, theirs.base_time) == (12.5, [4, 1, 4], time(0, 0, 30, 500_000))
    np.testing.assert_allclose(theirs.e_p_signal[2], made[0, :, 2], atol=1e-8)
    np.testing.assert_allclose(theirs.e_p_signal[1], made[0, ::4, 1])
    assert np.isnan(theirs.e_p_signal[0][7:11]).all()


def test_several_windows_become_a_folder_of_records(tmp_path):
    made = np.stack([windows(2, seed=1), windows(2, seed=2)])  # an ensemble of two
    folder = write_series(tmp_path / "made.hea", made, CHANNELS, 0.02, told={"kind": ["a", "b"]})
    assert folder == tmp_path / "made"
    assert [p.name for p in tmp_path.iterdir()] == ["made"]
    assert (folder / "RECORDS").read_text().split() == ["0s0", "1s0", "0s1", "1s1"]
    table = read_series(folder, label=["kind"])
    assert table.groups == ("0s0", "1s0", "0s1", "1s1")
    assert [own.labels[0, 0] for own in table.recordings] == [0, 1, 0, 1]
    np.testing.assert_allclose(given(table.recordings[2]), made[1, 0, : len(table.recordings[2].values)], atol=1e-6)
    with pytest.raises(ClipError, match="made: exists; 2 windows become a folder"):
        write_series(tmp_path / "made.hea", made[0], CHANNELS, 0.02)


def test_what_cannot_be_written_leaves_what_was_there(tmp_path):
    write_series(tmp_path / "made.hea", windows(), CHANNELS, 0.02)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    broken = windows()
    broken[0, 3, 2] = np.inf
    wrong = [
        ((broken, 0.02, {}), "infinite"),
        ((windows(), 1e5, {}), "counts frames a second"),
        ((windows(), 0.02, {"told": {"a:b": 1}}), "'a:b' is no name"),
        ((windows(), 0.02, {"start": 1e30}), "is no date"),
    ]
    for (values, step, more), told in wrong:
        with pytest.raises(ClipError, match=told):
            write_series(tmp_path / "made.hea", values, CHANNELS, step, **more)
    with pytest.raises(ClipError, match="only letters, digits"):
        write_series(tmp_path / "my walk.hea", windows(), CHANNELS, 0.02)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_broken_record_and_a_missing_package_are_named_in_one_line(tmp_path, monkeypatch):
    record(tmp_path)
    path = tmp_path / "rec.hea"
    whole = (tmp_path / "rec.dat").read_bytes()
    (tmp_path / "rec.dat").write_bytes(whole[:100])
    (tmp_path / "foreign.hea").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "empty.hea").write_text("")
    (tmp_path / "none.hea").write_text("none 0 250 0\n")
    for name in ("rec", "foreign", "empty", "none"):
        with pytest.raises(ClipError) as caught:
            read_series(tmp_path / f"{name}.hea")
        assert str(caught.value).startswith(f"{tmp_path / name}.hea: ")
        assert "\n" not in str(caught.value)
    (tmp_path / "rec.dat").unlink()
    with pytest.raises(ClipError, match=r"rec\.hea: can't be read as a WFDB record: .*rec\.dat"):
        read_series(path)
    monkeypatch.setitem(sys.modules, "wfdb", None)
    with pytest.raises(ClipError) as caught:
        read_series(path)
    assert str(caught.value) == f"{path}: reading WFDB needs the package wfdb: pip install counterpoint[wfdb]"
    with pytest.raises(ClipError, match=r"^made\.hea: writing WFDB needs the package wfdb"):
        write_series(tmp_path / "made.hea", windows(), CHANNELS, 0.02)
