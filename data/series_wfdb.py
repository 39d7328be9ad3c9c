"""WFDB records (PhysioNet) in and out, through the package `wfdb`: `rec.hea` and the signal files it names.

    table = read_series("100.hea", label=["atr.rhythm"])    # names, units and rates from the header
    table = read_series("mitdb", static=["age"])             # a folder: every record is a group

Signals with several samples a frame are channels of a higher rate, on timestamps of their own. Samples marked invalid
are missing. Times count from 1970 where the header has a date, from midnight where it has only a time, else from 0.

Counts only where it is named (`label=`, `static=`, `group=`):
- an annotation file beside the record by its extension; each annotation holds until the next one. `atr`: the symbols,
  but for rhythm changes; `atr.rhythm`: the notes of rhythm changes, `AFIB`; `atr.note`: the notes of the others.
- a comment of the header, `# age: 65`.

Where the package is left aside: it reads headers as ASCII, which turns `µV` into `V`; names and units are read here.
The format: https://wfdb.io/spec/header-files.html. Legend: `R` rows, `L` steps, `C` channels.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..modalities.clip import ClipError
from .series_columns import Clock, Column, Log, first_line, required, stack_logs

if TYPE_CHECKING:
    from .series_table import Channel

MIDNIGHT = 86_400.0
ASCII = str.maketrans({"²": "^2", "³": "^3", "µ": "u", "μ": "u", "°": "deg", "Ω": "Ohm", "·": "-", "*": "-", " ": "_"})


def read_wfdb(path: Path, named: Sequence[str] = ()) -> list[Column]:
    """The clock, the record's name and the signals of a record, or of all records of a folder.

    Args:
        path: `.hea`, or a folder: the records that its file RECORDS lists, else all that have a header.
        named: labels that are asked for, which may be annotation files.

    Raises:
        ClipError: the package is missing; a record that can't be read, names the record's header.
    """
    wfdb = required(path, "wfdb", "reading WFDB", "wfdb", "counterpoint[wfdb]")
    root, names = (path, _records(path)) if path.is_dir() else (path.parent, [path.stem])
    if not names:
        raise ClipError(f"{path}: RECORDS lists no record")
    logs, rates, dated = [], set(), True
    for name in names:
        header = root / f"{name}.hea"
        try:
            log, rate, date = _read(wfdb, header, name, named)
        except ClipError:
            raise
        except Exception as error:  # wfdb raises whatever comes, bare Exceptions too
            raise ClipError(f"{header}: can't be read as a WFDB record: {first_line(error)}") from None
        logs.append(log)
        rates.add(rate)
        dated &= date
    step = 1 / rates.pop() if len(rates) == 1 else None
    times = np.concatenate([log.times for log in logs])
    return stack_logs(path, logs, Clock("time [s]", times, "extra", step=step, dates=dated), "record")


def write_wfdb(
    folder: Path, name: str, window: np.ndarray, channels: Sequence[Channel], step: float, start: float, dates: bool,
    told: Mapping[str, str],
) -> list[str]:  # fmt: skip
    """Writes one record of 32-bit samples; values keep 30 bits below the channel's largest.

    Args:
        folder, name: where, and the record's name.
        window: `[L, C]` in the channels' units, NaN where there is no sample.
        channels: names and units; one with samples only in every k-th step gets fewer samples a frame.
        step: seconds.
        start: seconds of the first step, written as time of day, or with the date if `dates` or beyond a day.
        told: comments of the header, `{name: value}`.

    Returns:
        The names of the files, the header last.

    Raises:
        ClipError: the package is missing; a name, a step or a start that WFDB can't hold.
    """
    wfdb = required(Path(f"{name}.hea"), "wfdb", "writing WFDB", "wfdb", "counterpoint[wfdb]")
    frame, every = _frame(window, channels)
    rate = 1 / (step * frame)
    if re.fullmatch(r"[-\w]+", name, re.ASCII) is None:
        raise ClipError(f"{name}.hea: a WFDB record's name has only letters, digits, - and _")
    if "e" in repr(rate):
        raise ClipError(f"{name}.hea: WFDB counts frames a second, and has none for {step * frame:g} seconds; use .csv")
    wrong = next((key for key in told if not key or ":" in key), None)
    if wrong is not None:
        raise ClipError(f"{name}.hea: told: '{wrong}' is no name of a comment, expected one without ':'")
    frames = -(-len(window) // frame)
    padded = np.pad(window.astype(np.float64), ((0, frames * frame - len(window)), (0, 0)), constant_values=np.nan)
    signals = [padded[::k, c].copy() for c, k in enumerate(every)]
    names, units = _ascii(channels)
    comments = [f"{key}: {' '.join(value.split())}" for key, value in told.items()]
    if [_header(*pair) for pair in zip(names, units, strict=True)] != [c.header for c in channels]:
        comments.append(f"channels: {json.dumps([c.header for c in channels])}")
    wfdb.wrsamp(
        name, rate, units, names, e_p_signal=signals, samps_per_frame=[frame // k for k in every],
        fmt=["32"] * len(channels), adc_gain=[_gain(own) for own in signals], baseline=[0] * len(channels),
        comments=comments, write_dir=str(folder), **_clock(name, start, dates),
    )  # fmt: skip
    return [f"{name}.dat", f"{name}.hea"]


def _read(wfdb: Any, header: Path, group: str, named: Sequence[str]) -> tuple[Log, float, bool]:
    """A record, the rate of its fastest signal, and whether it has a date."""
    if not header.is_file():
        raise ClipError(f"{header}: no such file, though RECORDS lists it")
    lines, facts = _text(header)
    if not lines or lines[0].split()[1:2] == ["0"]:
        raise ClipError(f"{header}: has no signals")
    record = wfdb.rdrecord(str(header.with_suffix("")), smooth_frames=False)
    per = list(record.samps_per_frame)  # samples a frame of every signal
    most = math.lcm(*per)  # ticks of a frame
    ticks = {p: np.arange(record.sig_len * p) * (most // p) for p in set(per)}
    rows = np.unique(np.concatenate(list(ticks.values())))
    signals = {}
    for name, p, samples in zip(_headers(record, lines, facts), per, record.e_p_signal, strict=True):
        signals[name] = np.full(len(rows), np.nan)
        signals[name][np.searchsorted(rows, ticks[p])] = samples
    passed = rows / (record.fs * most)
    extras = _annotations(wfdb, header, record.fs, passed, named)
    start, dated = _start(record)
    return Log(group, start + passed, signals, extras, facts), record.fs * max(per), dated


def _records(folder: Path) -> list[str]:
    """Names of a folder's records: those in RECORDS, where a line `p00/` is a folder; else all but segments."""
    listed = folder / "RECORDS"
    if listed.is_file():
        lines = [line.strip() for line in listed.read_text(encoding="utf-8", errors="replace").splitlines()]
        below = (_below(folder, line) if line.endswith("/") else [line] for line in lines if line)
        return [name for names in below for name in names]
    headers = sorted(folder.glob("*.hea"))
    segments = set()
    for first, *others in (_text(header)[0] or [""] for header in headers):
        if _is_multi(first):
            segments |= {line.split()[0] for line in others}
    return [header.stem for header in headers if header.stem not in segments]


def _below(folder: Path, line: str) -> list[str]:
    return [f"{line}{name}" for name in _records(folder / line)]


def _text(header: Path) -> tuple[list[str], dict[str, str]]:
    """The lines of a header, and its comments `name: value`."""
    content = header.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    pairs = [line.lstrip("# \t").partition(":") for line in lines if line.startswith("#")]
    facts = {name.strip(): value.strip() for name, colon, value in pairs if colon and name.strip()}
    return [line for line in lines if not line.startswith("#")], facts


def _is_multi(first: str) -> bool:
    return "/" in (first.split() or [""])[0]


def _headers(record: Any, lines: Sequence[str], facts: dict[str, str]) -> list[str]:
    """`name [unit]` of every signal; those that `write_wfdb` kept in a comment where ASCII couldn't."""
    try:
        exact = json.loads(facts["channels"])
        if isinstance(exact, list) and len(exact) == record.n_sig and all(isinstance(name, str) for name in exact):
            del facts["channels"]
            return exact
    except (KeyError, ValueError):
        pass  # no such comment, or one of somebody else's
    if _is_multi(lines[0]):
        units = getattr(record, "units", None) or [""] * record.n_sig
        pairs = list(zip(record.sig_name, units, strict=True))
    else:  # file format gain(baseline)/unit resolution zero first checksum block name
        fields = [line.split(maxsplit=8) for line in lines[1 : record.n_sig + 1]]
        pairs = [(f[8] if len(f) > 8 else "", (f[2:3] or [""])[0].partition("/")[2] or "mV") for f in fields]
    out, used = [], set()
    for number, (name, unit) in enumerate(pairs):
        own = name or f"signal{number}"
        own = own if own not in used else next(n for k in range(2, 10**6) if (n := f"{own}_{k}") not in used)
        used.add(own)
        out.append(_header(own, unit or ""))
    return out


def _header(name: str, unit: str) -> str:
    return name if unit in ("", "NU") else f"{name} [{unit}]"  # NU: no units


def _start(record: Any) -> tuple[float, bool]:
    """Seconds of the first sample, and whether since 1970."""
    time = record.base_time or datetime.min.time()
    if record.base_date is not None:
        return datetime.combine(record.base_date, time, UTC).timestamp(), True
    return (datetime.combine(datetime.min, time) - datetime.min).total_seconds(), False


def _annotations(
    wfdb: Any, header: Path, rate: float, passed: np.ndarray, named: Sequence[str]
) -> dict[str, np.ndarray]:
    """Text per row `[R]` of the annotation files asked for and there; `passed`: seconds since the start."""
    out = {}
    for name in named:
        extension, _, kind = name.partition(".")
        file = header.with_name(f"{header.stem}.{extension}")
        if not extension.isalnum() or extension in ("hea", "dat") or not file.is_file():
            continue
        try:
            found = wfdb.rdann(str(header.with_suffix("")), extension)
        except Exception as error:
            raise ClipError(f"{file}: can't be read as WFDB annotations: {first_line(error)}") from None
        notes = [(note or "").strip("\0 ()") for note in (found.aux_note or [""] * len(found.symbol))]
        rhythm = np.array([symbol == "+" for symbol in found.symbol], bool)
        kept = {"": ~rhythm, "rhythm": rhythm, "note": ~rhythm & np.array([note != "" for note in notes], bool)}
        if kind in kept:
            texts = np.array([None, *(notes if kind else found.symbol)], dtype=object)  # None before the first
            own = np.flatnonzero(kept[kind])
            times = found.sample[own] / (found.fs or rate)
            out[name] = texts[np.concatenate([[0], own + 1])[np.searchsorted(times, passed + 1e-9, side="right")]]
    return out


def _frame(window: np.ndarray, channels: Sequence[Channel]) -> tuple[int, list[int]]:
    """Steps of a frame, and steps from one sample to the next of every channel."""
    steps = np.arange(len(window))
    slow = [k.every > 1 and bool(np.isnan(window[steps % k.every > 0, c]).all()) for c, k in enumerate(channels)]
    every = [channel.every if own else 1 for channel, own in zip(channels, slow, strict=True)]
    frame = math.lcm(*every)
    return (frame, every) if frame <= len(window) else (1, [1] * len(channels))


def _gain(values: np.ndarray) -> float:
    """Steps of the 32-bit numbers in a unit: the power of two that leaves the largest below 2^30."""
    top = float(np.nanmax(np.abs(values), initial=0.0))
    return 2.0 ** (30 - math.frexp(top)[1]) if top > 0 else 1.0


def _ascii(channels: Sequence[Channel]) -> tuple[list[str], list[str]]:
    """Names, each once, and units as every WFDB program reads them: `m/s^2` for `m/s²`, `NU` for none."""
    names: list[str] = []
    for number, channel in enumerate(channels):
        plain = re.sub(r"[^ -~]", "?", channel.name.translate(ASCII)).strip() or f"signal{number}"
        names.append(plain if plain not in names else f"{plain}_{number}")
    units = [re.sub(r"[^\w^?%/-]", "?", c.unit.translate(ASCII), flags=re.ASCII) or "NU" for c in channels]
    return names, units


def _clock(name: str, start: float, dates: bool) -> dict[str, Any]:
    if not dates and 0 <= start < MIDNIGHT:
        return {"base_time": (datetime.min + timedelta(seconds=start)).time()}
    try:
        return {"base_datetime": datetime(1970, 1, 1) + timedelta(seconds=start)}
    except OverflowError:
        raise ClipError(f"{name}.hea: start={start:g} is no date, expected seconds since 1970") from None
