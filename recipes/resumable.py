"""Results on disk, so that an evaluation that was cut off goes on where it stood; and the command line of those."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from counterpoint.diffusion.pipeline import model_folder, weights_folder
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes.evaluate_joint import rounded

Arrays = dict[str, np.ndarray]
Say = Callable[[str], None]


class Store:
    """Arrays by name in a folder; what is there already isn't made again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def arrays(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """The arrays of that name, made and written (whole or not at all) where they are missing."""
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            partial = path.with_name(path.name + ".part")
            save_file({key: np.ascontiguousarray(value) for key, value in make().items()}, partial)
            os.replace(partial, path)
        return load_file(path)


def begin(model: str | Path, json_path: Path, work: Path, **facts: Any) -> tuple[dict[str, Any], Store]:
    """The scores that `json_path` holds already, and the store of this run.

    Args:
        model: a shipped name or a folder.
        json_path: where the scores go; what it holds of the same run is kept.
        work: where intermediate results go, in a folder of their own for each run.
        facts: what decides the numbers besides the model: prompts, seed, settings.

    Raises:
        ClipError: the file holds scores of another model or of other settings.
    """
    facts = rounded(
        {"model": str(model), "weights": fingerprint(model_folder(model), weights_folder() / "judges"), **facts}
    )
    facts = json.loads(json.dumps(facts))
    scores = json.loads(json_path.read_text(encoding="utf-8")) if json_path.exists() else {}
    for key, value in facts.items():
        if scores and scores.get(key) != value:
            raise ClipError(f"{json_path}: {key} is {scores.get(key)!r} there and {value!r} here; name another file")
    return {**facts, **scores}, store_of(work, json_path.stem, facts)


def store_of(work: Path, name: str, facts: Mapping[str, Any]) -> Store:
    """A store that is found again where name and facts are the same."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
    return Store(work / f"{name}-{digest}")


def fingerprint(*folders: Path) -> str:
    """Of all weights in some folders, 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for root in folders:
        for path in sorted(root.rglob("*.safetensors")):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def parser(document: str, prompts: int) -> argparse.ArgumentParser:
    """The command line of an evaluation: `MODEL OUT.json`, or `table OUT.json`, and the options that all have."""
    made = argparse.ArgumentParser(description=document.splitlines()[0])
    made.add_argument(
        "model", metavar="MODEL", help="a shipped name or a folder; `table` prints the scores as Markdown"
    )
    made.add_argument("json_path", metavar="OUT.json", type=Path, help="scores; a run that was cut off goes on")
    made.add_argument("--prompts", type=int, default=prompts, help="held-out clips (default: %(default)s)")
    made.add_argument("--seed", type=int, default=0, help="of the held-out clips and of the noise")
    made.add_argument("--work", type=Path, default=Path("runs/evaluation"), help="intermediate results")
    made.add_argument("--workers", type=int, default=2, help="processes that make held-out clips")
    return made


def run(
    arguments: Sequence[str],
    options: argparse.ArgumentParser,
    evaluate: Callable[..., Any],
    table: Callable[[Mapping[str, Any]], str],
) -> None:
    """What `options` of `parser` ask for: the evaluation unless only its table is wanted, then the table."""
    told = vars(options.parse_args(arguments))
    if told["model"] != "table":
        evaluate(**told)
    print(table(json.loads(told["json_path"].read_text(encoding="utf-8"))))


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start
