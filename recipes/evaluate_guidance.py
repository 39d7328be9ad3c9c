"""Every kind of guidance at several scales, on the same held-out prompts and the same noise.

    python -m counterpoint.recipes.evaluate_guidance joint docs/scores/guidance.json --prompts 256
    python -m counterpoint.recipes.evaluate_guidance table docs/scores/guidance.json

For each setting: adherence, synchronization, Fréchet distance, diversity, passes of the network a step and seconds a
clip; and for guidance by what real clips show (their contact times, loudness, small video, slow sensor) how far it is
met, with and without. `--weak MODEL` adds auto-guidance, `--only KIND` leaves the other kinds out. Scores are written
after every setting, and the same command goes on with what is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoint.diffusion.pipeline import CounterpointPipeline
from counterpoint.evaluation import report
from counterpoint.evaluation.judges import TRACKS
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes.evaluate_directions import PAIRS, mean_adherence
from counterpoint.recipes.evaluate_joint import BATCH, commit, write_scores
from counterpoint.recipes.guidance_settings import BASE, Measurement, Setting, settings_of
from counterpoint.recipes.readings import HeldOut, Reading, as_arrays, as_tensors, sync_summary, walk
from counterpoint.recipes.resumable import Arrays, Clock, Say, begin, parser, run

SAME = 16  # prompts of which further clips are made, for the diversity within a prompt
FURTHER = 3  # further clips of each
SEED_STEP = 1_000_000  # between the seeds of a prompt's clips


def evaluate(
    model: str | Path, json_path: Path, prompts: int = 256, seed: int = 0, work: Path = Path("runs/evaluation"),
    workers: int = 2, weak: str | None = None, only: Sequence[str] = (), say: Say = print,
) -> dict[str, Any]:  # fmt: skip
    """Scores of every setting, written after each; see the top of this file.

    Args:
        weak: a shipped name or folder of a worse model, for auto-guidance.
        only: kinds to score (`isolation`, `events`, …), beside `BASE`; empty: all.

    Raises:
        ClipError: a file with scores of something else.
    """
    pipeline = CounterpointPipeline.from_pretrained(model)
    scores, store = begin(model, json_path, work, prompts=prompts, seed=seed, settings=dict(pipeline.defaults))
    held = HeldOut.create(pipeline, work, scores, workers, say)
    tracks = tuple(t for t in TRACKS if t in held.real.features)
    everything = settings_of(pipeline, weak)
    settings = {n: one for n, one in everything.items() if n == BASE or not only or one.kind in only}
    found = scores.setdefault("guidance", {})
    scores.setdefault("real", judged_real(held, tracks))

    def made(setting: Setting) -> Arrays:
        return store.arrays(setting.file, lambda: make(setting, held, tracks))

    for name, setting in settings.items():
        if name not in found:
            say(f"{len(found) + 1} of {len(settings)}: {name}")
            own = judged(made(setting), held, tracks, pipeline.defaults["steps"])
            if setting.measurement is not None:
                own["residual"] = obeyed(setting.measurement, made(setting), made(settings[BASE]), held)
            found[name] = own
            scores["guidance"] = {n: found[n] for n in (*everything, *found) if n in found}  # in the order of settings
            write_scores({**scores, "commit": commit()}, json_path)
    return scores


def judged_real(held: HeldOut, tracks: Sequence[str]) -> dict[str, Any]:
    """What the codec leaves of real clips."""
    return {"adherence": held.adherence(held.codec, tracks), "realism": held.realism(held.codec, tracks)}


def make(setting: Setting, held: HeldOut, tracks: Sequence[str]) -> Arrays:
    """Clips of all prompts, and the further ones, under a setting: read, timed, and their latents."""
    readings, latents, seconds, passes = [], [], 0.0, 0
    for index, seeds in batches(held):
        clock = Clock()
        guidance = setting.guidances(held.pipeline, [held.clips[i] for i in index])
        with Counted(held.pipeline, guidance) as count:
            made = walk(held.pipeline, [held.captions[i] for i in index], seeds, tracks, guidance=guidance)
        clips = held.pipeline.codecs.decode(made)
        seconds, passes = seconds + clock.seconds, passes + count.passes
        readings.append(Reading.of(clips, held.judges))
        kept = setting.name == BASE or setting.measurement is not None  # `obeyed` looks at them
        latents.append({name: x.cpu() for name, x in made.items()} if kept else {})
    joined = {name: torch.cat([part[name] for part in latents]) for name in latents[0]}
    totals = {"seconds": np.array([seconds]), "passes": np.array([passes / len(latents)])}
    return {**Reading.joined(readings).arrays(), **as_arrays(joined), **totals}


def batches(held: HeldOut) -> Iterator[tuple[list[int], list[int]]]:
    """Prompts by number, and seeds: first one clip of each prompt, then the further ones of the first `SAME`."""
    index = [*range(held.prompts), *(i for _ in range(FURTHER) for i in range(min(SAME, held.prompts)))]
    seeds = [held.seeds[i] for i in range(held.prompts)]
    seeds += [held.seeds[i] + (k + 1) * SEED_STEP for k in range(FURTHER) for i in range(min(SAME, held.prompts))]
    for i in range(0, len(index), BATCH):
        yield index[i : i + BATCH], seeds[i : i + BATCH]


class Counted:
    """Counts the passes of a pipeline's network, and of the weak models among guidances, while it is entered."""

    def __init__(self, pipeline: CounterpointPipeline, guidances: Sequence[Any]) -> None:
        weak = [one.weak for one in guidances if getattr(one, "weak", None) is not None]
        self.networks, self.passes = [one.transformer for one in (pipeline, *weak)], 0

    def __enter__(self) -> Counted:
        self.hooks = [network.register_forward_hook(self._count) for network in self.networks]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _count(self, *_: object) -> None:
        self.passes += 1


def judged(made: Mapping[str, np.ndarray], held: HeldOut, tracks: Sequence[str], steps: int) -> dict[str, Any]:
    """Scores of a setting; the further clips count for the diversity within a prompt alone."""
    everything = Reading.of_arrays(made)
    ours = everything.chosen(range(held.prompts))
    events = report.synchronization_report(ours.by_clip(), held.real.by_clip(), held.codec.by_clip())
    clips = len(next(iter(everything.features.values())))
    return {
        "adherence": held.adherence(ours, tracks),
        "sync": {pair: sync_summary(rows) for pair, rows in events.items()},
        "realism": held.realism(ours, tracks),
        "diversity": {t: diversity(everything.features[t], held.real.features[t], held.prompts) for t in tracks},
        "contacts": {t: one["f1"] for t, one in report.contact_report(held.clips, ours.by_clip()).items()},
        "passes_per_step": float(made["passes"][0]) / steps,
        "seconds_per_clip": float(made["seconds"][0]) / clips,
    }


def diversity(made: np.ndarray, real: np.ndarray, prompts: int) -> dict[str, float]:
    """Mean distance between features `[N, 128]` of different clips, over that between real ones: `all` of different
    prompts, `same` of the same prompt."""
    scale = spread(real)
    same = min(SAME, prompts)
    groups = [made[[i, *range(prompts + i, len(made), same)]] for i in range(same)]
    return {"all": spread(made[:prompts]) / scale, "same": float(np.mean([spread(own) for own in groups])) / scale}


def spread(features: np.ndarray) -> float:
    """Mean Euclidean distance between two different rows of `[N, D]`."""
    x = torch.from_numpy(features).double()
    return float(torch.pdist(x).mean())


@torch.no_grad()
def obeyed(
    measurement: Measurement, made: Mapping[str, np.ndarray], base: Mapping[str, np.ndarray], held: HeldOut
) -> dict[str, float]:
    """Root mean square residual of a measurement: `guided` by it, `without`, and of the `real` clips' latents."""
    named = {"guided": as_tensors(made), "without": as_tensors(base), "real": held.latents}
    return {name: _residual(measurement, latents, held) for name, latents in named.items()}


def _residual(measurement: Measurement, latents: Mapping[str, Tensor], held: HeldOut) -> float:
    squares, count = 0.0, 0
    for i in range(0, held.prompts, BATCH):
        stop = min(i + BATCH, held.prompts)
        own = {name: x[i:stop].to(held.pipeline.device) for name, x in latents.items()}
        parts = measurement(held.pipeline.codecs, held.clips[i:stop])(own)
        for part in [parts] if isinstance(parts, Tensor) else parts:
            squares += float(part.nan_to_num().double().square().sum())
            count += int((~part.isnan()).sum())
    return (squares / max(count, 1)) ** 0.5


def table(scores: Mapping[str, Any]) -> str:
    """The scores as a table in Markdown, and one of the measurements."""
    rows = "\n".join(_rows(scores))
    measured = {name: row for name, row in scores["guidance"].items() if "residual" in row}
    return f"{rows}\n\n" + "\n".join(_measured_rows(measured)) if measured else rows


def _rows(scores: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"| guidance | adherence | {' | '.join(f'F1 {pair} (chance)' for pair in PAIRS)} | Fréchet video | audio "
        "| sensor | diversity: all | one prompt | F1 of contacts | passes a step | seconds a clip |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    for name, row in scores["guidance"].items():
        cells = [f"{mean_adherence(row['adherence']):.3f}"]
        cells += [f"{one['f1']:.3f} ({one['chance']:.3f})" for one in (row["sync"][pair] for pair in PAIRS)]
        cells += [f"{row['realism'][t]['frechet']:.3g}" for t in TRACKS]
        cells += [f"{np.mean([one[key] for one in row['diversity'].values()]):.2f}" for key in ("all", "same")]
        cells += [f"{np.mean(list(row['contacts'].values())):.3f}"]
        cells += [f"{row['passes_per_step']:.3g}", f"{row['seconds_per_clip']:.2f}"]
        yield f"| `{name}` | {' | '.join(cells)} |"
    base, real = scores["guidance"][BASE], scores["real"]
    cells = [f"{mean_adherence(base['adherence'], 'real'):.3f}"]
    cells += [f"{one['real']:.3f} ({one['real_chance']:.3f})" for one in (base["sync"][pair] for pair in PAIRS)]
    cells += [f"{base['realism'][t]['floor']:.3g}" for t in TRACKS]
    yield f"| real clips | {' | '.join([*cells, '1.00', '–', '–', '–', '–'])} |"
    cells = [f"{mean_adherence(real['adherence']):.3f}", *(f"{base['sync'][pair]['codec']:.3f}" for pair in PAIRS)]
    cells += [f"{real['realism'][t]['frechet']:.3g}" for t in TRACKS]
    yield f"| real clips through the codec | {' | '.join([*cells, '–', '–', '–', '–', '–'])} |"


def _measured_rows(measured: Mapping[str, Any]) -> Iterator[str]:
    yield "| guidance | residual with it | without it | of real clips through the codec |"
    yield "|---|---|---|---|"
    for name, row in measured.items():
        cells = [f"{row['residual'][key]:.3g}" for key in ("guided", "without", "real")]
        yield f"| `{name}` | {' | '.join(cells)} |"


def main(arguments: Sequence[str]) -> None:
    """`MODEL OUT.json …`, or `table OUT.json`."""
    options = parser(__doc__ or "", 256)
    options.add_argument("--weak", metavar="MODEL", help="a worse model with the same codecs: adds auto-guidance")
    options.add_argument("--only", metavar="KIND", nargs="+", default=(), help="kinds to score; default: all")
    run(arguments, options, evaluate, table)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ClipError as error:
        sys.exit(f"error: {error}")
