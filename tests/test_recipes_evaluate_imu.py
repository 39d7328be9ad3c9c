"""What generated windows are worth: the protocol on a small table with a model that has learned it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from counterpoint.data.series_table import Channel
from counterpoint.data.series_write import write_series
from counterpoint.evaluation.activity import Labelled
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes.evaluate_imu import SEEN_ALL, SEEN_SHARE, Effort, Maker, Part, evaluate, main, spread, turns
from counterpoint.recipes.sensors import tiny, train
from counterpoint.recipes.sensors_own_generator import RecordingGenerator
from counterpoint.recipes.settings import override

AXES = [f"watch_{kind}_{axis}" for kind in ("acc", "gyr") for axis in "xyz"]
CHANNELS = tuple(Channel(name, "m/s²" if "acc" in name else "rad/s") for name in AXES)
EFFORT = Effort(seeds=2, steps=20, judge_steps=5)


def table(path, seed, count=40, first=0):
    """Recordings `g0` …, of one class each: turns to one side about an axis that differs a little."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(count) % 2
    up = rng.standard_normal((count, 3)) * 0.1 + [0, 0, 1]
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    rate = np.array([2.0, -2.0])[kinds]
    values = np.concatenate([9.8 * up, rate[:, None] * up], axis=1)[:, None] + 0.1 * rng.standard_normal((count, 16, 6))
    values[:, 1:-1][rng.random((count, 14)) < 0.1] = np.nan
    said = np.array(["turning left", "turning right"])[kinds]
    group = np.array([f"g{first + i:02d}" for i in range(count)])
    told = {"kind": np.array(["l", "r"])[kinds], "caption": said, "who": group}
    return write_series(path, values.astype(np.float32), CHANNELS, 0.02, told=told)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return table(tmp_path_factory.mktemp("data") / "imu.parquet", 0)


@pytest.fixture(scope="module")
def settings():
    columns = ["time=time", "group=who", "drop=window", "label=kind", "text=caption", "stride=4", "hold=g3*"]
    more = ["steps=100", "batch=32", "checkpoint_every=100", "log_every=100", "sample_steps=6"]
    return override(replace(tiny(), length=8, patch=8), [*columns, *more])


@pytest.fixture(scope="module")
def model(data, settings, tmp_path_factory):
    return train(settings, data, tmp_path_factory.mktemp("runs") / "imu")


def test_a_model_that_has_learned_is_worth_as_much_as_real_windows(model, data, tmp_path):
    scores = evaluate(model, data, tmp_path / "imu.json", generators={0.25: None}, effort=EFFORT)
    found = scores["balanced_accuracy"]
    assert found["real"]["mean"] > 0.95
    assert found["chance"] == 0.5
    assert scores["ratio"] > 0.9
    assert scores["ratio"] == found["generated"]["mean"] / found["real"]["mean"]
    assert scores["ratio_by_text"] > 0.9
    assert set(found["real"]["recall"]) == {"l", "r"}
    assert scores["groups"] == {"train": 30, "test": [f"g3{i}" for i in range(10)]}
    assert scores["windows"] == {"train": 90, "test": 30, "generated": 90}
    assert scores["turns"]["real"] == {"watch": 1.0}
    assert scores["turns"]["generated"]["watch"] > 0.8
    part = scores["fractions"]["0.25"]
    assert part["generator"] == SEEN_ALL
    assert part["groups"] == [8, 8]
    assert part["windows"] == [24, 24]
    apart = part["real_and_generated"]["mean"] - part["real"]["mean"]
    assert part["difference"]["mean"] == pytest.approx(apart)
    assert 0 <= scores["discriminative"]["mean"] <= 0.5
    assert set(scores["spectra_db"]) == set(AXES)
    assert json.loads((tmp_path / "imu.json").read_text())["goal"] == 0.95


def test_an_untrained_model_is_worth_little_and_the_command_says_so(data, settings, tmp_path, capsys):
    folder = train(replace(settings, steps=1, text="", drop=("window", "caption")), data, tmp_path / "run")
    other = table(tmp_path / "b.csv", 5, 9, 40)
    options = ["--seeds", "1", "--steps", "20", "--judge-steps", "2", "--test", str(other)]
    main([str(folder), str(data), str(tmp_path / "imu.json"), *options])
    scores = json.loads((tmp_path / "imu.json").read_text())
    assert scores["ratio"] < 0.8
    assert "ratio_by_text" not in scores
    assert scores["groups"]["test"] == [f"g4{i}" for i in range(9)]
    assert "ratio" in capsys.readouterr().out


def test_a_fraction_has_the_groups_that_its_generator_saw(model, data, settings, tmp_path):
    few = ["steps=1", "hold=g3*,g2*,g1*,g0[5-9]*"]
    small = train(override(settings, few), data, tmp_path / "small")
    quick = Effort(2, 5, 2)
    part = evaluate(model, data, generators={0.1: small}, effort=quick)["fractions"]["0.1"]
    assert part["generator"] == SEEN_SHARE
    assert part["groups"] == [5, 5]
    leaky = train(override(settings, ["steps=1", "hold=g0*"]), data, tmp_path / "leaky")
    with pytest.raises(ClipError, match="generator was trained on group 'g30', the full model was not"):
        evaluate(model, data, generators={0.1: leaky}, effort=quick)


def test_generated_windows_have_the_gaps_of_real_ones(model):
    masks = np.random.default_rng(0).random((50, 8, 6)) < 0.7
    made = Maker(RecordingGenerator.from_pretrained(model), "kind", 1.0, masks).by_class(np.arange(200) % 2, 0)
    assert {m.tobytes() for m in made.mask} <= {m.tobytes() for m in masks}
    assert (made.values[~made.mask] == 0).all()
    shares = [made.mask[made.labels == k].mean() for k in (0, 1)]
    np.testing.assert_allclose(shares, masks.mean(), atol=0.02)


def test_a_share_of_the_groups_is_spread_over_all_of_them():
    groups = [f"s{s:02d}_{n:02d}" for s in range(14) for n in range(10)]
    for seed in range(5):
        assert len({group[:3] for group in spread(groups, 0.1, seed)}) == 14
        assert len(spread(groups, 0.25, seed)) == 35
    assert spread(groups, 0.1, 0) != spread(groups, 0.1, 1)
    assert spread(["a", "b"], 0.1, 0) in (["a"], ["b"])


def test_turns_count_captions_that_name_a_side_only(model):
    values = np.zeros((3, 8, 6), np.float32)
    values[:, :, 2] = 9.8
    values[:, :, 5] = np.array([1.0, 1.0, -5.0])[:, None]
    windows = Labelled(values, np.ones_like(values, bool), np.zeros(3, int))
    part = Part(windows, np.array(["turning left", "turning right", "still"], dtype=object), np.array(["a"] * 3))
    assert turns(part, RecordingGenerator.from_pretrained(model)) == {"watch": 0.5}


def test_what_does_not_fit_is_said_in_one_line(model, data, settings, tmp_path):
    whole = train(override(settings, ["steps=1", "hold="]), data, tmp_path / "whole")
    other = write_series(tmp_path / "other.csv", np.random.default_rng(0).random((9, 8, 1)), CHANNELS[:1], 0.02,
                         told={"kind": ["l"] * 9, "caption": ["still"] * 9, "who": np.arange(9)})  # fmt: skip
    for options, wrong in (
        ({"model": whole, "data": data}, "held no group out"),
        ({"model": model, "data": data, "label": "sort"}, "no classes 'sort'"),
        ({"model": model, "data": data, "test": data}, "trained on group 'g00'"),
        ({"model": model, "data": other}, r"channels watch_acc_x \[m/s²\]; the model has"),
    ):
        with pytest.raises(ClipError, match=wrong):
            evaluate(**options, effort=Effort(1, 2, 1))
