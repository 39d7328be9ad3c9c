"""What `counterpoint sensors` makes: the model is loaded, series are generated, written and drawn.

Legend: `S` samples of an ensemble, `N` windows, `L` steps, `C` channels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.cli.models import RECORDINGS
from counterpoint.data.series_columns import SUFFIXES, TABLES, datelike
from counterpoint.data.series_filled import columns_of, last_stretches, plan_ahead, plan_filled
from counterpoint.data.series_given import GivenTable, Stretch, read_given
from counterpoint.data.series_windows import PURE
from counterpoint.data.series_write import write_columns, write_series
from counterpoint.evaluation.forecast import quantiles
from counterpoint.recipes.settings import SettingsError, nearest


@dataclass(frozen=True)
class Request:
    """What is asked for, as the generator takes it.

    Args:
        length: steps of new windows, or behind the recordings of `forecast`; `seconds`: the same, in seconds.
        levels: the quantiles to write; none: samples.
        drop: columns of files to leave out.
    """

    complete: Path | None = None
    forecast: Path | None = None
    text: str | None = None
    count: int = 1
    length: int | None = None
    seconds: float | None = None
    label: dict[str, str] = field(default_factory=dict)
    static: dict[str, float] = field(default_factory=dict)
    guidance: float = 1.0
    seed: int = 0
    steps: int | None = None
    ensemble: int = 1
    levels: tuple[float, ...] = ()
    drop: tuple[str, ...] = ()

    @property
    def file(self) -> Path | None:
        """The recordings that are given."""
        return self.complete or self.forecast


def check_targets(
    folder: Path, request: Request, table: Path | None, picture: Path | None, against: Path | None, overwrite: bool
) -> None:
    """Whether the files may be written.

    Raises:
        SettingsError: an unknown kind of file, or one that is given.
        FileExistsError: one is there already.
    """
    if table is not None and table.suffix.lower() not in SUFFIXES:
        raise SettingsError(f"{table}: unknown kind of file, expected {', '.join(SUFFIXES)}, or .png for a plot alone")
    if table is not None and table.suffix.lower() not in TABLES and request.levels:
        raise SettingsError(f"{table}: holds no quantiles; use {', '.join(TABLES)}")
    if picture is not None and picture.suffix.lower() != ".png":
        raise SettingsError(f"{picture}: a plot is a .png")
    written = [table] if table is not None else []
    if table is not None and table.suffix.lower() not in TABLES and request.count > 1:
        written.append(table.with_suffix(""))  # a folder of records or logs
    if picture is not None:
        from counterpoint.recipes.draw_series import pages

        written += pages(len(json.loads((folder / RECORDINGS).read_text(encoding="utf-8"))["channels"]), picture)
    for path in written:
        if path.resolve() in {file.resolve() for file in (request.complete, request.forecast, against) if file}:
            raise SettingsError(f"{path}: is given, and would be written over; name another file with -o")
        if path.exists() and not overwrite:
            raise FileExistsError(17, "is there already; give --overwrite, or another -o", str(path))


def make(
    folder: Path, request: Request, table: Path | None, picture: Path | None, against: Path | None, device: str
) -> list[Path]:
    """Loads the model of a folder and makes what is asked for; the files written.

    Raises:
        ClipError: files that don't fit the model; SettingsError: conditions that it doesn't know.
    """
    from rich.console import Console

    with Console(stderr=True).status("loading the model"):
        from counterpoint.diffusion.model_files import choose_device
        from counterpoint.recipes.sensors_own_generator import RecordingGenerator

        generator = RecordingGenerator.from_pretrained(folder)
        generator.transformer.to(choose_device(device))  # pyright: ignore[reportArgumentType]
    _check_told(generator, request)
    real = None if against is None else _read(generator, against, request, finer=True)
    with Console(stderr=True).status("generating"):
        windows, write = _new(generator, request) if request.file is None else _given(generator, request, request.file)
    written = []
    if table is not None:
        table.parent.mkdir(parents=True, exist_ok=True)
        written.append(write(table))
    if picture is not None and real is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        written += _draw(generator, request, real, windows, picture)
    return written


def _check_told(generator: Any, request: Request) -> None:
    """SettingsError for a column that the model doesn't have as this kind of condition, or samples that are too few."""
    told = generator.conditions
    for option, names, known in (("--label", request.label, told.classes), ("--static", request.static, told.statics)):
        for name in names:
            if name not in known:
                hint = nearest(name, known) if known else "; the model has none"
                raise SettingsError(f"{option} {name}: the model knows no such column{hint}")
    told.read(request.label, request.static, 1)
    told.sentences(request.text, 1)
    if request.levels:
        quantiles(np.zeros((request.ensemble, 1)), request.levels)


def _steps(generator: Any, request: Request) -> int | None:
    """--length or --ahead, or --seconds in steps."""
    if request.seconds is None:
        return request.length
    steps = round(request.seconds / generator.facts["step"])
    if steps < 1:
        raise SettingsError(f"--seconds {request.seconds:g}: a step of the model is {generator.facts['step']:g} s")
    return steps


def _new(generator: Any, request: Request) -> tuple[np.ndarray, Callable[[Path], Path]]:
    """New windows `[N, L, C]`, and how to write them."""
    facts, told = generator.facts, {**request.label, **request.static}
    if request.text is not None:
        told[generator.conditions.text] = request.text
    windows = generator.sample(
        request.count, _steps(generator, request), request.label, request.static, request.seed, request.guidance,
        request.steps, text=request.text,
    )  # fmt: skip
    channels, group = generator.scale.channels, facts.get("group") or "window"

    def write(path: Path) -> Path:
        return write_series(
            path, windows, channels, facts["step"], facts["time"], dates=facts["dates"], group=group, told=told
        )

    return windows, write


def _given(generator: Any, request: Request, file: Path) -> tuple[np.ndarray, Callable[[Path], Path]]:
    """What is filled, or comes behind, as windows `[N, L, C]`, and how to write it."""
    table, ahead = _read(generator, file, request), None
    if request.forecast is not None:
        ahead = _steps(generator, request)
    stretches = table.stretches if ahead is None else last_stretches(table)
    plans = plan_filled(table) if ahead is None else plan_ahead(table, ahead)
    samples = _samples(generator, request, stretches, ahead)
    levels = list(request.levels)
    shown = [quantiles(own, levels).astype(np.float32) for own in samples] if levels else samples
    longest = max(own.shape[1] for own in samples)
    fill = [np.pad(own, ((0, 0), (0, longest - own.shape[1]), (0, 0)), constant_values=np.nan) for own in samples]

    def write(path: Path) -> Path:
        if path.suffix.lower() in TABLES:
            return write_columns(path, columns_of(table, plans, shown, levels or None))
        windows = np.stack(fill, axis=1)  # [S, N, L, C]
        begin = [table.clock.origin + own.start + (own.step * len(own.values) if ahead else 0) for own in stretches]
        told = {c.header: [str(c.values[own.rows[0]]) for own in stretches] for c in table.columns}
        channels, step = generator.scale.channels, generator.facts["step"]
        dates = table.clock.dates or datelike(table.clock)
        return write_series(
            path, windows if len(windows) > 1 else windows[0], channels, step, start=begin, dates=dates, told=told
        )

    return np.concatenate(fill), write


def _samples(generator: Any, request: Request, stretches: Sequence[Stretch], ahead: int | None) -> list[np.ndarray]:
    """`[S, L or ahead, C]` of each stretch. Those of one length are generated together, with a seed of their own."""
    context = 2 * generator.facts["length"]  # what a window that slides by half its length can see, and more
    values = [own.values if ahead is None else own.values[-context:] for own in stretches]
    told = [_told(generator, request, own) for own in stretches]
    out: dict[int, np.ndarray] = {}
    for length in dict.fromkeys(len(own) for own in values):
        rows = [i for i, own in enumerate(values) if len(own) == length]
        own = [told[i] for i in rows]
        options = {
            "label": {name: [label[name] for label, _, _ in own] for name in generator.conditions.classes},
            "static": {name: [static[name] for _, static, _ in own] for name in generator.conditions.statics},
            "text": [text for _, _, text in own] if generator.conditions.text else None,
            "seed": int(np.random.SeedSequence((request.seed, length)).generate_state(1)[0]),
            "ensemble": request.ensemble, "guidance": request.guidance, "steps": request.steps,
        }  # fmt: skip
        given = np.stack([values[i] for i in rows])
        made = generator.complete(given, **options) if ahead is None else generator.forecast(given, ahead, **options)
        out |= {row: made[:, place] for place, row in enumerate(rows)}
    return [out[i] for i in range(len(values))]


def _told(generator: Any, request: Request, own: Stretch) -> tuple[dict[str, str | None], dict[str, float], str | None]:
    """Classes, numbers and sentence of a stretch: those of the file, unless options say others."""
    conditions = generator.conditions
    said = [_most(own.labels[:, i]) for i in range(own.labels.shape[1])]
    label = {**dict(zip(conditions.classes, said, strict=False)), **request.label}
    static = {**dict(zip(conditions.statics, own.static.tolist(), strict=True)), **request.static}
    return label, static, request.text or (said[-1] if conditions.text else None)


def _most(names: np.ndarray) -> str | None:
    """What at least 90 % of the rows that say something say, as in training."""
    told = names[names != ""]
    found, counts = np.unique(told.astype(str), return_counts=True)
    return str(found[counts.argmax()]) if len(found) and counts.max() >= PURE * len(told) else None


def _read(generator: Any, path: Path, request: Request, finer: bool = False) -> GivenTable:
    """A table on the model's grid, with its conditions as far as it has them; `finer`: as training reads it."""
    facts, told = generator.facts, generator.conditions
    return read_given(
        path, generator.scale.channels, facts["step"], facts["time"], facts.get("group", ""),
        [*told.classes, *([told.text] if told.text else [])], told.statics, request.drop, facts.get("drop", ()),
        facts["length"], finer,
    )  # fmt: skip


def _draw(generator: Any, request: Request, real: GivenTable, windows: np.ndarray, picture: Path) -> list[Path]:
    """The plot; of the real recordings, those that are labelled as the generated ones."""
    from counterpoint.recipes.draw_series import draw
    from counterpoint.recipes.draw_series_files import LONGEST, cut

    names = [*generator.conditions.classes]
    has = {own.name for own in real.columns}
    classes = {names.index(name): told for name, told in request.label.items() if name in has}
    own = cut(real.stretches, min(LONGEST, windows.shape[1]), classes)
    if len(own) == 0:
        told = ", ".join(f"{name}={value}" for name, value in request.label.items())
        raise SettingsError(f"--against {real.path}: no recording of {told}")
    return draw(own, windows, generator.scale.channels, generator.facts["step"], picture)
