"""The evaluation recipe on a tiny model: every number the scores promise, whole or not at all, the same twice."""

import json
import math
from pathlib import Path

import pytest

from counterpoint.recipes import evaluate_joint
from counterpoint.recipes.evaluate_joint import evaluate, held_out, rounded

PAIRS = ("audio-video", "audio-sensor", "video-sensor")


@pytest.fixture(scope="module")
def scores(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    path = tmp_path_factory.mktemp("scores") / "tiny.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate_joint, "MEMORY", 8)
        said: list[str] = []
        returned = evaluate(tiny_model, 8, json_path=path, workers=1, say=said.append)
    assert [p.name for p in path.parent.iterdir()] == ["tiny.json"]
    assert json.loads(path.read_text()) == rounded(returned)
    assert "audio-video" in said[-1]
    return returned


def test_the_scores_are_complete(scores: dict) -> None:
    for pair in PAIRS:
        for kind in ("generated", "real", "codec", "mismatched"):
            assert set(scores["sync"][pair][kind]) >= {"precision", "recall", "f1", "median_ms", "p95_ms", "n"}
    for attribute in ("material", "shape", "size", "floor", "action", "count"):
        assert set(scores["adherence"][attribute]) >= {"generated", "unseen", "real"}
    for track in ("video", "audio", "sensor"):
        assert set(scores["realism"][track]) >= {"frechet", "floor", "precision", "recall"}
        assert scores["realism"][track]["frechet"] > scores["realism"][track]["floor"]  # the network is untrained
    assert scores["prompts"] == 8
    assert scores["settings"]["steps"] == 2


def test_real_clips_keep_time(scores: dict) -> None:
    for pair in PAIRS:
        real, generated = scores["sync"][pair]["real"]["f1"], scores["sync"][pair]["generated"]["f1"]
        assert real > 0.6
        assert real > generated


def test_held_out_clips_are_seen_and_unseen_combinations() -> None:
    clips = held_out(evaluate_joint.HELD_OUT, 8)
    assert [clip.metadata["split"] for clip in clips] == ["test"] * 6 + ["unseen"] * 2
    assert len({clip.metadata["seed"] for clip in clips}) == 8


def test_rounding_keeps_five_digits() -> None:
    assert rounded({"a": [math.pi, 3, None, "x"]}) == {"a": [3.1416, 3, None, "x"]}
