"""Does a long clip stay what it was? Every 2.56 s of clips of 30 s against their first 2.56 s, and the seams.

    python -m counterpoint.recipes.evaluate_long_form joint docs/scores/long_form.json --prompts 32
    python -m counterpoint.recipes.evaluate_long_form table docs/scores/long_form.json

Drift of colour, loudness, motion and of the judges' features, what the judges still take the object for, and
synchronization, segment by segment; and how often the places where windows were joined stand out. Beside them real
clips, which last one segment: their second half against their first, and different clips against each other. A run
that was cut off goes on with the prompts that are missing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from counterpoint.diffusion.pipeline import CounterpointPipeline
from counterpoint.evaluation import drift, report
from counterpoint.modalities.clip import Clip, ClipError
from counterpoint.modalities.codecs import SLOT_SECONDS
from counterpoint.recipes.evaluate_directions import PAIRS, mean_adherence
from counterpoint.recipes.evaluate_joint import commit, write_scores
from counterpoint.recipes.readings import HeldOut, Reading, sync_summary
from counterpoint.recipes.resumable import Arrays, Clock, Say, begin, parser, run

BATCH = 4  # clips of 30 s made at once
DRIFTS = ("colour", "level_db", "level_change_db", "motion_change")


def evaluate(
    model: str | Path, json_path: Path, prompts: int = 32, seed: int = 0, work: Path = Path("runs/evaluation"),
    workers: int = 2, seconds: float = 30.0, say: Say = print,
) -> dict[str, Any]:  # fmt: skip
    """Scores of clips of `seconds`, written at the end; what is made of them is kept on the way.

    Raises:
        ClipError: clips of less than two segments, or a file with scores of something else.
    """
    pipeline = CounterpointPipeline.from_pretrained(model)
    window = float(pipeline.defaults["seconds"])
    if seconds < 2 * window:
        raise ClipError(f"seconds: {seconds:g} is less than two segments of {window:g}")
    facts = {"prompts": prompts, "seed": seed, "clip_seconds": seconds, "settings": dict(pipeline.defaults)}
    scores, store = begin(model, json_path, work, **facts)
    held = HeldOut.create(pipeline, work, scores, workers, say)
    parts = []
    for i in range(0, prompts, BATCH):
        parts.append(store.arrays(f"{i:05d}", lambda first=i: _make(held, first, seconds, window)))
        say(f"{min(i + BATCH, prompts)} of {prompts} long clips")
    count = len(parts[0]["level"]) // min(BATCH, prompts)  # segments of a clip
    made = Reading.joined([Reading.of_arrays(part) for part in parts])
    drifts = {key: np.concatenate([part[key] for part in parts]) for key in ("colour", "level", "motion")}
    real = drift.summary(held.clips)
    scores["segments"] = [_segment(k, count, made, drifts, held) for k in range(count)]
    scores["real"] = _real(held) | {"clips": others(real)}
    scores["halves"] = {"generated": _halves_made(parts), "real": halves(held.clips, window)}
    scores["prompts_apart"] = others({key: x[::count] for key, x in drifts.items()})
    scores["seams"] = seam_scores(parts, _seams(held.clips, window))
    scores["seconds_per_clip"] = sum(float(part["seconds"][0]) for part in parts) / prompts
    write_scores({**scores, "commit": commit()}, json_path)
    return scores


def _make(held: HeldOut, first: int, seconds: float, window: float) -> Arrays:
    """Clips `first` … of a batch, made and read: segments clip by clip, halves of the first ones, seams."""
    chosen = slice(first, min(first + BATCH, held.prompts))
    clock = Clock()
    clips = held.pipeline(held.captions[chosen], seed=held.seeds[chosen], seconds=seconds)
    spent = clock.seconds
    cut = [drift.segments(clip, window) for clip in clips]
    flat = [segment for own in cut for segment in own]
    return {
        **Reading.of(flat, held.judges).arrays(),
        **drift.summary(flat),
        **{f"half.{key}": x for key, x in _half_summary([own[0] for own in cut], window).items()},
        **_seams(clips, window),
        "seconds": np.array([spent]),
    }


def _seams(clips: Sequence[Clip], window: float) -> Arrays:
    """Ranks of all jumps at borders of half windows (`seam.…`, where windows and decoded pieces were joined) and at
    the other borders of slots (`slot.…`)."""
    found: Arrays = {}
    each = round(window / SLOT_SECONDS) // 2  # slots of half a window
    for clip in clips:
        slots = np.arange(1, np.ceil(min(track.end for track in clip.tracks.values()) / SLOT_SECONDS - 1e-6))
        for track, ranks in drift.seam_ranks(clip, slots * SLOT_SECONDS).items():
            for name, chosen in (("seam", slots % each == 0), ("slot", slots % each != 0)):
                key = f"{name}.{track}"
                found[key] = np.concatenate([found.get(key, np.zeros(0)), ranks[chosen]])
    return found


def seam_scores(parts: Sequence[Arrays], real: Arrays) -> dict[str, Any]:
    """`{track: share standing out at seams, other slots, and the same times of real clips}`, with their numbers."""
    scores: dict[str, Any] = {}
    for key in (key for key in parts[0] if key.startswith("seam.")):
        track = key.removeprefix("seam.")
        rows = {"generated": np.concatenate([part[key] for part in parts]), "real": real[key]}
        rows |= {"other_slots": np.concatenate([part[f"slot.{track}"] for part in parts])}
        rows |= {"real_other_slots": real[f"slot.{track}"]}
        scores[track] = {name: drift.standing_out(ranks) for name, ranks in rows.items()}
        scores[track] |= {"seams": len(rows["generated"]), "real_seams": len(rows["real"])}
    return scores


def _segment(k: int, count: int, made: Reading, drifts: Mapping[str, np.ndarray], held: HeldOut) -> dict[str, Any]:
    """The k-th segment of all clips against their first."""
    clips = len(drifts["level"]) // count
    now, start = made.chosen(range(k, clips * count, count)), made.chosen(range(0, clips * count, count))
    events = report.synchronization_report(now.by_clip(), held.real.by_clip(), held.codec.by_clip())
    return {
        **drift.distances({n: x[k::count] for n, x in drifts.items()}, {n: x[::count] for n, x in drifts.items()}),
        "features": {track: feature_drift(x, start.features[track]) for track, x in now.features.items()},
        "identity": same_verdict(now, start, held),
        "adherence": held.adherence(now, now.features),
        "sync": {pair: sync_summary(rows) for pair, rows in events.items()},
    }


def feature_drift(now: np.ndarray, start: np.ndarray) -> float:
    """Mean distance of features `[N, 128]` to those of the same clips' starts, over that to other clips' starts."""
    apart = np.mean([np.linalg.norm(now - np.roll(start, shift, axis=0), axis=1).mean() for shift in _shifts(now)])
    return float(np.linalg.norm(now - start, axis=1).mean() / (apart + 1e-9))


def same_verdict(now: Reading, start: Reading, held: HeldOut) -> dict[str, dict[str, float]]:
    """`{attribute: {same, chance}}`: how often the judges say of a segment what they say of the clip's start, and of
    another clip's start."""
    with torch.inference_mode():
        said, first = (
            held.judges.verdict({t: torch.from_numpy(x) for t, x in reading.features.items()})
            for reading in (now, start)
        )
    found = {}
    for name in said:
        a, b = said[name].argmax(-1).numpy(), first[name].argmax(-1).numpy()
        chance = float(np.mean([(a == np.roll(b, shift)).mean() for shift in _shifts(a)]))
        found[name] = {"same": float((a == b).mean()), "chance": chance}
    return found


def _shifts(values: np.ndarray) -> range:
    return range(1, max(2, min(len(values), 8)))


def others(summary: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Distances between different clips."""
    return drift.distances({key: np.roll(x, 1, axis=0) for key, x in summary.items()}, summary)


def _half_summary(clips: Sequence[Clip], window: float) -> Arrays:
    """`drift.summary` of first and second halves, interleaved."""
    return drift.summary([half for clip in clips for half in drift.segments(clip, window / 2)[:2]])


def halves(clips: Sequence[Clip], window: float) -> dict[str, float]:
    """Distances of clips' second halves from their first."""
    found = _half_summary(clips, window)
    return drift.distances({key: x[1::2] for key, x in found.items()}, {key: x[::2] for key, x in found.items()})


def _halves_made(parts: Sequence[Arrays]) -> dict[str, float]:
    found = {key: np.concatenate([part[f"half.{key}"] for part in parts]) for key in ("colour", "level", "motion")}
    return drift.distances({key: x[1::2] for key, x in found.items()}, {key: x[::2] for key, x in found.items()})


def _real(held: HeldOut) -> dict[str, Any]:
    """What real clips reach, and the codec leaves, of adherence and synchronization."""
    events = report.synchronization_report(held.codec.by_clip(), held.real.by_clip(), [])
    sync = {pair: {"codec": rows["generated"]["f1"], "real": rows["real"]["f1"]} for pair, rows in events.items()}
    return {"sync": sync, "adherence": held.adherence(held.codec, held.codec.features)}


def table(scores: Mapping[str, Any]) -> str:
    """The scores as three tables in Markdown."""
    return "\n\n".join("\n".join(rows) for rows in (_segment_rows(scores), _identity_rows(scores), _seam_rows(scores)))


def _segment_rows(scores: Mapping[str, Any]) -> Iterator[str]:
    yield "| segment | colour (levels) | loudness (dB) | change of loudness (dB) | change of motion (levels) | " + (
        " | ".join(f"F1 {pair} (chance)" for pair in PAIRS) + " |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for k, row in enumerate(scores["segments"]):
        cells = [f"{row[key]:.2f}" for key in DRIFTS]
        cells += [f"{one['f1']:.3f} ({one['chance']:.3f})" for one in (row["sync"][pair] for pair in PAIRS)]
        yield f"| {k + 1} | {' | '.join(cells)} |"
    real = [f"{scores['real']['sync'][pair]['real']:.3f}" for pair in PAIRS]
    codec = [f"{scores['real']['sync'][pair]['codec']:.3f}" for pair in PAIRS]
    rows = {
        "first segment: second half against first": scores["halves"]["generated"],
        "first segments of different clips": scores["prompts_apart"],
        "real: second half against first": scores["halves"]["real"],
        "real: different clips": scores["real"]["clips"],
    }
    for name, row in rows.items():
        yield f"| {name} | {' | '.join([f'{row[key]:.2f}' for key in DRIFTS] + ['–'] * 3)} |"
    yield f"| real: one clip | – | – | – | – | {' | '.join(real)} |"
    yield f"| real: through the codec | – | – | – | – | {' | '.join(codec)} |"


def _identity_rows(scores: Mapping[str, Any]) -> Iterator[str]:
    names = list(scores["segments"][0]["identity"])
    tracks = list(scores["segments"][0]["features"])
    yield (
        "| segment | "
        + " | ".join(f"same {name} as at first (chance)" for name in names)
        + (" | as the prompt says | " + " | ".join(f"features: {track}" for track in tracks) + " |")
    )
    yield "|---" * (len(names) + len(tracks) + 2) + "|"
    for k, row in enumerate(scores["segments"]):
        cells = [f"{one['same']:.2f} ({one['chance']:.2f})" for one in row["identity"].values()]
        cells += [f"{mean_adherence(row['adherence']):.2f}"]
        cells += [f"{row['features'][track]:.2f}" for track in tracks]
        yield f"| {k + 1} | {' | '.join(cells)} |"


def _seam_rows(scores: Mapping[str, Any]) -> Iterator[str]:
    yield "| track | seams | stand out | other slots' borders | real, same times | real, slots' borders |"
    yield "|---|---|---|---|---|---|"
    for track, row in scores["seams"].items():
        cells = [row[key] for key in ("generated", "other_slots", "real", "real_other_slots")]
        yield f"| {track} | {row['seams']} | {' | '.join(f'{cell:.1%}' for cell in cells)} |"


def main(arguments: Sequence[str]) -> None:
    """`MODEL OUT.json …`, or `table OUT.json`."""
    options = parser(__doc__ or "", 32)
    options.add_argument("--seconds", type=float, default=30.0, help="of a clip (default: %(default)s)")
    run(arguments, options, evaluate, table)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ClipError as error:
        sys.exit(f"error: {error}")
