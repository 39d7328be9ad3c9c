"""Long form on a tiny model: every segment against the first, seams, the table; a run that was cut off goes on."""

import json
from pathlib import Path

import numpy as np
import pytest

from counterpoint.modalities.clip import ClipError
from counterpoint.recipes import evaluate_long_form
from counterpoint.recipes.evaluate_joint import rounded
from counterpoint.recipes.evaluate_long_form import evaluate, feature_drift, table


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("long")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate_long_form, "BATCH", 2)
        options = {"work": folder / "work", "workers": 1, "seconds": 6.0, "say": lambda _: None}
        scores = evaluate(tiny_model, folder / "l.json", 3, **options)
        assert json.loads((folder / "l.json").read_text()) == json.loads(json.dumps(rounded(scores))) | {
            "commit": json.loads((folder / "l.json").read_text())["commit"]
        }
        (folder / "l.json").unlink()
        patch.setattr(evaluate_long_form, "_make", None)  # everything was made
        assert evaluate(tiny_model, folder / "l.json", 3, **options) == scores
    return folder, scores


def test_segments_are_measured_against_the_first(run):
    _, scores = run
    first, second = scores["segments"]  # of 2.56 s; the rest of 6 s is left out
    assert first["colour"] == first["level_db"] == 0
    assert second["colour"] > 0
    assert set(first["features"].values()) == {0}
    assert all(row["same"] == 1 for row in first["identity"].values())
    assert second["features"]["video"] > 0
    for row in scores["segments"]:
        assert set(row["sync"]) == {"audio-video", "audio-sensor", "video-sensor"}
        assert {"f1", "chance", "real"} <= set(row["sync"]["audio-video"])


def test_floors_are_of_real_clips(run):
    _, scores = run
    assert scores["halves"]["real"]["colour"] < scores["real"]["clips"]["colour"]
    assert scores["real"]["sync"]["audio-sensor"]["real"] > 0.6


def test_seams_are_borders_of_half_windows(run):
    _, scores = run
    for track in ("video", "audio", "sensor"):
        row = scores["seams"][track]
        assert (row["seams"], row["real_seams"]) == (3 * 4, 3)  # 1.28, 2.56, 3.84, 5.12 s of 6 s; 1.28 s of 2.56 s
        assert all(0 <= row[key] <= 1 for key in ("generated", "other_slots", "real", "real_other_slots"))


def test_features_drift_from_0_to_1():
    start = np.random.default_rng(0).normal(size=(40, 128))
    assert feature_drift(start, start) == 0
    assert feature_drift(np.roll(start, 20, axis=0), start) == pytest.approx(1, abs=0.05)


def test_the_tables(run):
    _, scores = run
    first, second, third = table(scores).split("\n\n")
    assert len(first.splitlines()) == 2 + 2 + 6
    assert len(second.splitlines()) == 2 + 2
    assert len(third.splitlines()) == 2 + 3
    for part in (first, second, third):
        assert len({row.count("|") for row in part.splitlines()}) == 1


def test_too_short_is_refused(tiny_model, tmp_path):
    with pytest.raises(ClipError, match=r"seconds: 4 is less than two segments of 2.56"):
        evaluate(tiny_model, tmp_path / "l.json", 2, work=tmp_path, seconds=4.0)
