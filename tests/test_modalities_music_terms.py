"""What a prompt asks for, in the words of the captions and in the structured form."""

from __future__ import annotations

import pytest

from counterpoint.data.scores_key import short_name, spoken_names
from counterpoint.modalities.music_terms import KEYS, asked_ending, asked_key, asked_tempo


@pytest.mark.parametrize(
    ("prompt", "tempo"),
    [("solo cello, 66 bpm", 66), ("tempo=104 key=A", 104), ("at 90 beats per minute in 3/4", 90), ("a slow air", None)],
)
def test_tempos(prompt: str, tempo: float | None):
    assert asked_tempo(prompt) == tempo


@pytest.mark.parametrize(
    ("prompt", "key"),
    [
        ("a slow piece in D minor, 66 bpm", (2, "minor")),
        ("B-flat major, solo tuba", (10, "major")),
        ("in F sharp minor", (6, "minor")),
        ("tempo=53 key=Bbm meter=4/4", (10, "minor")),
        ("key=F# meter=3/4", (6, "major")),
        ("A minor piece", (9, "minor")),
        ("a minor piece for cello", None),
        ("a piece for cello", None),
    ],
)
def test_keys(prompt: str, key: tuple[int, str] | None):
    assert asked_key(prompt) == key


def test_every_name_of_a_caption_is_read():
    for tonic, mode in KEYS:
        assert asked_key(f"tempo=90 key={short_name(tonic, mode)} meter=4/4") == (tonic, mode)
        for name in spoken_names(tonic, mode):
            assert asked_key(f"a reel in {name}, 120 bpm") == (tonic, mode)


@pytest.mark.parametrize(
    ("prompt", "end"),
    [
        ("a slow piece, 8 seconds long", 8.0),
        ("tempo=66 ends=8.2 key=C", 8.2),
        ("a reel With an ending.", True),
        ("a reel, without an ending", False),
        ("ends=no", False),
        ("a fast reel, 120 bpm", None),
        ("a piece that ends", None),
        ("weekends=8", None),
    ],
)
def test_the_end_that_a_prompt_asks_for(prompt, end):
    assert asked_ending(prompt) is end if isinstance(end, bool) or end is None else asked_ending(prompt) == end
