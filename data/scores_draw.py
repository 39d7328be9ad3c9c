"""What is played in a clip: a seeded draw of excerpt, key, tempo, instruments, dynamics, drums and room.

Everything follows from (seed, split) and the list of pieces. A draw that doesn't fit (a range, a held-out combination,
an excerpt whose notes suggest another key) is drawn again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..modalities.clip import ClipError
from .scores_instruments import ALTOGETHER, INSTRUMENTS, MELODIC, QUARTETS, SECTIONS, octave_shift
from .scores_key import key_of_notes
from .scores_piece import Piece, bar_length, beat_length, monophonic
from .scores_split import SPLITS, is_held_out

ATTEMPTS = 500
POLYPHONIC, MINOR = 0.4, 0.45  # shares of the clips
TEMPOS = {  # beats a minute at which a kind of tune is played; None: any other
    "chorale": (50, 112),
    "reel": (88, 200),
    "hornpipe": (76, 180),
    "clog": (72, 168),
    "strathspey": (66, 152),
    "jig": (66, 150),
    "slide": (80, 150),
    "slip jig": (60, 144),
    "air": (50, 100),
    "waltz": (90, 200),
    "march": (72, 138),
    None: (50, 160),
}
FASTEST = 13.0  # notes a second that one player can play
DYNAMICS = {"p": (50, -7.0), "mf": (80, 0.0), "f": (108, 5.0)}  # velocity and gain in dB
ROOMS = {"dry": (0.15, 0.0), "room": (0.6, 0.16), "hall": (1.8, 0.3)}  # reverberation time (s), share of the energy
DANCES = ("reel", "hornpipe", "clog", "strathspey", "jig", "slide", "slip jig", "waltz", "march", "fling", "polka")
KEY_MARGIN = 0.06  # by which the key leads in an excerpt; librosa then hears it in 75 % of 60 clips (mean chroma_cqt)
TAIL = (0.4, 2.5)  # seconds that may follow the last note of a piece


@dataclass(frozen=True)
class Layer:
    """One player: an instrument, the parts it plays and by how many semitones they are shifted."""

    instrument: str
    parts: tuple[int, ...]
    shift: int


@dataclass(frozen=True)
class Performance:
    """A clip before it is rendered.

    Args:
        start: index in `piece.bars` of the bar with which the excerpt begins, `lead` seconds into the clip.
        begins: whether silence precedes it; otherwise the bar before it is heard as well.
        ends: whether the piece ends within the clip.
        tempo: beats a minute.
        tonic: of the key that sounds.
        ensemble: the name of a quartet, or empty.
        texture: solo, unison (of a section or of two players), duet, trio, quartet (a player a part) or parts (all
            parts on one instrument).
        looseness: standard deviation of the players' timing in seconds.
    """

    seed: int
    split: str
    seconds: float
    piece: Piece
    start: int
    begins: bool
    ends: bool
    lead: float
    tempo: int
    tonic: int
    layers: tuple[Layer, ...]
    ensemble: str
    texture: str
    dynamics: str
    drums: bool
    room: str
    looseness: float

    @property
    def quarter(self) -> float:
        """Seconds a quarter note lasts."""
        return 60 / self.tempo / beat_length(self.piece.meter)

    def time(self, position: float | np.ndarray) -> float | np.ndarray:
        """Second of the clip at which a position of the piece (quarter notes) comes."""
        return self.lead + (position - self.piece.bars[self.start]) * self.quarter

    @property
    def end(self) -> float:
        """Second of the clip at which the piece's last note ends; beyond the clip unless it `ends`."""
        return float(self.time(self.piece.end))

    @property
    def instruments(self) -> list[str]:
        """Names of the players' instruments, from the highest part."""
        return [layer.instrument for layer in self.layers]


def rng_of(seed: int, split: str, purpose: int) -> np.random.Generator:
    """A generator of its own for every (seed, split, purpose)."""
    if split not in SPLITS:
        raise ValueError(f"split: '{split}' is not one of {', '.join(SPLITS)}")
    if seed < 0:
        raise ValueError(f"seed: {seed} is negative")
    return np.random.default_rng([seed, SPLITS.index(split), purpose, 0x5C0])


def draw_performance(pieces: Sequence[Piece], seed: int, split: str, seconds: float) -> Performance:
    """Draw a clip.

    Args:
        pieces: of the split (`scores_split.pieces_of`).
        seconds: length of the clip.

    Raises:
        ClipError: nothing fits, e.g. because every piece is shorter than the clip.
    """
    rng = rng_of(seed, split, 0)
    groups = _groups(pieces)
    for _ in range(4):
        group = groups[int(rng.choice(len(groups), p=_shares(groups)))]  # kept: what is hard to fit is not drawn less
        for _ in range(ATTEMPTS):
            drawn = _draw(group[int(rng.integers(len(group)))], rng, seed, split, seconds)
            if drawn is not None:
                return drawn
    raise ClipError(f"seed {seed} ({split}): no piece of {len(pieces)} fills {seconds:g} s")


def window(performance: Performance) -> tuple[float, float]:
    """First and last position (quarter notes) whose notes are heard; the first may lie a bar before the excerpt."""
    begin = performance.piece.bars[performance.start]
    if not performance.begins:
        begin -= bar_length(performance.piece.meter)
    return begin, begin + (performance.seconds + 20) / performance.quarter


def _groups(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Pieces by number of parts (one, several) and mode; what there is none of is left out."""
    groups: dict[tuple[bool, str], list[Piece]] = {}
    for piece in pieces:
        groups.setdefault((len(piece.parts) > 1, piece.mode), []).append(piece)
    return [groups[key] for key in sorted(groups)]


def _shares(groups: list[list[Piece]]) -> np.ndarray:
    """How often a group is drawn: music in several parts and in minor more often than the collections have it."""
    shares = np.array(
        [
            (POLYPHONIC if len(g[0].parts) > 1 else 1 - POLYPHONIC) * (MINOR if g[0].mode == "minor" else 1 - MINOR)
            for g in groups
        ]
    )
    return shares / shares.sum()


def _draw(piece: Piece, rng: np.random.Generator, seed: int, split: str, seconds: float) -> Performance | None:
    low, high = TEMPOS.get(piece.kind, TEMPOS[None])
    tempo = round(float(np.exp(rng.uniform(np.log(low), np.log(high)))))
    tonic = int(rng.integers(12))
    excerpt = _excerpt(piece, tempo, rng, seconds)
    if excerpt is None:
        return None
    start, begins, ends, lead = excerpt
    layers, texture, ensemble = _players(piece, rng)
    transposition = (tonic - piece.tonic + 6) % 12 - 6
    shifted = _fit(piece, layers, transposition)
    if shifted is None or is_held_out([name for name, _ in layers], piece.mode, tempo) != (split == "unseen"):
        return None
    drawn = Performance(
        seed,
        split,
        seconds,
        piece,
        start,
        begins,
        ends,
        lead,
        tempo,
        tonic,
        shifted,
        ensemble,
        texture,
        str(rng.choice(list(DYNAMICS))),
        piece.kind in DANCES and bool(rng.random() < 0.3),
        str(rng.choice(list(ROOMS))),
        float(rng.uniform(0.001, 0.008)),
    )
    return drawn if _plausible(drawn) else None


def _excerpt(
    piece: Piece, tempo: int, rng: np.random.Generator, seconds: float
) -> tuple[int, bool, bool, float] | None:
    """Start bar, whether silence precedes it, whether the piece ends in the clip, and the time of the first beat."""
    quarter = 60 / tempo / beat_length(piece.meter)
    begins = bool(rng.random() < 0.5)
    lead = float(rng.uniform(0.1, 0.3) if begins else rng.uniform(0, beat_length(piece.meter) * quarter))
    through, ending = [], []
    for first, last in piece.runs():
        for start in range(first + (not begins), last + 1):
            end = lead + (piece.end - piece.bars[start]) * quarter
            stop = lead + (piece.bars[last] + bar_length(piece.meter) - piece.bars[start]) * quarter
            if last == len(piece.bars) - 1 and TAIL[0] <= seconds - end <= TAIL[1]:
                ending.append(start)
            elif min(end, stop) >= seconds:
                through.append(start)
    starts = ending if ending and (not through or rng.random() < 0.2) else through
    return (int(rng.choice(starts)), begins, starts is ending, lead) if starts else None


def _players(piece: Piece, rng: np.random.Generator) -> tuple[list[tuple[str, tuple[int, ...]]], str, str]:
    """(instrument, parts) of every player, the texture, and the name of a quartet."""

    def pick(names: Sequence[str]) -> str:
        return str(names[int(rng.integers(len(names)))])

    count, chance = len(piece.parts), rng.random()
    if count == 1:
        if monophonic(piece.parts[0]) and chance < 0.15:
            one, other = rng.choice(MELODIC, 2, replace=False)
            return [(str(one), (0,)), (str(other), (0,))], "unison", ""
        return _alone(pick(MELODIC if monophonic(piece.parts[0]) else ALTOGETHER))
    single = all(map(monophonic, piece.parts))
    if not single or count > 4 or chance < 0.35:
        return [(pick(ALTOGETHER), tuple(range(count)))], "parts", ""
    if chance < 0.5:
        return _alone(pick(MELODIC))
    if count == 4 and chance < 0.75:
        ensemble = pick(list(QUARTETS))
        return [(name, (part,)) for part, name in enumerate(QUARTETS[ensemble])], "quartet", ensemble
    parts = {2: (0, 1), 3: (0, 1, 2), 4: pick_parts(rng)}[count]
    return [(pick(MELODIC), (part,)) for part in parts], {2: "duet", 3: "trio", 4: "quartet"}[len(parts)], ""


def _alone(name: str) -> tuple[list[tuple[str, tuple[int, ...]]], str, str]:
    return [(name, (0,))], "unison" if name in SECTIONS else "solo", ""


def pick_parts(rng: np.random.Generator) -> tuple[int, ...]:
    """Which of four voices are played: the outer ones, three, or all."""
    return ((0, 3), (0, 2, 3), (0, 1, 2, 3))[int(rng.integers(3))]


def _fit(piece: Piece, layers: list[tuple[str, tuple[int, ...]]], transposition: int) -> tuple[Layer, ...] | None:
    """The players with the octave in which each of them plays, or None if a part does not fit its instrument."""
    fitted = []
    for name, parts in layers:
        pitches = np.concatenate([piece.parts[part][:, 2] for part in parts]) + transposition
        shift = octave_shift(INSTRUMENTS[name], int(pitches.min()), int(pitches.max()))
        if shift is None or (len(layers) > 2 and abs(shift) > 12):
            return None
        fitted.append(Layer(name, parts, transposition + shift))
    return tuple(fitted)


def _plausible(drawn: Performance) -> bool:
    """Whether what is heard is in the key that is said (Krumhansl), playable, and not nearly silent."""
    begin, _ = window(drawn)
    end = drawn.piece.bars[drawn.start] + (drawn.seconds - drawn.lead) / drawn.quarter
    parts = [drawn.piece.parts[i] for layer in drawn.layers for i in layer.parts]
    parts = [part[(part[:, 0] >= begin - 1e-3) & (part[:, 0] < end)] for part in parts]
    if any(len(part) < 0.8 * drawn.seconds for part in parts[:1]) or not all(len(part) for part in parts):
        return False
    steps = [np.diff(np.unique(part[:, 0])) for part in parts if len(part) > 4]
    if any(np.percentile(step, 10) * drawn.quarter < 1 / FASTEST for step in steps):
        return False
    heard = np.concatenate(parts)
    length = np.minimum(heard[:, 1], end - heard[:, 0])
    return key_of_notes(heard[:, 2], length, KEY_MARGIN) == (drawn.piece.tonic, drawn.piece.mode)
