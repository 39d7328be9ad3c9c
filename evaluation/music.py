"""The evaluation of music: does it obey its prompt, does it sound clean and real, are its melodies its own?

Everything is a pure function of sounds `[N]` at 16 kHz (`at_16_khz` makes them so) and of the facts asked for; sampling
belongs to the recipe.
Facts are a mapping with any of `tempo` (beats a minute; the beat is a dotted quarter in 6/8), `tonic` (0 is C, or a
name), `mode`, `meter` (`6/8`), `instruments` (a list of names), `family`, `dynamics`, `drums` (bool) and `ends` (bool:
the music ends within the clip); what is absent is not scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

from ..modalities.audio import RATE
from ..modalities.clip import ClipError
from ..modalities.clip_resample import to_rate
from .music_judge import INSTRUMENTS, MusicJudge, instrument_scores
from .music_key import key_scores, krumhansl, mean_chroma
from .music_melody import Figures, copied, transcribe
from .music_realism import realism
from .music_rhythm import meter, meter_class, meter_strengths, onset_envelope, tempo, tempo_scores
from .music_sound import sound_scores

TARGETS = {"tempo": 0.80, "tempo_octave": 0.90, "key": 0.75, "instrument": 0.85}  # or .9 of the ceiling, if lower
CEILING_SHARE = 0.9
ENDED = -25.0  # dB against the clip's level: below it the last 50 ms are an ending
Facts = Mapping[str, Any]
Reading = dict[str, Any]


@dataclass(frozen=True)
class Heard:
    """What the estimators and the judge say of some clips.

    Args:
        readings: of each clip, as `read` gives them, with the judge's ranking of each attribute under `judge`.
        features: of the judge, float32 `[clips, 128]`.
    """

    readings: list[Reading]
    features: np.ndarray


def at_16_khz(audio: np.ndarray, rate: float) -> np.ndarray:
    """Sound `[…, N]` of any rate as estimators and judge hear it, band-limited; that of 16 kHz itself."""
    return to_rate(audio, rate, RATE)


def read(audio: np.ndarray, bpm: float | None = None, rate: int = RATE) -> Reading:
    """What the estimators say of one sound `[N]`; the judge is not asked.

    Args:
        audio: mono, float in [-1, 1].
        bpm: of the beats that the meter is counted in; default: those found.
        rate: samples a second.

    Returns:
        `tempo` (bpm), `key` ((tonic, mode) or None), `meter` (duple, triple or None), `melody` (MIDI pitches), `sound`.
    """
    audio = np.ascontiguousarray(audio, np.float32)
    envelope = onset_envelope(audio, rate)
    found = tempo(envelope)
    return {
        "tempo": found,
        "key": krumhansl(mean_chroma(audio, rate)),
        "meter": meter(meter_strengths(envelope, found if bpm is None else bpm)),
        "melody": transcribe(audio, rate),
        "sound": sound_scores(audio, rate),
    }


@torch.no_grad()
def hear(
    sounds: Sequence[np.ndarray], asked: Sequence[Facts], judge: MusicJudge, workers: int = 1, batch: int = 16
) -> Heard:
    """All estimators and the judge on sounds of one length.

    Args:
        sounds: `[N]` each, 16 kHz, N a multiple of 320.
        asked: the facts of each clip's prompt; only the tempo is used, to count the meter's beats.
        judge: see `music_judge`.
        workers: processes.

    Raises:
        ClipError: the numbers differ, or the lengths.
    """
    if len(sounds) != len(asked) or len({len(sound) for sound in sounds}) > 1:
        raise ClipError(f"sounds: {len(sounds)} for {len(asked)} prompts, or of different lengths")
    beats = [facts.get("tempo") for facts in asked]
    if workers > 1:
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            readings = list(pool.map(read, sounds, beats, chunksize=4))
    else:
        readings = [read(sound, beat) for sound, beat in zip(sounds, beats, strict=True)]
    parts = []
    for start in range(0, len(sounds), batch):
        audio = torch.from_numpy(np.stack(sounds[start : start + batch])).float()[:, None]  # [B, 1, N]
        parts.append(judge.features(audio))
    features = torch.cat(parts)
    for name, ranked in judge.verdict(features).items():
        for reading, ranks in zip(readings, ranked, strict=True):
            reading.setdefault("judge", {})[name] = ranks
    return Heard(readings, features.numpy())


def obeyed(reading: Reading, asked: Facts) -> dict[str, float]:
    """Scores in [0, 1] of one clip for each fact that was asked for.

    Returns:
        `tempo`, `tempo_octave`, `tempo_accuracy2`; `key`, `key_mirex`, `mode` (Krumhansl); `meter` (duple or triple);
        `ends` (whether the last 50 ms are silent); by the judge `instrument`, `instrument_share`, `family`, `dynamics`,
        `drums`, `mode_judge`.
    """
    scores: dict[str, float] = {}
    if asked.get("tempo") is not None:
        scores |= tempo_scores(reading["tempo"], float(asked["tempo"]))
    if asked.get("mode") is not None:
        if asked.get("tonic") is not None:
            scores |= key_scores(reading["key"], asked["tonic"], asked["mode"])
        else:
            scores["mode"] = float(reading["key"] is not None and reading["key"][1] == asked["mode"])
    if asked.get("meter") is not None and meter_class(asked["meter"]) is not None:
        scores["meter"] = float(reading["meter"] == meter_class(asked["meter"]))
    if asked.get("ends") is not None:
        scores["ends"] = float((reading["sound"]["end_db"] < ENDED) == bool(asked["ends"]))
    ranked = reading.get("judge", {})
    if INSTRUMENTS in ranked and asked.get("instruments"):
        scores |= instrument_scores(ranked[INSTRUMENTS], asked["instruments"])
    for name, key in (("family", "family"), ("dynamics", "dynamics"), ("drums", "drums"), ("mode", "mode_judge")):
        if name in ranked and asked.get(name) is not None:
            scores[key] = float(ranked[name][0] == str(asked[name]))
    return scores


def adherence_report(
    generated: Sequence[Reading],
    real: Sequence[Reading],
    codec: Sequence[Reading],
    asked: Sequence[Facts],
    unseen: Sequence[bool],
) -> dict[str, dict[str, float | None]]:
    """Share of clips that obey, by attribute.

    Args:
        generated, real, codec: readings of clips that answer the same prompts, in the same order (codec may be empty).
        asked: the facts of the prompts.
        unseen: which prompts combine what was never combined in training.

    Returns:
        `{attribute: {generated, unseen, real, real_unseen, codec, shuffled, n}}`: generated, real and codec over all
        prompts, unseen and real_unseen over those alone (None where there are none), shuffled the generated clips
        against every other prompt (chance), n the prompts that state the attribute.
    """

    def means(readings: Sequence[Reading], chosen: Sequence[int], shift: int = 0) -> dict[str, list[float]]:
        gathered: dict[str, list[float]] = {}
        for i in chosen:
            for name, score in obeyed(readings[i], asked[(i + shift) % len(asked)]).items():
                gathered.setdefault(name, []).append(score)
        return gathered

    everyone, rare = range(len(asked)), [i for i, flag in enumerate(unseen) if flag]
    columns = {
        "generated": means(generated, everyone),
        "unseen": means(generated, rare),
        "real": means(real, everyone),
        "real_unseen": means(real, rare),
        "codec": means(codec, everyone[: len(codec)]),
        "shuffled": {},
    }
    for shift in range(1, len(asked)):
        for name, scores in means(generated, everyone, shift).items():
            columns["shuffled"].setdefault(name, []).extend(scores)
    return {
        name: {c: float(np.mean(by[name])) if by.get(name) else None for c, by in columns.items()} | {"n": len(scores)}
        for name, scores in columns["generated"].items()
    }


def targets_report(adherence: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, Any]]:
    """Which of `TARGETS` are met, or nine tenths of what the estimators give real clips where that is lower."""
    report = {}
    for name, goal in TARGETS.items():
        if name in adherence:
            wanted = min(goal, CEILING_SHARE * (adherence[name]["real"] or 0.0))
            report[name] = {"wanted": wanted, "met": (adherence[name]["generated"] or 0.0) >= wanted}
    return report


def sound_report(readings: Sequence[Reading], asked: Sequence[Facts]) -> dict[str, Any]:
    """Means over the clips of every score of `music_sound`; the loudness also by the dynamics asked for."""
    sounds = [reading["sound"] for reading in readings]
    report: dict[str, Any] = {name: _mean([sound[name] for sound in sounds]) for name in sounds[0]} if sounds else {}
    by: dict[str, list[float]] = {}
    for sound, facts in zip(sounds, asked, strict=False):
        if facts.get("dynamics") is not None:
            by.setdefault(str(facts["dynamics"]), []).append(sound["loudness_lufs"])
    return report | {"loudness_by_dynamics": {name: _mean(values) for name, values in sorted(by.items())}}


def evaluate(
    generated: Heard,
    real: Heard,
    codec: Heard,
    asked: Sequence[Facts],
    unseen: Sequence[bool],
    reference_features: np.ndarray,
    known: Figures,
    training: Sequence[Reading] = (),
    single: Sequence[bool] | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """Everything that is said about a model of music, ready for JSON.

    Args:
        generated: clips made from the prompts of `real`, in the same order.
        real: held-out clips.
        codec: the same clips encoded and decoded (the first ones may do).
        asked, unseen: as in `adherence_report`.
        reference_features: of other held-out clips `[M, 128]`.
        known: figures of all training pieces (`music_melody.index`).
        training: readings of training clips of a single line: what the search for copies says of copies.
        single: which prompts ask for a single line, in which alone copies are searched for; default: all.
        facts: what else belongs into the report (model, seeds, commit, settings).

    Raises:
        ClipError: the numbers of clips differ.
    """
    if not len(generated.readings) == len(real.readings) == len(asked) == len(unseen):
        raise ClipError(f"generated: {len(generated.readings)} clips for {len(asked)} prompts")
    sets = {"generated": generated.readings, "real": real.readings, "codec": codec.readings}
    lines = {name: [r for r, one in zip(made, single or [True] * len(made), strict=False) if one]
             for name, made in sets.items()}  # fmt: skip
    adherence = adherence_report(generated.readings, real.readings, codec.readings, asked, unseen)
    return {
        **facts,
        "clips": len(asked),
        "adherence": adherence,
        "targets": targets_report(adherence),
        "sound": {name: sound_report(readings, asked) for name, readings in sets.items()},
        "realism": realism(generated.features, real.features, reference_features),
        "melody": {name: copied([r["melody"] for r in made], known)
                   for name, made in {**lines, "training": training}.items()},
    }  # fmt: skip


def table(report: Mapping[str, Any]) -> str:
    """The report as plain text for a terminal."""

    def cell(value: float | None) -> str:
        return f"{'–':>12s}" if value is None or not np.isfinite(value) else f"{value:12.3f}"

    columns = ("generated", "real", "codec", "shuffled", "unseen", "real_unseen")
    lines = [f"{'adherence':18s}" + "".join(f"{c:>12s}" for c in columns) + f"{'n':>6s}"]
    for name, row in report["adherence"].items():
        wanted = report["targets"].get(name)
        mark = "" if wanted is None else f"  {'met' if wanted['met'] else 'missed'}: {wanted['wanted']:.2f}"
        lines.append(f"  {name:16s}" + "".join(cell(row[c]) for c in columns) + f"{row['n']:6d}{mark}")
    lines.append(f"\n{'sound':18s}" + "".join(f"{c:>12s}" for c in columns[:3]))
    for name in (n for n, value in report["sound"]["real"].items() if not isinstance(value, Mapping)):
        lines.append(f"  {name:16s}" + "".join(cell(report["sound"][c].get(name)) for c in columns[:3]))
    lines.append(f"\n{'realism':18s}{'generated':>12s}{'floor':>12s}")
    for name in ("frechet", "kernel", "precision", "recall"):
        lines.append(f"  {name:16s}{cell(report['realism'][name])}{cell(report['realism'][name + '_floor'])}")
    lines.append(f"\n{'melody':18s}{'known':>12s}{'longest':>12s}{'figures':>12s}")
    for name, row in report["melody"].items():
        lines.append(f"  {name:16s}{cell(row['share'])}{row['longest']:12d}{row['figures']:12d}")
    return "\n".join(lines)


def _mean(values: Sequence[float]) -> float | None:
    """Of what is there; None (JSON has no NaN) if nothing is."""
    there = [value for value in values if np.isfinite(value)]
    return float(np.mean(there)) if there else None
