"""A tiny training of the music judge: it learns, says what it knows, and refuses what it cannot read."""

import json
from dataclasses import replace

import numpy as np
import pytest

from counterpoint.evaluation.music_judge import MusicJudge
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes.audio_codec import rows
from counterpoint.recipes.music_judge import MusicClips, tiny, train

N = 20


@pytest.fixture
def data(tmp_path):
    """Flute is a high tone, cello a low one; a third of the clips have both."""
    folder = tmp_path / "data"
    folder.mkdir()
    time = np.arange(16000) / 16000
    tones = {"cello": np.sin(2 * np.pi * 200 * time), "flute": np.sin(2 * np.pi * 3000 * time)}
    who = [(["cello"], ["flute"], ["cello", "flute"])[i % 3] for i in range(N)]
    audio = [sum(0.2 * tones[name] for name in names) for names in who]
    np.save(folder / "audio.npy", np.pad(np.stack(audio), ((0, 0), (0, 1920))).astype(np.float16))
    facts = [
        {"instruments": names, "family": "mixed" if len(names) > 1 else names[0], "mode": "major"} for names in who
    ]
    (folder / "clips.json").write_text(json.dumps([{"facts": f, "captions": [""], "events": []} for f in facts]))
    (folder / "sensors.json").write_text(json.dumps({"tracks": ["audio"], "rate": 100.0, "sensors": {}}))
    return folder


def test_it_learns_and_what_it_saves_is_complete(data, tmp_path):
    settings = replace(tiny(), max_steps=30, batch=12, lr=3e-3, ema=0.5, validation=0.3, checkpoint_every=30)
    folder = train(settings, data, tmp_path / "run")
    judge = MusicJudge.load(folder)
    assert judge.classes == {"instruments": ("cello", "flute"), "family": ("cello", "flute", "mixed")}  # mode is fixed
    scores = json.loads((folder / "scores.json").read_text())["validation"]
    assert scores["family"] == 1
    assert scores["instrument"] == 1
    clips = MusicClips(data, 0.3)
    features = judge.features(rows(clips.audio, np.arange(6)))
    assert tuple(features.shape) == (6, 128)
    present = (judge.opinions(features)["instruments"] > 0).int().tolist()
    assert present == [[1, 0], [0, 1], [1, 1]] * 2


def test_bad_input_is_named(data, tmp_path):
    (data / "clips.json").write_text(json.dumps([{"captions": [""], "events": []}] * N))
    with pytest.raises(ClipError, match=r"clips\.json: an entry has no facts"):
        train(tiny(), data, tmp_path / "run")
    with pytest.raises(ClipError, match="not a music judge"):
        MusicJudge.load(tmp_path)
