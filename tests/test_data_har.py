"""The archive of phone and watch becomes one table: one clock, true labels, sentences that say what is so."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from typer.testing import CliRunner

from counterpoint.cli.main import app
from counterpoint.data.har import CAPTIONS, CHANNELS, Trace, captions, convert, join
from counterpoint.data.series_table import read_series
from counterpoint.modalities.clip import ClipError

HEADER = "x_acc,y_acc,z_acc,x_gyro,y_gyro,z_gyro,timestamp,label\n"
SEQUENCE = ["SEATED", "STANDING_UP", "WALKING", "TURNING", "WALKING", "TURNING", "SITTING_DOWN"]


def device_file(times, seed, labels=None):
    values = np.random.default_rng(seed).standard_normal((len(times), 6)).round(4)
    labels = labels or [SEQUENCE[i * len(SEQUENCE) // len(times)] for i in range(len(times))]
    rows = [",".join(map(str, [*v, t, label])) for v, t, label in zip(values.tolist(), times, labels, strict=True)]
    return HEADER + "\n".join(rows) + "\n"


@pytest.fixture(scope="module")
def files():
    start = 1_657_533_977_810
    turns = "execution_id,orientation,first_turn,second_turn\ns01_01,back,l,r\ns02_01,back,r,r\n"
    out = {"DATA/executions_info.csv": turns}
    for n, execution in enumerate(("s01_01", "s01_02", "s02_01")):
        watch = [start + 60_000 * n + round(9.6 * i) for i in range(140)]
        phone = [start + 60_000 * n + 5 + 10 * (i - i % 2) for i in range(135)]  # delivered in twos
        for device, times in (("sp", phone), ("sw", watch)):
            out[f"DATA/{execution[:3]}/{execution}_{device}.csv"] = device_file(times, n)
    return out


def pack(path, files):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        return path
    with tarfile.open(path, "w:xz") as archive:
        for name, text in files.items():
            content = text.encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_every_sample_is_in_the_table_at_its_time(files, tmp_path):
    import pyarrow.parquet as pq

    rows, executions = convert(pack(tmp_path / "har.tar.xz", files), tmp_path / "imu.parquet")
    table = pq.read_table(tmp_path / "imu.parquet")
    assert (table.num_rows, executions) == (rows, 3)
    assert table.column_names == ["timestamp [ms]", "subject", "execution", "activity", "caption", *CHANNELS]
    assert [len(table) - table.column(name).null_count for name in (CHANNELS[0], CHANNELS[6])] == [3 * 135, 3 * 140]
    assert rows < 3 * 275  # samples of both devices at the same timestamp share a row
    first = table.slice(0, 3).to_pylist()
    assert first[0]["timestamp [ms]"] == 1_657_533_977_810
    assert first[0][CHANNELS[0]] is None
    assert [row["timestamp [ms]"] - first[0]["timestamp [ms]"] for row in first[1:]] == [5, 5]  # both samples stay
    assert first[1][CHANNELS[0]] != first[2][CHANNELS[0]]
    assert set(table.column("subject").to_pylist()) == {"s01", "s02"}
    text, archive = tmp_path / "imu.csv", pack(tmp_path / "har.zip", files)
    assert convert(archive, text) == (rows, 3)
    a, b = (read_series(p, "timestamp", "execution", ["activity", "caption"], (), ["subject"], 50, "merge")
            for p in (text, tmp_path / "imu.parquet"))  # fmt: skip
    assert [c.header for c in a.channels] == list(CHANNELS)
    assert a.groups == ("s01_01", "s01_02", "s02_01")
    for one, two in zip(a.recordings, b.recordings, strict=True):
        np.testing.assert_array_equal(one.values, two.values)
    assert a.recordings[0].mask.mean() > 0.95


def test_labels_are_the_watchs_nearest_ones():
    quiet = np.zeros((4, 6), np.float32)
    phone = Trace(np.array([0, 11, 31, 60]), quiet, np.array(["SEATED"] * 4, dtype=object))
    watch = Trace(
        np.array([5, 15, 25, 35]), quiet, np.array(["SEATED", "SEATED", "STANDING_UP", "WALKING"], dtype=object)
    )
    rows = join("s07_02", phone, watch)
    assert rows["timestamp [ms]"].tolist() == [0, 5, 11, 15, 25, 31, 35, 60]
    assert rows["activity"].tolist() == ["SEATED"] * 4 + ["STANDING_UP", "WALKING", "WALKING", "WALKING"]
    assert np.isnan(rows[CHANNELS[6]][[0, 2, 5, 7]]).all()


def test_captions_are_one_true_wording_a_stretch():
    labels = np.repeat(SEQUENCE, 5)
    seen = {}
    for n in range(60):
        own = captions(f"s{n:02d}_01", labels, ("l", "r")).reshape(7, 5)
        assert (own == own[:, :1]).all()
        for place, text in enumerate(own[:, 0]):
            seen.setdefault(place, set()).add(text)
    for place, label in enumerate(SEQUENCE):
        if label != "TURNING":
            assert seen[place] == set(CAPTIONS[label])
    assert len(seen[3]) == 6
    assert not any("right" in text for text in seen[3])
    assert not any("left" in text for text in seen[5])
    assert any("right" in text for text in seen[5])
    np.testing.assert_array_equal(captions("s01_01", labels, ("l", "r")), captions("s01_01", labels, ("l", "r")))
    assert not any("left" in text or "right" in text for text in captions("s05_01", labels))


def test_what_is_wrong_is_said_in_one_line(files, tmp_path):
    one = {name: text for name, text in files.items() if "s01_01" in name}
    for broken, wrong in (
        ({}, r"no file such as s01_01_sp\.csv; the data set is at .*10\.5281/zenodo\.8398688"),
        ({n: t for n, t in one.items() if "sw" not in n}, "s01_01 has no file of the watch"),
        ({n: t.replace("x_gyro", "gyro") for n, t in one.items()}, r"s01_01_s.\.csv: expected x_acc"),
        ({n: t.replace("WALKING", "FLYING") for n, t in one.items()}, "activity 'FLYING', expected one of SEATED"),
    ):
        archive = pack(tmp_path / "broken.tar.xz", broken)
        with pytest.raises(ClipError, match=wrong):
            convert(archive, tmp_path / "out.csv")
    (tmp_path / "no.tar").write_text("not a tar")
    for archive, out, wrong in (
        (tmp_path / "none.tar", "out.csv", r"no such file; .*zenodo\.8398688"),
        (tmp_path / "no.tar", "out.csv", "can't be read as a .tar or .zip"),
        (tmp_path / "no.tar", "out.wav", "expected .csv or .parquet"),
    ):
        with pytest.raises(ClipError, match=wrong):
            convert(archive, tmp_path / out)
    assert not list(tmp_path.glob("out*"))


def test_the_command(files, tmp_path):
    archive = pack(tmp_path / "har.tar.xz", files)
    result = CliRunner().invoke(app, ["data", "har", str(archive), str(tmp_path / "imu.csv")])
    assert result.exit_code == 0
    assert "3 executions" in result.output
    again = CliRunner().invoke(app, ["data", "har", str(archive), str(tmp_path / "imu.csv")])
    assert again.exit_code != 0
