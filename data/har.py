"""Phone and watch recorded together: the archive of a public data set becomes one table for `read_series`.

    counterpoint data har ARCHIVE imu.parquet

Matey-Sanz, Casteleyn, Granell, "Dataset of inertial measurements of smartphones and smartwatches for human activity
recognition", Data in Brief 2023 (CC BY 4.0). A subject rises from a seat, walks, turns, walks back, turns and sits
down: an execution of about 11 s, some ten a subject. Each device has a file, `sXX_YY_sp.csv` (phone) or `sXX_YY_sw.csv`
(watch), of some 103 samples a second, with timestamps in whole milliseconds and a label for every sample.

Units and clocks are not stated in the files; measured on subjects 1 to 18: the median norm of the acceleration is
about 10, so it is in m/s²; the labelled turns integrate to 147° (median), so the gyroscope is in rad/s; the movements
of phone and watch fit best at a lag of 0 ms (median; within 20 ms in half of the executions), so their clocks are one.
`l` and `r` of `executions_info.csv` are the subject's left and right: 349 of 350 turns go that way about the direction
of gravity, on both devices.

Legend: `R` rows, `L` samples of a device.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..modalities.clip import ClipError

DOI = "10.5281/zenodo.8398688"
WHERE = f"the data set is at https://doi.org/{DOI} (CC BY 4.0, GeoTecINIT/sp-sw-har-dataset)"
FIELDS = ("x_acc", "y_acc", "z_acc", "x_gyro", "y_gyro", "z_gyro")
DEVICES = {"sp": "phone", "sw": "watch"}
CHANNELS = tuple(
    f"{device}_{kind}_{axis} [{unit}]"
    for device in DEVICES.values()
    for kind, unit in (("acc", "m/s²"), ("gyr", "rad/s"))
    for axis in "xyz"
)
CAPTIONS = {
    "SEATED": ("a person is seated", "someone sits still", "a person stays on a seat", "sitting"),
    "STANDING_UP": ("a person stands up", "someone gets up from a seat", "a person rises to their feet", "standing up"),
    "WALKING": ("a person walks", "someone is walking", "a person goes on foot", "walking"),
    "TURNING": ("a person turns around", "someone is turning", "turning around"),
    "SITTING_DOWN": ("a person sits down", "someone takes a seat", "a person lowers their body to sit", "sitting down"),
}  # fmt: skip
SIDES = {"l": "left", "r": "right"}
TURNS = ("a person turns to the {}", "someone is turning {}", "turning around to the {}")
_FILE = re.compile(r"(?:.*/)?(?P<execution>(?P<subject>s\d+)_\d+)_(?P<device>sp|sw)\.csv")
_INFO = "executions_info.csv"


@dataclass(frozen=True)
class Trace:
    """What one device recorded.

    Args:
        times: int64 `[L]`, milliseconds since 1970, never falling.
        values: float32 `[L, 6]`: acceleration and rotation rate.
        labels: `[L]`, the activity.
    """

    times: np.ndarray
    values: np.ndarray
    labels: np.ndarray


def convert(archive: str | Path, out: str | Path) -> tuple[int, int]:
    """Reads the archive and writes the table; (rows, executions).

    The columns are `timestamp [ms]`, `subject`, `execution`, `activity`, `caption` and the 12 `CHANNELS`. A row has the
    sample of one device, or of both where their timestamps agree; the other's cells are empty.

    Args:
        archive: `.tar` in any compression, or `.zip`; read in memory.
        out: `.csv` or `.parquet`, there whole or not at all.

    Raises:
        ClipError: no such archive, one without recordings or with only one device of an execution, other columns than
            the data set's, an unknown activity, or another kind of `out`.
    """
    archive, out = Path(archive), Path(out)
    if out.suffix.lower() not in (".csv", ".parquet"):
        raise ClipError(f"{out}: unknown kind of file, expected .csv or .parquet")
    traces: dict[str, dict[str, Trace]] = {}
    turns: dict[str, tuple[str, ...]] = {}
    for name, content in _members(archive):
        match = _FILE.fullmatch(name)
        if match:
            traces.setdefault(match["execution"], {})[match["device"]] = _trace(f"{archive}: {name}", content)
        elif name.rpartition("/")[2] == _INFO:
            turns = _turns(content)
    if not traces:
        raise ClipError(f"{archive}: no file such as s01_01_sp.csv; {WHERE}")
    parts = []
    for execution in sorted(traces):
        missing = [name for device, name in DEVICES.items() if device not in traces[execution]]
        if missing:
            raise ClipError(f"{archive}: {execution} has no file of the {missing[0]}")
        parts.append(join(execution, traces[execution]["sp"], traces[execution]["sw"], turns.get(execution, ())))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    _write(columns, out)
    return len(columns["execution"]), len(parts)


def join(execution: str, phone: Trace, watch: Trace, turns: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The rows of an execution by column, in the order of time; samples with the same timestamp share a row.

    The k-th sample of a device at a timestamp stands in the k-th row of that timestamp. A row has the label of the
    watch's nearest sample: its clock is the steadier one, and the two devices' labels differ for .2 % of the samples.
    """
    keys = [_keys(trace.times) for trace in (phone, watch)]
    rows = np.unique(np.concatenate(keys))
    times = rows // 1000
    values = np.full((len(rows), 12), np.nan, np.float32)
    for first, key, trace in zip((0, 6), keys, (phone, watch), strict=True):
        values[np.searchsorted(rows, key), first : first + 6] = trace.values
    middles = (watch.times[1:] + watch.times[:-1]) / 2
    labels = watch.labels[np.searchsorted(middles, times)]
    columns: dict[str, np.ndarray] = {
        "timestamp [ms]": times,
        "subject": np.full(len(rows), execution.partition("_")[0]),
        "execution": np.full(len(rows), execution),
        "activity": labels,
        "caption": captions(execution, labels, turns),
    }
    return columns | {name: values[:, c] for c, name in enumerate(CHANNELS)}


def captions(execution: str, labels: np.ndarray, turns: Sequence[str] = ()) -> np.ndarray:
    """A sentence for every row `[R]`: one wording for each stretch of a label, drawn by the execution and its number.

    Half of the turns whose side is known (`turns`: `l` or `r`, in their order) say it.
    """
    starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])
    ends = np.r_[starts[1:], len(labels)]
    sides = iter(turns)
    out = np.empty(len(labels), dtype=object)
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        draw = zlib.crc32(f"{execution} {number}".encode())
        wordings = CAPTIONS[str(labels[start])]
        side = SIDES.get(next(sides, "")) if labels[start] == "TURNING" else None
        if side is not None and draw % 2:
            wordings = tuple(text.format(side) for text in TURNS)
        out[start:end] = wordings[draw // 2 % len(wordings)]
    return out


def _keys(times: np.ndarray) -> np.ndarray:
    """Timestamp · 1000 + which of the device's samples with that timestamp it is, int64 `[L]`."""
    return times * 1000 + np.arange(len(times)) - np.searchsorted(times, times)


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in an archive that are of use."""
    if not archive.is_file():
        raise ClipError(f"{archive}: no such file; {WHERE}")

    def wanted(name: str) -> bool:
        return bool(_FILE.fullmatch(name)) or name.rpartition("/")[2] == _INFO

    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                yield from ((name, file.read(name)) for name in file.namelist() if wanted(name))
            return
        with tarfile.open(archive, "r|*") as file:
            for member in file:
                content = file.extractfile(member) if member.isfile() and wanted(member.name) else None
                if content is not None:
                    yield member.name, content.read()
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise ClipError(f"{archive}: can't be read as a .tar or .zip: {error}") from None


def _trace(place: str, content: bytes) -> Trace:
    import pyarrow as pa
    import pyarrow.csv as pc

    try:
        table = pc.read_csv(io.BytesIO(content))
        values = np.stack([table.column(name).to_numpy() for name in FIELDS], axis=1).astype(np.float32)
        times = table.column("timestamp").to_numpy().astype(np.int64)
        labels = np.array(table.column("label").to_pylist(), dtype=object)
    except (pa.ArrowInvalid, KeyError, ValueError, TypeError) as error:
        raise ClipError(f"{place}: expected {', '.join(FIELDS)}, timestamp, label: {error}") from None
    unknown = next((label for label in labels if label not in CAPTIONS), None)
    if len(times) == 0 or unknown is not None:
        raise ClipError(f"{place}: activity '{unknown}', expected one of {', '.join(CAPTIONS)}")
    if (np.diff(times) < 0).any():
        raise ClipError(f"{place}: row {int(np.argmax(np.diff(times) < 0)) + 2} goes back in time")
    return Trace(times, values, labels)


def _turns(content: bytes) -> dict[str, tuple[str, ...]]:
    import pyarrow.csv as pc

    rows = pc.read_csv(io.BytesIO(content)).to_pylist()
    return {str(row["execution_id"]): (str(row["first_turn"]), str(row["second_turn"])) for row in rows}


def _write(columns: Mapping[str, np.ndarray], out: Path) -> None:
    import pyarrow as pa
    import pyarrow.csv as pc
    import pyarrow.parquet as pq

    arrays = {n: pa.array(v, mask=np.isnan(v)) if v.dtype.kind == "f" else pa.array(v) for n, v in columns.items()}
    part = out.with_name(out.name + ".part")
    try:
        if out.suffix.lower() == ".parquet":
            pq.write_table(pa.table(arrays), part, compression="zstd")
        else:
            pc.write_csv(pa.table(arrays), part)
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
