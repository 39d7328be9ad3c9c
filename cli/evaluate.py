"""`counterpoint evaluate MODEL`: synchronization, adherence and realism on held-out prompts.

`counterpoint evaluate sensors --set SET` scores generated series on the field's benchmark,
`counterpoint evaluate imu --data TABLE` what the windows of a model of recordings are worth to a classifier.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from counterpoint.cli import options
from counterpoint.cli.guides import guidance_of, parse_guides
from counterpoint.cli.jobs import parse_guidance
from counterpoint.cli.models import RECORDINGS, find_model, shipped


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A shipped model's name (joint, music, imu) or a folder; or sensors.")
    ],
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every number to this file.")
    ] = None,
    prompts: Annotated[int, typer.Option("--prompts", min=2, help="How many held-out prompts.")] = 256,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the held-out clips and of the samples.")] = 0,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="The training arrays, for the memorization check; sensors: the set's file; imu: the training table.",
        ),
    ] = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    obey: options.Obey = None,
    guide: options.Guide = None,
    best_of: options.BestOf = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", "--force", help="Write over FILE.")] = False,
    series: Annotated[
        str | None, typer.Option("--set", metavar="SET", help="sensors: Sines, Stocks, ETTh1, MuJoCo, Energy or fMRI.")
    ] = None,
    length: Annotated[int, typer.Option("--length", min=2, help="sensors: steps of a window.")] = 24,
    generator: Annotated[
        Path | None, typer.Option("--generator", metavar="DIR", help="sensors: a model trained on the set.")
    ] = None,
    windows: Annotated[
        Path | None, typer.Option("--windows", metavar="NPY", help="sensors: windows made by another program.")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option("--work", metavar="DIR", help="sensors: keep samples and scores there; the same command goes on."),
    ] = None,
    test: Annotated[
        Path | None, typer.Option("--test", metavar="TABLE", help="imu: people to test on, instead of those held out.")
    ] = None,
) -> None:
    """Score a model beside the ceiling (real clips) and chance (mismatched pairs), or series beside their floor."""
    sampling = {
        "--steps": steps, "--guidance": guidance, "--guide": guide, "--obey": obey, "--best-of": best_of
    }  # fmt: skip
    if model == "sensors":
        for option in (option for option, value in sampling.items() if value is not None):
            raise typer.BadParameter("is not for sensors", param_hint=option)
        _sensors(series, length, data, generator, windows, seed, json_path, overwrite, work)
        return
    for option, value in (("--set", series), ("--work", work)):
        if value is not None:
            raise typer.BadParameter("is for `counterpoint evaluate sensors`", param_hint=option)
    own = {path.name: path for path in shipped(RECORDINGS)}.get(model, Path(model))
    if (own / RECORDINGS).is_file():
        for option in (option for option, value in sampling.items() if value is not None):
            raise typer.BadParameter("is not for series", param_hint=option)
        _recordings(own, data, test, json_path, overwrite)
        return
    if test is not None:
        raise typer.BadParameter("is for models of recordings, such as imu", param_hint="--test")
    scale = None if guidance is None else parse_guidance(guidance)
    specs = parse_guides(guide or ())
    name = find_model(model)
    recipe, tries = recipe_of(name), {} if best_of is None else {"best_of": best_of}
    if tries and recipe.__name__.endswith("evaluate_music"):
        raise typer.BadParameter("is not for music: it has one track alone", param_hint="--best-of")
    _check_new(json_path, overwrite)
    if data is not None and not data.is_dir():
        raise FileNotFoundError(2, "No such folder", str(data))
    evaluated: Any = name
    guides: Any = scale
    if specs:
        from counterpoint.diffusion.pipeline import CounterpointPipeline

        evaluated = CounterpointPipeline.from_pretrained(name)
        guides = guidance_of(specs, scale, None, None, evaluated)[0]["guidance"]
    say = partial(print, file=sys.stderr)
    scores = recipe.evaluate(
        evaluated, prompts, seed, json_path, data, say=say, guidance=guides, steps=steps, obey=obey, **tries
    )
    _print(scores)


def _recordings(folder: Path, data: Path | None, test: Path | None, json_path: Path | None, overwrite: bool) -> None:
    """What generated windows are worth to a classifier."""
    if data is None:
        raise typer.BadParameter("name the table that the model was trained on", param_hint="--data")
    _check_new(json_path, overwrite)
    from counterpoint.recipes import evaluate_imu

    _print(evaluate_imu.evaluate(folder, data, json_path, test))


def _check_new(json_path: Path | None, overwrite: bool) -> None:
    """Whether the file of scores may be written."""
    if json_path is not None and json_path.exists() and not overwrite:
        raise FileExistsError(17, "is there already; give --overwrite, or another --json", str(json_path))
    if json_path is not None and not json_path.absolute().parent.is_dir():
        raise FileNotFoundError(2, "its folder is not there", str(json_path))


def _sensors(
    series: str | None,
    length: int,
    data: Path | None,
    generator: Path | None,
    windows: Path | None,
    seed: int,
    json_path: Path | None,
    overwrite: bool,
    work: Path | None,
) -> None:
    """The benchmark of series; scores of other sets in the file stay."""
    if series is None:
        raise typer.BadParameter("say which set: Sines, Stocks, ETTh1, MuJoCo, Energy or fMRI", param_hint="--set")
    if json_path is not None and not json_path.absolute().parent.is_dir():
        raise FileNotFoundError(2, "its folder is not there", str(json_path))
    for path in (data, generator, windows):
        if path is not None and not path.exists():
            raise FileNotFoundError(2, "No such file or folder", str(path))
    from counterpoint.data.series import find_set
    from counterpoint.recipes import evaluate_sensors

    name = find_set(series).name
    if json_path is not None and not overwrite and str(length) in evaluate_sensors.read_scores(json_path).get(name, {}):
        raise FileExistsError(17, f"holds {name}.{length} already; give --overwrite", str(json_path))
    say = partial(print, file=sys.stderr)
    scores = evaluate_sensors.evaluate(name, length, data, generator, windows, seed, json_path, say=say, work=work)
    _print(scores)


def _print(scores: Mapping[str, Any]) -> None:
    for key, value in flat(scores):
        print(f"{key}  {value:.4g}" if isinstance(value, float) else f"{key}  {value}")


def recipe_of(model: str) -> ModuleType:
    """The evaluation recipe of a model: that of music if it generates sound alone, else the joint one."""
    from counterpoint.diffusion.pipeline import model_folder

    path = model_folder(model) / "transformer" / "config.json"
    modalities = json.loads(path.read_text(encoding="utf-8"))["modalities"] if path.is_file() else []
    alone = [one["name"] for one in modalities] == ["audio"]
    return import_module(f"counterpoint.recipes.{'evaluate_music' if alone else 'evaluate_joint'}")


def flat(scores: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested scores as dotted keys: `("sync.audio-video.generated.f1", 0.8)`."""
    for key, value in scores.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
