"""Synchronization of two tracks: events found in each track on its own, matched one to one, scored in milliseconds.

Matching one to one matters: scores that let one event answer for several (AV-Align and its kin) give unrelated
streams up to .65. Even so two dense streams meet by accident, so every score is read beside that of mismatched
pairs (`mismatched`) and beside that of real clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

WINDOW = 0.04  # seconds: one frame at 25 fps
SHIFTS = (1, 7, 19)  # clip i's first track meets clip (i + shift)'s second track

Events = Sequence[float] | np.ndarray
EVENT_PAIRS = (("audio", "video"), ("audio", "sensor"), ("video", "sensor"))


def match(reference: Events, prediction: Events, window: float = WINDOW) -> np.ndarray:
    """Pair events one to one: as many pairs within the window as possible, then the least total distance.

    Args:
        reference, prediction: event times in seconds, in any order.
        window: largest allowed distance in seconds (inclusive).

    Returns:
        `[pairs, 2]` int indices into reference and prediction, in the order of the reference.
    """
    a, b = np.asarray(reference, float), np.asarray(prediction, float)
    if a.size == 0 or b.size == 0:
        return np.zeros((0, 2), int)
    distance = np.abs(a[:, None] - b[None])  # [reference, prediction]
    allowed = distance <= window + 1e-9
    forbidden = (min(a.size, b.size) + 1) * (window + 1e-6)  # one pair more outweighs any sum of distances
    rows, columns = linear_sum_assignment(np.where(allowed, distance, forbidden))
    kept = allowed[rows, columns]
    return np.stack([rows[kept], columns[kept]], axis=1)


def offsets(reference: Events, prediction: Events, window: float = WINDOW) -> np.ndarray:
    """Signed distances `prediction − reference` in seconds of the matched pairs, `[pairs]`."""
    pairs = match(reference, prediction, window)
    return np.asarray(prediction, float)[pairs[:, 1]] - np.asarray(reference, float)[pairs[:, 0]]


def synchronization(
    reference: Sequence[Events], prediction: Sequence[Events], window: float = WINDOW
) -> dict[str, float | int | None]:
    """Score events of one track against those of another, pooled over clips (micro average).

    Args:
        reference, prediction: one list of event times (s) per clip.
        window: largest distance (s) at which two events are the same one.

    Returns:
        precision (share of predicted events that have a partner), recall (of reference events), f1; median_ms and
        p95_ms of the absolute offset and bias_ms (median of the signed one, prediction − reference), all three over
        matched pairs only, so never above the window, and None where nothing matched; n clips, and the numbers of
        events behind them.
    """
    if len(reference) != len(prediction):
        raise ValueError(f"prediction: {len(prediction)} clips, but reference has {len(reference)}")
    found = [offsets(a, b, window) for a, b in zip(reference, prediction, strict=True)]
    distance = np.concatenate(found) if found else np.zeros(0)
    n_reference, n_prediction = sum(len(a) for a in reference), sum(len(b) for b in prediction)
    precision, recall = distance.size / max(n_prediction, 1), distance.size / max(n_reference, 1)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * distance.size / max(n_reference + n_prediction, 1),
        "median_ms": _milliseconds(np.median(np.abs(distance))) if distance.size else None,
        "p95_ms": _milliseconds(np.percentile(np.abs(distance), 95)) if distance.size else None,
        "bias_ms": _milliseconds(np.median(distance)) if distance.size else None,
        "n": len(reference),
        "reference_events": n_reference,
        "predicted_events": n_prediction,
        "matched_events": int(distance.size),
    }


def agreement(events: Mapping[str, Events], window: float = WINDOW) -> float:
    """How well the tracks of one clip keep time with one another, 0 … 1.

    It is the F1 of all pairs of tracks together, but two events that meet count 1 only if they are simultaneous, and
    down to ½ if they are `window` apart. 0 where nothing happens.

    Args:
        events: times in seconds by track, at least two of those of `EVENT_PAIRS`.
    """
    found, together = 0, 0.0
    for first, second in EVENT_PAIRS:
        if first in events and second in events:
            found += len(events[first]) + len(events[second])
            together += float((1.0 - np.abs(offsets(events[first], events[second], window)) / (2 * window)).sum())
    return 2.0 * together / max(found, 1)


def mismatched(
    reference: Sequence[Events],
    prediction: Sequence[Events],
    window: float = WINDOW,
    shifts: Sequence[int] = SHIFTS,
) -> dict[str, float | int | None]:
    """The score of chance: each clip's reference against another clip's prediction, several cyclic shifts pooled."""
    clips = len(reference)
    used = [shift for shift in shifts if clips and shift % clips]
    if not used:
        raise ValueError(f"mismatched pairs need at least 2 clips and a shift that moves them, not {clips} clips")
    others = [prediction[(i + shift) % clips] for shift in used for i in range(clips)]
    return synchronization(list(reference) * len(used), others, window)


def _milliseconds(seconds: float | np.floating) -> float:
    return float(seconds) * 1000
