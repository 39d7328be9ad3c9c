"""`counterpoint evaluate sensors`: scores under the keys that were promised, merged into a file."""

import json

import numpy as np
import pytest

from counterpoint.data.series import load_windows
from counterpoint.evaluation.sensors import SCORES, Effort
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes import evaluate_sensors
from counterpoint.recipes.evaluate_sensors import evaluate, merge
from counterpoint.recipes.sensors import tiny, train
from counterpoint.recipes.sensors_generator import SeriesGenerator

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
        own = {"chance", "accuracy", "floor_accuracy"} if name == "discriminative" else set()
        assert set(scores[name]) == {"mean", "half_width", "floor", "floor_half_width"} | own
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


def test_what_was_kept_is_not_made_again(stocks, tmp_path, monkeypatch):
    """Stopped once among the samples and once among the scores, it ends with what it gives uninterrupted."""
    settings = tiny()
    model = train(settings.__class__(**{**settings.__dict__, "set": "Stocks"}), stocks, tmp_path / "run")
    monkeypatch.setattr("counterpoint.recipes.sensors_generator.TOKENS", 40)  # ten windows of two slots of two
    monkeypatch.setattr(evaluate_sensors, "BLOCK", 4)  # 113 windows in three blocks
    sample, judge = SeriesGenerator.sample, evaluate_sensors.evaluate_windows
    stops, done, seen = ["windows 40", "discriminative"], [], []

    def reach(step):
        if stops[:1] == [step]:
            raise KeyboardInterrupt
        done.append(step)

    def sampled(self, count, *args, **options):
        reach(f"windows {options['first']}")
        return sample(self, count, *args, **options)

    def judged(real, made, seed, scores, effort):
        reach(scores[0])
        seen.append(made)
        return judge(real, made, seed, scores, effort)

    monkeypatch.setattr(SeriesGenerator, "sample", sampled)
    monkeypatch.setattr(evaluate_sensors, "evaluate_windows", judged)

    def scores(work, **options):
        done.clear()
        quiet = {"effort": EFFORT, "say": lambda _: None}
        return evaluate("stocks", 8, stocks, model, work=work, **quiet, **options)["Stocks"]["8"]

    while stops:
        with pytest.raises(KeyboardInterrupt):
            scores(tmp_path / "work")
        stops.pop(0)
    assert done == ["windows 40", "windows 80", "context_fid"]
    kept = scores(tmp_path / "work")
    assert done == ["discriminative", "correlational", "predictive"]
    assert kept["facts"]["seconds"] > kept["facts"]["sampling"]["seconds_per_1000"] * 0.113 > 0
    whole = scores(None)
    for name in (*SCORES, "memorization"):
        assert whole[name] == kept[name]
    assert len(done) == 3 + len(SCORES)
    scores(tmp_path / "work")
    assert done == []
    scores(tmp_path / "work", seed=1)
    assert len(done) == 3 + len(SCORES)
    np.testing.assert_allclose(seen[-1], sample(SeriesGenerator.from_pretrained(model), 113, 1), atol=1e-5)


def test_what_does_not_fit_is_refused(stocks, tmp_path, refuse):
    model = train(tiny(), None, tmp_path / "run")
    with pytest.raises(ClipError, match="trained on Sines at 8, not on Stocks at 8"):
        evaluate("Stocks", 8, stocks, model, say=lambda _: None)
    np.save(tmp_path / "few.npy", np.zeros((3, 8, 6)))
    few = ("--data", stocks, "--windows", tmp_path / "few.npy")
    said = refuse("evaluate", "sensors", "--set", "Stocks", "--length", "8", *few)
    assert "[3, 8, 6], expected [113 or more, 8, 6]" in said
    assert "--set" in refuse("evaluate", "sensors")
    assert "--work" in refuse("evaluate", "joint", "--work", tmp_path)
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
