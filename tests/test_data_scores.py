"""Music clips: what is heard is what the facts say; seeds, splits, captions, arrays."""

from collections import Counter
from itertools import product
from pathlib import Path

import librosa
import numpy as np
import pytest

from counterpoint.data.arrays import read_arrays, write_arrays
from counterpoint.data.scores import Music, find_soundfonts, generate, make_clip, perform
from counterpoint.data.scores_captions import structured, tempo_words, write_captions
from counterpoint.data.scores_draw import DYNAMICS, Layer, Performance, draw_performance
from counterpoint.data.scores_instruments import FAMILIES, INSTRUMENTS, QUARTETS, octave_shift
from counterpoint.data.scores_key import key_of_notes
from counterpoint.data.scores_notes import beats, drum_notes, play
from counterpoint.data.scores_piece import Piece
from counterpoint.data.scores_render import limit
from counterpoint.data.scores_split import BANDS, held_out, is_held_out, pieces_of, tempo_band
from counterpoint.modalities.clip import ClipError
from counterpoint.modalities.music_terms import MODES


def scale_piece(name: str, mode: str = "major", bars: int = 40, voices: int = 1, kind: str = "reel") -> Piece:
    """Quarter notes up and down a scale, a part an octave (or a fifth) below the other; each name another melody."""
    steps = np.array([0, 2, 4 if mode == "major" else 3, 5, 7, 9 if mode == "major" else 8, 11, 12])
    rng = np.random.default_rng(sum(map(ord, name)))
    degree = rng.integers(8, size=4 * bars)
    degree[::4], degree[1::4] = 0, rng.choice([2, 4], bars)
    parts = [
        np.stack([np.arange(4.0 * bars), np.ones(4 * bars), 62 + steps[degree] - 7 * (v % 2) - 6 * v + (v % 2)], 1)
        for v in range(voices)
    ]
    onsets = tuple(4.0 * np.arange(bars))
    return Piece(name, name.split("/")[0], "", "", kind, 2, mode, "4/4", 0.0, onsets, tuple(parts))


PIECES = [scale_piece(f"ryans/tune{i}", MODES[i % 2]) for i in range(40)]
PIECES += [scale_piece(f"bach/four{i}", MODES[i % 2], 24, 4, "chorale") for i in range(20)]


@pytest.fixture(scope="module")
def font() -> str:
    pytest.importorskip("tinysoundfont", reason="no renderer: pip install --no-deps tinysoundfont")
    try:
        found = {Path(path).stem: path for path in find_soundfonts()}
    except ClipError:
        pytest.skip("no soundfont: pip install pretty_midi brings TimGM6mb.sf2")
    return found.get("TimGM6mb") or next(iter(found.values()))


@pytest.fixture(scope="module")
def scores(tmp_path_factory) -> str:
    """A folder of parsed scores that holds PIECES."""
    folder = tmp_path_factory.mktemp("scores")
    for collection in ("bach", "oneills", "ryans"):
        lines = [piece.to_line() + "\n" for piece in PIECES if piece.collection == collection]
        (folder / f"{collection}.jsonl").write_text("".join(lines))
        (folder / f"{collection}.done").touch()
    return str(folder)


def played(instrument: str, tempo: int = 96, **other) -> Performance:
    """The first bars of a tune on one instrument, in its own key unless told otherwise."""
    piece = PIECES[0]
    low, high = (int(f(piece.parts[0][:, 2])) for f in (np.min, np.max))
    layer = Layer(instrument, (0,), octave_shift(INSTRUMENTS[instrument], low, high) or 0)
    settings = {
        "seed": 1, "split": "train", "seconds": 5.12, "piece": piece, "start": 0, "begins": True, "ends": False,
        "lead": 0.2, "tempo": tempo, "tonic": 2, "layers": (layer,), "ensemble": "", "texture": "solo",
        "dynamics": "mf", "drums": False, "room": "dry", "looseness": 0.0,
    }  # fmt: skip
    return Performance(**settings | other)


@pytest.mark.parametrize("instrument", ["xylophone", "harpsichord", "nylon guitar"])
def test_onsets_are_on_the_beat_within_10_ms(font, instrument):
    sound = perform(played(instrument), font, 16000).audio.values[0]
    expected = 0.2 + np.arange(8) * 60 / 96
    power = np.abs(librosa.stft(sound, n_fft=256, hop_length=16, center=True)) ** 2
    rise = np.maximum(np.diff(np.log(power.sum(0) + 1e-4)), 0)
    rise = np.convolve(rise, np.ones(5), mode="same")
    for time in expected:
        near = slice(round((time - 0.06) * 1000), round((time + 0.06) * 1000))
        assert abs(np.argmax(rise[near]) / 1000 - 0.06) < 0.010


def test_the_pitch_that_sounds_is_the_note_s(font):
    clip = perform(played("clarinet", 60), font, 16000)
    sound, notes = clip.audio.values[0], clip.metadata["facts"]["notes"]
    for onset, pitch in notes[:4]:
        part = sound[round((onset + 0.2) * 16000) : round((onset + 0.7) * 16000)]
        tuning = librosa.yin(part, fmin=60, fmax=2000, sr=16000)
        assert abs(float(librosa.hz_to_midi(np.median(tuning))) - pitch) < 0.3


def test_dynamics_are_loudness(font):
    levels = []
    for dynamics in DYNAMICS:
        sound = perform(played("piano", dynamics=dynamics), font, 16000).audio.values[0]
        levels.append(10 * np.log10((sound**2).mean()))
        assert np.abs(sound).max() < 1
    assert levels[0] + 6 < levels[1] < levels[2] - 5


def test_a_limiter_leaves_what_is_below_its_ceiling():
    sound = np.sin(np.arange(8000) / 10)
    np.testing.assert_array_equal(limit(0.9 * sound, 16000), 0.9 * sound)
    loud = sound * np.where(np.arange(8000) < 4000, 0.5, 3)
    assert np.abs(limit(loud, 16000)).max() <= 0.97
    np.testing.assert_allclose(limit(loud, 16000)[:3800], loud[:3800], atol=1e-9)


def test_a_piece_that_ends_rings_out_and_beats_stop(font):
    short = scale_piece("ryans/short", bars=2)
    clip = perform(played("piano", 120, piece=short, ends=True), font, 16000)
    facts, sound = clip.metadata["facts"], clip.audio.values[0]
    assert facts["beats"] == pytest.approx(0.2 + np.arange(8) * 0.5)
    assert facts["downbeats"] == pytest.approx([0.2, 2.2])
    assert np.abs(sound[-1600:]).max() < 0.02 * np.abs(sound).max()


def test_a_clip_that_does_not_begin_hears_the_bar_before():
    drawn = played("piano", 120, start=3, begins=False, lead=0.2)
    notes = play(drawn, 0)
    assert notes[0].onset == pytest.approx(0.2 - 2.0)
    assert beats(drawn)[0][0] == pytest.approx(0.2)
    assert beats(drawn)[1] == pytest.approx([0.2, 2.2, 4.2])
    hits = {round(note.onset - 0.2, 3) % 0.5 for note in drum_notes(drawn) if note.pitch in (36, 37, 38)}
    assert hits == {0.0}


@pytest.mark.parametrize("split", ["train", "test", "unseen"])
def test_draws_are_what_they_should_be(split):
    pieces = pieces_of(PIECES, split)
    drawn = [draw_performance(pieces, seed, split, 10.24) for seed in range(60)]
    assert len({d.tonic for d in drawn}) == 12
    assert {d.dynamics for d in drawn} == set(DYNAMICS)
    assert all(50 <= d.tempo <= 200 for d in drawn)
    assert all(is_held_out(d.instruments, d.piece.mode, d.tempo) == (split == "unseen") for d in drawn)
    assert any(d.begins for d in drawn)
    assert any(not d.begins for d in drawn)
    for d in drawn:
        notes = [note for number in range(len(d.layers)) for note in play(d, number)]
        heard = [note for note in notes if 0 <= note.onset < 10.24]
        assert key_of_notes(np.array([n.pitch for n in heard]), np.array([n.duration for n in heard])) is not None
        for number, layer in enumerate(d.layers):
            one, pitches = INSTRUMENTS[layer.instrument], [note.pitch for note in play(d, number)]
            assert one.low <= min(pitches) <= max(pitches) <= one.high
            assert {(p - d.tonic) % 12 for p in pitches} & {0}


def test_pieces_are_in_one_split_and_versions_stay_together():
    version = scale_piece("ryans/tune3")
    same = Piece(**version.__dict__ | {"id": "oneills/again", "collection": "oneills", "tonic": 7})
    pieces = [*PIECES, same]
    train, test, unseen = ({p.id for p in pieces_of(pieces, split)} for split in ("train", "test", "unseen"))
    assert test == unseen
    assert not train & test
    assert train | test == {p.id for p in pieces}
    assert 2 <= len(test) <= 14
    original = Piece(**scale_piece("ryans/tune3").__dict__ | {"id": "ryans/version"})
    for split in ("train", "test"):
        names = {p.id for p in pieces_of([*PIECES, original, same], split)}
        assert ("ryans/version" in names) == ("oneills/again" in names)


def test_held_out_combinations_leave_every_pair_in_training():
    combinations = set(product(INSTRUMENTS, MODES, BANDS))
    seen = combinations - held_out()
    assert len(held_out()) == len(INSTRUMENTS) // 2
    for one, two in ((0, 1), (0, 2), (1, 2)):
        assert {(c[one], c[two]) for c in seen} == {(c[one], c[two]) for c in combinations}
    assert [tempo_band(tempo) for tempo in (50, 79, 80, 119, 120, 200)] == ["slow"] * 2 + ["medium"] * 2 + ["fast"] * 2


def test_captions_state_what_is_true():
    pieces, said = pieces_of(PIECES, "train"), Counter()
    ended = 0
    for seed in range(80):
        drawn = draw_performance(pieces, seed, "train", 5.12)
        captions, stated = write_captions(drawn)
        assert len(captions) == len(stated) == 5
        others = {str(t) for t in range(50, 201)} - {str(drawn.tempo)}
        for caption, facts in zip(captions[:4], stated[:4], strict=True):
            words = caption.replace(",", " ").replace(".", " ").split()
            assert (str(drawn.tempo) in words) == ("tempo" in facts)
            assert not others & set(words)
            assert (f" {drawn.piece.mode}" in caption) == ("key" in facts)
            assert ({"major": " minor", "minor": " major"}[drawn.piece.mode]) not in caption
            assert "loud" not in caption.lower() or drawn.dynamics != "p"
            assert "with drum" not in caption.lower() or drawn.drums
            assert "with a drum" not in caption.lower() or drawn.drums
            named = {name for name in drawn.instruments if name in caption.lower()}
            assert not named or "instruments" in facts
            assert "  " not in caption
            if "ending" in facts:
                assert ("without an ending" in caption.lower()) != drawn.ends
                assert drawn.end < 5.12 if drawn.ends else drawn.end > 4.7
            said.update(facts)
        assert f"tempo={drawn.tempo} " in captions[4]
        assert captions[4].endswith(f"ends={drawn.end:.1f}" if drawn.ends else "ends=no")
        ended += drawn.ends
    assert ended > 5
    assert {
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
    } <= set(said)


def test_structured_form_and_tempo_words():
    drawn = played("cello", 66, tonic=3, dynamics="p")
    text = "tempo=66 key=Eb meter=4/4 instrument=cello texture=solo dynamics=p drums=no type=reel ends=no"
    assert structured(drawn)[0] == text
    assert [tempo_words(t)[1] for t in (50, 66, 90, 110, 140, 190)] == [
        "largo", "adagio", "andante", "moderato", "allegro", "presto",
    ]  # fmt: skip


def test_every_family_has_instruments_and_quartets_go_down():
    families = {"keyboard", "strings", "winds", "brass", "plucked", "organ", "mallets", "choir"}
    assert set(FAMILIES) == families
    for names in QUARTETS.values():
        lows = [INSTRUMENTS[name].low for name in names]
        assert lows == sorted(lows, reverse=True)


def test_the_same_seed_gives_the_same_bits_in_any_process_and_order(font, scores):
    music = Music(seconds=2.56, soundfonts=(font,), scores=scores)
    here = list(generate(range(3), music))
    again = make_clip(music, 1)
    there = list(generate(range(3), music, workers=2))
    for one, two in zip([*here, here[1]], [*there, again], strict=True):
        np.testing.assert_array_equal(one.audio.values, two.audio.values)
        assert one.metadata == two.metadata


def test_clips_of_other_lengths_become_arrays(font, scores, tmp_path):
    music = Music(split="test", seconds=5.12, soundfonts=(font,), scores=scores)
    data = write_arrays(tmp_path / "music", generate(range(2), music), 2)
    assert data.video is None
    assert data.sensor is None
    assert (data.audio.shape, data.audio.dtype) == ((2, 81920), np.float16)
    (entry, _), clip = read_arrays(tmp_path / "music").entries, data.clip(0)
    assert entry["events"] == entry["facts"]["beats"]
    assert entry["split"] == "test"
    assert len(entry["captions"]) == len(entry["stated"]) == 5
    assert list(clip.tracks) == ["audio"]
    assert make_clip(Music("test", 5.12, 24000, (font,), scores), 0).audio.values.shape == (1, 122880)


def test_the_command_makes_a_data_set(font, scores, tmp_path, run):
    out = tmp_path / "music"
    options = ("--clips", "2", "--seconds", "2.56", "--soundfont", font, "--scores", scores, "--workers", "1")
    assert run("data", "music", out, *options)[:2] == (0, f"{out}\n")
    assert read_arrays(out).audio.shape == (2, 40960)
    code, told = run("data", "scores", scores)[:2]
    assert (code, told) == (0, "bach: 20 used\noneills: \nryans: 40 used\n")
    code, _, error = run("data", "music", tmp_path / "b", "--split", "tests", "--soundfont", font)
    assert code != 0
    assert "did you mean 'test'" in error.lower() or "test" in error


def test_mistakes_are_named(scores):
    with pytest.raises(ClipError, match="split: 'valid' is not one of train, test, unseen"):
        Music("valid")
    with pytest.raises(ClipError, match=r"seconds: 0\.5 is not between 1 and 60"):
        Music(seconds=0.5)
    with pytest.raises(ClipError, match="rate: 16001 does not give a whole number"):
        Music(rate=16001)
    with pytest.raises(ClipError, match=r"nothing\.sf2: no such soundfont"):
        make_clip(Music(soundfonts=("nothing.sf2",), scores=scores), 0)
    with pytest.raises(ValueError, match="seed: -1 is negative"):
        make_clip(Music(soundfonts=("nothing.sf2",), scores=scores), -1)
