"""Notes as they are played: timing and force of human hands, and a drummer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .scores_draw import DYNAMICS, Performance, rng_of, window
from .scores_instruments import DRUMS
from .scores_piece import bar_length, beat_length


class Note(NamedTuple):
    """Onset and duration in seconds, MIDI pitch, velocity 1–127."""

    onset: float
    duration: float
    pitch: int
    velocity: int


def beats(performance: Performance) -> tuple[list[float], list[float]]:
    """Seconds of the beats and of the downbeats that lie in the clip; none after the last note."""
    meter, begin = performance.piece.meter, window(performance)[0]
    bar, beat = bar_length(meter), beat_length(meter)
    end = min(performance.seconds, float(performance.time(performance.piece.end)) - 1e-6)
    count = int((end - float(performance.time(begin))) / (beat * performance.quarter)) + 1
    times = [(i, float(performance.time(begin + i * beat))) for i in range(count)]
    inside = [(i, time) for i, time in times if 0 <= time < end]
    return [time for _, time in inside], [time for i, time in inside if i % round(bar / beat) == 0]


def play(performance: Performance, number: int) -> list[Note]:
    """The notes of a player, in the clip's time (negative before it), with a player's own timing and force."""
    layer, piece = performance.layers[number], performance.piece
    rng = rng_of(performance.seed, performance.split, 10 + number)
    begin, end = window(performance)
    bar, beat = bar_length(piece.meter), beat_length(piece.meter)
    middle, notes = DYNAMICS[performance.dynamics][0], []
    for part in layer.parts:
        rows = piece.parts[part]
        inside = rows[(rows[:, 0] >= begin - 1e-3) & (rows[:, 0] < end)]
        late = np.clip(rng.standard_normal(len(inside)), -2, 2) * performance.looseness
        force = rng.standard_normal(len(inside)) * 4
        legato = rng.uniform(0.86, 0.98)
        for (onset, long, pitch), slip, more in zip(inside.tolist(), late, force, strict=True):
            place = (onset - piece.bars[performance.start]) % bar
            accent = 6 if place < 1e-3 else 2 if place % beat < 1e-3 else -3
            velocity = int(np.clip(round(middle + accent + more), 20, 127))
            time = float(performance.time(onset)) + slip
            notes.append(Note(time, max(0.05, long * performance.quarter * legato), int(pitch) + layer.shift, velocity))
    return _apart(sorted(notes))


def drum_notes(performance: Performance) -> list[Note]:
    """A drummer's bars: kick and snare by the meter, the hat in between."""
    rng = rng_of(performance.seed, performance.split, 5)
    meter, begin = performance.piece.meter, window(performance)[0]
    bar, beat = bar_length(meter), beat_length(meter)
    step = beat / 3 if beat == 1.5 else beat / 2
    count, busy, rim = round(bar / beat), bool(rng.random() < 0.6), bool(rng.random() < 0.3)
    stop = min(performance.seconds, float(performance.time(performance.piece.end)) - 1e-6)
    middle, notes = DYNAMICS[performance.dynamics][0], []

    def hit(drum: str, position: float, force: int) -> None:
        time = float(performance.time(position)) + float(rng.normal() * performance.looseness / 2)
        if time < stop:
            notes.append(Note(time, 0.1, DRUMS[drum], int(np.clip(middle + force + rng.normal() * 3, 20, 127))))

    bars = int((stop - float(performance.time(begin))) / (bar * performance.quarter)) + 1
    for position in begin + bar * np.arange(bars):
        for i in range(count):
            kick = i == 0 or (count == 4 and i == 2)
            hit("kick" if kick else ("rim" if rim else "snare"), position + i * beat, 8 if i == 0 else 0)
        for j in range(round(bar / step) if busy else count):
            hit("hat", position + j * (step if busy else beat), -12 if j % round(beat / step) else -6)
    return sorted(notes)


def _apart(notes: list[Note]) -> list[Note]:
    """End every note before the same key goes down again; of two at once keep the first."""
    following: dict[int, float] = {}
    kept = []
    for note in reversed(notes):
        after = following.get(note.pitch, np.inf)
        if after - note.onset < 0.03:
            continue
        kept.append(note._replace(duration=min(note.duration, after - note.onset - 0.01)))
        following[note.pitch] = note.onset
    return kept[::-1]
