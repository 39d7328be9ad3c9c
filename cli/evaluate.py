"""`counterpoint evaluate MODEL`: synchronization, adherence and realism on held-out prompts."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from counterpoint.cli.models import find_model


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A shipped model's name (joint) or a folder.")],
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every number to this file.")
    ] = None,
    prompts: Annotated[int, typer.Option("--prompts", min=2, help="How many held-out prompts.")] = 256,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the held-out clips and of the samples.")] = 0,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="The training arrays, for the memorization check."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", "--force", help="Write over FILE.")] = False,
) -> None:
    """Score a model beside the ceiling (real clips) and chance (mismatched pairs)."""
    name = find_model(model)
    if json_path is not None and json_path.exists() and not overwrite:
        raise FileExistsError(17, "is there already; give --overwrite, or another --json", str(json_path))
    if json_path is not None and not json_path.absolute().parent.is_dir():
        raise FileNotFoundError(2, "its folder is not there", str(json_path))
    if data is not None and not data.is_dir():
        raise FileNotFoundError(2, "No such folder", str(data))
    from counterpoint.recipes import evaluate_joint

    scores = evaluate_joint.evaluate(name, prompts, seed, json_path, data, say=partial(print, file=sys.stderr))
    for key, value in flat(scores):
        print(f"{key}  {value:.4g}" if isinstance(value, float) else f"{key}  {value}")


def flat(scores: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested scores as dotted keys: `("sync.audio-video.generated.f1", 0.8)`."""
    for key, value in scores.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
