"""Streams of a tiny model: joints, the change of prompt, constant memory, and scores in a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from counterpoint.diffusion.pipeline import CounterpointPipeline
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes.evaluate_stream import evaluate, listen


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> CounterpointPipeline:
    return CounterpointPipeline.from_pretrained(tiny_model)


def test_a_stream_knows_its_joints_and_the_change(pipeline: CounterpointPipeline):
    stream = listen(pipeline, "one", "two", 8.0, 0)
    assert stream.rate == 16000
    np.testing.assert_allclose(np.diff(stream.joints), 1.28)  # half a window
    assert len(stream.sound) == round(16000 * (stream.joints[-1] + 1.28))
    assert len(stream.sound) >= 8 * 16000
    assert stream.change in stream.joints
    assert 4.0 <= stream.change <= 4.0 + 2 * 1.28
    with pytest.raises(ClipError, match="seconds: 1 is less than three pieces"):
        listen(pipeline, "one", "two", 1.0, 0)


def test_scores_are_shares_and_are_written(tiny_model: Path, tmp_path: Path):
    scores = evaluate(tiny_model, tmp_path / "stream.json", 6.0, ("one", "two"))
    assert scores["joints"] == 8
    for name in ("seams", "change", "control"):
        assert 0 <= scores[name]["any"] <= 1
    assert scores["seconds_of_sound_per_second"] > 0
    assert json.loads((tmp_path / "stream.json").read_text())["seams"] == scores["seams"]
