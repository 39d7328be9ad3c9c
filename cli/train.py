"""`counterpoint train RECIPE key=value …`: a preset, changed by key=value, trained in a run folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from counterpoint.recipes.settings import SettingsError, flatten, nearest, override

RECIPES = {
    "joint": "the model: text to video, sound and sensors",
    "codecs": "all codecs of a data set, one after the other",
    "video_codec": "video to latents and back",
    "video_refiner": "better latents for a video codec, by learned descent",
    "video_decoder": "a better decoder for the latents that a model learned",
    "audio_codec": "mel spectrograms to latents and back",
    "vocoder": "mel spectrograms to sound",
    "classifier": "reads attributes from noised latents, for classifier guidance",
    "sensors": "sensor windows of the field's benchmark, or of your own table (docs/sensors.md)",
    "judges": "classifiers that read attributes from each track, for `evaluate`",
    "text_to_music": "the model: text to music (or `music`)",
    "music_judge": "a classifier that hears instruments, mode and dynamics, for `evaluate`",
}
ALIASES = {"music": "text_to_music"}
PRESETS = ("tiny", "small", "base")
RESERVED = ("preset", "data", "run")


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="; ".join(f"{k}: {v}" for k, v in RECIPES.items()))],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE...",
            help="preset=tiny|small|base (small), data=FOLDER (runs/data), run=FOLDER (runs/RECIPE-PRESET), and any of "
            "the recipe's settings: see --dry-run.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show settings, size and data; train nothing.")] = False,
) -> None:
    """Train a model or one of its parts. The same command goes on where it stopped."""
    recipe = ALIASES.get(recipe, recipe)
    module = _recipe(recipe)
    chosen, changes = _split(settings or [])
    preset, presets = chosen.get("preset", "small"), presets_of(module)
    if preset not in presets:
        raise SettingsError(f"preset={preset}: no such preset{nearest(preset, presets)}")
    resolved = override(presets[preset](), changes)
    data, run = Path(chosen.get("data", "runs/data")), Path(chosen.get("run", f"runs/{recipe}-{preset}"))
    if dry_run:
        _show(module, resolved, data, run)
        return
    if not data.is_dir() and getattr(module, "ARRAYS", True):
        raise FileNotFoundError(
            2, f"no such folder; make it with `counterpoint data physics {data} --clips 4000`", str(data)
        )
    print(f"{recipe}, preset {preset}: {data} → {run}", file=sys.stderr)
    print(module.train(resolved, data, run))


def presets_of(module: Any) -> dict[str, Callable[[], Any]]:
    """The recipe's presets by name: its functions `tiny`, `small` and `base`, each of which returns its settings."""
    return {name: getattr(module, name) for name in PRESETS if hasattr(module, name)}


def _recipe(name: str) -> Any:
    if name not in RECIPES:
        raise SettingsError(f"unknown recipe '{name}'{nearest(name, RECIPES)}")
    return import_module(f"counterpoint.recipes.{name}")


def _split(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """preset=, data= and run= apart from the recipe's own settings."""
    chosen = dict(a.split("=", 1) for a in arguments if a.split("=", 1)[0] in RESERVED and "=" in a)
    return chosen, [a for a in arguments if a.split("=", 1)[0] not in RESERVED or "=" not in a]


def _show(module: Any, settings: Any, data: Path, run: Path) -> None:
    """What training would use."""
    for key, value in flatten(settings).items():
        print(f"{key}={_text(value)}")
    if hasattr(module, "parameters"):
        print(f"parameters: {module.parameters(settings):,}")
    missing = not data.is_dir() and getattr(module, "ARRAYS", True)
    print(f"data: {data}" + (f": not there; `counterpoint data physics {data}` makes it" if missing else ""))
    for path in sorted(data.iterdir()) if data.is_dir() else []:
        print(f"  {path.name}  {_describe(path)}")
    print(f"run: {run}" + (" (there already: training would go on)" if run.is_dir() else ""))


def _text(value: Any) -> str:
    """A value as `key=value` takes it."""
    if isinstance(value, tuple | list):
        return ",".join(str(item) for item in value)
    if isinstance(value, dict):
        return ",".join(f"{key}:{item}" for key, item in value.items())
    return str(value)


def _describe(path: Path) -> str:
    """Shape and type of an array, number of records of a list, else the size."""
    if path.suffix == ".npy":
        import numpy as np

        array = np.load(path, mmap_mode="r")
        return f"{array.dtype} {list(array.shape)}"
    if path.suffix == ".json":
        records = json.loads(path.read_text(encoding="utf-8"))
        return f"{len(records)} records" if isinstance(records, list) else f"{len(records)} keys"
    return f"{path.stat().st_size / 1e6:.1f} MB" if path.is_file() else "folder"
