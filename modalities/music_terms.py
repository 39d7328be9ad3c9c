"""Keys, tempos and endings: the Krumhansl-Kessler profiles, and what a prompt asks for; C is pitch class 0."""

import re

MODES = ("major", "minor")
PROFILES = {  # Krumhansl, Cognitive Foundations of Musical Pitch, 1990, p. 30
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
KEYS = tuple((tonic, mode) for mode in MODES for tonic in range(12))
FIFTH = 0.3  # of a pitch class, what its third partial adds to its fifth: exact key of 80 renderings .71 → .80
TEMPO = re.compile(r"\btempo\s*=\s*(\d+(?:\.\d+)?)|(\d+(?:\.\d+)?) ?(?:bpm|beats (?:per|a) minute)\b", re.IGNORECASE)
KEY = re.compile(
    r"\bkey\s*=\s*(?P<name>[A-G])(?P<mark>[#b♯♭]?)(?P<short>m?)(?![\w#])"
    r"|\b(?P<tonic>[A-G])(?P<sign>[#b♯♭]|[- ]?sharp|[- ]?flat)?[ -](?P<mode>[Mm]ajor|[Mm]inor)\b"
)
ENDING = re.compile(
    r"\b(?:without an ending|ends\s*=\s*no\b)(?P<no>)|\bwith an ending\b"
    r"|\bends\s*=\s*(?P<at>\d+(?:\.\d+)?)|\b(?P<long>\d+(?:\.\d+)?) seconds long\b",
    re.IGNORECASE,
)


def asked_tempo(prompt: str) -> float | None:
    """Beats a minute that a prompt asks for (`66 bpm`, `tempo=66`); None if it names none."""
    match = TEMPO.search(prompt)
    return None if match is None else float(match[1] or match[2])


def asked_key(prompt: str) -> tuple[int, str] | None:
    """Tonic and mode that a prompt asks for (`D minor`, `B-flat major`, `key=F#m`); None if it names none.

    The tonic is a capital letter: "a minor piece" names none.
    """
    match = KEY.search(prompt)
    if match is None:
        return None
    letter, sign = match["name"] or match["tonic"], (match["mark"] or match["sign"] or "").strip(" -")
    mode = match["mode"].lower() if match["mode"] else "minor" if match["short"] else "major"
    shift = 1 if sign in ("#", "♯", "sharp") else -1 if sign else 0
    return ("C D EF G A B".index(letter) + shift) % 12, mode


def asked_ending(prompt: str) -> float | bool | None:
    """When the music that a prompt asks for has ended, in seconds (`8 seconds long`, `ends=8.2`).

    True for `with an ending` at any time, False for `without an ending` and `ends=no`; None if it says nothing of it.
    """
    match = ENDING.search(prompt)
    if match is None:
        return None
    at = match["at"] or match["long"]
    return match["no"] is None if at is None else float(at)
