"""What a prompt for music says of its end, in the words of the captions that models of music are trained on.

A model of music makes windows of one length (10.24 s); a shorter piece is one that ends early, and a loop one that does
not end. Both are said in the prompt: in a sentence as `, 8 seconds long` and `, without an ending`, in the structured
form as ` ends=8.0` and ` ends=no` (docs/music-data.md).
"""

from __future__ import annotations

import re

ENDING = re.compile(r"\b(end(s|ings?|ed|less|lessly)?|seconds? long|\d+(\.\d+)?[ -]?(s long|secs?|seconds?))\b", re.I)
STRUCTURED = re.compile(r"(^|\s)[a-z]+=\S")


def with_ending(prompt: str, seconds: float | None, window: float | None, loop: bool = False) -> str:
    """The prompt as it is sent: what it doesn't say of its end is added.

    Args:
        prompt: a sentence, or the structured form such as `tempo=66 instrument=cello`.
        seconds: the length asked for; None is a whole window.
        window: seconds that the model makes at once; None is not known.
        loop: the music should not end.
    """
    shorter = seconds is not None and window is not None and seconds < window
    if not prompt.strip() or not (loop or shorter) or ENDING.search(prompt):
        return prompt
    text = prompt.rstrip()
    return (text if _structured(text) else text.rstrip(".,;")) + _said(text, seconds, loop)


def without_ending(prompt: str, seconds: float | None, loop: bool = False) -> str:
    """The prompt without what `with_ending` added to it for this length."""
    return prompt if seconds is None and not loop else prompt.removesuffix(_said(prompt, seconds, loop))


def _structured(prompt: str) -> bool:
    return STRUCTURED.search(prompt) is not None


def _said(prompt: str, seconds: float | None, loop: bool) -> str:
    if loop or seconds is None:
        return " ends=no" if _structured(prompt) else ", without an ending"
    return f" ends={seconds:.1f}" if _structured(prompt) else f", {max(1, round(seconds))} seconds long"
