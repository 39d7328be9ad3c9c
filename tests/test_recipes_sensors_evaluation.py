"""`counterpoint evaluate sensors`: scores under the keys that were promised, merged into a file."""

import json

import numpy as np
import pytest

from counterpoint.data.series import load_windows
from counterpoint.evaluation.sensors import SCORES, Effort
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes.evaluate_sensors import evaluate, merge
from counterpoint.recipes.sensors import tiny, train

EFFORT = Effort(repeats=2, discriminative=2, predictive=2, ts2vec=1)


@pytest.fixture(scope="module")
def stocks(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "stock_data.csv"
    values = np.random.default_rng(0).normal(size=(120, 6)).cumsum(axis=0)
    lines = ["Open,High,Low,Close,Adj_Close,Volume", *(",".join(f"{v:.6f}" for v in row) for row in values)]
    path.write_text("\n".join(lines))
    return path


def test_scores_of_a_model_and_of_an_array_go_into_one_file(stocks, tmp_path):
    settings = tiny()
    model = train(settings.__class__(**{**settings.__dict__, "set": "Stocks"}), stocks, tmp_path / "run")
    path = tmp_path / "scores.json"
    merge(path, "ETTh1", 24, {"predictive": {"mean": 0.1}})
    merge(path, "Stocks", 24, {"predictive": {"mean": 0.2}})
    scores = evaluate("stocks", 8, stocks, model, json_path=path, effort=EFFORT, say=lambda _: None)["Stocks"]["8"]
    assert set(scores) == {*SCORES, "memorization", "facts"}
    for name in SCORES:
        assert set(scores[name]) == {"mean", "half_width", "floor", "floor_half_width"}
        assert all(np.isfinite(value) for value in scores[name].values())
    assert scores["facts"]["windows"] == 113
    assert scores["facts"]["sampling"]["cpu_seconds_per_1000"] > 0
    written = json.loads(path.read_text())
    assert written["Stocks"]["8"] == scores
    assert written["ETTh1"] == {"24": {"predictive": {"mean": 0.1}}}

    np.save(tmp_path / "made.npy", load_windows("Stocks", 24, stocks).values)
    evaluate("Stocks", 24, stocks, windows=tmp_path / "made.npy", json_path=path, scores=("correlational",),
             effort=EFFORT, say=lambda _: None)  # fmt: skip
    written = json.loads(path.read_text())["Stocks"]["24"]
    assert written["predictive"] == {"mean": 0.2}
    assert written["memorization"]["share_closer"] == 1.0  # the training windows themselves


def test_what_does_not_fit_is_refused(stocks, tmp_path, refuse):
    model = train(tiny(), None, tmp_path / "run")
    with pytest.raises(ClipError, match="trained on Sines at 8, not on Stocks at 8"):
        evaluate("Stocks", 8, stocks, model, say=lambda _: None)
    np.save(tmp_path / "few.npy", np.zeros((3, 8, 6)))
    few = ("--data", stocks, "--windows", tmp_path / "few.npy")
    said = refuse("evaluate", "sensors", "--set", "Stocks", "--length", "8", *few)
    assert "[3, 8, 6], expected [113 or more, 8, 6]" in said
    assert "--set" in refuse("evaluate", "sensors")
    assert "give either --generator" in refuse("evaluate", "sensors", "--set", "sines")
    assert "curl" in refuse("evaluate", "sensors", "--set", "Energy", "--windows", tmp_path / "few.npy")
    nowhere = ("--generator", tmp_path / "nowhere")
    assert "nowhere: no such file or folder" in refuse("evaluate", "sensors", "--set", "Sines", *nowhere)
    scores = tmp_path / "scores.json"
    merge(scores, "Sines", 24, {})
    there = ("--windows", tmp_path / "few.npy", "--json", scores)
    assert "holds Sines.24 already" in refuse("evaluate", "sensors", "--set", "Sines", *there)
    scores.write_text("[]")
    assert "not a file of scores" in refuse("evaluate", "sensors", "--set", "Sines", *there)
