"""MCAP logs, made with the packages of MCAP themselves: topics on their own clocks, units, labels; ours, read back."""

import json
import sys

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.writer import Writer

from counterpoint.data.series_table import Channel, read_series
from counterpoint.data.series_write import write_series
from counterpoint.modalities.clip import ClipError

BEGIN = 1_700_000_000_123_456_789  # ns
SCHEMA = {
    "type": "object",
    "properties": {"acc": {"type": "object", "properties": {"x": {"type": "number", "unit": "m/s²"}}}},
}
CHANNELS = (Channel("imu.acc.x", "m/s²"), Channel("imu.acc.y", "m/s²"), Channel("pulse", "1/min", 4), Channel("a.b"))
ROS2 = """geometry_msgs/Vector3 linear
builtin_interfaces/Time stamp
float64[2] joints
uint8[] image
string mode
bool brake
================================================================================
MSG: geometry_msgs/Vector3
float64 x
float64 y
================================================================================
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
"""


class Log:
    """JSON messages of topics, `log.add("/imu", ns, {...})`."""

    def __init__(self, path, schema=SCHEMA, **options):
        self.file, self.topics = path.open("wb"), {}
        self.writer = Writer(self.file, **options)
        self.writer.start()
        self.schema = self.writer.register_schema("sample", "jsonschema", json.dumps(schema).encode())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.writer.finish()
        self.file.close()

    def add(self, topic, stamp, content, publish=None, encoding="json"):
        if topic not in self.topics:
            self.topics[topic] = self.writer.register_channel(topic, encoding, self.schema)
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.writer.add_message(
            self.topics[topic], BEGIN + stamp, data, BEGIN + (stamp if publish is None else publish)
        )


def drive(path, count=200, **options):
    """An IMU every 10 ms; a GPS every 40 ms, 3 ms later; a task now and then; what never changes."""
    with Log(path, **options) as log:
        for k in range(count):
            log.add("/imu", k * 10_000_000, {"acc": {"x": k / 4, "y": None if k == 7 else -k}, "range": 16, "id": "a"})
            if k % 4 == 0:
                stamp = {"sec": 1, "nsec": k}
                log.add("/gps", k * 10_000_000 + 3_000_000, {"pos": [k, 2 * k], "stamp": stamp, "scan": [k] * 65})
            if k % 50 == 20:
                log.add("/task", k * 10_000_000 + 1, {"name": "push" if k < 100 else "pull", "number": k // 100})
        log.writer.add_metadata("ride", {"driver": "anna", "age": "31.5"})
    return path


def windows(count=1, length=40, seed=0):
    made = np.random.default_rng(seed).standard_normal((count, length, 4)).astype(np.float32)
    made[..., 2] = np.where(np.arange(length) % 4 == 0, made[..., 2], np.nan)
    made[:, 7:11] = np.nan
    return made


def given(own):
    return np.where(own.mask, own.values, np.nan)


@pytest.mark.parametrize("chunked", [True, False])
def test_topics_keep_their_names_units_rates_and_clocks(tmp_path, chunked):
    table = read_series(drive(tmp_path / "drive.mcap", use_chunking=chunked), "auto", drop=["/task"])
    assert [(c.header, c.every) for c in table.channels] == [
        ("/imu.acc.x [m/s²]", 1), ("/imu.acc.y", 1), ("/gps.pos.0", 4), ("/gps.pos.1", 4)
    ]  # fmt: skip
    assert table.step == pytest.approx(0.01, rel=1e-12)
    assert (table.groups, table.dropped, table.time) == (("drive",), 0, "log_time [ns]")
    (own,) = table.recordings
    assert own.mask.sum(axis=0).tolist() == [200, 199, 50, 50]
    assert own.values[own.mask[:, 0], 0].tolist() == [k / 4 for k in range(200)]
    assert own.values[own.mask[:, 3], 3].tolist() == [2 * k for k in range(0, 200, 4)]
    times = BEGIN / 1e9 + np.arange(0, 200, 4) * 0.01 + 0.003
    np.testing.assert_allclose(own.times[own.mask[:, 2], 2], times, rtol=0, atol=1e-6)
    assert not own.mask[7, 1]


def test_a_log_of_a_kilohertz_since_1970_keeps_every_sample(tmp_path):
    """Float seconds since 1970 resolve 0.24 µs: a step taken from them would drift by cells."""
    with Log(tmp_path / "fast.mcap") as log:
        for k in range(20_000):
            log.add("/imu", k * 1_000_100, {"x": k % 7})
    table = read_series(tmp_path / "fast.mcap")
    assert table.step == pytest.approx(0.0010001, rel=1e-12)
    assert table.dropped == 0
    assert [len(own.values) for own in table.recordings] == [20_000]


def test_text_constants_and_metadata_count_where_they_are_named(tmp_path):
    path = drive(tmp_path / "drive.mcap")
    plain = read_series(path, drop=["/task.number"])
    assert "/imu.range" not in [c.name for c in plain.channels]
    named = {"label": ["/task.name", "/task.number"], "static": ["/imu.range", "age"], "group": "driver"}
    table = read_series(path, **named, drop=["/gps"])
    assert table.classes == {"/task.name": ("pull", "push"), "/task.number": ("0", "1")}
    assert [c.name for c in table.channels] == ["/imu.acc.x", "/imu.acc.y"]
    (own,) = table.recordings
    assert own.group == "anna"
    assert own.static.tolist() == [16, 31.5]
    held = [-1] * 21 + [1] * 100 + [0] * 79  # told 1 ns after row 20, and again after row 120
    assert own.labels[:, 0].tolist() == held
    assert own.labels[:, 1].tolist() == [-1] * 21 + [0] * 100 + [1] * 79


def test_the_clock_of_the_senders(tmp_path):
    with Log(tmp_path / "late.mcap") as log:
        for k in range(50):
            log.add("/imu", k * 10_000_000 + (4_000_000 if k % 2 else 0), {"x": k}, publish=k * 10_000_000)
    jittered, sent = (read_series(tmp_path / "late.mcap", clock) for clock in ("log_time", "publish_time"))
    assert sent.time == "publish_time [ns]"
    np.testing.assert_allclose(np.diff(sent.recordings[0].times[:, 0]), 0.01, atol=1e-6)
    assert np.ptp(np.diff(jittered.recordings[0].times[:, 0])) > 0.007
    with pytest.raises(ClipError, match="time=stamp: no such column"):
        read_series(tmp_path / "late.mcap", "stamp")


def test_a_timestamp_that_a_topic_has_twice_is_said_and_merged_where_asked_for(tmp_path):
    with Log(tmp_path / "twice.mcap") as log:
        for k, stamp in enumerate([0, 10, 20, 20, 30, 40]):
            log.add("/imu", stamp * 1_000_000, {"x": k})
            log.add("/gps", stamp * 1_000_000 if k != 3 else 25_000_000, {"y": k})
    with pytest.raises(ClipError, match=r"repeats the timestamp.*repeats=merge"):
        read_series(tmp_path / "twice.mcap")
    assert read_series(tmp_path / "twice.mcap", repeats="merge", rate=100).dropped == 2


def test_logs_of_a_folder_are_groups(tmp_path):
    drive(tmp_path / "b.mcap", 50)
    drive(tmp_path / "a.mcap", 100)
    table = read_series(tmp_path, drop=["/task", "/gps"])
    assert [(own.group, len(own.values)) for own in table.recordings] == [("a", 100), ("b", 50)]


def test_messages_of_ros_2(tmp_path):
    from mcap_ros2.writer import Writer as RosWriter

    with RosWriter(str(tmp_path / "ros.mcap")) as writer:
        schema = writer.register_msgdef("my/State", ROS2)
        for k in range(20):
            content = {
                "linear": {"x": k / 2, "y": -k}, "stamp": {"sec": k, "nanosec": 5}, "joints": [k, k * k],
                "image": b"\0" * 10, "mode": "auto", "brake": k > 9,
            }  # fmt: skip
            writer.write_message("/robot/state", schema, content, log_time=k * 20_000_000)
    table = read_series(tmp_path / "ros.mcap", label=["/robot/state.mode"])
    assert [c.name for c in table.channels] == [
        f"/robot/state.{name}" for name in ("linear.x", "linear.y", "joints.0", "joints.1", "brake")
    ]
    (own,) = table.recordings
    assert own.values[:, 0].tolist() == [k / 2 for k in range(20)]
    assert own.values[:, 3].tolist() == [k * k for k in range(20)]
    assert own.values[:, 4].tolist() == [0] * 10 + [1] * 10
    assert table.classes == {"/robot/state.mode": ("auto",)}
    assert table.step == pytest.approx(0.02)


def test_messages_of_ros_1(tmp_path):
    from mcap_ros1._vendor.genpy.dynamic import generate_dynamic
    from mcap_ros1.writer import Writer as RosWriter

    kinds = generate_dynamic("my/Twist", "Side left\ntime stamp\n" + "=" * 80 + "\nMSG: my/Side\nfloat64 speed\n")
    with (tmp_path / "ros.mcap").open("wb") as file:
        writer = RosWriter(file)
        for k in range(10):
            message = kinds["my/Twist"]()
            message.left.speed = k / 2
            message.stamp.secs = k
            writer.write_message("/twist", message, log_time=k * 10_000_000)
        writer.finish()
    table = read_series(tmp_path / "ros.mcap")
    assert [c.name for c in table.channels] == ["/twist.left.speed"]
    assert table.recordings[0].values[:, 0].tolist() == [k / 2 for k in range(10)]


def test_messages_of_protobuf(tmp_path):
    from google.protobuf.struct_pb2 import Value
    from google.protobuf.timestamp_pb2 import Timestamp
    from google.protobuf.wrappers_pb2 import DoubleValue
    from mcap_protobuf.writer import Writer as ProtoWriter

    with (tmp_path / "proto.mcap").open("wb") as file, ProtoWriter(file) as writer:
        for k in range(10):
            writer.write_message("/level", DoubleValue(value=k / 2), k * 10_000_000, k * 10_000_000)  # 0: not sent
            writer.write_message("/clock", Timestamp(seconds=k), k * 10_000_000, k * 10_000_000)
            own = Value(number_value=k * k) if k % 2 else Value(string_value="no")
            writer.write_message("/either", own, k * 10_000_000, k * 10_000_000)
    table = read_series(tmp_path / "proto.mcap")
    assert [c.name for c in table.channels] == ["/level.value", "/either.number_value"]
    (own,) = table.recordings
    assert own.values[:, 0].tolist() == [k / 2 for k in range(10)]
    assert own.mask[:, 1].tolist() == [k % 2 == 1 for k in range(10)]


def test_what_is_written_is_read_back(tmp_path):
    made = windows()
    path = write_series(tmp_path / "made.mcap", made, CHANNELS, 0.02, start=1e9 + 0.25, told={"kind": "a", "age": 31.5})
    assert [p.name for p in tmp_path.iterdir()] == ["made.mcap"]
    table = read_series(path, "auto", label=["kind"], static=["age"])
    assert sorted(table.channels, key=CHANNELS.index) == sorted(CHANNELS, key=CHANNELS.index)
    assert table.step == pytest.approx(0.02)
    (own,) = table.recordings
    assert own.start == pytest.approx(1e9 + 0.25, abs=1e-6)
    assert (own.static[0], table.classes) == (31.5, {"kind": ("a",)})
    order = [CHANNELS.index(channel) for channel in table.channels]
    np.testing.assert_array_equal(given(own), made[0][:, order])


def test_others_read_what_is_written(tmp_path):
    made = windows()
    write_series(tmp_path / "made.mcap", made, CHANNELS, 0.02, start=2.0)
    with (tmp_path / "made.mcap").open("rb") as file:
        found = list(make_reader(file, validate_crcs=True).iter_messages())
    imu = [(message.log_time, json.loads(message.data)) for _, channel, message in found if channel.topic == "imu"]
    assert len(imu) == 36
    assert imu[1] == (2_020_000_000, {"acc": {"x": float(made[0, 1, 0]), "y": float(made[0, 1, 1])}})
    assert sum(channel.topic == "pulse" for _, channel, _ in found) == 9
    schema = next(json.loads(schema.data) for schema, channel, _ in found if schema and channel.topic == "imu")
    assert schema["properties"]["acc"]["properties"]["x"] == {"type": "number", "unit": "m/s²"}


def test_names_that_a_message_cannot_hold_side_by_side_come_back(tmp_path):
    names = ["a.b", "a.b.c", "a", "a.", "a.value", "plain"]
    made = np.random.default_rng(0).standard_normal((1, 9, 6)).astype(np.float32)
    table = read_series(write_series(tmp_path / "odd.mcap", made, [Channel(n) for n in names], 0.1))
    found = {c.name: table.recordings[0].values[:, k].tolist() for k, c in enumerate(table.channels)}
    assert found == {name: made[0, :, k].tolist() for k, name in enumerate(names)}


def test_several_windows_become_a_folder_of_logs(tmp_path):
    made = windows(2)
    folder = write_series(tmp_path / "made.mcap", made, CHANNELS, 0.02, told={"kind": ["a", "b"]})
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["made", "made/0.mcap", "made/1.mcap"]
    table = read_series(folder, label=["kind"])
    assert [(own.group, own.labels[0, 0]) for own in table.recordings] == [("0", 0), ("1", 1)]
    with pytest.raises(ClipError, match="start=-1, but a log's times are 0 or more"):
        write_series(tmp_path / "none.mcap", made, CHANNELS, 0.02, start=-1.0)
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


def test_what_is_wrong_is_named_in_one_line(tmp_path, monkeypatch):
    whole = drive(tmp_path / "drive.mcap").read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0xFF
    (tmp_path / "cut.mcap").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flipped.mcap").write_bytes(flipped)
    (tmp_path / "foreign.mcap").write_bytes(b"\x89PNG\r\n\x1a\n" * 9)
    (tmp_path / "empty.mcap").write_bytes(b"")
    with Log(tmp_path / "text.mcap") as log:
        log.add("/chat", 0, {"said": "hello"})
    with Log(tmp_path / "garbled.mcap") as log:
        log.add("/imu", 0, {"x": 1})
        log.add("/imu", 1, b"{x: 1}")
    with Log(tmp_path / "other.mcap") as log:
        log.add("/imu", 0, b"\x01", encoding="cbor")
    with Log(tmp_path / "ros.mcap") as log:
        log.add("/imu", 0, b"\x01", encoding="cdr")
    told = {
        "cut": "can't be read as MCAP", "flipped": "can't be read as MCAP", "foreign": "invalid magic",
        "empty": "can't be read as MCAP", "text": "no message with a number",
        "garbled": "topic '/imu', message 2 can't be decoded", "other": "topic '/imu' is cbor with schema jsonschema",
        "ros": "topic '/imu' is cdr; reading it needs the package mcap-ros2-support: pip install mcap-ros2-support",
    }  # fmt: skip
    monkeypatch.setitem(sys.modules, "mcap_ros2.decoder", None)
    for name, text in told.items():
        with pytest.raises(ClipError) as caught:
            read_series(tmp_path / f"{name}.mcap")
        assert str(caught.value).startswith(f"{tmp_path / name}.mcap: ")
        assert text in str(caught.value)
        assert "\n" not in str(caught.value)
    path = tmp_path / "drive.mcap"
    monkeypatch.setitem(sys.modules, "mcap.reader", None)
    monkeypatch.setitem(sys.modules, "mcap.writer", None)
    with pytest.raises(ClipError) as caught:
        read_series(path)
    assert str(caught.value) == f"{path}: reading MCAP needs the package mcap: pip install counterpoint[mcap]"
    with pytest.raises(ClipError, match=r"^made\.mcap: writing MCAP needs the package mcap"):
        write_series(tmp_path / "made.mcap", windows(), CHANNELS, 0.02)
