"""`counterpoint sensors`: new series, gaps filled, forecasts and plots, by a tiny model with random weights."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from counterpoint.data.series_columns import read_columns
from counterpoint.data.series_table import Channel, read_series
from counterpoint.data.series_windows import Scale
from counterpoint.recipes.sensors import tiny
from counterpoint.recipes.sensors_own import build_network
from counterpoint.recipes.sensors_own_generator import Conditions, RecordingGenerator

CHANNELS = (Channel("acc", "m/s²"), Channel("pulse", "1/min", 2))
FACTS = {
    "length": 8, "patch": 4, "step": 0.5, "time": "time [ms]", "dates": False, "group": "who", "solver": "heun",
    "steps": 2, "drop": ["note"],
}  # fmt: skip


def save(folder, conditions):
    torch.manual_seed(0)
    network = build_network(replace(tiny(), length=8, patch=4), 2, conditions)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    scale = Scale(CHANNELS, (9.8, 70.0), (2.0, 5.0))
    return RecordingGenerator(scale, conditions, network, FACTS).save_pretrained(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    classes = {"activity": ("sit", "walk")}
    return save(tmp_path_factory.mktemp("own") / "model", Conditions(classes, ("age",), (40.0,), (10.0,)))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Two people; anna's first row and two later ones are empty, one is missing; ben's pulse is, and stays, sparse."""
    path = tmp_path_factory.mktemp("data") / "gaps.csv"
    rows = ["time [ms],who,activity,age,note,acc [m/s²],pulse [1/min]"]
    for t in range(12):
        own = {0: ",", 4: ",", 5: ",71.5"}.get(t, f"{9 + t / 7:.12f},{70 + t if t % 2 else ''}")
        rows += [f"{500 * t},anna,walk,31,hm,{own}"] if t != 8 else []
    rows += [f"{20 + 500 * t},ben,sit,,,{t + 0.25},{60 + t if t % 2 == 0 and t else ''}" for t in range(6)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def columns(path):
    return {column.header: column.values for column in read_columns(path)}


def test_new_series_have_times_units_and_conditions(run, model, tmp_path):
    out = tmp_path / "new" / "made.csv"
    told = ["--label", "activity=walk", "--static", "age=40", "--guidance", 1.5]
    assert run("sensors", model, "-o", out, "--count", 3, "--seconds", 10, *told) == (0, f"{out}\n", "")
    made = columns(out)
    assert list(made) == ["time [ms]", "who", "activity", "age", "acc [m/s²]", "pulse [1/min]"]
    assert len(made["time [ms]"]) == 60
    assert made["time [ms]"][:3].tolist() == [0, 500, 1000]
    assert set(made["activity"]) == {"walk"}
    read = read_series(out, "time", "who", ["activity"], ["age"])
    assert [len(own.values) for own in read.recordings] == [20, 20, 20]
    assert [channel.every for channel in read.channels] == [1, 2]


def test_a_seed_makes_the_same_series_and_nothing_is_written_over(run, refuse, model, tmp_path):
    files = [tmp_path / name for name in ("a.npz", "b.npz", "c.npz")]
    for file, seed in zip(files, (1, 1, 2), strict=True):
        run("sensors", model, "-o", file, "--seed", seed, "--length", 11)
    first, same, other = (columns(file)["acc [m/s²]"] for file in files)
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)
    assert "a.npz: is there already" in refuse("sensors", model, "-o", files[0])
    assert run("sensors", model, "-o", files[0], "--overwrite")[0] == 0


def test_gaps_are_filled_and_the_rest_comes_back(run, model, table, tmp_path):
    out = tmp_path / "full.csv"
    assert run("sensors", model, "--complete", table, "-o", out)[0] == 0
    before, after = columns(table), columns(out)
    rows = np.delete(np.arange(len(after["who"])), 8)  # row 8 was missing
    for name in ("time [ms]", "who", "activity", "age"):
        np.testing.assert_array_equal(after[name][rows], before[name])
    assert (after["time [ms]"][8], after["who"][8], after["activity"][8]) == (4000, "anna", "walk")
    assert "note" not in after
    for name in ("acc [m/s²]", "pulse [1/min]"):
        given = ~np.isnan(before[name])
        np.testing.assert_array_equal(after[name][rows][given], before[name][given])
    assert not np.isnan(after["acc [m/s²]"]).any()
    pulse = after["pulse [1/min]"]
    np.testing.assert_array_equal(np.isnan(pulse[:12]), [True, False] * 6)
    np.testing.assert_array_equal(np.isnan(pulse[12:]), [False, True] * 3)


def test_forecasts_go_on_behind_each_group(run, model, table, tmp_path):
    out = tmp_path / "ahead.csv"
    command = ["sensors", model, "--forecast", table, "--ahead", 10, "-o", out]
    assert run(*command, "--ensemble", 3)[0] == 0
    samples = columns(out)
    assert len(samples["who"]) == 2 * 3 * 10
    np.testing.assert_allclose(samples["time [ms]"][:10], 6000 + 500 * np.arange(10))
    np.testing.assert_allclose(samples["time [ms]"][-10:], 3020 + 500 * np.arange(10))
    assert np.unique(samples["acc [m/s²]"]).size == 60
    assert run(*command[:-4], "--seconds", 5, "-o", out, "--overwrite", "--quantiles", "0.05,0.5,0.95")[0] == 0
    found = columns(out)
    low, middle, high = (found[f"acc q{level} [m/s²]"] for level in ("0.05", "0.5", "0.95"))
    assert len(low) == 20
    assert ((low < middle) & (middle < high)).all()


def test_records_hold_what_is_filled(run, model, table, tmp_path):
    out = tmp_path / "full.mcap"
    assert run("sensors", model, "--complete", table, "-o", out)[1] == f"{tmp_path / 'full'}\n"
    read = read_series(tmp_path / "full")
    assert [len(own.values) for own in read.recordings] == [12, 6]
    np.testing.assert_allclose(read.recordings[1].values[:, 0], 0.25 + np.arange(6))
    assert run("sensors", model, "--complete", tmp_path / "full" / "1.mcap", "-o", tmp_path / "again.csv")[0] == 0


def test_a_sentence_is_told(run, refuse, model, tmp_path):
    talking = save(tmp_path / "talking", Conditions({}, (), (), (), "caption", 384, 16))
    out = [tmp_path / "slow.csv", tmp_path / "fast.csv"]
    for file in out:
        run("sensors", talking, f"a person walks {file.stem}", "-o", file, "--length", 8)
    slow, fast = (columns(file) for file in out)
    assert set(slow["caption"]) == {"a person walks slow"}
    assert not np.array_equal(slow["acc [m/s²]"], fast["acc [m/s²]"])
    assert "the model was trained without sentences" in refuse(
        "sensors", model, "a person walks", "-o", tmp_path / "x.csv"
    )
    assert "the prompt is empty" in refuse("sensors", talking, " ")


def test_a_plot_alone_or_beside(run, refuse, model, table, tmp_path):
    picture, out = tmp_path / "made.png", tmp_path / "other.csv"
    assert run("sensors", model, "--length", 12, "-o", picture, "--against", table) == (0, f"{picture}\n", "")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run("sensors", model, "-o", out, "--against", table, "--label", "activity=sit")[1].split() == [
        str(out), str(out.with_suffix(".png")),
    ]  # fmt: skip
    assert "made.png: is there already" in refuse("sensors", model, "-o", picture, "--against", table)
    assert "needs the real recordings" in refuse("sensors", model, "-o", tmp_path / "new.png")


@pytest.mark.parametrize(
    ("options", "culprits"),
    [
        (["--label", "activity=run"], ["activity: no class 'run'", "sit, walk"]),
        (["--label", "activty=walk"], ["--label activty", "'activity'"]),
        (["--label", "age=40"], ["--label age"]),
        (["--label", "walk"], ["--label walk", "COLUMN=VALUE"]),
        (["--static", "weight=40"], ["--static weight"]),
        (["--static", "age=old"], ["--static age=old", "a number"]),
        (["--ahead", "3"], ["--ahead", "--forecast"]),
        (["--ensemble", "3"], ["--ensemble", "--complete"]),
        (["--length", "3", "--seconds", "4"], ["--length", "--seconds"]),
        (["--seconds", "0.1"], ["--seconds 0.1", "0.5 s"]),
        (["-o", "made.xlsx"], ["made.xlsx", ".csv"]),
        (["--complete", "TABLE", "--count", "2"], ["--count", "--complete"]),
        (["--forecast", "TABLE"], ["--forecast", "--ahead"]),
        (["--complete", "TABLE", "-o", "TABLE"], ["is given"]),
        (["--complete", "TABLE", "--quantiles", "0.5,2"], ["--quantiles 0.5,2"]),
        (["--complete", "TABLE", "--quantiles", "0.01"], ["20 can't tell", "99"]),
        (["--complete", "OTHER"], ["other.csv", "no column 'pulse [1/min]'"]),
        (["--complete", "gone.csv"], ["gone.csv", "no such file"]),
        (["--complete", "TABLE", "--drop", "nothing"], ["drop=nothing", "no such column"]),
    ],
)
def test_mistakes_are_one_line(refuse, model, table, tmp_path, monkeypatch, options, culprits):
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other.csv"
    other.write_text("time [ms],acc [m/s²]\n0,1\n500,2\n", encoding="utf-8")
    places = {"TABLE": table, "OTHER": other}
    message = refuse("sensors", model, *(places.get(option, option) for option in options))
    assert [culprit for culprit in culprits if culprit not in message] == []
    assert not (tmp_path / "made.csv").exists()


def test_models_of_another_kind_are_told_apart(refuse, run, model, tiny_model, tmp_path, monkeypatch):
    assert "generate --model" in refuse("sensors", tiny_model)
    assert "no recordings.json" in refuse("sensors", tmp_path)
    assert "no such folder" in refuse("sensors", "nowhere")
    (tmp_path / "generator.json").write_text("{}")
    assert "benchmark" in refuse("sensors", tmp_path)
    from counterpoint.cli import models

    monkeypatch.setattr(models, "files", lambda _: model.parent.parent)
    shipped = model.parent.name
    (model.parent / "recordings.json").write_text((model / "recordings.json").read_text())
    (model.parent / "transformer").symlink_to(model / "transformer")
    assert run("sensors", shipped, "-o", tmp_path / "made.csv")[0] == 0
    assert f"nearest: '{shipped}'" in refuse("sensors", shipped[:-1])


def test_the_folder_of_a_run_will_do(run, model, tmp_path):
    assert json.loads((model / "recordings.json").read_text(encoding="utf-8"))["facts"]["step"] == 0.5
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").symlink_to(model)
    assert run("sensors", tmp_path / "run", "-o", tmp_path / "made.parquet")[0] == 0


def test_help_imports_nothing_heavy():
    code = "import sys, counterpoint.cli.sensors; print({'torch', 'numpy', 'matplotlib'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
