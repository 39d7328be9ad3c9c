"""`counterpoint models`: what ships with the package. Reads JSON and the first lines of cards, no weights."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from counterpoint.recipes.settings import SettingsError, nearest

INDEX, RECORDINGS = "model_index.json", "recordings.json"  # of models of clips, and of series


def models() -> None:
    """List the models that ship with the package."""
    from rich.console import Console
    from rich.table import Table

    found = sorted(shipped() + shipped(RECORDINGS))
    if not found:
        print("no model ships with this copy; train one with `counterpoint train joint`")
        return
    table = Table("name", "size", "what", "scores", box=None, header_style="bold")
    for folder in found:
        table.add_row(folder.name, _size(folder), _card(folder), _scores(folder))
    Console(width=None if Console().is_terminal else 200).print(table)


def shipped(index: str = INDEX) -> list[Path]:
    """The folders of the package's models of one kind, by name."""
    root = Path(str(files("counterpoint.weights")))
    return sorted(path.parent for path in root.glob(f"*/{index}"))


def find_model(name: str) -> str:
    """`name` itself, when it is a shipped model or the folder of one.

    Raises:
        SettingsError: neither; names the shipped models.
    """
    names = [folder.name for folder in shipped()]
    if name in names:
        return name
    folder = Path(name)
    if name in [other.name for other in shipped(RECORDINGS)] or (folder / RECORDINGS).is_file():
        raise SettingsError(f"--model {name}: is one of series; use `counterpoint sensors {name}`")
    if folder.is_dir():
        if (folder / INDEX).is_file():
            return name
        raise SettingsError(f"--model {name}: the folder has no {INDEX}")
    known = nearest(name, names) if names else "; none ships with this copy"
    raise SettingsError(f"--model {name}: no such folder, and no shipped model of that name{known}")


def window_of(name: str) -> float | None:
    """Seconds that a model of `find_model` makes at once; None where its index doesn't say."""
    folder = next((folder for folder in shipped() if folder.name == name), Path(name))
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return index.get("defaults", {}).get("seconds")


def _size(folder: Path) -> str:
    return f"{sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 1e6:.0f} MB"


def _card(folder: Path) -> str:
    """The first line of the model's card that is prose."""
    card = folder / "README.md"
    lines = card.read_text(encoding="utf-8").split("---\n")[-1].splitlines() if card.is_file() else []
    return next((line.strip() for line in lines if line.strip() and not line.startswith(("#", "|", "!"))), "")


HEARD = ("tempo", "key", "instrument")  # of a model of music: shares of the prompts that it obeys


def _scores(folder: Path) -> str:
    """F1 of synchronization within 40 ms, adherence of music or worth of series, where the folder keeps its scores."""
    path = folder / "scores.json"
    scores: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    pairs = [
        f"{pair} F1 {by['generated']['f1']:.2f}" for pair, by in scores.get("sync", {}).items() if "generated" in by
    ]
    if "ratio" in scores:
        pairs = [f"a classifier of generated windows: {scores['ratio']:.2f} of one of real ones"]
    obeyed = scores.get("adherence", {}) if not pairs else {}
    return ", ".join(pairs + [f"{name} {obeyed[name]['generated']:.2f}" for name in HEARD if name in obeyed])
