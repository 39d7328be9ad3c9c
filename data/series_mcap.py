"""MCAP robot logs in and out, through the package `mcap`: every number in a message is a sample of a channel.

    table = read_series("drive.mcap", drop=["/camera", "/imu.header"], label=["/task.name"])
    table = read_series("drives", rate=100)     # a folder: every log is a group

A channel is called `topic.field.subfield`, an item of an array `topic.position.0`. Timestamps are the log's
(`time="auto"`), or those that the senders gave (`time="publish_time"`). Each topic keeps its own: nothing is
interpolated. Units are those that the JSON schema names, `{"type": "number", "unit": "m/s²"}`.

Left out: arrays of more than 64 items, bytes, and times (`{sec, nanosec}` and the like). Counts only where it is named
(`label=`, `static=`, `group=`): text, numbers that never change, and the log's metadata; what is named holds until the
topic's next message.

JSON is read and written here. ROS 2, ROS 1 and protobuf need `mcap-ros2-support`, `mcap-ros1-support` or
`mcap-protobuf-support`. Topics in `drop=`, by name or by what stands before a `/`, are not decoded.
Legend: `R` rows, `L` steps, `C` channels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..modalities.clip import ClipError
from .series_columns import Clock, Column, Log, first_line, required, stack_logs

if TYPE_CHECKING:
    from .series_table import Channel

ITEMS = 64  # of an array: joints and covariances are shorter; images, scans and clouds longer
DECODERS = {
    "cdr": ("mcap_ros2.decoder", "mcap-ros2-support"),
    "protobuf": ("mcap_protobuf.decoder", "mcap-protobuf-support"),
    "ros1": ("mcap_ros1.decoder", "mcap-ros1-support"),
}  # message encoding → module, package
TIMES = ({"sec", "nanosec"}, {"sec", "nsec"}, {"secs", "nsecs"}, {"seconds", "nanos"})  # ROS 2, JSON, ROS 1, protobuf
SECOND = 1_000_000_000  # in ns


@dataclass
class _Topic:
    """Messages of a topic: timestamps in ns, and for each field the numbers of its messages and its values."""

    stamps: list[int] = field(default_factory=list)
    fields: dict[str, tuple[list[int], list[Any]]] = field(default_factory=dict)
    schemas: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # of the fields, where JSON schema tells

    def add(self, stamp: int, values: Iterator[tuple[str, Any]]) -> None:
        for name, value in values:
            places, own = self.fields.setdefault(name, ([], []))
            places.append(len(self.stamps))
            own.append(value)
        self.stamps.append(stamp)


def read_mcap(path: Path, time: str = "", named: Sequence[str] = (), drop: Sequence[str] = ()) -> list[Column]:
    """The clock, the log's name and the numeric fields of a log, or of all logs of a folder.

    Args:
        path: `.mcap`, or a folder of them.
        time: `"publish_time"`, or anything for the time of logging.
        named: labels and covariates that are asked for.
        drop: topics that are not decoded.

    Raises:
        ClipError: a missing package; a file that is no MCAP or broken; a message that can't be decoded, with its topic.
    """
    required(path, "mcap.reader", "reading MCAP", "mcap", "counterpoint[mcap]")
    files = sorted(path.glob("*.mcap")) if path.is_dir() else [path]
    clock = "publish_time" if time == "publish_time" else "log_time"
    logs = [_read(file, clock, named, drop) for file in files]
    stamps = np.concatenate([log.times for log in logs])  # ns
    origin = int(stamps.min()) // SECOND
    times = Clock(f"{clock} [ns]", stamps - origin * SECOND, "extra", origin=float(origin))
    return [_optional(column, named) for column in stack_logs(path, logs, times, "log")]


def write_mcap(
    folder: Path, name: str, window: np.ndarray, channels: Sequence[Channel], step: float, start: float, dates: bool,
    told: Mapping[str, str],
) -> list[str]:  # fmt: skip
    """Writes one log of JSON messages with a schema: a topic for all channels `topic.…`.

    Args:
        folder, name: where, and the log's name without the suffix.
        window: `[L, C]` in the channels' units, NaN where there is no sample; no message where a topic has none.
        channels: names and units. One without a field in its name is the field `value` of a topic of its name.
        step: seconds.
        start: seconds of the first step, 0 or more.
        dates: makes no difference: a log counts from wherever its reader thinks.
        told: the log's metadata.

    Returns:
        The name of the file.

    Raises:
        ClipError: the package is missing; a time before 0.
    """
    file = folder / f"{name}.mcap"
    writing = required(Path(file.name), "mcap.writer", "writing MCAP", "mcap", "counterpoint[mcap]")
    if start < 0:
        raise ClipError(f"{file.name}: start={start:g}, but a log's times are 0 or more")
    topics = _topics(channels)
    with file.open("wb") as out:
        writer = writing.Writer(out)
        writer.start(profile="", library="counterpoint")
        numbers = {topic: _register(writer, topic, keys, channels) for topic, keys in topics.items()}
        begin = round(start * SECOND)
        for place, row in enumerate(window):
            stamp = begin + round(place * step * SECOND)
            for topic, keys in topics.items():
                values = {path: float(row[c]) for c, path in keys.items() if not np.isnan(row[c])}
                if values:
                    data = json.dumps(_nested(values)).encode()
                    writer.add_message(numbers[topic], stamp, data, stamp)
        if told:
            writer.add_metadata("counterpoint", dict(told))
        writer.finish()
    return [file.name]


def _read(file: Path, clock: str, named: Sequence[str], drop: Sequence[str]) -> Log:
    from mcap.reader import SeekingReader

    topics: dict[str, _Topic] = {}
    decoders: dict[int, Callable[[bytes], Any]] = {}
    left = set()
    try:
        with file.open("rb") as stream:
            reader = SeekingReader(stream, validate_crcs=True)
            for schema, channel, message in reader.iter_messages():
                if any(channel.topic == name or channel.topic.startswith(f"{name}/") for name in drop):
                    left.add(channel.topic)
                    continue
                own = topics.setdefault(channel.topic, _Topic())
                if channel.id not in decoders:
                    decoders[channel.id] = _decoder(file, schema, channel)
                    own.schemas.update(_described(schema))
                content = _decoded(file, channel.topic, len(own.stamps) + 1, decoders[channel.id], message.data)
                own.add(getattr(message, clock), _fields(content, ""))
            facts = {key: value for record in reader.iter_metadata() for key, value in record.metadata.items()}
    except ClipError:
        raise
    except Exception as error:  # struct, zstandard and lz4 raise their own
        raise ClipError(f"{file}: can't be read as MCAP: {first_line(error)}") from None
    log = _log(file, topics, named, facts)
    extras = {topic: np.full(len(log.times), None) for topic in left}  # so that drop= finds them
    return replace(log, extras={**log.extras, **extras})


def _decoder(file: Path, schema: Any, channel: Any) -> Callable[[bytes], Any]:
    encoding, topic = channel.message_encoding, channel.topic
    if encoding == "json":
        return json.loads
    decoder = None
    if encoding in DECODERS:
        module, package = DECODERS[encoding]
        what = f"topic '{topic}' is {encoding}; reading it"
        decoder = required(file, module, what, package, package).DecoderFactory().decoder_for(encoding, schema)
    if decoder is None:
        kind = f"{encoding} with schema {schema.encoding}" if schema is not None else f"{encoding} without a schema"
        raise ClipError(
            f"{file}: topic '{topic}' is {kind}, expected json, {', '.join(DECODERS)}; leave it out with drop={topic}"
        )
    return decoder


def _decoded(file: Path, topic: str, number: int, decoder: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return decoder(data)
    except Exception as error:
        raise ClipError(f"{file}: topic '{topic}', message {number} can't be decoded: {first_line(error)}") from None


def _described(schema: Any) -> dict[str, Mapping[str, Any]]:
    """The properties of a JSON schema by their path, `acceleration.x`."""
    out: dict[str, Mapping[str, Any]] = {}

    def walk(node: Any, before: str) -> None:
        properties = node.get("properties") if isinstance(node, Mapping) else None
        for key, own in properties.items() if isinstance(properties, Mapping) else ():
            if isinstance(own, Mapping):
                out[before + key] = own
                walk(own, f"{before}{key}.")

    if schema is not None and schema.encoding == "jsonschema" and schema.data:
        walk(json.loads(schema.data), "")
    return out


def _fields(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """`(path, number or text)` of all that a message holds."""
    if isinstance(value, (bool, int, float, str)):
        yield name, value
    elif isinstance(value, Mapping) or not hasattr(value, "__len__"):
        members = {} if value is None else _members(value)
        if set(members) not in TIMES:
            for key, own in members.items():
                yield from _fields(own, f"{name}.{key}" if name else str(key))
    elif not isinstance(value, (bytes, bytearray, memoryview)) and len(value) <= ITEMS:
        for number, own in enumerate(value):
            yield from _fields(own, f"{name}.{number}" if name else str(number))


def _members(value: Any) -> Mapping[Any, Any]:
    """What an object, a message of ROS or one of protobuf consists of."""
    if isinstance(value, Mapping):
        return value
    if hasattr(value, "DESCRIPTOR"):
        own = value.DESCRIPTOR.fields
        return {f.name: getattr(value, f.name) for f in own if not f.has_presence or value.HasField(f.name)}
    names = getattr(value, "__slots__", None)
    return vars(value) if names is None else {name: getattr(value, name) for name in names}


def _log(file: Path, topics: Mapping[str, _Topic], named: Sequence[str], facts: Mapping[str, str]) -> Log:
    """Rows of one timestamp each, but for those that a topic has twice."""
    places, stamps = _rows(list(topics.values()))
    signals, extras, measured = {}, {}, np.zeros(len(stamps), bool)
    for (topic, own), place in zip(topics.items(), places, strict=True):
        for path, (numbers, values) in own.fields.items():
            header, name = _header(topic, path, own.schemas.get(path, {}))
            rows = place[np.array(numbers)]
            text = any(isinstance(value, str) for value in values)
            column = np.full(len(stamps), None if text else np.nan, object if text else np.float64)
            column[rows] = [str(value) for value in values] if text else values
            if not text and name not in named and header not in named:
                measured[rows] = True
            else:
                known = np.zeros(len(stamps), bool)
                known[rows] = True
                last = np.maximum.accumulate(np.where(known, np.arange(len(stamps)), -1))
                column[last >= 0] = column[last[last >= 0]]
            (extras if text else signals)[header] = column
    if not measured.any():
        raise ClipError(f"{file}: no message with a number beside those named or dropped")
    kept = {header: column[measured] for header, column in extras.items()}
    return Log(file.stem, stamps[measured], {h: column[measured] for h, column in signals.items()}, kept, facts)


def _rows(topics: Sequence[_Topic]) -> tuple[list[np.ndarray], np.ndarray]:
    """The row of every message of every topic, and the timestamps of the rows `[R]`, sorted."""
    if not topics:
        return [], np.zeros(0, np.int64)
    stamps = [np.array(topic.stamps, np.int64) for topic in topics]
    turns = []  # 0, or 1, 2, … where a topic has a timestamp again
    for own in stamps:
        order = own.argsort(kind="stable")
        first = np.searchsorted(own[order], own[order], side="left")
        turns.append(np.empty(len(own), np.int64))
        turns[-1][order] = np.arange(len(own)) - first
    every, turn = np.concatenate(stamps), np.concatenate(turns)
    order = np.lexsort((turn, every))
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(every[order]) != 0) | (np.diff(turn[order]) != 0)
    rows = np.empty(len(order), np.int64)
    rows[order] = new.cumsum() - 1
    return np.split(rows, np.cumsum([len(own) for own in stamps])[:-1]), every[order][new]


def _header(topic: str, path: str, schema: Mapping[str, Any]) -> tuple[str, str]:
    """`name [unit]` and name of a field; `column` in the schema is what `write_mcap` had to call otherwise."""
    name = schema.get("column") or (f"{topic}.{path}" if path else topic)
    unit = schema.get("unit")
    return (f"{name} [{unit}]" if isinstance(unit, str) and unit else str(name)), str(name)


def _optional(column: Column, named: Sequence[str]) -> Column:
    """A number that never changes, or was never told, is no channel of a log."""
    if column.role != "channel" or column.name in named or column.header in named:
        return column
    known = column.values[~np.isnan(column.values)]
    return replace(column, role="extra") if len(known) == 0 or known.min() == known.max() else column


def _topics(channels: Sequence[Channel]) -> dict[str, dict[int, tuple[str, ...]]]:
    """`{topic: {channel: path of its field}}`."""
    topics: dict[str, dict[int, tuple[str, ...]]] = {}
    for c, channel in enumerate(channels):
        topic, _, rest = channel.name.partition(".")
        topics.setdefault(topic, {})[c] = tuple(rest.split(".")) if rest else ("value",)
    for own in topics.values():
        paths = list(own.values())
        for c, path in own.items():
            if any(path[:k] in paths for k in range(1, len(path))) or paths.count(path) > 1:
                own[c] = (channels[c].name,)  # `a` and `a.b` cannot both be there: one is called by its whole name
    return topics


def _register(writer: Any, topic: str, keys: Mapping[int, tuple[str, ...]], channels: Sequence[Channel]) -> int:
    root: dict[str, Any] = {"type": "object", "properties": {}}
    for c, path in keys.items():
        node = root
        for key in path[:-1]:
            node = node["properties"].setdefault(key, {"type": "object", "properties": {}})
        own = {"type": "number", **({"unit": channels[c].unit} if channels[c].unit else {})}
        same = ".".join((topic, *path)) == channels[c].name
        node["properties"][path[-1]] = own if same else {**own, "column": channels[c].name}
    schema = writer.register_schema(topic, "jsonschema", json.dumps(root).encode())
    return writer.register_channel(topic, "json", schema)


def _nested(values: Mapping[tuple[str, ...], float]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for path, value in values.items():
        node = out
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value
    return out
