"""Score generated series on the field's benchmark: Context-FID, discriminative, correlational, predictive.

    counterpoint evaluate sensors --set ETTh1 --length 24 --data ETTh1.csv --generator runs/sensors-etth1-24/model \\
        --json docs/scores/sensors.json

Every score stands beside its floor (real windows drawn anew), and beside all of them a search for copies of the
training windows. Scores are merged into the file under `<set>.<length>`. With `--work FOLDER`, samples and scores are
kept as they are made, and the same command goes on where it was stopped. `docs/sensors.md` says what is measured.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from counterpoint.data.series import SINES_SEED, SeriesWindows, load_windows
from counterpoint.diffusion.pipeline import choose_device, fast_bf16
from counterpoint.evaluation.sensors import SCORES, Effort, copies, evaluate_windows
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes.evaluate_joint import commit, rounded
from counterpoint.recipes.resumable import Arrays, fingerprint, store_of
from counterpoint.recipes.sensors_generator import SeriesGenerator

BLOCK = 20  # batches of samples that are kept together


def evaluate(
    name: str,
    length: int,
    data: Path | None = None,
    generator: Path | None = None,
    windows: Path | None = None,
    seed: int = 0,
    json_path: Path | None = None,
    scores: tuple[str, ...] = SCORES,
    effort: Effort | None = None,
    say: Callable[[str], None] = print,
    work: Path | None = None,
) -> dict[str, Any]:
    """The scores of one set and length, also merged into `json_path`.

    Args:
        name, length, data: as for `load_windows`.
        generator: folder of a model of the recipe `sensors`; as many windows are sampled as there are real ones.
        windows: instead, windows made by any other program: a `.npy` file `[M, L, C]` in [0, 1], M ≥ N.
        seed: of the samples and of every draw of the judges.
        json_path: written whole or not at all; what it holds of other sets, lengths and scores stays.
        scores: which to compute.
        effort: None for the published one.
        say: called with a line at each stage.
        work: where samples and scores are kept, in a folder of their own for each model, set, length and seed: the
            same call goes on with what is missing there. None: nothing is kept.

    Raises:
        ClipError: no or both of `generator` and `windows`, or one that is not of this set and length.
    """
    if (generator is None) == (windows is None):
        raise ClipError("evaluate sensors: give either --generator (a trained model) or --windows (a .npy file)")
    effort = effort or Effort()
    real = load_windows(name, length, data, _series_seed(generator))
    facts: dict[str, Any] = {"windows": len(real), "channels": real.channels, "seed": seed, "commit": commit()}
    question = {"seed": seed, "effort": asdict(effort)}
    if generator is not None:
        model = _read_generator(generator, real)
        keep = _Keep(work, real, {**question, "weights": fingerprint(generator), "sampling": model.facts})
        say(f"{len(real)} windows from {generator}")
        made, facts["sampling"] = _sample(model, real, seed, keep, say)
    else:
        assert windows is not None
        made = _read_windows(windows, real)
        keep = _Keep(work, real, {**question, "made": _digest(made)})
    say("memorization")
    searched = partial(copies, real.values, made[: len(real)], real.overlapping, seed=seed)
    results: dict[str, Any] = {"memorization": keep.numbers("memorization", searched)}
    for score in scores:
        say(score)
        results[score] = keep.numbers(
            score, lambda score=score: evaluate_windows(real.values, made, seed, (score,), effort)[score]
        )
    facts["seconds"] = keep.seconds
    results = rounded({**results, "facts": facts})
    if json_path is not None:
        merge(json_path, real.name, length, results)
    return {real.name: {str(length): results}}


class _Keep:
    """What takes long: from the store of just this question where it is there already, else made; and how long it took.

    Args:
        work: where stores lie; None: nothing is kept.
        real: what samples are compared with; names the store.
        question: all else that the numbers depend on.
    """

    def __init__(self, work: Path | None, real: SeriesWindows, question: dict[str, Any]) -> None:
        self.store = None
        if work is not None:
            question = {**question, "real": _digest(real.values)}
            self.store = store_of(work, f"sensors-{real.name}-{real.length}", question)
        self.seconds, self.cpu_seconds = 0.0, 0.0

    def arrays(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        def timed() -> Arrays:
            wall, processor = time.monotonic(), time.process_time()
            made = make()
            took = time.monotonic() - wall, time.process_time() - processor
            return {**made, "seconds": np.array(took[0]), "cpu_seconds": np.array(took[1])}

        kept = timed() if self.store is None else self.store.arrays(name, timed)
        self.seconds += kept.pop("seconds").item()
        self.cpu_seconds += kept.pop("cpu_seconds").item()
        return kept

    def numbers(self, name: str, make: Callable[[], dict[str, float]]) -> dict[str, float]:
        kept = self.arrays(name, lambda: {key: np.array(value) for key, value in make().items()})
        return {key: value.item() for key, value in kept.items()}


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).data.cast("B")).hexdigest()


def merge(path: Path, name: str, length: int, results: dict[str, Any]) -> None:
    """Puts the results of a set and length into the file, beside what it holds; scores not computed again are kept."""
    content = read_scores(path)
    own = content.setdefault(name, {}).setdefault(str(length), {})
    own |= results
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read_scores(path: Path) -> dict[str, Any]:
    """What the file holds, or nothing where there is none; a file that is no JSON object is a ClipError."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ClipError(f"{path}: not a file of scores; choose another --json")
    return content


def _series_seed(generator: Path | None) -> int:
    """The seed of the Sines that a model was trained on."""
    path = None if generator is None else generator / "generator.json"
    facts = json.loads(path.read_text(encoding="utf-8")) if path is not None and path.is_file() else {}
    return int(facts.get("series_seed", SINES_SEED))


def _read_generator(folder: Path, real: SeriesWindows) -> SeriesGenerator:
    model = SeriesGenerator.from_pretrained(folder)
    trained = (model.facts["set"], model.facts["length"])
    if trained != (real.name, real.length):
        raise ClipError(f"{folder}: trained on {trained[0]} at {trained[1]}, not on {real.name} at {real.length}")
    return model


def _sample(
    model: SeriesGenerator, real: SeriesWindows, seed: int, keep: _Keep, say: Callable[[str], None]
) -> tuple[np.ndarray, dict[str, Any]]:
    """As many windows as there are real ones, and what it took."""
    bf16 = bool(model.facts["bf16"]) and fast_bf16(choose_device("auto"))
    made, block = np.empty_like(real.values, np.float32), BLOCK * model.batch
    for first in range(0, len(real), block):
        count = min(block, len(real) - first)
        sampled = partial(model.sample, count, seed, bf16=bf16, first=first)
        kept = keep.arrays(f"windows-{first}", lambda sampled=sampled: {"windows": sampled()})
        made[first : first + count] = kept["windows"]
        if first:
            say(f"{first + count} of {len(real)}")
    thousands = len(real) / 1000
    return made, {
        "steps": model.facts["steps"],
        "solver": model.facts["solver"],
        "span": model.facts["span"],
        "noise": "quasi-random",
        "bf16": bf16,
        "threads": torch.get_num_threads(),
        "cpu_seconds_per_1000": keep.cpu_seconds / thousands,
        "seconds_per_1000": keep.seconds / thousands,
    }


def _read_windows(path: Path, real: SeriesWindows) -> np.ndarray:
    try:
        made = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise ClipError(f"{path}: not an array of windows ({error})") from None
    if made.ndim != 3 or made.shape[1:] != real.values.shape[1:] or len(made) < len(real):
        wanted = f"[{len(real)} or more, {real.length}, {real.channels}]"
        raise ClipError(f"{path}: windows {list(made.shape)}, expected {wanted}")
    if not np.isfinite(made).all():
        raise ClipError(f"{path}: windows contain NaN or infinity")
    return made.astype(np.float32)
