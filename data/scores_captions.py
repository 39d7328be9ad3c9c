"""Captions of a performance in many wordings, and the facts that each states: only what is true of the rendering.

Each caption states a random subset of the facts. The last one is the structured form, e.g.
`tempo=66 key=Dm meter=3/4 instrument=cello dynamics=p`, so that control need not hang on wording.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .scores_draw import Performance, rng_of
from .scores_key import short_name, spoken_names

TEMPO_WORDS = (  # from this tempo on, in beats a minute: English, Italian
    (0, ("very slow", "solemn and very slow"), "largo"),
    (60, ("slow", "unhurried"), "adagio"),
    (80, ("moderately slow", "relaxed"), "andante"),
    (104, ("moderate", "medium-tempo"), "moderato"),
    (120, ("fast", "lively", "quick"), "allegro"),
    (156, ("very fast", "rapid"), "presto"),
)
DYNAMIC_WORDS = {"p": ("soft", "quiet", "gentle"), "mf": ("moderately loud", "medium-loud"), "f": ("loud", "forceful")}
ROOM_WORDS = {"dry": ("without reverb", "recorded dry"), "room": (), "hall": ("in a large hall", "with long reverb")}
SAID = {"tempo": 0.75, "pace": 0.45, "key": 0.75, "instruments": 0.92, "meter": 0.4}  # how often; 0.35 for the others
NUMBERS = {2: "two", 3: "three", 4: "four"}

Phrases = dict[str, str]  # fact → how this caption puts it


def tempo_words(tempo: float) -> tuple[tuple[str, ...], str]:
    """English words and the Italian one for a tempo, as in the table above."""
    return next((english, italian) for low, english, italian in reversed(TEMPO_WORDS) if tempo >= low)


def write_captions(performance: Performance, count: int = 4) -> tuple[list[str], list[list[str]]]:
    """`count` captions and the structured form, and the facts that each of them states.

    Facts are `tempo` (a number of beats a minute), `pace` (a word for it), `key`, `instruments`, `meter`, `dynamics`,
    `drums`, `type`, `source`, `room`, `ending` (whether the music ends in the clip, or when) and, in the structured
    form, `texture`.
    """
    rng = rng_of(performance.seed, performance.split, 3)
    captions, stated = [], []
    for style in rng.permutation(len(STYLES))[:count]:
        said = _choose(performance, rng)
        text, used = STYLES[style](_phrases(performance, said, rng), rng)
        captions.append(text[0].upper() + text[1:] if rng.random() < 0.5 else text)
        stated.append(sorted(used))
    text, used = structured(performance)
    return [*captions, text], [*stated, sorted(used)]


def structured(performance: Performance) -> tuple[str, list[str]]:
    """`tempo=66 key=Dm meter=3/4 instrument=cello dynamics=p drums=no`, and the facts in it."""
    names = "+".join(name.replace(" ", "_") for name in dict.fromkeys(performance.instruments))
    fields = {
        "tempo": performance.tempo,
        "key": short_name(performance.tonic, performance.piece.mode),
        "meter": performance.piece.meter,
        "instrument": names,
        "texture": performance.texture,
        "dynamics": performance.dynamics,
        "drums": "yes" if performance.drums else "no",
        "type": performance.piece.kind.replace(" ", "_"),
        "ends": f"{performance.end:.1f}" if performance.ends else "no",
    }
    text = " ".join(f"{name}={value}" for name, value in fields.items() if value != "")
    names_of = {"instrument": "instruments", "ends": "ending"}
    return text, [names_of.get(name, name) for name, value in fields.items() if value != ""]


def _choose(performance: Performance, rng: np.random.Generator) -> set[str]:
    """Which facts a caption states: at least two of tempo or pace, key and instruments."""
    said = set()
    while len(said & {"tempo", "key", "instruments"}) + ("pace" in said) < 2:
        facts = (
            "tempo",
            "pace",
            "key",
            "instruments",
            "meter",
            "dynamics",
            "drums",
            "type",
            "source",
            "room",
            "ending",
        )
        said = {fact for fact in facts if rng.random() < SAID.get(fact, 0.35)}
    if performance.drums and "instruments" in said:
        said.add("drums")  # a list of the instruments without them would not be the whole truth
    return said


def _phrases(performance: Performance, said: set[str], rng: np.random.Generator) -> Phrases:
    """One wording of each fact that is said; facts of which nothing can be said are left out."""

    def pick(words: Sequence[str]) -> str:
        return words[int(rng.integers(len(words)))] if words else ""

    piece, tempo = performance.piece, performance.tempo
    english, italian = tempo_words(tempo)
    ways = {
        "tempo": (f"{tempo} bpm", f"{tempo} BPM", f"{tempo} beats per minute"),
        "pace": (*english, italian) if rng.random() < 0.7 else english,
        "key": spoken_names(performance.tonic, piece.mode),
        "instruments": players(performance),
        "meter": (f"{piece.meter} time", piece.meter, f"{piece.meter} meter"),
        "dynamics": DYNAMIC_WORDS[performance.dynamics],
        "drums": ("with drums", "with a drum kit") if performance.drums else ("without drums", "no drums"),
        "type": _types(performance),
        "source": SOURCES[piece.collection],
        "room": ROOM_WORDS[performance.room],
        "ending": endings(performance),
    }
    phrases = {fact: pick(ways[fact]) for fact in ways if fact in said}
    return {fact: phrase for fact, phrase in phrases.items() if phrase}


SOURCES = {
    "bach": ("by Bach", "by J. S. Bach", "by Johann Sebastian Bach"),
    "oneills": ("from O'Neill's collection", "from O'Neill's Music of Ireland"),
    "ryans": ("from Ryan's Mammoth Collection", "from Ryan's collection"),
}


def _types(performance: Performance) -> tuple[str, ...]:
    kind = performance.piece.kind
    return (kind,) if kind else ()


def endings(performance: Performance) -> tuple[str, ...]:
    """Ways to say that the music ends within the clip, and when, or that it goes on beyond it."""
    if not performance.ends:
        return ("without an ending",)
    return ("with an ending", f"{performance.end:.0f} seconds long")


def players(performance: Performance) -> tuple[str, ...]:
    """Ways to say who plays, e.g. `solo cello`, `two violins`, `a string quartet`, `church organ`."""
    names = performance.instruments
    if performance.texture == "solo":
        ways = (f"solo {names[0]}", f"{names[0]} solo", names[0])
        return ways if performance.drums else (*ways, f"unaccompanied {names[0]}")
    if performance.texture == "parts":
        voices = NUMBERS.get(len(performance.piece.parts), "many")
        return (names[0], f"{names[0]} in {voices} parts")
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    listed = _listed([name if many == 1 else f"{NUMBERS[many]} {_plural(name)}" for name, many in counts.items()])
    if performance.texture == "unison":
        return (f"{listed} in unison", f"{listed} together" if len(names) > 1 else listed)
    ways = (listed, f"a {performance.texture} of {listed}")
    return (*ways, performance.ensemble, f"a {performance.ensemble}") if performance.ensemble else ways


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _plural(name: str) -> str:
    return {"double bass": "double basses", "french horn": "french horns"}.get(name, f"{name}s")


def _sentence(phrases: Phrases, rng: np.random.Generator) -> tuple[str, set[str]]:
    """`a slow, soft chorale in D minor for solo cello, 66 bpm, in 3/4 time`."""
    used = set(phrases)
    adjectives = [phrases.pop(fact) for fact in ("pace", "dynamics") if fact in phrases]
    noun = phrases.pop("type", ("piece", "tune")[int(rng.integers(2))])
    text = f"{', '.join(adjectives)} {noun}".strip()
    text = f"{'an' if text[0] in 'aeiou' else 'a'} {text}"
    text += f" {phrases.pop('source')}" if "source" in phrases else ""
    text += f" for {phrases.pop('instruments')}" if "instruments" in phrases else ""
    text += f" in {phrases.pop('key')}" if "key" in phrases else ""
    tempo = f", {('at ', '')[int(rng.integers(2))]}{phrases.pop('tempo')}" if "tempo" in phrases else ""
    meter = f", in {phrases.pop('meter')}" if "meter" in phrases else ""
    return text + tempo + meter + "".join(f", {phrase}" for phrase in phrases.values()), used


def _tags(phrases: Phrases, rng: np.random.Generator) -> tuple[str, set[str]]:
    """`cello solo, D minor, 66 bpm, slow` in any order."""
    words = list(phrases.values())
    return ", ".join(words[i] for i in rng.permutation(len(words))), set(phrases)


def _playing(phrases: Phrases, rng: np.random.Generator) -> tuple[str, set[str]]:
    """`solo cello playing a slow piece in D minor at 66 bpm`; who plays leads, if it is said."""
    who, used = phrases.pop("instruments", ""), set(phrases)
    what, _ = _sentence(phrases, rng)
    return (f"{who} playing {what}" if who else f"music: {what}"), used | ({"instruments"} if who else set())


def _heading(phrases: Phrases, rng: np.random.Generator) -> tuple[str, set[str]]:
    """`Adagio, 66 bpm. Chorale in D minor by Bach. Cello solo, 3/4 time.`"""
    used = set(phrases)
    first = [phrases.pop(fact) for fact in ("pace", "tempo") if fact in phrases]
    second = [phrases.pop("type", "music")]
    second += [f"in {phrases.pop('key')}"] if "key" in phrases else []
    second += [phrases.pop("source")] if "source" in phrases else []
    lines = [", ".join(first), " ".join(second), ", ".join(phrases.values())]
    return " ".join(f"{line[0].upper()}{line[1:]}." for line in lines if line), used


def _wish(phrases: Phrases, rng: np.random.Generator) -> tuple[str, set[str]]:
    """`play something slow in D minor on solo cello at 66 bpm`: how a person asks."""
    used = set(phrases)
    opening = ("I would like", "give me", "please play", "make")[int(rng.integers(4))]
    adjective = phrases.pop("pace", "")
    text = f"{opening} {phrases.pop('type') + ' music' if 'type' in phrases else 'music'}"
    text += f" that is {adjective}" if adjective else ""
    text += f", in {phrases.pop('key')}" if "key" in phrases else ""
    text += f", played by {phrases.pop('instruments')}" if "instruments" in phrases else ""
    text += f", at {phrases.pop('tempo')}" if "tempo" in phrases else ""
    return text + "".join(f", {phrase}" for phrase in phrases.values()), used


STYLES: tuple[Callable[[Phrases, np.random.Generator], tuple[str, set[str]]], ...] = (
    _sentence,
    _tags,
    _playing,
    _heading,
    _wish,
)
