"""Instruments of General MIDI by family, with the ranges in which they are played, and ensembles by part."""

from __future__ import annotations

from dataclasses import dataclass

DRUMS = {"kick": 36, "snare": 38, "rim": 37, "hat": 42, "open hat": 46}  # keys of the drum kit


@dataclass(frozen=True)
class Instrument:
    """An instrument.

    Args:
        name: as in captions and facts.
        family: one of `FAMILIES`.
        program: of General MIDI, from 0.
        low: lowest MIDI pitch it plays here.
        high: highest.
        chords: whether it plays several parts at once (a keyboard, a harp, a choir).
    """

    name: str
    family: str
    program: int
    low: int
    high: int
    chords: bool = False


INSTRUMENTS = {
    instrument.name: instrument
    for instrument in (
        Instrument("piano", "keyboard", 0, 28, 100, True),
        Instrument("electric piano", "keyboard", 4, 33, 96, True),
        Instrument("harpsichord", "keyboard", 6, 33, 88, True),
        Instrument("accordion", "keyboard", 21, 41, 93, True),
        Instrument("violin", "strings", 40, 55, 100),
        Instrument("viola", "strings", 41, 48, 86),
        Instrument("cello", "strings", 42, 36, 76),
        Instrument("double bass", "strings", 43, 28, 62),
        Instrument("string orchestra", "strings", 48, 34, 96, True),
        Instrument("flute", "winds", 73, 60, 96),
        Instrument("recorder", "winds", 74, 60, 96),
        Instrument("oboe", "winds", 68, 58, 91),
        Instrument("clarinet", "winds", 71, 50, 91),
        Instrument("bassoon", "winds", 70, 34, 72),
        Instrument("soprano saxophone", "winds", 64, 56, 88),
        Instrument("alto saxophone", "winds", 65, 49, 81),
        Instrument("tenor saxophone", "winds", 66, 44, 76),
        Instrument("baritone saxophone", "winds", 67, 34, 69),
        Instrument("trumpet", "brass", 56, 53, 84),
        Instrument("french horn", "brass", 60, 41, 77),
        Instrument("trombone", "brass", 57, 36, 72),
        Instrument("tuba", "brass", 58, 28, 62),
        Instrument("brass section", "brass", 61, 36, 84, True),
        Instrument("nylon guitar", "plucked", 24, 38, 83, True),
        Instrument("steel guitar", "plucked", 25, 38, 83, True),
        Instrument("harp", "plucked", 46, 28, 98, True),
        Instrument("banjo", "plucked", 105, 48, 86),
        Instrument("church organ", "organ", 19, 34, 96, True),
        Instrument("harmonium", "organ", 20, 36, 89, True),
        Instrument("electric organ", "organ", 16, 34, 96, True),
        Instrument("glockenspiel", "mallets", 9, 72, 108),
        Instrument("vibraphone", "mallets", 11, 53, 89, True),
        Instrument("marimba", "mallets", 12, 41, 96, True),
        Instrument("xylophone", "mallets", 13, 65, 108),
        Instrument("choir", "choir", 52, 38, 84, True),
    )
}
FAMILIES = tuple(dict.fromkeys(instrument.family for instrument in INSTRUMENTS.values()))
ALTOGETHER = tuple(name for name, one in INSTRUMENTS.items() if one.chords)
SECTIONS = ("string orchestra", "brass section", "choir")  # many players: one part is unison, not solo
MELODIC = tuple(INSTRUMENTS)  # every one can play a single line

# By part, from the highest; the name is said only when all four play.
QUARTETS = {
    "string quartet": ("violin", "violin", "viola", "cello"),
    "brass quartet": ("trumpet", "trumpet", "french horn", "trombone"),
    "woodwind quartet": ("flute", "oboe", "clarinet", "bassoon"),
    "saxophone quartet": ("soprano saxophone", "alto saxophone", "tenor saxophone", "baritone saxophone"),
}


def family_of(names: list[str]) -> str:
    """The family that all instruments share, or `mixed`."""
    families = {INSTRUMENTS[name].family for name in names}
    return families.pop() if len(families) == 1 else "mixed"


def octave_shift(instrument: Instrument, low: int, high: int) -> int | None:
    """The least shift by octaves, in semitones, that brings pitches `low`–`high` into an instrument's range."""
    for shift in (0, 12, -12, 24, -24):
        if instrument.low <= low + shift and high + shift <= instrument.high:
            return shift
    return None
