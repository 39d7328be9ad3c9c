"""A tiny training of the judges: it learns, resumes exactly, and refuses what it cannot read."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import load_file

from counterpoint.evaluation.judges import Judges
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes import judges as recipe
from counterpoint.recipes.judges import WorldClips, augment, tiny, train

N = 20


@pytest.fixture
def data(tmp_path):
    """Clips whose material is a colour, a pitch and a level; the other attributes never change."""
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    wood = np.arange(N) % 2 == 0
    video = rng.integers(90, 110, (N, 64, 64, 64, 3), dtype=np.uint8)
    video[wood, ..., 0] += 100
    time = np.arange(40960) / 16000
    tone = np.where(wood[:, None], np.sin(2 * np.pi * 300 * time), np.sin(2 * np.pi * 3000 * time))
    sensor = rng.normal(size=(N, 7, 256)).astype(np.float32) + 10 * wood[:, None, None]
    np.save(folder / "video.npy", video)
    np.save(folder / "audio.npy", (0.3 * tone).astype(np.float16))
    np.save(folder / "sensor.npy", sensor.astype(np.float32))
    same = {"shape": "ball", "size": "small", "floor": "stone", "action": "drop", "count": 1}
    records = [{"attributes": {"material": "wood" if w else "glass", **same}, "events": [0.5]} for w in wood]
    (folder / "clips.json").write_text(json.dumps(records))
    return folder


def test_it_learns_and_what_it_saves_is_complete(data, tmp_path):
    settings = replace(tiny(), max_steps=12, batch=8, lr=3e-3, warmup=1, ema=0.5, validation=0.2, checkpoint_every=12)
    folder = train(settings, data, tmp_path / "run")
    judges = Judges.load(folder)
    assert judges.classes["material"] == ("glass", "wood")
    scores = json.loads((folder / "scores.json").read_text())["validation"]
    assert scores["pool_material"] == 1
    clips = WorldClips(data, 0.2)
    features = judges.features(clips.tensors(np.arange(N)))
    assert {t: tuple(x.shape) for t, x in features.items()} == dict.fromkeys(("video", "audio", "sensor"), (N, 128))
    answers = judges.verdict(features)["material"].argmax(-1).tolist()
    assert answers == [1, 0] * (N // 2)
    assert sum(f.stat().st_size for f in folder.iterdir()) < 4e6
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["pool_material"] == 1


def test_a_run_that_was_cut_off_ends_the_same(data, tmp_path, monkeypatch):
    whole = load_file(train(tiny(), data, tmp_path / "whole") / "model.safetensors")
    calls = []

    def cut(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return augment(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "augment", cut)
        with pytest.raises(KeyboardInterrupt):
            train(tiny(), data, tmp_path / "parts")
    assert not (tmp_path / "parts" / "judges").exists()
    resumed = load_file(train(tiny(), data, tmp_path / "parts") / "model.safetensors")
    assert all((whole[key] == resumed[key]).all() for key in whole)


def test_bad_input_is_named(data, tmp_path):
    with pytest.raises(ClipError, match=r"video\.npy: no such file"):
        train(tiny(), tmp_path / "nothing", tmp_path / "run")
    judges = Judges({"material": ["glass", "wood"]})
    with pytest.raises(ClipError, match="'cheese' is none of glass, wood"):
        judges.targets([{"material": "cheese"}])
    np.save(data / "audio.npy", np.zeros((3, 40960), np.float16))
    with pytest.raises(ClipError, match=r"audio\.npy: 3 clips, but clips\.json has 20"):
        train(tiny(), data, tmp_path / "run")
    with pytest.raises(ClipError, match="not a folder of judges"):
        Judges.load(tmp_path)
