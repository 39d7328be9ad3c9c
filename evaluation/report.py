"""The evaluation of a model as one dict: synchronization, adherence, realism, memorization; and as a table.

Everything here is a pure function of clips and features; sampling belongs to the recipe that calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..modalities.clip import Clip, ClipError
from .events import clip_events
from .frechet import frechet_distance, precision_recall
from .judges import TRACKS, Judges
from .memorization import memorization
from .sync import EVENT_PAIRS, WINDOW, mismatched, synchronization

SENSORS = ("accelerometer", "gyroscope", "force")
Features = Mapping[str, np.ndarray]
Found = Mapping[str, np.ndarray]
"""Event times in seconds that `clip_events` found in each track of a clip."""


def to_tensors(clips: Sequence[Clip]) -> dict[str, Tensor]:
    """Clips → video `[B, 3, F, H, W]` and audio `[B, 1, samples]` in [-1, 1], sensor `[B, 7, samples]`, float32.

    Sensor channels are accelerometer xyz, gyroscope xyz, force z. A track that the first clip lacks is left out.

    Raises:
        ClipError: the clips differ in tracks or lengths.
    """
    readers: dict[str, Callable[[Clip], np.ndarray]] = {
        "video": lambda c: c.video.values.transpose(3, 0, 1, 2),  # pyright: ignore
        "audio": lambda c: c.audio.values.mean(0, keepdims=True),  # pyright: ignore
        "sensor": lambda c: np.concatenate([c.sensor[name].values for name in SENSORS]),
    }
    tensors = {}
    for track in _tracks(clips):
        try:
            tensors[track] = torch.from_numpy(np.stack([readers[track](clip) for clip in clips])).float()
        except (AttributeError, KeyError, ValueError) as error:
            raise ClipError(f"{track}: the clips differ in tracks or lengths ({error})") from error
    if "video" in tensors:
        tensors["video"] = tensors["video"] / 127.5 - 1
    return tensors


@torch.inference_mode()
def features(clips: Sequence[Clip], judges: Judges, batch: int = 16) -> dict[str, np.ndarray]:
    """The judges' features of each track, `{track: float32 [clips, 128]}`."""
    parts = [judges.features(to_tensors(clips[i : i + batch])) for i in range(0, len(clips), batch)]
    return {t: torch.cat([p[t] for p in parts]).numpy() for t in parts[0]} if parts else {}


def synchronization_report(
    generated: Sequence[Found], real: Sequence[Found], codec: Sequence[Found], window: float = WINDOW
) -> dict[str, dict[str, Any]]:
    """`{pair: {"generated" | "real" | "codec" | "mismatched": scores}}` of detected events; see `evaluation.sync`.

    "mismatched" sets each generated clip's first track against another generated clip's second: the chance level of
    the same streams. "real_mismatched" is that of the held-out clips.
    """
    found = {"generated": generated, "real": real, "codec": codec}
    report: dict[str, dict[str, Any]] = {}
    for first, second in EVENT_PAIRS:
        sets = {
            name: ([e[first] for e in events], [e[second] for e in events])
            for name, events in found.items()
            if events and all(first in e and second in e for e in events)
        }
        scores = {name: synchronization(a, b, window) for name, (a, b) in sets.items()}
        for name, key in (("generated", "mismatched"), ("real", "real_mismatched")):
            if name in sets and len(sets[name][0]) > 1:
                scores[key] = mismatched(*sets[name], window)
        if scores:
            report[f"{first}-{second}"] = scores
    return report


def contact_report(clips: Sequence[Clip], found: Sequence[Found], window: float = WINDOW) -> dict[str, dict[str, Any]]:
    """Each detector's events against the true contact times (`clip.events`), for clips of the physics world."""
    truth = [clip.events for clip in clips]
    return {t: synchronization(truth, [e[t] for e in found], window) for t in found[0]} if found else {}


def adherence_report(
    generated: Features, real: Features, judges: Judges, attributes: Sequence[Mapping], unseen: Sequence[bool]
) -> dict[str, dict[str, float | None]]:
    """Accuracy with which the judges read the prompt's attributes.

    Args:
        generated, real: features of clips that answer the same prompts, in the same order.
        attributes: what each prompt states.
        unseen: which prompts combine what was never combined in training.

    Returns:
        `{attribute: {generated, unseen, real, real_unseen, chance}}`: generated and real over seen combinations,
        unseen and real_unseen over the others (None where there are none), chance the share of the commonest answer.
    """
    rare = torch.tensor(list(unseen), dtype=torch.bool)
    targets = judges.targets(attributes)
    right: dict[str, dict[str, Tensor]] = {}
    for name, made in (("generated", generated), ("real", real)):
        with torch.inference_mode():
            verdict = judges.verdict({t: torch.from_numpy(x) for t, x in made.items()})
        right[name] = {a: (p.argmax(-1) == targets[a]).float() for a, p in verdict.items()}

    def share(hits: Tensor, chosen: Tensor) -> float | None:
        return hits[chosen].mean().item() if chosen.any() else None

    report = {}
    for a, target in targets.items():
        stated = target >= 0
        if stated.any():
            report[a] = {
                "generated": share(right["generated"][a], stated & ~rare),
                "unseen": share(right["generated"][a], stated & rare),
                "real": share(right["real"][a], stated & ~rare),
                "real_unseen": share(right["real"][a], stated & rare),
                "chance": (target[stated].bincount().max() / stated.sum()).item(),
            }
    return report


def realism_report(generated: Features, real: Features, reference: Features) -> dict[str, dict[str, float]]:
    """Fréchet distance, precision and recall of each track against the same number of other real clips.

    Returns:
        `{track: {frechet, floor, precision, recall, precision_floor, recall_floor, n}}`: the floors are those of the
        real clips against the same reference.
    """
    report = {}
    for track in (t for t in TRACKS if t in generated and t in reference):
        n = min(len(generated[track]), len(real[track]), len(reference[track]))
        ours, theirs, others = generated[track][:n], real[track][:n], reference[track][:n]
        precision, recall = precision_recall(others, ours)
        precision_floor, recall_floor = precision_recall(others, theirs)
        report[track] = {
            "frechet": frechet_distance(ours, others),
            "floor": frechet_distance(theirs, others),
            "precision": precision,
            "recall": recall,
            "precision_floor": precision_floor,
            "recall_floor": recall_floor,
            "n": n,
        }
    return report


def evaluate(
    generated: Sequence[Clip],
    real: Sequence[Clip],
    codec: Sequence[Clip],
    judges: Judges,
    training_features: Features,
    reference_features: Features | None = None,
    attributes: Sequence[Mapping] | None = None,
    unseen: Sequence[bool] | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """Everything that is said about a model, ready for JSON.

    Args:
        generated: clips made from the captions of `real`, in the same order.
        real: held-out clips.
        codec: the same clips encoded and decoded (may be empty).
        judges: see `evaluation.judges`.
        training_features: `features` of clips the model was trained on, `{track: [M, 128]}`, for memorization.
        reference_features: `features` of other held-out clips, at least as many; default: training_features.
        attributes: what each prompt states; default: `metadata["attributes"]` of the real clips.
        unseen: which prompts are unseen combinations; default: `metadata["split"] == "unseen"` of the real clips.
        facts: what else belongs into the report (model, seeds, commit, settings).

    Raises:
        ClipError: the numbers of clips differ.
    """
    if len(generated) != len(real):
        raise ClipError(f"generated: {len(generated)} clips for {len(real)} real ones; each answers one caption")
    if attributes is None:
        attributes = [clip.metadata["attributes"] for clip in real]
    if unseen is None:
        unseen = [clip.metadata.get("split") == "unseen" for clip in real]
    ours, theirs = features(generated, judges), features(real, judges)
    theirs = {t: theirs[t] for t in ours}
    backgrounds = judges.backgrounds.numpy() if judges.backgrounds.any() else None
    events = {name: [clip_events(clip, backgrounds) for clip in clips]
              for name, clips in (("generated", generated), ("real", real), ("codec", codec))}  # fmt: skip
    together = [t for t in ours if t in training_features]

    def joined(parts: Features) -> np.ndarray:
        return np.concatenate([parts[t] / (training_features[t].std() + 1e-6) for t in together], axis=1)

    return {
        **facts,
        "clips": len(generated),
        "sync": synchronization_report(events["generated"], events["real"], events["codec"]),
        "contacts": contact_report(real, events["real"]),
        "adherence": adherence_report(ours, theirs, judges, attributes, unseen),
        "realism": realism_report(ours, theirs, reference_features or training_features),
        "memorization": memorization(joined(ours), joined(theirs), joined(training_features)),
    }


def _tracks(clips: Sequence[Clip]) -> list[str]:
    first = clips[0]
    present = {"video": first.video is not None, "audio": first.audio is not None, "sensor": bool(first.sensor)}
    return [track for track in TRACKS if present[track]]


def table(report: Mapping[str, Any]) -> str:
    """The report as plain text for a terminal."""
    lines = []
    for pair, rows in report["sync"].items():
        lines.append(
            f"{pair:14s} {'precision':>9s} {'recall':>7s} {'F1':>6s} {'median':>9s} {'95 %':>9s} {'clips':>6s}"
        )
        for name, s in rows.items():
            numbers = f"{s['precision']:9.3f} {s['recall']:7.3f} {s['f1']:6.3f} "
            lines.append(f"  {name:12s} {numbers}{_ms(s['median_ms'])} {_ms(s['p95_ms'])} {s['n']:6d}")
    lines.append("")
    columns = ("generated", "real", "unseen", "real_unseen", "chance")
    lines.append(f"{'adherence':14s} " + " ".join(f"{c:>11s}" for c in columns))
    for attribute, scores in report["adherence"].items():
        cells = (f"{'–':>11s}" if scores[c] is None else f"{scores[c]:11.3f}" for c in columns)
        lines.append(f"  {attribute:12s} " + " ".join(cells))
    lines.append("")
    lines.append(f"{'realism':14s} {'Fréchet':>9s} {'floor':>9s} {'precision':>9s} {'recall':>9s} {'n':>6s}")
    for track, s in report["realism"].items():
        numbers = " ".join(f"{s[k]:9.3f}" for k in ("frechet", "floor", "precision", "recall"))
        lines.append(f"  {track:12s} {numbers} {s['n']:6d}")
    m = report["memorization"]
    lines.append(
        f"\nmemorization   nearest training clip at {m['ratio']:.2f} times the distance of held-out clips; "
        f"{m['share_closer']:.1%} closer than their 1st percentile"
    )
    return "\n".join(lines)


def _ms(value: float | None) -> str:
    return f"{'–':>9s}" if value is None else f"{value:6.1f} ms"
