"""Scores: what is read from music21, bars, keys, and the parsed form on disk."""

import json

import numpy as np
import pytest

from counterpoint.data.scores_corpus import COLLECTIONS, parse_all, read_scores, sources, summary
from counterpoint.data.scores_key import key_of_notes, krumhansl, short_name, spoken_names
from counterpoint.data.scores_parse import find_bars, parse_piece
from counterpoint.data.scores_piece import Piece, bar_length, beat_length, monophonic
from counterpoint.modalities.clip import ClipError

JIG = """X:1
T:The Test
R:jig
M:6/8
L:1/8
K:Em
B|:EFG GFE|B2B B2A|GFE EFG|F3 F2B|
EFG GFE|B2-B B2A|"Em"GFE {d}FGF|E3 E2:|
|:B|EFG GFE|B2B B2A|GFE FGF|E3 E2:|
"""


def test_a_tune_in_abc(tmp_path):
    pytest.importorskip("music21", reason="music21 reads the scores: pip install music21")
    piece = parse_piece("ryans/test", "ryans", tmp_path, JIG)
    assert (piece.kind, piece.meter, piece.title, short_name(piece.tonic, piece.mode)) == (
        "jig",
        "6/8",
        "The Test",
        "Em",
    )
    assert piece.pickup == 0.5
    assert piece.bars == tuple(0.5 + 3 * i for i in range(12))  # the bar that the repeat sign cuts is one
    (part,) = piece.parts
    np.testing.assert_array_equal(part[:4], [[0, 0.5, 71], [0.5, 0.5, 64], [1, 0.5, 66], [1.5, 0.5, 67]])
    assert [15.5, 1.5, 71] in part.tolist()  # tied notes are one
    assert part[:, 1].min() > 0  # no grace notes
    assert len(part) == 56


def test_a_chorale_has_four_voices_from_the_top():
    pytest.importorskip("music21", reason="music21 reads the scores: pip install music21")
    found = {name: file for name, file, _ in sources("bach")}
    piece = parse_piece("bach/bwv104.6", "bach", found["bach/bwv104.6"])
    assert (piece.kind, piece.meter, short_name(piece.tonic, piece.mode)) == ("chorale", "4/4", "A")
    assert len(piece.parts) == 4
    means = [part[:, 2].mean() for part in piece.parts]
    assert means == sorted(means, reverse=True)
    assert all(map(monophonic, piece.parts))


def test_only_the_three_collections_are_read():
    pytest.importorskip("music21", reason="music21 reads the scores: pip install music21")
    folders = {file.parent.name for collection in COLLECTIONS for _, file, _ in sources(collection)}
    assert folders == {"bach", "oneills1850", "ryansMammoth"}


@pytest.mark.parametrize(
    ("lengths", "pickup", "bars"),
    [
        ([4, 4, 4], 0, (0, 4, 8)),
        ([1, 4, 4, 3], 1, (1, 5, 9)),
        ([1, 4, 3, 1, 4, 3], 1, (1, 5, 9, 13)),
        ([4, 2.5, 4, 5, 4], 0, (0, 6.5, 15.5)),
    ],
)
def test_bars(lengths, pickup, bars):
    onsets = np.cumsum([0, *lengths[:-1]]).tolist()
    assert find_bars(list(zip(onsets, lengths, strict=True)), 4.0) == (pickup, bars)


def test_keys_of_scales():
    for tonic in range(12):
        major = tonic + 60 + np.array([0, 2, 4, 5, 7, 9, 11, 0, 4, 7])
        minor = tonic + 60 + np.array([0, 2, 3, 5, 7, 8, 11, 0, 3, 7])
        assert key_of_notes(major, np.ones(10)) == (tonic, "major")
        assert key_of_notes(minor, np.ones(10)) == (tonic, "minor")
    assert key_of_notes(np.array([60, 67, 72]), np.ones(3)) is None
    assert krumhansl(np.array([5, 0, 3, 0, 4, 3, 0, 5, 0, 3, 0, 2.0])) == (0, "major")
    assert spoken_names(3, "major") == ["Eb major", "E-flat major", "E flat major"]
    assert spoken_names(6, "minor") == ["F# minor", "F-sharp minor", "F sharp minor"]


def test_beats_of_meters():
    assert [beat_length(meter) for meter in ("2/4", "3/4", "2/2", "6/8", "9/8", "3/8")] == [1, 1, 2, 1.5, 1.5, 1.5]
    assert [bar_length(meter) for meter in ("2/4", "3/4", "2/2", "6/8", "12/8")] == [2, 3, 4, 3, 6]


def test_a_piece_survives_its_line():
    part = np.array([[0, 1 / 3, 60], [1 / 3, 0.5, 64.0]])
    piece = Piece("bach/x", "bach", "Ü", "J", "", 2, "minor", "3/4", 1.0, (1.0, 4.0), (part,))
    again = Piece.from_entry(json.loads(piece.to_line()))
    np.testing.assert_allclose(again.parts[0], part, atol=1e-4)
    assert again.__dict__ | {"parts": ()} == piece.__dict__ | {"parts": ()}


def test_an_interrupted_parse_goes_on_after_the_last_whole_line(tmp_path, monkeypatch):
    (tmp_path / "two.abc").write_text(JIG + "\n" + JIG.replace("X:1", "X:2").replace("M:6/8", "M:5/4"))
    every = [("oneills/two#0", tmp_path / "two.abc", 0), ("oneills/two#1", tmp_path / "two.abc", 1)]
    monkeypatch.setattr("counterpoint.data.scores_corpus.sources", lambda c: every if c == "oneills" else [])
    pytest.importorskip("music21", reason="music21 reads the scores: pip install music21")
    folder, parsed = tmp_path / "scores", []
    with pytest.raises(ClipError, match=r"bach\.jsonl: not parsed to its end; run: counterpoint data scores"):
        read_scores(folder)
    parse_all(folder, report=lambda *progress: parsed.append(progress))
    whole = (folder / "oneills.jsonl").read_bytes()
    (folder / "oneills.jsonl").write_bytes(whole[:-20])
    (folder / "oneills.done").unlink()
    parse_all(folder, report=lambda *progress: parsed.append(progress))
    assert (folder / "oneills.jsonl").read_bytes() == whole
    assert parsed == [("oneills", 1, 2), ("oneills", 2, 2), ("oneills", 2, 2)]
    assert [piece.id for piece in read_scores(folder)] == ["oneills/two#0"]
    assert summary(folder)["oneills"] == {"used": 1, "meter 5/4": 1}
