"""`counterpoint text-to-music`: prompts as they are sent, music that goes on, fills, varies or never ends."""

import json
import math
import wave
from pathlib import Path

import numpy as np
import pytest

from counterpoint.modalities.clip import Clip, Track

CELLO = "a slow sad piece for solo cello in D minor, 66 bpm"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """in.wav: 0.8 s, mono, 16 kHz."""
    path = tmp_path_factory.mktemp("source") / "in.wav"
    sound = np.random.default_rng(0).normal(0, 0.1, (1, 12800)).astype(np.float32)
    Clip(audio=Track(sound, 16000.0)).save(path)
    return path


@pytest.fixture(scope="module")
def loaded(tiny_model):
    """The tiny model, loaded once."""
    from counterpoint.diffusion.pipeline import CounterpointPipeline

    return CounterpointPipeline.from_pretrained(tiny_model, device="cpu")


@pytest.fixture
def tiny(loaded, monkeypatch):
    """Commands find the tiny model loaded."""
    from counterpoint.diffusion.pipeline import CounterpointPipeline

    monkeypatch.setattr(CounterpointPipeline, "from_pretrained", lambda *_, **__: loaded)


@pytest.fixture
def music(run, tiny, tiny_model, tmp_path):
    """Run the command with the tiny model: (the clip, stderr)."""

    def make(*arguments, name="out.wav"):
        options = ("-o", tmp_path / name, "--model", tiny_model, "--device", "cpu")
        code, out, err = run("text-to-music", *arguments, *options)
        assert (code, out.splitlines()) == (0, [str(tmp_path / name)])
        return Clip.read(tmp_path / name), err

    return make


class Endless:
    """A pipeline whose stream has no end: pieces of 0.1 s, each louder than the one before."""

    defaults = {"obey": 0.0}  # noqa: RUF012 (as a pipeline has them)

    def __init__(self):
        self.asked = []

    def stream(self, prompt, **options):
        self.asked.append((prompt, options))
        for i in range(10_000):
            text = prompt() if callable(prompt) else prompt
            values = np.full((1, 1600), i / 100, np.float32)
            yield Clip(audio=Track(values, 16000.0, i / 10), metadata={"prompt": text, "seed": options["seed"]})


@pytest.fixture
def endless(monkeypatch) -> Endless:
    from counterpoint.diffusion.pipeline import CounterpointPipeline

    pipeline = Endless()
    monkeypatch.setattr(CounterpointPipeline, "from_pretrained", lambda *_, **__: pipeline)
    return pipeline


def test_a_short_piece_says_how_long_it_is(music, tmp_path):
    clip, _ = music(CELLO, "--seconds", 0.64, "--seed", 3)
    assert list(clip.tracks) == ["audio"]
    assert clip.tracks["audio"].values.shape == (1, 10240)
    said = {key: clip.metadata[key] for key in ("prompt", "seed", "seconds", "tracks")}
    assert said == {"prompt": f"{CELLO}, 1 seconds long", "seed": 3, "seconds": 0.64, "tracks": ["audio"]}
    assert [path.name for path in tmp_path.iterdir()] == ["out.wav"]


def test_it_is_made_again(music, tmp_path):
    first, _ = music("tempo=66 instrument=cello", "--seconds", 0.5, "--guide", "classifier-free:2", name="a.wav")
    again, _ = music("--from", tmp_path / "a.wav", name="b.wav")
    assert first.metadata["prompt"] == "tempo=66 instrument=cello ends=0.5"
    assert first.metadata | {"events": None} == again.metadata | {"events": None}
    assert np.array_equal(first.tracks["audio"].values, again.tracks["audio"].values)
    longer, _ = music("--from", tmp_path / "a.wav", "--seconds", 0.8, name="c.wav")
    assert longer.metadata["prompt"] == "tempo=66 instrument=cello ends=0.8"


def test_a_loop_has_no_end(music):
    assert music(CELLO, "--loop", "--seconds", 0.64)[0].metadata["prompt"] == f"{CELLO}, without an ending"


def test_music_goes_on(music, source):
    clip, _ = music("a reel", "--continue", source, "--seconds", 1.28)
    given = Clip.read(source).tracks["audio"].values
    assert clip.tracks["audio"].values.shape == (1, 20480)
    assert np.array_equal(clip.tracks["audio"].values[:, :12800], given)
    assert clip.metadata["prompt"] == "a reel, 1 seconds long"


def test_a_gap_is_filled(music, source):
    clip, _ = music("a reel", "--fill", source, "0.2-0.5")
    given, made = Clip.read(source).tracks["audio"].values, clip.tracks["audio"].values
    assert np.array_equal(made[:, :3200], given[:, :3200])
    assert np.array_equal(made[:, 8000:], given[:, 8000:])
    assert not np.array_equal(made[:, 3200:8000], given[:, 3200:8000])
    assert (clip.metadata["known"], clip.metadata["prompt"]) == ([[0.0, 0.2], [0.5, 0.8]], "a reel")


def test_music_is_varied(music, source, tmp_path):
    clip, _ = music("a reel", "--vary", source, "--strength", 0.3, name="a.wav")
    given = Clip.read(source).tracks["audio"].values
    assert clip.tracks["audio"].values.shape == given.shape
    assert not np.array_equal(clip.tracks["audio"].values, given)
    assert (clip.metadata["strength"], clip.metadata["prompt"]) == (0.3, "a reel")
    again, _ = music("--from", tmp_path / "a.wav", name="b.wav")
    assert np.array_equal(again.tracks["audio"].values, clip.tracks["audio"].values)
    assert music("a reel", "--vary", source, name="c.wav")[0].metadata["strength"] == 0.5


def test_prompts_of_a_file_into_a_folder(run, tiny, tiny_model, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a reel --seed 1-2 --seconds 0.16\na chorale\n")
    options = ("--model", tiny_model, "--device", "cpu", "--seconds", 0.32, "-o", tmp_path / "out")
    code, out, _ = run("text-to-music", "--prompts", prompts, *options)
    assert code == 0
    names = ["a-reel-1.wav", "a-reel-2.wav", "a-chorale-0.wav"]  # by what was typed, not by what was sent
    assert out.splitlines() == [str(tmp_path / "out" / name) for name in names]


def test_a_stream_into_a_file(run, endless, tiny_model, tmp_path):
    path = tmp_path / "out.wav"
    options = ("--seed", 3, "--steps", 2, "--seconds", 0.25, "--model", tiny_model)
    code, out, _ = run("text-to-music", CELLO, "--stream", "-o", path, *options)
    assert (code, out) == (0, f"{path}\n")
    [(prompt, asked)] = endless.asked
    assert prompt == f"{CELLO}, without an ending"
    assert (asked["seed"], asked["steps"], asked["seconds"], asked["tracks"]) == (3, 2, math.inf, ("audio",))
    with wave.open(str(path)) as file:
        values = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert np.array_equal(values, np.round(np.repeat([0, 0.01, 0.02], [1600, 1600, 800]) * 32768))
    assert Clip.read(path).metadata["prompt"] == f"{CELLO}, without an ending"


def test_a_stream_through_a_pipe_is_sound_alone(endless, tiny_model, capfdbinary):
    from counterpoint.cli.main import main
    from counterpoint.cli.stream import wav_header

    with pytest.raises(SystemExit) as ended:
        main(["text-to-music", CELLO, "--stream", "--seconds", "0.2", "--model", str(tiny_model)])
    assert ended.value.code == 0
    out, _ = capfdbinary.readouterr()
    assert out[:44] == wav_header(16000, 1)
    assert len(out) == 44 + 2 * 3200


def test_a_stream_reads_its_prompt_again(run, endless, tiny_model, tmp_path, monkeypatch):
    prompts, path = tmp_path / "prompts.txt", tmp_path / "out.wav"
    prompts.write_text("a chorale\n")
    pieces = Endless.stream

    def change(self, prompt, **options):
        for i, piece in enumerate(pieces(self, prompt, **options)):
            yield piece
            if i == 1:
                prompts.write_text("tempo=120 type=reel\n")
            if i == 2:
                prompts.unlink()

    monkeypatch.setattr(Endless, "stream", change)
    options = ("--prompts", prompts, "--seconds", 0.5, "--model", tiny_model, "-o", path)
    code, _, err = run("text-to-music", "--stream", *options)
    assert code == 0
    assert Clip.read(path).metadata["prompts"] == [
        [0.0, "a chorale, without an ending"],
        [0.2, "tempo=120 type=reel ends=no"],
    ]
    assert err.splitlines() == [
        "from now on: tempo=120 type=reel",
        f"{prompts}: can't be read any more; the last prompt stays",
    ]


def test_ctrl_c_leaves_a_whole_file(run, endless, tiny_model, tmp_path, monkeypatch):
    pieces = Endless.stream

    def interrupt(self, prompt, **options):
        for i, piece in enumerate(pieces(self, prompt, **options)):
            if i == 3:
                raise KeyboardInterrupt
            yield piece

    monkeypatch.setattr(Endless, "stream", interrupt)
    path = tmp_path / "out.wav"
    code, _, err = run("text-to-music", CELLO, "--stream", "-o", path, "--model", tiny_model)
    assert code == 130
    assert "Traceback" not in err
    with wave.open(str(path)) as file:
        assert file.getnframes() == 4800


def test_a_stream_of_the_tiny_model(run, tiny, tiny_model, tmp_path):
    path = tmp_path / "out.wav"
    options = ("--seconds", 3, "--model", tiny_model, "--device", "cpu")
    assert run("text-to-music", "a reel", "--stream", "-o", path, *options)[0] == 0
    clip = Clip.read(path)
    assert clip.tracks["audio"].values.shape == (1, 48000)
    assert json.loads(json.dumps(clip.metadata))["seconds"] == 3.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to generate"),
        ([" "], "the prompt is empty"),
        (["a reel", "--tracks", "audio"], "No such option: --tracks"),
        (["a reel", "-o", "out.mp4"], "out.mp4: is made for video, but the tracks are audio"),
        (["a reel", "--model", "misic"], "--model misic: no such folder"),
        (["a reel", "--strength", "0.5"], "--strength: is for --vary"),
        (["a reel", "--vary", "IN", "--strength", "0"], "--strength 0: give a share above 0"),
        (["a reel", "--vary", "IN", "--strength", "1.5"], "--strength 1.5: give a share above 0"),
        (["a reel", "--vary", "IN", "--fill", "IN", "0.1-0.2"], "changes all of a clip, so it can't go with --fill"),
        (["a reel", "--vary", "IN", "--continue", "IN"], "it can't go with --continue"),
        (["a reel", "--vary", "missing.wav"], "missing.wav: no such file"),
        (["a reel", "--continue", "IN"], "--continue: the clip is 0.8 s long already"),
        (["a reel", "--continue", "IN", "--seconds", "0.5"], "not --seconds 0.5"),
        (["a reel", "--fill", "IN", "0.5-0.2"], "--fill 0.5-0.2"),
        (["a reel", "--fill", "IN", "0.5-2"], "the clip given is only 0.8 s long"),
        (["a reel", "--fill", "IN"], "--fill"),
        (["--prompts", "TRACKS"], "line 1: unknown option '--tracks'"),
        (["a reel", "--stream", "--loop"], "--stream: begins anew and has no end, so it can't go with --loop"),
        (["a reel", "--stream", "--vary", "IN"], "can't go with --vary"),
        (["a reel", "--stream", "--fill", "IN", "0.1-0.2"], "can't go with --fill"),
        (["a reel", "--stream", "--continue", "IN"], "can't go with --continue"),
        (["a reel", "--stream", "--seed", "0-3"], "--stream: is one piece; give one --seed, not 4"),
        (["a", "reel", "--stream"], "--stream: plays one prompt, not 2"),
        (["a reel", "--stream", "--prompts", "TRACKS"], "--stream: give either a PROMPT or --prompts FILE"),
        (["--stream", "--prompts", "TRACKS"], "a prompt has no options of its own"),
        (["--stream", "--prompts", "missing.txt"], "missing.txt: no such file"),
        (["--stream"], "nothing to generate"),
        (["a reel", "--stream", "-o", "out.mp3"], "out.mp3: --stream writes a file of kind .wav"),
        (["a reel", "--stream", "-o", "IN"], "is there already; give --overwrite"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_leave_nothing(refuse, monkeypatch, tmp_path, source, arguments, message):
    from counterpoint.diffusion.pipeline import CounterpointPipeline

    def load(*_, **__):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(CounterpointPipeline, "from_pretrained", load)
    lines = tmp_path / "tracks.txt"
    lines.write_text("a reel --tracks audio\n")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    names = {"IN": str(source), "TRACKS": str(lines)}
    assert message in refuse("text-to-music", *[names.get(text, text) for text in arguments])
    assert list((tmp_path / "here").iterdir()) == []
