"""`generate --given`, `--continue`, `--fill`, `--loop`: files in, files out; what is wrong is one line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoint.cli.conditions import parse_fill, parse_given, read_strength
from counterpoint.cli.jobs import Job, make_jobs, read_source
from counterpoint.cli.outputs import plan
from counterpoint.diffusion.given import Given
from counterpoint.diffusion.pipeline import CounterpointPipeline
from counterpoint.modalities.clip import Clip, Track
from counterpoint.recipes.settings import SettingsError

av = pytest.importorskip("av")
ALL = ("audio", "video", "sensor")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """in.mp4 (64×48 at 30 fps, stereo at 48 kHz) and in.csv (all sensors at 50 Hz, with one gap), 0.4 s."""
    draws = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("source")
    frames = np.kron(draws.integers(0, 256, (12, 6, 8, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)
    names = {"accelerometer": ("x", "y", "z"), "gyroscope": ("x", "y", "z"), "force": ("z",)}
    units = {"accelerometer": "m/s²", "gyroscope": "rad/s", "force": "N"}
    sensor = {
        n: Track(draws.normal(size=(len(c), 20)).astype(np.float32), 50.0, 0.0, c, (units[n],) * len(c))
        for n, c in names.items()
    }
    Clip(
        video=Track(frames, 30.0),
        audio=Track(draws.normal(0, 0.1, (2, 19200)).astype(np.float32), 48000.0),
        sensor=sensor,
        metadata={"prompt": "a stone"},
    ).save(folder / "in.mp4")
    return folder / "in.mp4"


def comment(path: Path) -> dict:
    with av.open(str(path)) as container:
        return json.loads(container.metadata["comment"])


def test_parse_given(tmp_path):
    assert parse_given(["video=in.mp4", "all.mp4"]) == [("video", Path("in.mp4")), (None, Path("all.mp4"))]
    odd = tmp_path / "a=b.csv"
    odd.write_text("")
    assert parse_given([str(odd)]) == [(None, odd)]
    with pytest.raises(SettingsError, match=r"--given vidoe=x.mp4: unknown track 'vidoe'; nearest: 'video'"):
        parse_given(["vidoe=x.mp4"])


def test_parse_fill():
    assert parse_fill("0.8-1.6") == ((0.8, 1.6),)
    assert parse_fill("0-.2, 1-2") == ((0.0, 0.2), (1.0, 2.0))
    for text in ("0.8", "1.6-0.8", "a-b", "1-1", ""):
        with pytest.raises(SettingsError, match="--fill"):
            parse_fill(text)


@pytest.mark.parametrize(
    ("name", "asked", "tracks", "written"),
    [
        ("x.mp4", None, ("audio", "sensor"), ("audio", "sensor", "video")),
        ("x.wav", None, ("audio",), ("audio", "video")),
        ("x.mp4", ("audio",), ("audio",), ("audio", "video")),
        ("x.csv", None, ("sensor",), ("sensor", "video")),
    ],
)
def test_a_file_holds_what_is_made_and_what_is_given(tmp_path, name, asked, tracks, written):
    given = Given(Clip(video=Track(np.zeros((16, 2, 2, 3), np.uint8), 25.0)))
    [(job, _)] = plan([Job("", 0, tracks=asked, given=given)], tmp_path / name, ALL, False)
    assert (job.tracks, job.held) == (tracks, written)


def test_sound_for_a_video(run, tiny_model, source, tmp_path):
    out = tmp_path / "out.mp4"
    options = ("--model", tiny_model, "--device", "cpu", "--seed", 3)
    code, told, err = run("generate", "--given", f"video={source}", "--tracks", "audio", "-o", out, *options)
    assert (code, told.splitlines()) == (0, [str(out), str(out.with_suffix(".png"))])
    assert "video: frames are 64×48, of which the model sees the middle 48×48" in err
    before, after = Clip.read(source), Clip.read(out)
    assert np.array_equal(before.video.values, after.video.values)  # packets are copied
    assert after.audio.values.shape == (1, 6400)
    facts = comment(out)
    assert (facts["prompt"], facts["seconds"], facts["tracks"]) == ("", 0.4, ["audio"])
    assert [(f["path"], f["tracks"]) for f in facts["given"]] == [(str(source), ["video"])]
    again = tmp_path / "again.mp4"
    assert run("generate", "--from", out, "-o", again, "--device", "cpu")[0] == 0
    assert np.array_equal(Clip.read(again).audio.values, after.audio.values)


def test_on_it_goes_in_a_loop_with_gaps_and_guides(run, tiny_model, source, tmp_path):
    options = ("--model", tiny_model, "--device", "cpu", "--seconds", 0.64, "--guide", "isolation:1.5:interval=0.2-0.9")
    table = source.with_suffix(".csv")
    out = tmp_path / "on.csv"
    code, _, _ = run("generate", "a stone", "--continue", table, "--loop", "-o", out, *options)
    assert code == 0
    before, after = Clip.read(table), Clip.read(out)
    for name, track in before.sensor.items():
        assert after.sensor[name].samples == 32
        assert np.array_equal(after.sensor[name].values[:, :20], track.values)
    film = tmp_path / "film.mp4"
    options = (*options[:-4], "--fill", "0.1-0.2", "--guide", "isolation:2", "--guidance", 3)
    assert run("generate", "a stone", "--given", source, "-o", film, "--tracks", "video,audio", *options)[0] == 0
    facts = comment(film)
    assert facts["known"] == [[0.0, 0.1], [0.2, 0.4]]
    assert (facts["guidance"], facts["guides"][0]["kind"], facts["guides"][0]["scale"]) == (3.0, "isolation", 2.0)
    again = tmp_path / "again.mp4"
    assert run("generate", "--from", film, "-o", again, "--device", "cpu")[0] == 0
    assert comment(again) == facts


def test_the_models_own_guidance_is_remembered(run, tiny_model, tmp_path):
    pipeline, model = CounterpointPipeline.from_pretrained(tiny_model, device="cpu"), tmp_path / "model"
    torch.manual_seed(0)
    for parameter in pipeline.transformer.parameters():  # an untrained network says nothing
        parameter.data += 0.05 * torch.randn_like(parameter)
    pipeline.save_pretrained(model)

    def by_default(**changes):
        facts = json.loads((model / "model_index.json").read_text())
        (model / "model_index.json").write_text(json.dumps(facts | {"defaults": facts["defaults"] | changes}))

    own = {"isolation": {"video": 3.0, "audio": 2.0}, "parallel": {"video": 0.0}}
    by_default(**own)
    options = ("--model", model, "--device", "cpu", "--seconds", 0.32, "--steps", 2)
    made = {"plain.mp4": (), "led.mp4": ("--guide", "events=0.1")}
    for name, guides in made.items():
        assert run("generate", "a stone", "-o", tmp_path / name, *options, *guides)[0] == 0
        assert {key: comment(tmp_path / name)[key] for key in own} == own
    by_default(isolation=1.0, parallel=1.0)
    for name in made:
        again = tmp_path / f"again_{name}"
        assert run("generate", "--from", tmp_path / name, "-o", again, "--device", "cpu")[0] == 0
        assert comment(again) == comment(tmp_path / name)
        assert np.array_equal(Clip.read(again).video.values, Clip.read(tmp_path / name).video.values)
    by_default(isolation=own["isolation"])
    for name, guides in made.items():
        other = tmp_path / f"other_{name}"
        assert run("generate", "a stone", "-o", other, *options, *guides)[0] == 0
        assert not np.array_equal(Clip.read(other).video.values, Clip.read(tmp_path / name).video.values)


def test_a_clip_is_varied(run, tiny_model, source, tmp_path):
    out = tmp_path / "other.mp4"
    options = ("--vary", source, "--strength", 0.4, "--tracks", "audio", "--model", tiny_model, "--device", "cpu")
    assert run("generate", "a stone", *options, "-o", out)[0] == 0
    before, after = Clip.read(source), Clip.read(out)
    assert np.array_equal(before.video.values, after.video.values)  # is not among the tracks, and stays
    assert not np.array_equal(before.audio.values[:, : after.audio.samples], after.audio.values)
    told = comment(out)
    assert (told["strength"], told["tracks"], told["given"][0]["path"]) == (0.4, ["audio"], str(source))
    again = tmp_path / "again.mp4"
    assert run("generate", "--from", out, "-o", again, "--device", "cpu")[0] == 0
    assert comment(again) == told
    assert np.array_equal(Clip.read(again).audio.values, after.audio.values)


@pytest.mark.parametrize(
    ("strength", "vary", "others", "earlier", "share"),
    [
        (None, [], {}, {}, None),
        (None, ["x.wav"], {}, {}, 0.5),
        (0.3, ["x.wav"], {"--given": None}, {}, 0.3),
        (None, [], {}, {"strength": 0.3}, 0.3),
        (0.7, [], {}, {"strength": 0.3}, 0.7),
        (None, ["x.wav"], {}, {"strength": 0.3}, 0.5),
        (None, [], {"--given": ["y.wav"]}, {"strength": 0.3}, None),
    ],
)
def test_how_much_is_varied(strength, vary, others, earlier, share):
    assert read_strength(strength, vary, others, earlier) == share


def test_isolation_is_that_of_the_earlier_clip(source):
    plain = read_source(source)
    assert (plain["isolation"], plain["parallel"]) == (1.0, 1.0)  # what it does not say it did not have
    assert make_jobs([{"prompt": "x"}], {"isolation": 1.5})[0].isolation == 1.5
    earlier = source.with_name("scales.wav")
    facts = Clip.read(source).metadata | {"isolation": {"video": 5.0, "audio": 3.0}, "parallel": {"video": 0.0}}
    replace(Clip.read(source), metadata=facts).save(earlier)
    restored = read_source(earlier)
    assert (restored["isolation"], restored["parallel"]) == ({"video": 5.0, "audio": 3.0}, {"video": 0.0})


def test_a_file_that_changed_or_is_gone(run, refuse, tiny_model, source, tmp_path):
    table, out = tmp_path / "log.csv", tmp_path / "out.wav"
    table.write_bytes(source.with_suffix(".csv").read_bytes())
    options = ("--seconds", 0.32, "--model", tiny_model, "--device", "cpu")
    assert run("generate", "--given", table, "--tracks", "audio", "-o", out, *options)[0] == 0
    table.write_text(table.read_text() + "\n")
    again = tmp_path / "again.wav"
    assert "log.csv, which was given for that clip, has changed" in refuse("generate", "--from", out, "-o", again)
    table.unlink()
    assert "log.csv, which was given for that clip, is not there" in refuse("generate", "--from", out, "-o", again)
    assert not again.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--given", "smell=IN"], "unknown track 'smell'"),
        (["--given", "video=IN", "--tracks", "video,audio"], "video is given, and can't be generated as well"),
        (["--given", "sensor=IN"], "no sensor track"),
        (["--given", "missing.mp4"], "missing.mp4: no such file"),
        (["--given", "IN", "--given", "audio=IN"], "audio is given twice"),
        (["--fill", "0.1-0.2"], "give the clip as well"),
        (["--given", "IN", "--fill", "0.1-0.9"], "is only 0.4 s long"),
        (["--given", "IN", "--fill", "x"], "--fill x"),
        (["--continue", "IN"], "is 0.4 s long already"),
        (["--continue", "IN", "--seconds", "0.3"], "not --seconds 0.3"),
        (["--given", "IN", "--given", "CSV", "-o", "y.mp4"], "nothing is left to generate"),
        (["a ball", "--given", "video=IN", "-o", "IN", "--overwrite"], "would be written over"),
        (["a ball", "--guide", "isolatoin:2"], "unknown kind 'isolatoin'"),
        (["a ball", "--strength", "0.5"], "--strength: is for --vary"),
        (["--vary", "IN", "--strength", "1.2"], "--strength 1.2: give a share above 0, up to 1"),
        (["--vary", "IN", "--fill", "0.1-0.2"], "--vary: changes all of a clip, so it can't go with --fill"),
        (["--vary", "IN", "--given", "CSV"], "--vary: changes all of a clip, so it can't go with --given"),
        (["--vary", "IN", "--tracks", "sensor"], "--vary: the clip has no sensor, only video and audio"),
        (["--vary", "CSV", "-o", "y.mp4"], "y.mp4: is made for video, but the tracks are sensor"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(refuse, monkeypatch, tmp_path, source, arguments, message):
    from counterpoint.diffusion.pipeline import CounterpointPipeline

    def load(*_, **__):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(CounterpointPipeline, "from_pretrained", load)
    monkeypatch.chdir(tmp_path)
    fill = {"IN": str(source), "CSV": str(source.with_suffix(".csv"))}
    texts = []
    for text in arguments:
        for short, path in fill.items():
            text = path if text == short else text.replace(f"={short}", f"={path}")
        texts.append(text)
    assert message in refuse("generate", *texts)
    assert list(tmp_path.iterdir()) == []
