"""What is said of the end of a piece: added where it is asked for, once, in the captions' words."""

import pytest

from counterpoint.cli.jobs import Job
from counterpoint.cli.music import with_ending, without_ending
from counterpoint.cli.text_to_music import prompt_of

CELLO = "a slow piece for solo cello, 66 bpm"


@pytest.mark.parametrize(
    ("prompt", "seconds", "loop", "sent"),
    [
        (CELLO, 8.0, False, f"{CELLO}, 8 seconds long"),
        ("Adagio, 66 bpm. Cello solo.", 7.6, False, "Adagio, 66 bpm. Cello solo, 8 seconds long"),
        ("tempo=66 instrument=cello", 8.0, False, "tempo=66 instrument=cello ends=8.0"),
        ("instrument=cello", 8.25, False, "instrument=cello ends=8.2"),
        (CELLO, 0.3, False, f"{CELLO}, 1 seconds long"),
        (CELLO, None, False, CELLO),
        (CELLO, 10.24, False, CELLO),
        (CELLO, 20.0, False, CELLO),
        (CELLO, None, True, f"{CELLO}, without an ending"),
        (CELLO, 8.0, True, f"{CELLO}, without an ending"),
        (CELLO, 20.0, True, f"{CELLO}, without an ending"),
        ("tempo=66", None, True, "tempo=66 ends=no"),
        ("", 8.0, False, ""),
    ],
)
def test_an_end_is_added_where_it_is_asked_for(prompt, seconds, loop, sent):
    assert with_ending(prompt, seconds, 10.24, loop) == sent
    assert with_ending(sent, seconds, 10.24, loop) == sent
    if sent.rstrip(".") != prompt.rstrip("."):
        assert without_ending(sent, seconds, loop) == prompt.rstrip(".")


@pytest.mark.parametrize(
    "prompt",
    ["a piece with an ending", "tempo=66 ends=7.0", "a reel, 6 seconds long", "a 6-second reel", "an endless reel",
     "A reel that Ends on the tonic", "eight seconds long"],
)  # fmt: skip
@pytest.mark.parametrize("loop", [True, False])
def test_what_says_it_already_stays(prompt, loop):
    assert with_ending(prompt, 8.0, 10.24, loop) == prompt


@pytest.mark.parametrize("prompt", ["a tender legend in E minor", "a tune of the 1860s, 66 bpm", "two second violins"])
def test_other_words_are_no_end(prompt):
    assert with_ending(prompt, 8.0, 10.24) == f"{prompt}, 8 seconds long"


def test_a_model_of_unknown_length_is_told_nothing_but_loops():
    assert with_ending(CELLO, 8.0, None) == CELLO
    assert with_ending(CELLO, None, None, loop=True) == f"{CELLO}, without an ending"


def test_an_earlier_clip_is_told_its_end_anew():
    sent = f"{CELLO}, 8 seconds long"
    earlier = {"prompt": sent, "seconds": 8.0}
    assert prompt_of(Job(sent, 0, seconds=8.0), 10.24, earlier) == sent
    assert prompt_of(Job(sent, 0, seconds=6.0), 10.24, earlier) == f"{CELLO}, 6 seconds long"
    assert prompt_of(Job(sent, 0, seconds=20.0), 10.24, earlier) == CELLO
    assert prompt_of(Job(sent, 0, seconds=8.0, loop=True), 10.24, earlier) == f"{CELLO}, without an ending"
    plain = {"prompt": CELLO, "seconds": 8.0}  # of a command that says nothing of the end
    assert prompt_of(Job(CELLO, 1, seconds=8.0), 10.24, plain) == CELLO
    assert prompt_of(Job(CELLO, 1, seconds=7.0), 10.24, plain) == f"{CELLO}, 7 seconds long"
    assert prompt_of(Job("a reel", 1, seconds=8.0), 10.24, plain) == "a reel, 8 seconds long"
