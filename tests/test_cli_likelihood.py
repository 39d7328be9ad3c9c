"""`counterpoint likelihood`: a tiny model judges a small clip; what is wrong is one line, and writes nothing."""

import json

import numpy as np
import pytest

pytest.importorskip("av")

from counterpoint.cli.likelihood import shifts_of


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """0.64 s of picture with sound, and the sound alone."""
    from counterpoint.modalities.clip import Clip, Track

    draws = np.random.default_rng(0)
    audio = Track(draws.uniform(-0.3, 0.3, (1, 10240)).astype("float32"), 16000.0)
    video = Track(draws.integers(0, 255, (16, 64, 64, 3), dtype=np.uint8), 25.0)
    folder = tmp_path_factory.mktemp("clips")
    Clip(audio=audio, video=video).save(folder / "clip.mp4")
    Clip(audio=audio).save(folder / "sound.wav")
    return folder / "clip.mp4"


def test_shifts_are_even_and_hold_zero():
    assert shifts_of(None, 40) == [0]
    assert shifts_of(100, 40) == [-80, -40, 0, 40, 80]
    assert len(shifts_of(400, 40)) == 21


def test_the_flow_judges_a_clip(run, clip, tiny_model, tmp_path):
    out_file = tmp_path / "scores.json"
    code, out, _ = run("likelihood", clip, "--model", tiny_model, "--steps", 1, "--probes", 1, "--device", "cpu",
                       "--json", out_file)  # fmt: skip
    assert code == 0
    assert "method ode (solver midpoint, steps 1, probes 1, seed 0)" in out
    found = json.loads(out_file.read_text())
    bits, sizes = found["bits_per_dimension"], found["dimensions"]
    assert list(bits) == ["audio", "video", "audio|video", "audio,video"]
    assert all(np.isfinite(value) for value in bits.values())
    assert sizes["audio,video"] == sizes["audio"] + sizes["video"]
    assert found["slots"] >= 3
    shared = (bits["audio"] - bits["audio|video"]) * sizes["audio"]
    assert found["information_bits"] == pytest.approx(shared, abs=1e-3)
    assert "shifts" not in found


def test_the_offset_is_searched(run, clip, tiny_model, tmp_path):
    out_file = tmp_path / "scores.json"
    code, out, _ = run("likelihood", clip, "--model", tiny_model, "--method", "elbo", "--levels", 2, "--device", "cpu",
                       "--track", "video", "--shift-search", 160, "--step", 80, "--json", out_file)  # fmt: skip
    assert code == 0
    found = json.loads(out_file.read_text())
    assert [row["ms"] for row in found["shifts"]] == [-160, -80, 0, 80, 160]
    best = max(found["shifts"], key=lambda row: row["information_bits"])
    assert found["best_shift_ms"] == best["ms"] or best["information_bits"] == pytest.approx(0.0)
    assert f"video fits audio best when shifted by {found['best_shift_ms']} ms" in out
    assert found["telling_levels"] == {"low": 1.0, "high": 3.0}
    assert "information at noise levels from 0.73 to 0.95, by the shift of video:" in out


def test_the_flow_searches_too(run, clip, tiny_model, tmp_path):
    code, out, _ = run("likelihood", clip, "--model", tiny_model, "--steps", 1, "--probes", 1, "--device", "cpu",
                       "--shift-search", 80, "--step", 80, "--json", tmp_path / "scores.json")  # fmt: skip
    assert code == 0
    found = json.loads((tmp_path / "scores.json").read_text())
    middle = found["shifts"][1]
    assert middle["bits_per_dimension"] == pytest.approx(found["bits_per_dimension"]["audio|video"], rel=1e-4)
    assert middle["information_bits"] == pytest.approx(found["information_bits"], rel=1e-3, abs=1e-3)
    assert "information by the shift of audio:" in out


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["--step", "50", "--shift-search", "40"], "--step 50: larger than --shift-search 40"),
        (["--shift-search", "0"], "--shift-search"),
        (["--method", "guess"], "--method guess: not one of ode, elbo"),
        (["--track", "smell"], "--track: unknown track 'smell'"),
        (["--given", "audio"], "--given audio: audio is the track that is judged"),
        (["--given", "sensor"], "sensor"),
        (["--model", "nowhere"], "--model nowhere"),
        (["--json", "/nowhere/at/all.json"], "its folder is not there"),
    ],
)
def test_mistakes_are_one_line(refuse, clip, arguments, culprit):
    assert culprit in refuse("likelihood", clip, *arguments)


def test_a_file_without_the_track_is_named(refuse, clip):
    message = refuse("likelihood", clip.with_name("sound.wav"))
    assert "sound.wav" in message
    assert "video" in message


def test_a_shift_that_leaves_nothing_is_said(refuse, clip, tiny_model):
    message = refuse("likelihood", clip, "--model", tiny_model, "--device", "cpu", "--shift-search", 5000,
                     "--step", 5000)  # fmt: skip
    assert message == "shift: 5000 ms are no less than the 0.64 s that are judged"
