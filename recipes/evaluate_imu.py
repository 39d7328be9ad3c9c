"""What are generated windows worth to somebody who must recognize activities of people never seen?

    python -m counterpoint.recipes.evaluate_imu runs/imu/model imu.parquet docs/scores/imu.json

An activity classifier (`evaluation/activity.py`) is trained on real windows of the groups that the model was trained
on, and on generated windows alone: as many, of the same classes. Both are tested on real windows of the groups that the
model held out, or of another table (`--test`). Then real windows of a tenth and of a quarter of the groups, with and
without generated ones beside them. A generator for these must not have seen more than that fraction: `--generator-10`
and `--generator-25` are models trained with the other groups held out too, and the real windows are then those of the
groups that they saw. Without them the full model stands in, which the scores say.

Only windows with a class count (90 % of the cells of one). Generated windows have no gaps: each gets the mask of a real
training window drawn at random.

Legend: `N` windows, `L` steps, `C` channels.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.data.har import DEVICES
from counterpoint.data.series_table import Recording, SeriesTable, read_series
from counterpoint.data.series_windows import Windows, split_groups
from counterpoint.evaluation.activity import (
    STEPS,
    Labelled,
    Standard,
    balanced_accuracy,
    recalls,
    rotations,
    spectral_distances,
    train_classifier,
)
from counterpoint.evaluation.sensors import summary
from counterpoint.evaluation.sensors_gru import discriminative_scores
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes.evaluate_joint import commit, write_scores
from counterpoint.recipes.sensors_own_generator import RecordingGenerator

LEAST = 0.5  # of the samples of a full window: one that lies across the end of a recording doesn't count
GOAL = 0.95  # of the balanced accuracy with real windows
SEEN_ALL = "saw all training groups"
SEEN_SHARE = "saw only the groups of this fraction"


@dataclass(frozen=True)
class Effort:
    """How much is computed: repeats of every training, steps of the classifier and of the recurrent judge."""

    seeds: int = 5
    steps: int = STEPS
    judge_steps: int = 2000


@dataclass(frozen=True)
class Part:
    """Windows of some groups, with a class each.

    Args:
        windows: values, masks and classes by the model's order.
        captions: `[N]`, `""` where there is none.
        groups: `[N]`, whose a window is.
    """

    windows: Labelled
    captions: np.ndarray
    groups: np.ndarray

    def of(self, groups: Sequence[str]) -> Part:
        """The windows of some groups."""
        rows = np.flatnonzero(np.isin(self.groups, list(groups)))
        return Part(self.windows.only(rows), self.captions[rows], self.groups[rows])


def evaluate(
    model: str | Path, data: str | Path, json_path: Path | None = None, test: str | Path | None = None,
    generators: Mapping[float, str | Path | None] | None = None, label: str = "", guidance: float = 1.0,
    effort: Effort | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The scores; also written to `json_path`.

    Args:
        model: a folder of `RecordingGenerator`; the groups that it held out are the ones to test on.
        data: the table that it was trained on; `test`: a table of other groups, to test on these instead.
        generators: `{fraction: folder of a model that was trained on no more}`; None for a fraction: the full model.
        label: the column of classes; `""` for the model's first one.
        guidance: of the generated windows.

    Raises:
        ClipError: a model without classes or without groups held out, a table that doesn't fit it, a fraction's
            generator that has seen a group that is tested on.
    """
    generator, effort = RecordingGenerator.from_pretrained(model), effort or Effort()
    label = label or next(iter(generator.conditions.classes), "")
    if label not in generator.conditions.classes:
        raise ClipError(f"{model}: no classes '{label}'; train with label=COLUMN")
    classes = generator.conditions.classes[label]
    train, tested = parts_of(generator, Path(data), label, None if test is None else Path(test))
    maker = Maker(generator, label, guidance, train.windows.mask)
    made = maker.by_class(train.windows.labels, seed=0)
    said = maker.by_text(train, seed=1) if generator.conditions.text else None

    real = accuracies([train.windows], tested, classes, effort)
    ours = accuracies([made], tested, classes, effort)
    scores: dict[str, Any] = {
        "balanced_accuracy": {"real": real, "generated": ours, "chance": 1 / len(np.unique(tested.windows.labels))},
        "ratio": ours["mean"] / real["mean"],
        "goal": GOAL,
    }
    if said is not None:
        by_text = accuracies([said.windows], tested, classes, effort)
        scores["balanced_accuracy"]["generated_by_text"] = by_text
        scores["ratio_by_text"] = by_text["mean"] / real["mean"]
    scores["fractions"] = {
        f"{share:g}": fraction(share, folder, train, tested, made, label, guidance, classes, effort)
        for share, folder in (generators or {0.1: None, 0.25: None}).items()
    }
    if said is not None:
        scores["turns"] = {"generated": turns(said, generator), "real": turns(tested, generator)}
    scores |= realism(train.windows, made, tested.windows, generator, effort)
    scores |= {
        "windows": {"train": len(train.windows), "test": len(tested.windows), "generated": len(made)},
        "groups": {"train": len(set(train.groups)), "test": sorted(set(tested.groups.tolist()))},
        "classes": list(classes),
        "length": generator.facts["length"],
        "step": generator.facts["step"],
        "guidance": guidance,
        "seeds": effort.seeds,
        "intervals": "over the classifier's seeds, with one generated set",
        "model": str(model),
        "commit": commit(),
    }
    if json_path is not None:
        write_scores(scores, json_path)
    return scores


def parts_of(generator: RecordingGenerator, data: Path, label: str, test: Path | None) -> tuple[Part, Part]:
    """(training groups, groups to test on) of the tables."""
    held, table = generator.facts.get("held", []), table_of(generator, data)
    if not held and test is None:
        raise ClipError(
            f"{data}: the model held no group out; train with hold=GROUP,…, or name another table with --test"
        )
    recordings = split_groups(table.recordings, hold=held) if held else (list(table.recordings), [])
    train = part_of(generator, table, recordings[0], label)
    if test is None:
        return train, part_of(generator, table, recordings[1], label)
    other = table_of(generator, test)
    both = sorted(set(other.groups) & set(train.groups))
    if both:
        raise ClipError(f"{test}: the model was trained on group '{both[0]}', expected groups that it has not seen")
    return train, part_of(generator, other, other.recordings, label)


def table_of(generator: RecordingGenerator, path: Path) -> SeriesTable:
    """The table, read as the model's was."""
    facts, told = generator.facts, generator.conditions
    labels = [*told.classes, *([told.text] if told.text else [])]
    table = read_series(
        path, facts["time"], facts["group"], labels, told.statics, facts.get("drop", ()), 1 / facts["step"],
        facts.get("repeats", "error"),
    )  # fmt: skip
    expected, found = ([c.header for c in channels] for channels in (generator.scale.channels, table.channels))
    if found != expected:
        raise ClipError(f"{path}: channels {', '.join(found)}; the model has {', '.join(expected)}")
    return table


def part_of(generator: RecordingGenerator, table: SeriesTable, recordings: Sequence[Recording], label: str) -> Part:
    """All windows of recordings that have a class, cut as the model's were."""
    windows = Windows(recordings, generator.facts["length"], generator.facts.get("stride", 1), LEAST)
    batch = windows.batch(range(len(windows)))
    known, names = generator.conditions.classes[label], list(table.classes)
    place = np.array([known.index(n) if n in known else -1 for n in table.classes[label]] + [-1])  # −1 is the last
    codes = place[batch.labels[:, names.index(label)]]
    captions = np.full(len(codes), "", dtype=object)
    if generator.conditions.text:
        sentences = np.array([*table.classes[generator.conditions.text], ""], dtype=object)
        captions = sentences[batch.labels[:, names.index(generator.conditions.text)]]
    rows = np.flatnonzero(codes >= 0)
    if not len(rows):
        raise ClipError(f"{table.path}: no window of {windows.length} steps has a class of '{label}'")
    labelled = Labelled(batch.values[rows], batch.mask[rows], codes[rows].astype(np.int64))
    return Part(labelled, captions[rows], np.array(windows.groups)[rows])


@dataclass(frozen=True)
class Maker:
    """Generates windows of given classes that have the gaps of real ones.

    Args:
        masks: of real windows `[M, L, C]`, one drawn for each generated one.
    """

    generator: RecordingGenerator
    label: str
    guidance: float
    masks: np.ndarray

    def by_class(self, codes: np.ndarray, seed: int) -> Labelled:
        """A window of each class told by its name."""
        names = self.generator.conditions.classes[self.label]
        told = {self.label: [names[code] for code in codes]}
        values = self.generator.sample(len(codes), label=told, seed=seed, guidance=self.guidance)
        return self._with_gaps(values, codes, seed)

    def by_text(self, part: Part, seed: int) -> Part:
        """A window for each that has a caption, told by that alone."""
        rows = np.flatnonzero(part.captions != "")
        said = part.captions[rows]
        values = self.generator.sample(len(rows), text=said.tolist(), seed=seed, guidance=self.guidance)
        return Part(self._with_gaps(values, part.windows.labels[rows], seed), said, part.groups[rows])

    def _with_gaps(self, values: np.ndarray, codes: np.ndarray, seed: int) -> Labelled:
        rows = np.random.default_rng((seed, 31)).integers(len(self.masks), size=len(values))
        mask = self.masks[rows] & ~np.isnan(values)
        return Labelled(np.where(mask, values, 0).astype(np.float32), mask, codes)


def accuracies(sources: Sequence[Labelled], tested: Part, classes: Sequence[str], effort: Effort) -> dict[str, Any]:
    """Balanced accuracy over the seeds, and the recall of each class (mean)."""
    said = [
        train_classifier(sources, len(classes), seed, effort.steps).predict(tested.windows)
        for seed in range(effort.seeds)
    ]
    truth = tested.windows.labels
    each = [recalls(own, truth, classes) for own in said]
    values = np.array([balanced_accuracy(own, truth) for own in said])
    recall = {name: float(np.mean([own[name] for own in each])) for name in each[0]}
    return {**summary(values), "each": values.tolist(), "recall": recall}


def fraction(
    share: float, folder: str | Path | None, train: Part, tested: Part, made: Labelled, label: str, guidance: float,
    classes: Sequence[str], effort: Effort,
) -> dict[str, Any]:  # fmt: skip
    """Real windows of a share of the training groups against the same and generated ones, seed by seed."""
    chosen = [spread(sorted(set(train.groups)), share, seed) for seed in range(effort.seeds)]
    if folder is not None:
        own = RecordingGenerator.from_pretrained(folder)
        seen = seen_by(own, train)
        chosen = [seen] * effort.seeds
        small = train.of(seen).windows
        codes = np.random.default_rng(37).choice(small.labels, len(train.windows))  # all that is known of the balance
        made = Maker(own, label, guidance, small.mask).by_class(codes, seed=2)
    alone, both = [], []
    for seed, groups in enumerate(chosen):
        few = train.of(groups).windows
        for sources, scores in (([few], alone), ([few, made], both)):
            said = train_classifier(sources, len(classes), seed, effort.steps).predict(tested.windows)
            scores.append(balanced_accuracy(said, tested.windows.labels))
    return {
        "real": summary(np.array(alone)),
        "real_and_generated": summary(np.array(both)),
        "difference": summary(np.array(both) - np.array(alone)),
        "generator": SEEN_ALL if folder is None else SEEN_SHARE,
        "groups": [len(groups) for groups in chosen],
        "windows": [len(train.of(groups).windows) for groups in chosen],
    }


def spread(groups: Sequence[str], share: float, seed: int) -> list[str]:
    """A share of the groups, evenly over their order (so over subjects, where their names begin with them)."""
    count = max(1, round(share * len(groups)))
    offset = np.random.default_rng((seed, 41)).random()
    return [groups[int((i + offset) * len(groups) / count)] for i in range(count)]


def seen_by(generator: RecordingGenerator, train: Part) -> list[str]:
    """The groups that a fraction's generator has seen; one that is none of the training groups is a ClipError."""
    wrong = sorted(set(generator.facts["trained"]) - set(train.groups))
    if wrong:
        raise ClipError(f"the fraction's generator was trained on group '{wrong[0]}', the full model was not")
    return list(generator.facts["trained"])


def turns(part: Part, generator: RecordingGenerator) -> dict[str, float]:
    """Of the windows whose caption names a side, the share that turn to it, by device; of tables of `data har`."""
    places = {channel.name: c for c, channel in enumerate(generator.scale.channels)}
    sides = np.array([("left" in said) * 1 - ("right" in said) * 1 for said in part.captions])
    out = {}
    for device in DEVICES.values():
        names = [[f"{device}_{kind}_{axis}" for axis in "xyz"] for kind in ("acc", "gyr")]
        if sides.any() and all(name in places for own in names for name in own):
            rates = rotations(part.windows, *([places[name] for name in own] for own in names))
            told = (sides != 0) & ~np.isnan(rates)
            out[device] = float((np.sign(rates[told]) == sides[told]).mean())
    return out


def realism(
    train: Labelled, made: Labelled, tested: Labelled, generator: RecordingGenerator, effort: Effort
) -> dict[str, Any]:
    """Discriminative score and spectra; the floor is that of real windows of the held-out groups."""
    scale = Standard.fit([train])
    real, ours, other = (scale.apply(own) for own in (train, made, tested))
    pairs = [(real, ours)] * effort.seeds + [(real, other)] * effort.seeds
    found = discriminative_scores(pairs, [*range(effort.seeds)] * 2, effort.judge_steps)
    apart, floor = spectral_distances(train, made), spectral_distances(train, tested)
    names = [channel.name for channel in generator.scale.channels]
    floor_of = summary(found[effort.seeds :])
    return {
        "discriminative": {**summary(found[: effort.seeds]), "floor": floor_of["mean"]},
        "spectra_db": {
            n: {"generated": float(a), "floor": float(f)} for n, a, f in zip(names, apart, floor, strict=True)
        },
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """MODEL DATA JSON [--test TABLE] [--generator-10 MODEL] [--generator-25 MODEL] [--label COLUMN] [--guidance G] …"""
    parser = argparse.ArgumentParser(prog="python -m counterpoint.recipes.evaluate_imu")
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("json", type=Path)
    parser.add_argument("--test", help="a table of groups that the model has not seen")
    parser.add_argument("--generator-10", help="a model trained on no more than a tenth of the training groups")
    parser.add_argument("--generator-25", help="a model trained on no more than a quarter of the training groups")
    parser.add_argument("--label", default="", help="the column of classes; default: the model's first")
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=Effort.seeds)
    parser.add_argument("--steps", type=int, default=Effort.steps, help="of the classifier")
    parser.add_argument("--judge-steps", type=int, default=Effort.judge_steps)
    chosen = parser.parse_args(arguments)
    scores = evaluate(
        chosen.model, chosen.data, chosen.json, chosen.test, {0.1: chosen.generator_10, 0.25: chosen.generator_25},
        chosen.label, chosen.guidance, Effort(chosen.seeds, chosen.steps, chosen.judge_steps),
    )  # fmt: skip
    for name, value in scores.items():
        print(f"{name}  {value}")


if __name__ == "__main__":
    main()
