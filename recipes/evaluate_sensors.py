"""Score generated series on the field's benchmark: Context-FID, discriminative, correlational, predictive.

    counterpoint evaluate sensors --set ETTh1 --length 24 --data ETTh1.csv --generator runs/sensors-etth1-24/model \\
        --json docs/scores/sensors.json

Every score stands beside its floor (real windows drawn anew), and beside all of them a search for copies of the
training windows. Scores are merged into the file under `<set>.<length>`. `docs/sensors.md` says what is measured.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from counterpoint.data.series import SINES_SEED, SeriesWindows, load_windows
from counterpoint.diffusion.pipeline import choose_device, fast_bf16
from counterpoint.evaluation.sensors import SCORES, Effort, copies, evaluate_windows
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes.evaluate_joint import commit, rounded
from counterpoint.recipes.sensors_generator import SeriesGenerator


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

    Raises:
        ClipError: no or both of `generator` and `windows`, or one that is not of this set and length.
    """
    start = time.monotonic()
    if (generator is None) == (windows is None):
        raise ClipError("evaluate sensors: give either --generator (a trained model) or --windows (a .npy file)")
    real = load_windows(name, length, data, _series_seed(generator))
    facts: dict[str, Any] = {"windows": len(real), "channels": real.channels, "seed": seed, "commit": commit()}
    if generator is not None:
        say(f"{len(real)} windows from {generator}")
        made, facts["sampling"] = _sample(generator, real, seed)
    else:
        assert windows is not None
        made = _read_windows(windows, real)
    say("memorization")
    results: dict[str, Any] = {"memorization": copies(real.values, made[: len(real)], real.overlapping, seed=seed)}
    results |= evaluate_windows(real.values, made, seed, scores, effort, say)
    facts["seconds"] = time.monotonic() - start
    results = rounded({**results, "facts": facts})
    if json_path is not None:
        merge(json_path, real.name, length, results)
    return {real.name: {str(length): results}}


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


def _sample(folder: Path, real: SeriesWindows, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """As many windows as there are real ones, and what it took."""
    model = SeriesGenerator.from_pretrained(folder)
    trained = (model.facts["set"], model.facts["length"])
    if trained != (real.name, real.length):
        raise ClipError(f"{folder}: trained on {trained[0]} at {trained[1]}, not on {real.name} at {real.length}")
    bf16 = bool(model.facts["bf16"]) and fast_bf16(choose_device("auto"))
    wall, processor = time.monotonic(), time.process_time()
    made = model.sample(len(real), seed, bf16=bf16)
    thousands = len(real) / 1000
    return made, {
        "steps": model.facts["steps"],
        "solver": model.facts["solver"],
        "span": model.facts["span"],
        "noise": "quasi-random",
        "bf16": bf16,
        "threads": torch.get_num_threads(),
        "cpu_seconds_per_1000": (time.process_time() - processor) / thousands,
        "seconds_per_1000": (time.monotonic() - wall) / thousands,
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
