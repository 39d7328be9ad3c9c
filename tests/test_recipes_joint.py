"""The joint recipe, end to end and tiny: clips → latents → training → a model's folder → a clip's files."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from counterpoint.data.arrays import SENSORS, write_arrays
from counterpoint.diffusion.pipeline import CounterpointPipeline
from counterpoint.diffusion.training import JointTraining
from counterpoint.modalities.clip import Clip, ClipError, Track
from counterpoint.recipes import joint
from counterpoint.recipes.joint import (
    PRESETS,
    Settings,
    codecs_folder,
    defaults_of,
    event_times,
    parameters,
    tiny,
    train,
)
from counterpoint.recipes.settings import from_json, override

COUNT, SLOTS = 6, 4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of 0.64 s: a square that falls, a click where it lands, noise in the sensors."""
    rng = np.random.default_rng(0)

    def clip(i: int) -> Clip:
        video = np.full((4 * SLOTS, 64, 64, 3), 90, np.uint8)
        for frame in range(4 * SLOTS):
            top = min(44, 4 * frame)
            video[frame, top : top + 16, 10 + 6 * i : 26 + 6 * i] = (200, 40 * i, 30)
        audio = np.zeros((1, 2560 * SLOTS), np.float32)
        audio[0, 7040:7140] = 0.5 * np.sin(np.arange(100) * (0.2 + 0.1 * i))
        sensor = {
            name: Track(rng.normal(size=(len(c), 16 * SLOTS)).astype(np.float32), 100.0)
            for name, (c, _) in SENSORS.items()
        }
        return Clip(Track(audio, 16000.0), Track(video, 25.0), sensor, metadata={"captions": [f"ball {i} drops", "a"]})

    folder = tmp_path_factory.mktemp("data")
    write_arrays(folder, (clip(i) for i in range(COUNT)), COUNT)
    return folder


@pytest.fixture(scope="module")
def settings(tiny_model: Path) -> Settings:
    return replace(tiny(), codecs=str(tiny_model / "codecs"), device="cpu")


@pytest.fixture(scope="module")
def whole(data: Path, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was never stopped."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    assert train(settings, data, run) == run / "model"
    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "transformer" / "diffusion_pytorch_model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(x, other[n]) for n, x in one.items())


def test_the_run_folder(whole: Path, settings: Settings) -> None:
    names = {"settings.json", "log.jsonl", "checkpoint.safetensors", "previews", "latents", "model"}
    assert {p.name for p in whole.iterdir()} == names
    assert from_json(Settings, whole / "settings.json") == settings
    log = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [1, 2, 3, 4]
    assert {"loss", "loss/video", "loss/audio", "loss/force", "lr", "seconds"} <= log[-1].keys()
    assert all(np.isfinite(entry["loss"]) for entry in log)
    assert [p.name for p in sorted((whole / "previews").iterdir())] == ["step_000000.png", "step_000004.png"]
    first, last = (np.asarray(Image.open(p)) for p in sorted((whole / "previews").iterdir()))
    assert first.shape == last.shape == (4 * (64 + 64 + 3 * 32 + 4), 16 * 64, 3)
    assert first[:64].std() > 1
    assert all(x.dtype == torch.bfloat16 for x in weights(whole).values())
    defaults = json.loads((whole / "model" / "model_index.json").read_text())["defaults"]
    assert {name: defaults[name] for name in ("guidance", "isolation", "seconds")} == {
        name: getattr(settings, name) for name in ("guidance", "isolation", "seconds")
    }


def test_a_model_isolates_the_tracks_that_it_has() -> None:
    assert defaults_of(tiny(), {"audio", "sensor"})["isolation"].keys() == {"audio", "sensor"}
    assert defaults_of(tiny(), {"video", "audio", "sensor"})["isolation"] == tiny().isolation
    assert defaults_of(override(tiny(), ["isolation=1.5"]), {"audio"})["isolation"] == 1.5
    assert defaults_of(tiny(), {"audio", "sensor"})["parallel"] == {"audio": 0.0}
    assert override(tiny(), ["isolation=video:4,audio:2"]).isolation == {"video": 4.0, "audio": 2.0}


def test_events_are_learned_beside(data: Path, settings: Settings, tmp_path: Path) -> None:
    asked, run = replace(settings, steps=2, loss=replace(settings.loss, events=0.5)), tmp_path / "run"
    train(asked, data, run)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    parts = sum(asked.loss.weights[name] * log[-1][f"loss/{name}"] for name in asked.loss.weights)
    assert log[-1]["loss"] == pytest.approx(parts + 0.5 * log[-1]["loss/events"], rel=1e-3)
    first = weights(run)
    assert same(weights(train(asked, data, run).parent), first)  # a finished run is saved again as it was
    assert not any("head" in name for name in first)


def test_events_are_those_listed_or_those_heard(data: Path, tmp_path: Path) -> None:
    heard = event_times(data)
    assert [len(times) for times in heard] == [1] * COUNT
    assert all(times[0] == pytest.approx(0.44, abs=0.01) for times in heard)  # the click
    shutil.copytree(data, tmp_path / "data")
    entries = json.loads((data / "clips.json").read_text())
    told = json.dumps([{**entry, "events": [0.1 * i] if i else []} for i, entry in enumerate(entries)])
    (tmp_path / "data" / "clips.json").write_text(told)
    assert event_times(tmp_path / "data") == [[], *([0.1 * i] for i in range(1, COUNT))]
    (tmp_path / "data" / "clips.json").write_text(json.dumps(entries))
    np.save(tmp_path / "data" / "audio.npy", np.zeros_like(np.load(data / "audio.npy")))
    with pytest.raises(ClipError, match=r"loss\.events"):
        event_times(tmp_path / "data")


def test_the_model_generates_files_that_can_be_read(whole: Path, tmp_path: Path) -> None:
    pipeline = CounterpointPipeline.from_pretrained(whole / "model", device="cpu")
    clip = pipeline("ball 3 drops", seed=1, steps=2, seconds=0.64)
    files = clip.save(tmp_path / "ball.mp4")
    assert [p.name for p in files] == ["ball.mp4", "ball.csv", "ball.png"]
    back = Clip.read(tmp_path / "ball.mp4", tmp_path / "ball.csv")
    assert list(back.tracks) == list(clip.tracks)
    assert back.tracks["video"].values.shape == clip.tracks["video"].values.shape == (16, 64, 64, 3)
    np.testing.assert_allclose(back.sensor["force"].values, clip.sensor["force"].values, rtol=1e-4, atol=1e-4)
    assert Image.open(tmp_path / "ball.png").size[0] > 100


def test_the_same_command_resumes(
    whole: Path, data: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, step, trained = tmp_path / "parts", JointTraining.training_step, []

    def cut(self: JointTraining, batch: dict, index: int) -> torch.Tensor:
        if self.global_step == 3 and len(trained) == 3:
            raise RuntimeError("the power went")
        trained.append(self.global_step)
        return step(self, batch, index)

    monkeypatch.setattr(JointTraining, "training_step", cut)
    with pytest.raises(RuntimeError, match="the power went"):
        train(settings, data, run)
    assert not (run / "model").exists()
    trained.append(-1)
    train(settings, data, run)
    assert trained == [0, 1, 2, -1, 2, 3]  # from the checkpoint after two steps
    assert same(weights(run), weights(whole))


def test_a_finished_run_stays_as_it_is(
    whole: Path, data: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = weights(whole)
    monkeypatch.setattr(JointTraining, "training_step", lambda *_: pytest.fail("a finished run was trained on"))
    train(settings, data, whole)
    assert same(weights(whole), before)  # the averaged weights, not the raw ones


def test_stopping_after_some_minutes_keeps_a_checkpoint(
    whole: Path, data: Path, settings: Settings, tmp_path: Path
) -> None:
    train(replace(settings, minutes=0.0, preview_every=1000), data, tmp_path / "run")
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert len(log) == 1
    assert (tmp_path / "run" / "model" / "model_index.json").is_file()
    train(replace(settings, preview_every=1000), data, tmp_path / "run")
    assert same(weights(tmp_path / "run"), weights(whole))


def test_seed_and_start(whole: Path, data: Path, settings: Settings, tmp_path: Path) -> None:
    short = replace(settings, steps=1, preview_every=1000)
    train(replace(short, seed=1), data, tmp_path / "seed")
    train(replace(short, start_from=str(whole / "model")), data, tmp_path / "on")
    train(short, data, tmp_path / "off")
    ours, start, fresh = weights(tmp_path / "on"), weights(whole), weights(tmp_path / "off")
    assert not same(weights(tmp_path / "seed"), fresh)
    name = "transformer_blocks.0.space_attn.to_q.weight"
    near, far = ((ours[name].float() - other[name].float()).norm() for other in (start, fresh))
    assert near > 0
    assert (ours["text_pad"].float() - start["text_pad"].float()).norm() < 0.1
    assert far > 0


def test_bad_input_is_named(data: Path, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"video\.npy: no such file"):
        train(settings, tmp_path / "nothing", tmp_path / "run")
    with pytest.raises(ClipError, match="cello is neither a folder"):
        train(replace(settings, codecs="cello"), data, tmp_path / "run")
    with pytest.raises(ClipError, match="batch: 7 clips a step, but the data set holds 6"):
        train(replace(settings, batch=7), data, tmp_path / "run")


def test_presets(tiny_model: Path, whole: Path) -> None:
    assert list(PRESETS) == ["tiny", "small", "base"]
    count = {n: parameters(replace(PRESETS[n](), codecs=str(tiny_model / "codecs"))) for n in ("tiny", "small")}
    assert count["tiny"] < 500_000
    assert 8e6 < count["small"] < 10e6  # what the docstring says
    assert codecs_folder(str(whole / "model")) == whole / "model" / "codecs"
    assert not [name for name in joint.__all__ if not hasattr(joint, name)]
