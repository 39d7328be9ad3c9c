"""The six sets of the time-series generation benchmark, as windows in [0, 1].

    windows = load_windows("ETTh1", 24, "ETTh1.csv")    # values [17397, 24, 7]

Sines are generated; the others are read from a file that you have, since the package ships none of it. What is done to
them is what Diffusion-TS does (https://arxiv.org/abs/2403.01742, https://github.com/Y-debug-sys/Diffusion-TS), whose
numbers later papers compare with: every channel is scaled by its smallest and largest value of the whole series, then
all N − L + 1 windows of stride 1 are taken, in the order of time. All of them are trained on and compared with: the
protocol keeps nothing apart.

Where other code differs:
- TimeGAN (https://github.com/jsyoon0823/TimeGAN) turns the file round in time, adds 1e-7 to the range, takes one window
  fewer and shuffles them; its network then scales the windows a second time. The windows are the same but for the
  direction of time and the last one.
- Sines: TimeGAN's paper writes sin(2πηt + θ) with η in [0, 1] and θ in [−π, π]; its code, and Diffusion-TS, compute
  sin(ηt + θ) with both in [0, 0.1]. Published scores are of the code's formula, the default here; with seed 123 the
  windows are those of Diffusion-TS.
- MuJoCo is not cut from one series: 10,000 runs of 24 steps of a hopper, made by Diffusion-TS' generator (seed 123).

Legend: `N` windows, `L` length, `C` channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..modalities.clip import ClipError

COUNT = 10_000  # windows of Sines
SINES_SEED = 123


@dataclass(frozen=True)
class SeriesSet:
    """One set of the benchmark.

    Args:
        name: as papers write it.
        channels: how many.
        file: name of its file, or a pattern of it; empty where the set is generated.
        origin: how to get the file.
        overlapping: whether windows are cut from one series with stride 1 (else each is a run of its own).
    """

    name: str
    channels: int
    file: str
    origin: str
    overlapping: bool = True


SETS: dict[str, SeriesSet] = {
    known.name: known
    for known in (
        SeriesSet("Sines", 5, "", "generated", overlapping=False),
        SeriesSet(
            "Stocks", 6, "stock_data.csv",
            "curl -LO https://raw.githubusercontent.com/jsyoon0823/TimeGAN/master/data/stock_data.csv",
        ),
        SeriesSet(
            "ETTh1", 7, "ETTh1.csv",
            "curl -LO https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/ETTh1.csv",
        ),
        SeriesSet(
            "MuJoCo", 14, "*hopper*.npy",
            "made by Utils/Data_utils/mujoco_dataset.py of https://github.com/Y-debug-sys/Diffusion-TS: "
            "runs [10000, 24, 14], saved with numpy",
            overlapping=False,
        ),
        SeriesSet(
            "Energy", 28, "energy_data.csv",
            "curl -LO https://raw.githubusercontent.com/jsyoon0823/TimeGAN/master/data/energy_data.csv",
        ),
        SeriesSet(
            "fMRI", 50, "sim4.mat", "sim4.mat of NetSim, https://www.fmrib.ox.ac.uk/datasets/netsim/"
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class SeriesWindows:
    """Windows of a set.

    Args:
        name: of the set.
        values: float32 `[N, L, C]` in [0, 1]; a view of the series where windows overlap.
        low, high: smallest and largest value of each channel in its own unit, `[C]`.
        overlapping: whether window i + 1 is window i moved by one step.
    """

    name: str
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    overlapping: bool

    @property
    def length(self) -> int:
        """Steps of a window, `L`."""
        return self.values.shape[1]

    @property
    def channels(self) -> int:
        """Channels of a window, `C`."""
        return self.values.shape[2]

    def __len__(self) -> int:
        return len(self.values)


def find_set(name: str) -> SeriesSet:
    """A set by its name in any case; an unknown one is a ClipError."""
    for known in SETS.values():
        if known.name.lower() == name.lower():
            return known
    raise ClipError(f"set: {name!r} is none of {', '.join(SETS)}")


def load_windows(name: str, length: int, path: str | Path | None = None, seed: int = SINES_SEED) -> SeriesWindows:
    """The windows of a set, scaled to [0, 1].

    Args:
        name: one of `SETS`.
        length: steps of a window; published scores are at 24, 64, 128 and 256.
        path: the set's file, or a folder with it; not needed for Sines.
        seed: of Sines.

    Raises:
        ClipError: an unknown set; no file, or one that does not hold the set; a series shorter than a window.
    """
    known = find_set(name)
    if length < 2:
        raise ClipError(f"length: {length} steps; a window has at least 2")
    if not known.file:
        values = sines(COUNT, length, known.channels, seed)  # in [0, 1] by construction: not scaled again
        ends = np.zeros(known.channels), np.ones(known.channels)
        return SeriesWindows(known.name, values, *ends, overlapping=False)
    if path is None:
        raise ClipError(f"{known.name}: no file given; {_how(known)}")
    file = _find_file(known, Path(path))
    series = _read(known, file)  # [steps, C] or [runs, L, C]
    if series.ndim == 3 and series.shape[1] != length:
        raise ClipError(f"{file}: runs of {series.shape[1]} steps, not of {length}")
    if len(series) < length:
        raise ClipError(f"{file}: {len(series)} steps, fewer than a window's {length}")
    low, high = series.min(axis=(*range(series.ndim - 1),)), series.max(axis=(*range(series.ndim - 1),))
    scaled = min_max(series, low, high).astype(np.float32)
    return SeriesWindows(
        known.name, scaled if series.ndim == 3 else cut(scaled, length), low, high, known.overlapping
    )  # fmt: skip


def min_max(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """`(x − low) / (high − low)` per channel `[…, C]`; a constant channel becomes 0."""
    span = np.where(high > low, high - low, 1.0)
    return (values - low) / span


def cut(series: np.ndarray, length: int) -> np.ndarray:
    """All windows of stride 1 of a series `[steps, C]`: a view `[steps − L + 1, L, C]`."""
    return np.lib.stride_tricks.sliding_window_view(series, length, axis=0).swapaxes(1, 2)


def sines(count: int, length: int, channels: int = 5, seed: int = SINES_SEED, formula: str = "code") -> np.ndarray:
    """Sine waves `[N, L, C]` float32 in [0, 1], each with a frequency and a phase of its own.

    Args:
        formula: `"code"`: sin(ηt + θ), η and θ uniform on [0, 0.1];
            `"paper"`: sin(2πηt + θ), η uniform on [0, 1] and θ on [−π, π].
    """
    if formula not in ("code", "paper"):
        raise ClipError(f"formula: {formula!r} is neither 'code' nor 'paper'")
    draws = np.random.RandomState(seed).uniform(size=(count, channels, 1, 2))  # frequency, phase; the order of the code
    if formula == "code":
        frequency, phase = 0.1 * draws[..., 0], 0.1 * draws[..., 1]
    else:
        frequency, phase = 2 * math.pi * draws[..., 0], math.pi * (2 * draws[..., 1] - 1)
    waves = np.sin(frequency * np.arange(length) + phase)  # [N, C, L]
    return ((waves + 1) / 2).swapaxes(1, 2).astype(np.float32)


def _how(known: SeriesSet) -> str:
    return f"it is {known.file}, from: {known.origin}"


def _find_file(known: SeriesSet, path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise ClipError(f"{path}: no such file; for {known.name}, {_how(known)}")
    found = sorted(path.rglob(known.file))
    if not found:
        raise ClipError(f"{path}: no {known.file} in it; for {known.name}, {_how(known)}")
    return found[0]


def _read(known: SeriesSet, file: Path) -> np.ndarray:
    """The numbers of a file in float64, `[steps, C]` or `[runs, L, C]`."""
    try:
        if file.suffix == ".npy":
            series = np.load(file, allow_pickle=False)
        elif file.suffix == ".mat":
            from scipy.io import loadmat

            series = loadmat(file)["ts"]
        else:
            series = _read_csv(file)
        series = np.asarray(series, np.float64)
    except (OSError, ValueError, KeyError) as error:
        raise ClipError(f"{file}: can't be read as {known.name} ({error}); {_how(known)}") from None
    shape = (known.overlapping and series.ndim == 2) or (not known.overlapping and series.ndim == 3)
    if not shape or series.shape[-1] != known.channels:
        raise ClipError(f"{file}: {list(series.shape)} numbers are not {known.name}, of {known.channels} channels")
    if not np.isfinite(series).all():
        row, column = np.argwhere(~np.isfinite(series))[0][[0, -1]]
        raise ClipError(f"{file}: row {row}, column {column} is not a number; {known.name} has no gaps")
    return series


def _read_csv(file: Path) -> np.ndarray:
    """A table with a header; a first column of dates is left out."""
    with file.open(encoding="utf-8") as lines:
        header = lines.readline().rstrip("\n").split(",")
    first = 1 if header[0].strip().lower() == "date" else 0
    return np.loadtxt(file, delimiter=",", skiprows=1, usecols=range(first, len(header)), ndmin=2)
