"""One file of music21's corpus as a Piece: notes, regular bars, and a key that its notes confirm."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from ..modalities.clip import ClipError
from ..modalities.music_terms import MODES
from .scores_key import key_of_notes
from .scores_piece import Piece, bar_length

METERS = ("2/4", "3/4", "4/4", "2/2", "3/2", "3/8", "6/8", "9/8", "12/8")
KINDS = {  # what R: lines say → the word we use
    "reel": "reel",
    "jig": "jig",
    "double jig": "jig",
    "single jig": "jig",
    "slip jig": "slip jig",
    "slipjig": "slip jig",
    "slide": "slide",
    "hornpipe": "hornpipe",
    "strathspey": "strathspey",
    "clog": "clog",
    "highland fling": "fling",
    "fling": "fling",
    "walkaround": "walkaround",
    "air": "air",
    "waltz": "waltz",
    "march": "march",
    "polka": "polka",
}


def parse_piece(name: str, collection: str, file: Path, text: str | None = None) -> Piece:
    """Parse a score.

    Args:
        name: the piece's identity.
        file: MusicXML, kern, or ABC.
        text: one tune in ABC, in place of the file.

    Raises:
        ClipError: a piece of no use, in a few words: several meters, an unusual one, a key that notes contradict, …
    """
    from music21 import converter

    score: Any = converter.parse(text, format="abc") if text is not None else converter.parse(file, forceSource=True)
    parts = [part for part in (_notes(part) for part in score.parts) if len(part)]
    if not parts:
        raise ClipError("no notes")
    meter = _meter(score)
    pickup, bars = find_bars(_measures(score.parts[0]), bar_length(meter))
    if len(bars) < 6:
        raise ClipError("fewer than six regular bars")
    tonic, mode = _key(score, np.concatenate(parts))
    parts.sort(key=lambda part: -float(np.average(part[:, 2], weights=part[:, 1])))
    header = _header(text or "")
    kind = _kind(header, meter) if text is not None else ("chorale" if _is_chorale(parts, meter) else "")
    title = header.get("T", "") if text is not None else str(score.metadata.title or "")
    composer = "Johann Sebastian Bach" if collection == "bach" else header.get("C", "")
    return Piece(name, collection, title, composer, kind, tonic, mode, meter, pickup, bars, tuple(parts))


def find_bars(measures: list[tuple[float, float]], length: float) -> tuple[float, tuple[float, ...]]:
    """Where regular bars begin, from notated measures, some of which are parts of a bar.

    A bar cut in two by a repeat sign is one bar; a short first measure is the pickup; a short last one still begins a
    bar; any other measure of the wrong length is no bar.

    Args:
        measures: onset and length of each, in quarter notes.
        length: of a full bar.

    Returns:
        length of the pickup, onsets of the bars.
    """
    pickup, bars, i = 0.0, [], 0
    while i < len(measures):
        onset, long = measures[i]
        following = measures[i + 1][1] if i + 1 < len(measures) else 0.0
        if abs(long - length) < 1e-3:
            bars.append(onset)
        elif i == 0 and long < length:
            pickup = long
        elif long < length and (i + 1 == len(measures) or abs(long + following - length) < 1e-3):
            bars.append(onset)
            i += 1  # the second half
        i += 1
    return pickup, tuple(bars)


def _notes(part: Any) -> np.ndarray:
    """`[notes, 3]` of a part, tied notes as one; grace notes, chord symbols and percussion are left out."""
    from music21 import harmony

    rows: list[list[float]] = []
    tied: dict[int, int] = {}  # pitch → its row, if a tie leaves it
    for element in part.flatten().notes:
        if isinstance(element, harmony.Harmony) or element.duration.quarterLength == 0:
            continue
        onset, long = float(element.offset), float(element.duration.quarterLength)
        for note in element.notes if element.isChord else [element]:
            if not hasattr(note, "pitch"):
                continue
            pitch = round(note.pitch.ps)
            row = tied.pop(pitch, None)
            if row is not None and abs(rows[row][0] + rows[row][1] - onset) < 1e-3:
                rows[row][1] += long
            else:
                row = len(rows)
                rows.append([onset, long, pitch])
            tie = note.tie or element.tie
            if tie is not None and tie.type in ("start", "continue"):
                tied[pitch] = row
    return np.array(sorted(rows), np.float64).reshape(-1, 3)


def _measures(part: Any) -> list[tuple[float, float]]:
    measures = list(part.getElementsByClass("Measure"))
    onsets = [float(measure.offset) for measure in measures]
    ends = [*onsets[1:], float(part.highestTime)]
    return [(onset, end - onset) for onset, end in zip(onsets, ends, strict=True) if end > onset]


def _meter(score: Any) -> str:
    meters = {meter.ratioString for meter in score.recurse().getElementsByClass("TimeSignature")}
    if len(meters) != 1:
        raise ClipError("no meter" if not meters else "several meters")
    (meter,) = meters
    if meter not in METERS:
        raise ClipError(f"meter {meter}")
    return meter


def _key(score: Any, notes: np.ndarray) -> tuple[int, str]:
    """That relative of the key signature which two of three name: the notation, Krumhansl's estimate, the last bass.

    Krumhansl's profiles lean to the dominant in chorales, and the files' modes are right in one part only.
    """
    signatures = list(score.recurse().getElementsByClass("KeySignature"))
    if not signatures:
        raise ClipError("no key signature")
    if len({signature.sharps for signature in signatures}) > 1:
        raise ClipError("several key signatures")
    modes = [mode for mode in (getattr(signature, "mode", None) for signature in signatures) if mode is not None]
    if set(modes) - set(MODES):
        raise ClipError("a mode other than major and minor")
    tonic = signatures[0].sharps * 7 % 12
    relatives = {"major": (tonic, "major"), "minor": ((tonic + 9) % 12, "minor")}
    ends = notes[:, 0] + notes[:, 1]
    bass = int(notes[ends >= ends.max() - 1e-3, 2].min()) % 12
    heard = key_of_notes(notes[:, 2], notes[:, 1])
    for mode, key in relatives.items():
        if (mode in modes[:1]) + (heard == key) + (bass == key[0]) >= 2:
            return key
    raise ClipError("a key that its notes contradict")


def _header(text: str) -> dict[str, str]:
    """The first field of each letter in a tune's head."""
    fields: dict[str, str] = {}
    for letter, value in re.findall(r"(?m)^([A-Z]):[ \t]*(.*?)\s*$", text):
        if value:
            fields.setdefault(letter, value)
        if letter == "K":
            break
    return fields


def _kind(header: dict[str, str], meter: str) -> str:
    kind = KINDS.get(header.get("R", "").lower(), "")
    return "" if kind in ("jig", "slip jig") and not meter.endswith("/8") else kind


def _is_chorale(parts: list[np.ndarray], meter: str) -> bool:
    """Four voices with about as many notes each; the corpus has few pieces of Bach's that are not chorales."""
    counts = [len(part) for part in parts]
    return len(parts) == 4 and meter in ("3/4", "4/4", "3/2", "2/2") and max(counts) < 2.5 * min(counts)
