"""Music without an end: headers, files that are whole at any time, pipes that close, players, prompts that change."""

import io
import itertools
import json
import os
import stat
import struct
import sys
import wave
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from counterpoint.cli import stream
from counterpoint.cli.stream import (
    FileSink,
    LivePrompt,
    PipeSink,
    PlayerSink,
    choose_sink,
    comment_chunk,
    play,
    to_pcm,
    wav_header,
)
from counterpoint.modalities.clip import Clip, Track
from counterpoint.recipes.settings import SettingsError

RATE = 16000
HEADER = 44


def pieces(count=None, size=1000, prompts=("a reel",)):
    """Pieces of a rising line, endless without a count; prompts in turn, the last one stays."""
    for i in itertools.count() if count is None else range(count):
        values = (np.arange(i * size, (i + 1) * size) % 20000 / 32768).astype(np.float32)[None]
        metadata = {"prompt": prompts[min(i, len(prompts) - 1)], "seed": 3, "seconds": float("inf")}
        yield Clip(audio=Track(values, float(RATE), i * size / RATE), metadata=metadata)


def samples(data: bytes) -> np.ndarray:
    return np.frombuffer(data[HEADER:], "<i2")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def player(tmp_path, monkeypatch):
    """A folder on PATH, alone, into which players are put: `player(name, script)`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(stream, "sys", SimpleNamespace(stdout=Terminal()))

    def put(name: str, script: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return put


def test_the_header_of_an_unknown_length():
    fields = struct.unpack("<4sI4s4sIHHIIHH4sI", wav_header(RATE, 1))
    form = (b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    assert fields == (b"RIFF", 0xFFFFFFFF, b"WAVE", *form, b"data", 0xFFFFFFFF)
    known = struct.unpack("<4sI4s4sIHHIIHH4sI", wav_header(24000, 2, 100, 20))
    assert (known[1], known[6], known[7], known[8], known[9], known[12]) == (156, 2, 24000, 96000, 4, 100)


def test_samples_are_rounded_and_never_wrap():
    sound = np.array([[0.0, 1.0, -1.0, 2.0], [0.5, 1.6 / 32768, -0.5, -2.0]], np.float32)
    assert struct.unpack("<8h", to_pcm(sound)) == (0, 16384, 32767, 2, -32768, -16384, 32767, -32768)


def test_a_pipe_gets_one_header_and_every_piece_at_once():
    out, sizes = io.BytesIO(), []

    def made():
        for piece in pieces(3):
            sizes.append(len(out.getvalue()))
            yield piece

    play(made(), PipeSink(out))
    assert sizes == [0, HEADER + 2000, HEADER + 4000]
    assert out.getvalue()[:HEADER] == wav_header(RATE, 1)
    assert np.array_equal(samples(out.getvalue()), np.arange(3000))


def test_seconds_end_it_to_the_sample(tmp_path):
    path = tmp_path / "new" / "out.wav"
    play(pieces(), FileSink(path), 0.1)
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (RATE, 1, 1600)
        assert np.array_equal(np.frombuffer(file.readframes(1600), "<i2"), np.arange(1600))


def test_a_file_is_whole_after_every_piece_and_when_it_is_interrupted(tmp_path):
    path, lengths = tmp_path / "out.wav", []

    def made():
        for i, piece in enumerate(pieces(3)):
            if i:
                with wave.open(str(path)) as file:
                    lengths.append(file.getnframes())
            yield piece
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(made(), FileSink(path))
    assert lengths == [1000, 2000]
    clip = Clip.read(path)
    assert clip.tracks["audio"].values.shape == (1, 3000)
    assert clip.metadata["seconds"] == 3000 / RATE


def test_nothing_is_written_before_the_first_piece(tmp_path):
    def made():
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        play(made(), FileSink(tmp_path / "out.wav"))
    assert list(tmp_path.iterdir()) == []


def test_the_file_says_what_was_played_when(tmp_path):
    path = tmp_path / "out.wav"
    play(pieces(4, prompts=("a reel", "a reel", "a chorale")), FileSink(path), told={"guidance": 2.0})
    changes = [[0.0, "a reel"], [0.125, "a chorale"]]
    facts = {"prompt": "a reel", "seed": 3, "seconds": 0.25, "guidance": 2.0, "prompts": changes}
    assert Clip.read(path).metadata == facts


@pytest.mark.parametrize("text", ["", "x", "six", json.dumps({"prompt": "O'Neill", "key": "D♭"})])
def test_comments_are_chunks_of_even_length(text):
    chunk = comment_chunk(text)
    assert len(chunk) % 2 == 0
    assert struct.unpack("<I", chunk[4:8])[0] == len(chunk) - 8
    assert chunk[20:].rstrip(b"\0").decode() == text


def test_a_pipe_that_closes_ends_it_quietly(monkeypatch):
    read, write = os.pipe()
    with os.fdopen(write, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)

        def made():
            for i, piece in enumerate(pieces()):
                if i == 2:
                    os.close(read)
                assert i < 4
                yield piece

        play(made(), PipeSink(out.buffer))  # pyright: ignore[reportArgumentType]
        out.buffer.flush()  # what is left goes nowhere


def test_a_player_gets_the_sound_and_is_waited_for(player, tmp_path):
    heard = tmp_path / "heard"
    player("aplay", f'echo "$@" >{heard}.arguments\nexec /bin/cat >{heard}')
    sink = choose_sink(None, False)
    assert isinstance(sink, PlayerSink)
    play(pieces(), sink, 0.125)
    assert heard.read_bytes()[:HEADER] == wav_header(RATE, 1)
    assert np.array_equal(samples(heard.read_bytes()), np.arange(2000))
    assert Path(f"{heard}.arguments").read_text() == "-q\n"


def test_paplay_gets_samples_alone(player, tmp_path):
    heard = tmp_path / "heard"
    player("paplay", f'echo "$@" >{heard}.arguments\nexec /bin/cat >{heard}')
    play(pieces(2), choose_sink(None, False))
    assert np.array_equal(np.frombuffer(heard.read_bytes(), "<i2"), np.arange(2000))
    assert Path(f"{heard}.arguments").read_text() == "--raw --format=s16le --rate=16000 --channels=1\n"


def test_the_first_player_found_is_taken_and_may_be_closed(player):
    player("aplay", "exit 1")
    path = player("ffplay", "exit 0")
    sink = choose_sink(None, False)
    assert isinstance(sink, PlayerSink)
    assert sink.player == str(path)
    play(pieces(), sink)  # endless, but nobody listens


def test_a_player_that_fails_is_an_error(player):
    player("aplay", "exit 3")
    with pytest.raises(SettingsError, match=r"^aplay stopped with code 3; name a file with -o FILE.wav$"):
        play(pieces(), choose_sink(None, False))


def test_ctrl_c_stops_the_player(player):
    player("ffplay", "exec /bin/sleep 60")
    sink = choose_sink(None, False)

    def made():
        yield from pieces(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(made(), sink)
    assert isinstance(sink, PlayerSink)
    assert sink.process is not None
    assert sink.process.returncode == -15


def test_where_it_goes(player, tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match=r"no player here \(ffplay, aplay, paplay\); pipe it, or give -o FILE.wav"):
        choose_sink(None, False)
    monkeypatch.setattr(stream, "sys", SimpleNamespace(stdout=io.TextIOWrapper(io.BytesIO())))
    assert isinstance(choose_sink(None, False), PipeSink)
    path = tmp_path / "x.wav"
    assert isinstance(choose_sink(path, False), FileSink)
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        choose_sink(path, False)
    assert isinstance(choose_sink(path, True), FileSink)
    for name in ("x.mp3", "folder", "bin"):
        with pytest.raises(SettingsError, match=f"{name}: --stream writes a file of kind .wav"):
            choose_sink(tmp_path / name, False)


def test_a_prompt_that_changes(tmp_path):
    path, told = tmp_path / "prompt.txt", []
    path.write_text("\n# first\n  a slow piece for cello  \nnot this\n")
    live = LivePrompt(path, told.append)
    assert [live(), live()] == ["a slow piece for cello"] * 2
    path.write_text("a fast reel\n")
    assert live() == "a fast reel"
    path.write_text("\n")
    assert [live(), live()] == ["a fast reel"] * 2
    path.unlink()
    assert live() == "a fast reel"
    path.write_text("a chorale")
    assert live() == "a chorale"
    assert told == [
        "from now on: a fast reel",
        f"{path}: no prompt in it; write one line; the last prompt stays",
        "from now on: a chorale",
    ]


def test_a_prompt_file_that_is_no_use(tmp_path):
    path = tmp_path / "prompt.txt"
    with pytest.raises(FileNotFoundError):
        LivePrompt(path, print)
    path.write_text("# nothing\n")
    with pytest.raises(SettingsError, match="no prompt in it"):
        LivePrompt(path, print)
    path.write_text("a reel --seed 3\n")
    with pytest.raises(SettingsError, match="no options of its own: a reel --seed 3"):
        LivePrompt(path, print)
    gone, told = tmp_path / "gone.txt", []
    gone.write_text("a reel")
    live = LivePrompt(gone, told.append)
    gone.unlink()
    assert live() == live() == "a reel"
    assert told == [f"{gone}: can't be read any more; the last prompt stays"]


def test_nothing_heavy_is_imported():
    assert not {"numpy", "torch"} & set(vars(stream))
