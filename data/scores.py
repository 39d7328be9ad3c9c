"""A music data set that anybody can recreate: public-domain scores, rendered with soundfonts.

Pieces come from music21's corpus (`scores_corpus`, parsed once); a performance is drawn by seed (`scores_draw`:
excerpt, key, tempo, instruments, dynamics, drums, room), played (`scores_notes`), rendered (`scores_render`) and put in
words (`scores_captions`). Everything follows from (seed, split), the parsed scores and the soundfont files.

    clip = make_clip(Music(), seed=7)
    clip.metadata["captions"]     # "a slow piece for solo cello in D minor, 66 bpm", …
    clip.metadata["facts"]        # tempo, key, meter, instruments, beats, downbeats, notes, …
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..modalities.clip import Clip, ClipError, Track
from .scores_captions import tempo_words, write_captions
from .scores_corpus import read_scores
from .scores_draw import Performance, draw_performance, rng_of
from .scores_instruments import family_of
from .scores_key import short_name
from .scores_notes import Note, beats
from .scores_piece import Piece
from .scores_render import open_font, render
from .scores_split import SPLITS, pieces_of

__all__ = ["SPLITS", "Music", "find_soundfonts", "generate", "make_clip", "perform"]

PLACES = (
    "/usr/share/sounds/sf2/FluidR3_GM.sf2",
    "/usr/share/soundfonts/FluidR3_GM.sf2",
    "/usr/share/sounds/sf2/TimGM6mb.sf2",
    "/usr/share/soundfonts/TimGM6mb.sf2",
)


@dataclass(frozen=True)
class Music:
    """What a data set is made with.

    Args:
        split: `train`, `test` (held-out pieces) or `unseen` (held-out pieces and combinations).
        seconds: length of a clip; `seconds · rate` must be whole.
        rate: samples a second: 16000, or 24000 for the larger preset.
        soundfonts: paths of .sf2 files, one of which is drawn for each clip; empty: those found on this machine.
        scores: folder of the parsed scores; None: the user's cache folder.
    """

    split: str = "train"
    seconds: float = 10.24
    rate: int = 16000
    soundfonts: tuple[str, ...] = ()
    scores: str | None = None

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ClipError(f"split: '{self.split}' is not one of {', '.join(SPLITS)}")
        if not 1 <= self.seconds <= 60:
            raise ClipError(f"seconds: {self.seconds:g} is not between 1 and 60")
        if abs(self.seconds * self.rate - round(self.seconds * self.rate)) > 1e-6 or not 8000 <= self.rate <= 48000:
            raise ClipError(f"rate: {self.rate} does not give a whole number of samples, or is not 8000 to 48000")


def find_soundfonts() -> tuple[str, ...]:
    """FluidR3 and TimGM6mb where Linux distributions, or pretty_midi, put them.

    Raises:
        ClipError: there is none.
    """
    places = [Path(place) for place in PLACES]
    spec = find_spec("pretty_midi")
    if spec is not None and spec.origin is not None:
        places.append(Path(spec.origin).parent / "TimGM6mb.sf2")
    found = {place.stem: str(place) for place in reversed(places) if place.is_file()}
    if not found:
        raise ClipError("soundfont: none found; install fluid-soundfont-gm, or name a .sf2 file with --soundfont")
    return tuple(found[name] for name in sorted(found))


def make_clip(music: Music, seed: int) -> Clip:
    """The clip of a seed.

    Returns:
        audio `[1, seconds · rate]` in [-1, 1]; `events` are the beats; metadata: captions, stated (the facts in each
        caption), prompt, facts, seed, split.

    Raises:
        ClipError: scores that are not parsed, no soundfont, or nothing that fills the clip.
    """
    fonts = music.soundfonts or find_soundfonts()
    drawn = draw_performance(_pieces(music.scores, music.split), seed, music.split, music.seconds)
    font = fonts[int(rng_of(seed, music.split, 1).integers(len(fonts)))]
    return perform(drawn, font, music.rate)


def perform(drawn: Performance, font: str, rate: int) -> Clip:
    """The clip of a performance on one soundfont."""
    sound, notes = render(drawn, open_font(font), rate)
    captions, stated = write_captions(drawn)
    said = facts(drawn, notes) | {"soundfont": Path(font).stem}
    metadata = {
        "captions": captions,
        "stated": stated,
        "prompt": captions[0],
        "facts": said,
        "seed": drawn.seed,
        "split": drawn.split,
    }
    return Clip(audio=Track(sound[None], float(rate)), events=tuple(map(float, said["beats"])), metadata=metadata)


def facts(drawn: Performance, notes: list[Note]) -> dict[str, Any]:
    """What is true of a rendering; times in seconds of the clip."""
    piece = drawn.piece
    times, downs = beats(drawn)
    return {
        "tempo": drawn.tempo,
        "pace": tempo_words(drawn.tempo)[1],
        "key": short_name(drawn.tonic, piece.mode),
        "tonic": drawn.tonic,
        "mode": piece.mode,
        "meter": piece.meter,
        "instruments": drawn.instruments,
        "family": family_of(drawn.instruments),
        "ensemble": drawn.ensemble,
        "texture": drawn.texture,
        "voices": sum(len(layer.parts) for layer in drawn.layers),
        "drums": drawn.drums,
        "dynamics": drawn.dynamics,
        "room": drawn.room,
        "type": piece.kind,
        "collection": piece.collection,
        "composer": piece.composer,
        "title": piece.title,
        "piece": piece.id,
        "begins": drawn.begins,
        "ends": drawn.ends,
        "end": round(drawn.end, 4) if drawn.ends else None,
        "beats": [round(time, 4) for time in times],
        "downbeats": [round(time, 4) for time in downs],
        "notes": [[round(note.onset, 4), note.pitch] for note in notes],
    }


def generate(seeds: Iterable[int], music: Music | None = None, workers: int = 1) -> Iterator[Clip]:
    """Clips of these seeds, in their order.

    Args:
        workers: processes; 1 stays in this one. The clips are the same for any number.
    """
    make = partial(make_clip, music or Music())
    if workers <= 1:
        yield from map(make, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(make, seeds, chunksize=8)


@lru_cache(maxsize=4)
def _pieces(folder: str | None, split: str) -> list[Piece]:
    return pieces_of(read_scores(None if folder is None else Path(folder)), split)
