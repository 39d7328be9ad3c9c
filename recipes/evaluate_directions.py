"""Any tracks from any others, scored: every choice of tracks made and tracks given, beside two baselines.

    python -m counterpoint.recipes.evaluate_directions joint docs/scores/directions.json --prompts 256
    python -m counterpoint.recipes.evaluate_directions table docs/scores/directions.json

With video, audio and sensor there are 19 directions. What is given are the tracks of held-out clips, the prompt is
their caption. A cascade makes one track after the other, each from the prompt, what is given and what was made before
(decoded and encoded again, as files are); independent generation makes each track from the prompt alone. Scores are
written after every direction, and the same command goes on with what is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.diffusion.given import group_of
from counterpoint.diffusion.pipeline import CounterpointPipeline
from counterpoint.evaluation import report
from counterpoint.evaluation.judges import TRACKS
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes.evaluate_joint import BATCH, commit, write_scores
from counterpoint.recipes.readings import HeldOut, Reading, as_arrays, as_tensors, encoded, sync_summary, walk
from counterpoint.recipes.resumable import Arrays, Clock, Say, Store, begin, parser, run

PAIRS = ("audio-video", "audio-sensor", "video-sensor")


@dataclass(frozen=True)
class Walks:
    """Tracks made in stages, each of which hears what is given and what the stages before it made.

    Args:
        stages: the tracks of each; one stage is the model's own way, one for each track a cascade.
        given: tracks of the held-out clips.
    """

    stages: tuple[tuple[str, ...], ...]
    given: tuple[str, ...] = ()

    @property
    def made(self) -> tuple[str, ...]:
        """All tracks made, in the order of `TRACKS`."""
        return tuple(t for t in TRACKS if any(t in stage for stage in self.stages))

    @property
    def before(self) -> Walks | None:
        """Without the last stage; None where there is but one."""
        return Walks(self.stages[:-1], self.given) if len(self.stages) > 1 else None

    @property
    def order(self) -> str:
        """`video > audio`."""
        return " > ".join("+".join(stage) for stage in self.stages)

    @property
    def file(self) -> str:
        """A name for what was made, `video_then_audio_given_sensor`."""
        name = "_then_".join("+".join(stage) for stage in self.stages)
        return f"{name}_given_{'+'.join(self.given)}" if self.given else name


def directions(tracks: Sequence[str]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """All pairs (made, given) of disjoint sets of tracks, made not empty: 19 of three tracks; fewest given first."""
    subsets = [chosen for count in range(len(tracks) + 1) for chosen in combinations(tracks, count)]
    pairs = [(made, given) for made in subsets for given in subsets if made and not set(made) & set(given)]
    return sorted(pairs, key=lambda pair: (len(pair[1]), -len(pair[0])))


def name_of(made: Sequence[str], given: Sequence[str]) -> str:
    """`sensor → video + audio`; what is given may be the prompt alone."""
    return f"{' + '.join(given) or 'prompt'} → {' + '.join(made)}"


def cascades(made: Sequence[str], given: Sequence[str]) -> list[Walks]:
    """One track after the other, the video first; every order where nothing is given, for one track none."""
    if len(made) < 2:
        return []
    orders = [tuple(made)] if given else list(permutations(made))
    return [Walks(tuple((track,) for track in order), tuple(given)) for order in orders]


class Runner:
    """Makes and reads the tracks of walks, each once.

    Args:
        held: the held-out clips.
        store: keeps what is made.
    """

    def __init__(self, held: HeldOut, store: Store) -> None:
        self.held, self.store = held, store

    def reading(self, walks: Walks) -> Reading:
        """Of all tracks made."""
        own = Reading.of_arrays(self._arrays(walks))
        return own if walks.before is None else self.reading(walks.before).beside(own)

    def seconds(self, walks: Walks) -> float:
        """That all stages together took for a clip; reading not counted."""
        own = float(self._arrays(walks)["seconds"][0]) / self.held.prompts
        return own if walks.before is None else self.seconds(walks.before) + own

    def heard(self, walks: Walks | None, given: Sequence[str]) -> dict[str, Tensor]:
        """Latents of what a stage after these hears, `{modality: [N, T, S, C]}`."""
        known = {name: x for name, x in self.held.latents.items() if group_of(name) in given}
        while walks is not None:
            known |= as_tensors(self._arrays(walks))
            walks = walks.before
        return known

    def _arrays(self, walks: Walks) -> Arrays:
        return self.store.arrays(walks.file, lambda: self._make(walks))

    def _make(self, walks: Walks) -> Arrays:
        """The last stage's reading, and where it is a single track its latents, encoded from what was decoded."""
        held, tracks = self.held, walks.stages[-1]
        pipeline, known, readings, latents = held.pipeline, self.heard(walks.before, walks.given), [], []
        held.say(f"making {walks.order}{' given ' + ' and '.join(walks.given) if walks.given else ''}")
        seconds = 0.0
        for i in range(0, held.prompts, BATCH):
            clock = Clock()
            given = {name: x[i : i + BATCH] for name, x in known.items()}
            made = walk(pipeline, held.captions[i : i + BATCH], held.seeds[i : i + BATCH], tracks, given)
            clips = pipeline.codecs.decode(made)
            seconds += clock.seconds
            readings.append(Reading.of(clips, held.judges))
            if len(tracks) == 1:
                latents.append(encoded(pipeline, clips))
        arrays = {**Reading.joined(readings).arrays(), "seconds": np.array([seconds])}
        if latents:
            arrays |= as_arrays({name: torch.cat([part[name] for part in latents]) for name in latents[0]})
        return arrays


def judged(ours: Reading, made: Sequence[str], given: Sequence[str], held: HeldOut) -> dict[str, Any]:
    """Scores of the tracks made, beside what is given.

    Returns:
        `sync`: `{pair: F1 and others}` of every pair of which a track is made, with `chance` (the same tracks of
        different clips), `codec` (the tracks made are real ones through the codec) and `real`; `adherence` and
        `realism` of the tracks made, as in `evaluation.report`.
    """
    tracks = [t for t in TRACKS if t in (*made, *given)]
    there = held.real.only(given)
    events = [reading.only(made).beside(there).by_clip() for reading in (ours, held.codec)]
    found = report.synchronization_report(events[0], held.real.only(tracks).by_clip(), events[1])
    return {
        "sync": {pair: sync_summary(rows) for pair, rows in found.items() if set(pair.split("-")) & set(made)},
        "adherence": held.adherence(ours, made),
        "realism": held.realism(ours, made),
    }


def direction(made: tuple[str, ...], given: tuple[str, ...], runner: Runner) -> dict[str, Any]:
    """All that is said of a direction: `joint`, `cascades` by their order, `independent`; what differs alone."""
    own, held = Walks((made,), given), runner.held
    scores: dict[str, Any] = {"made": list(made), "given": list(given)}
    scores["joint"] = judged(runner.reading(own), made, given, held) | {"seconds_per_clip": runner.seconds(own)}
    scores["cascades"] = {
        walks.order: judged(runner.reading(walks), made, given, held) | {"seconds_per_clip": runner.seconds(walks)}
        for walks in cascades(made, given)
    }
    if given or len(made) > 1:
        alone = runner.reading(Walks((made[:1],)))
        for track in made[1:]:
            alone = alone.beside(runner.reading(Walks(((track,),))))
        scores["independent"] = judged(alone, made, given, held)
    return scores


def evaluate(
    model: str | Path, json_path: Path, prompts: int = 256, seed: int = 0, work: Path = Path("runs/evaluation"),
    workers: int = 2, say: Say = print,
) -> dict[str, Any]:  # fmt: skip
    """Scores of every direction, written after each; see the top of this file.

    Raises:
        ClipError: a model of fewer than two tracks, or a file with scores of something else.
    """
    pipeline = CounterpointPipeline.from_pretrained(model)
    groups = {group for _, _, group in pipeline.codecs.shapes().values()}
    tracks = [t for t in TRACKS if t in groups]
    if len(tracks) < 2:
        raise ClipError(f"{model}: it has {tracks[0]} alone; a direction needs two tracks")
    scores, store = begin(model, json_path, work, prompts=prompts, seed=seed, settings=dict(pipeline.defaults))
    held = HeldOut.create(pipeline, work, scores, workers, say)
    runner = Runner(held, store)
    found = scores.setdefault("directions", {})
    for made, given in directions(tracks):
        name = name_of(made, given)
        if name not in found:
            found[name] = direction(made, given, runner)
            write_scores({**scores, "commit": commit()}, json_path)
            say(f"{len(found)} of {len(directions(tracks))}: {name}")
    return scores


def table(scores: Mapping[str, Any]) -> str:
    """The scores as three tables in Markdown."""
    found = scores["directions"]
    return "\n\n".join("\n".join(rows) for rows in (_sync_rows(found), _quality_rows(found), _order_rows(found)))


def first_cascade(scores: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The cascade whose order is that of `TRACKS`."""
    return next(iter(scores["cascades"].values()), None)


def _sync_rows(found: Mapping[str, Any]) -> Iterator[str]:
    yield "| given → made | tracks | joint | cascade | independent | chance | codec | real |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, scores in found.items():
        for pair, own in scores["joint"]["sync"].items():
            others = [rows and rows["sync"][pair]["f1"] for rows in (first_cascade(scores), scores.get("independent"))]
            cells = [own["f1"], *others, own.get("chance"), own.get("codec"), own["real"]]
            yield f"| {name} | {pair.replace('-', ', ')} | {' | '.join(_share(cell) for cell in cells)} |"


def _quality_rows(found: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "| given → made | adherence: joint | cascade | independent | real | chance "
        "| Fréchet video | Fréchet audio | Fréchet sensor | seconds a clip: joint | cascade |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for name, scores in found.items():
        ways = [scores["joint"], first_cascade(scores), scores.get("independent")]
        cells = [_share(rows and mean_adherence(rows["adherence"])) for rows in ways]
        cells += [_share(mean_adherence(scores["joint"]["adherence"], key)) for key in ("real", "chance")]
        for track in TRACKS:
            there = [rows["realism"][track] for rows in ways if rows and track in rows["realism"]]
            floor = f" ({there[0]['floor']:.3g})" if there else ""
            cells.append(" / ".join(f"{one['frechet']:.3g}" for one in there) + floor or "–")
        cells += ["–" if rows is None else f"{rows['seconds_per_clip']:.2f}" for rows in ways[:2]]
        yield f"| {name} | {' | '.join(cells)} |"


def _order_rows(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"| cascade | {' | '.join(f'F1 {pair}' for pair in PAIRS)} | adherence | Fréchet video | audio | sensor |"
    yield "|---|---|---|---|---|---|---|---|"
    for scores in found.values():
        for order, rows in scores["cascades"].items() if not scores["given"] else ():
            cells = [_share(rows["sync"][pair]["f1"] if pair in rows["sync"] else None) for pair in PAIRS]
            cells.append(_share(mean_adherence(rows["adherence"])))
            cells += [f"{rows['realism'][t]['frechet']:.3g}" if t in rows["realism"] else "–" for t in TRACKS]
            yield f"| {order} | {' | '.join(cells)} |"


def mean_adherence(adherence: Mapping[str, Mapping[str, Any]], key: str = "generated") -> float | None:
    """Mean over the attributes of one column; attributes without a number are left out."""
    values = [row[key] for row in adherence.values() if row[key] is not None]
    return sum(values) / len(values) if values else None


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}".removeprefix("0")


def main(arguments: Sequence[str]) -> None:
    """`MODEL OUT.json …`, or `table OUT.json`."""
    run(arguments, parser(__doc__ or "", 256), evaluate, table)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ClipError as error:
        sys.exit(f"error: {error}")
