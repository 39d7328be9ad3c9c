"""`counterpoint sensors MODEL`: series of a model trained on own recordings; gaps filled, recordings gone on with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from counterpoint.cli import options
from counterpoint.cli.jobs import check_machine
from counterpoint.cli.models import INDEX, RECORDINGS, shipped
from counterpoint.recipes.settings import SettingsError, nearest

ENSEMBLE = 20  # samples that quantiles are taken of
UNFIT = {
    "--complete": ("--count", "--length", "--seconds", "--ahead"),
    "--forecast": ("--count", "--length"),
    "": ("--ahead", "--ensemble", "--quantiles"),
}


def sensors(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="The folder of `train sensors data=FILE time=COLUMN`, or imu.")
    ],
    prompt: Annotated[
        str | None, typer.Argument(metavar="[PROMPT]", help="A sentence, for a model trained with text=COLUMN.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="csv, parquet or npz; png draws a plot alone.")
    ] = Path("made.csv"),
    count: Annotated[int | None, typer.Option("--count", min=1, help="How many recordings. (default: 1)")] = None,
    length: Annotated[
        int | None, typer.Option("--length", min=1, metavar="STEPS", help="Of any number. (default: as trained)")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=1e-9, help="Instead of --length, or of --ahead.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="COLUMN=CLASS", help="e.g. activity=walk. May be given several times."),
    ] = None,
    static: Annotated[
        list[str] | None,
        typer.Option("--static", metavar="COLUMN=NUMBER", help="e.g. age=40. May be given several times."),
    ] = None,
    guidance: Annotated[
        float, typer.Option("--guidance", min=0.0, metavar="SCALE", help="How closely to follow what is told.")
    ] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed makes the same recordings.")] = 0,
    steps: options.Steps = None,
    complete: Annotated[
        Path | None, typer.Option("--complete", metavar="FILE", help="Fill the empty cells of this table.")
    ] = None,
    forecast: Annotated[
        Path | None, typer.Option("--forecast", metavar="FILE", help="Go on behind the recordings of this table.")
    ] = None,
    ahead: Annotated[
        int | None, typer.Option("--ahead", min=1, metavar="STEPS", help="How far --forecast goes.")
    ] = None,
    ensemble: Annotated[
        int | None,
        typer.Option(
            "--ensemble", min=1, help="Samples of what is filled or foretold. (default: 1, with --quantiles 20)"
        ),
    ] = None,
    quantiles: Annotated[
        str | None, typer.Option("--quantiles", metavar="Q,...", help="Write these of the samples, e.g. 0.05,0.5,0.95.")
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option("--drop", metavar="COLUMN", help="Of the files, to leave out. May be given several times."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option("--against", metavar="FILE", help="Draw the real recordings of this table beside.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="PNG", help="Where to. (default: beside the output)")
    ] = None,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
) -> None:
    """Generate recordings with a model of your own; fill the gaps of a table, or go on behind it."""
    check_machine(device, "auto")
    if complete and forecast:
        raise SettingsError("--complete, --forecast: give one of them")
    asked = {
        "PROMPT": prompt, "--count": count, "--length": length, "--seconds": seconds, "--ahead": ahead,
        "--ensemble": ensemble, "--quantiles": quantiles,
    }  # fmt: skip
    _check_together("--complete" if complete else "--forecast" if forecast else "", asked)
    levels, classes = _levels(quantiles), _pairs("--label", label)
    numbers = {name: _number(name, text) for name, text in _pairs("--static", static).items()}
    folder = find_recordings(model)
    table, picture = _targets(output, plot, against)
    from counterpoint.cli.sensors_made import Request, check_targets, make

    request = Request(
        complete, forecast, prompt, count or 1, ahead or length, seconds, classes, numbers, guidance, seed, steps,
        ensemble or (ENSEMBLE if levels else 1), levels, tuple(drop or ()),
    )  # fmt: skip
    check_targets(folder, request, table, picture, against, overwrite)
    for path in make(folder, request, table, picture, against, device):
        print(path)


def find_recordings(name: str) -> Path:
    """The folder of a model of recordings: shipped, or made by training.

    Raises:
        SettingsError: there is none, or it holds a model of another kind.
    """
    own, folder = {path.name: path for path in shipped(RECORDINGS)}, Path(name)
    places = [own[name]] if name in own else [folder, folder / "model"]
    found = next((place for place in places if (place / RECORDINGS).is_file()), None)
    if found is not None:
        return found
    if (folder / INDEX).is_file() or name in [path.name for path in shipped()]:
        raise SettingsError(f"MODEL {name}: is one of clips; use `counterpoint generate --model {name}`")
    if (folder / "generator.json").is_file():
        raise SettingsError(f"MODEL {name}: is one of a benchmark's windows; train one with data=FILE time=COLUMN")
    if folder.is_dir():
        raise SettingsError(f"MODEL {name}: the folder has no {RECORDINGS}")
    known = nearest(name, own) if own else "; none ships with this copy"
    raise SettingsError(f"MODEL {name}: no such folder, and no shipped model of that name{known}")


def _check_together(mode: str, asked: Mapping[str, Any]) -> None:
    """SettingsError for options that don't go together; `mode` is --complete, --forecast or empty."""
    for option in (option for option in UNFIT[mode] if asked.get(option) is not None):
        why = f"can't go with {mode}" if mode else "is for --complete FILE or --forecast FILE"
        raise SettingsError(f"{option}: {why if option != '--ahead' else 'is for --forecast FILE'}")
    for option in ("--length", "--ahead"):
        if asked.get(option) is not None and asked["--seconds"] is not None:
            raise SettingsError(f"{option}, --seconds: give one of them")
    if mode == "--forecast" and asked["--ahead"] is None and asked["--seconds"] is None:
        raise SettingsError("--forecast: say how far, with --ahead STEPS or --seconds")
    if asked["PROMPT"] is not None and not asked["PROMPT"].strip():
        raise SettingsError("the prompt is empty")


def _pairs(option: str, texts: Sequence[str] | None) -> dict[str, str]:
    """`["activity=walk"]` → {"activity": "walk"}."""
    out: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise SettingsError(f"{option} {text}: expected COLUMN=VALUE")
        if name in out:
            raise SettingsError(f"{option} {text}: {name} is {out[name]} already")
        out[name] = value
    return out


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise SettingsError(f"--static {name}={text}: expected a number")
    return number


def _levels(text: str | None) -> tuple[float, ...]:
    """`"0.05,0.5"` → (0.05, 0.5)."""
    try:
        levels = tuple(float(part) for part in text.split(",")) if text is not None else ()
    except ValueError:
        levels = (0.0,)
    if not all(0 < level < 1 for level in levels) or len(set(levels)) < len(levels):
        raise SettingsError(f"--quantiles {text}: expected different numbers between 0 and 1, e.g. 0.05,0.5,0.95")
    return levels


def _targets(output: Path, plot: Path | None, against: Path | None) -> tuple[Path | None, Path | None]:
    """The table and the picture to write."""
    if output.suffix.lower() == ".png":
        if plot is not None:
            raise SettingsError(f"-o {output}, --plot {plot}: give one picture")
        output, plot, table = Path(), output, None
    else:
        table = output
    if against is None and plot is not None:
        raise SettingsError(f"{plot}: a plot needs the real recordings, with --against FILE")
    return table, plot or (output.with_suffix(".png") if against is not None else None)
