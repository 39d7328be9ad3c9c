"""`counterpoint train`, `data` and `evaluate`: what they show, what they pass on, what they refuse."""

from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path

import pytest

from counterpoint.cli.train import RECIPES, presets_of
from counterpoint.recipes.settings import flatten, from_json, override, to_json


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_trained_from_the_command_line(name, tmp_path):
    module = import_module(f"counterpoint.recipes.{name}")
    assert callable(module.train)
    assert {"tiny", "small"} <= set(presets_of(module))
    for preset in presets_of(module).values():
        settings = preset()
        assert is_dataclass(settings)
        assert from_json(type(settings), to_json(settings, tmp_path / "settings.json")) == settings


def test_dry_run_shows_and_trains_nothing(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("train", "video_codec", "preset=tiny", "batch=3", "--dry-run")
    assert code == 0
    assert {"batch=3", "widths=8,16,32", "run: runs/video_codec-tiny"} <= set(out.splitlines())
    assert list(tmp_path.iterdir()) == []


def test_dry_run_describes_the_data(run, tmp_path):
    np = pytest.importorskip("numpy")
    np.save(tmp_path / "video.npy", np.zeros((2, 8, 4, 4, 3), np.uint8))
    (tmp_path / "clips.json").write_text("[{}, {}]")
    code, out, _ = run("train", "video_codec", f"data={tmp_path}", "--dry-run")
    assert code == 0
    assert "video.npy  uint8 [2, 8, 4, 4, 3]" in out
    assert "clips.json  2 records" in out


def test_what_dry_run_prints_can_be_given_back(run):
    """Every line `key=value` of the settings is an argument that changes nothing."""
    module = import_module("counterpoint.recipes.video_codec")
    _, out, _ = run("train", "video_codec", "preset=tiny", "--dry-run")
    lines = [line for line in out.splitlines() if line.partition("=")[0] in flatten(module.tiny())]
    assert len(lines) == len(flatten(module.tiny()))
    assert override(module.tiny(), lines) == module.tiny()


def test_train_hands_over_settings_data_and_run(run, tmp_path, monkeypatch):
    module = import_module("counterpoint.recipes.video_codec")
    seen = []
    monkeypatch.setattr(module, "train", lambda *given: seen.append(given) or Path("model"))
    code, out, _ = run("train", "video_codec", f"data={tmp_path}", "run=there", "preset=tiny", "lr=0.5")
    assert (code, out) == (0, "model\n")
    assert seen == [(override(module.tiny(), ["lr=0.5"]), tmp_path, Path("there"))]


@pytest.mark.parametrize(
    ("arguments", "culprits"),
    [
        (["jiont"], ["'jiont'", "'joint'"]),
        (["video_codec", "btach=3"], ["'btach'", "'batch'"]),
        (["video_codec", "batch=many"], ["'batch'", "'many'", "an integer"]),
        (["video_codec", "batch"], ["'batch'", "key=value"]),
        (["video_codec", "preset=smal"], ["preset=smal", "'small'"]),
        (["video_codec", "data=nowhere"], ["nowhere", "counterpoint data physics"]),
    ],
)
def test_train_refuses(refuse, tmp_path, monkeypatch, arguments, culprits):
    monkeypatch.chdir(tmp_path)
    message = refuse("train", *arguments)
    assert [culprit for culprit in culprits if culprit not in message] == []
    assert list(tmp_path.iterdir()) == []


def test_data_refuses_a_folder_in_use(refuse, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    assert str(tmp_path) in refuse("data", "physics", tmp_path, "--clips", 1)


def test_data_refuses_an_unknown_split(refuse, tmp_path):
    assert "unknown split 'trian'; nearest: 'train'" in refuse(
        "data", "physics", tmp_path / "new", "--clips", 1, "--split", "trian"
    )
    assert list(tmp_path.iterdir()) == []


def test_data_makes_arrays(run, tmp_path):
    from counterpoint.data.arrays import read_arrays

    code, out, _ = run("data", "physics", tmp_path / "new", "--clips", 2, "--workers", 1, "--seed", 5)
    assert (code, out) == (0, f"{tmp_path / 'new'}\n")
    assert read_arrays(tmp_path / "new").video.shape == (2, 64, 64, 64, 3)


def test_interrupted_data_leaves_nothing(run, tmp_path, monkeypatch):
    from counterpoint.data import physics

    made = physics.generate(range(1))

    def interrupted(*_):
        yield next(made)
        raise KeyboardInterrupt

    monkeypatch.setattr(physics, "generate", interrupted)
    assert run("data", "physics", tmp_path / "new", "--clips", 2)[0] == 130
    assert list(tmp_path.iterdir()) == []


def test_evaluate_passes_on_and_prints(run, tmp_path, tiny_model, monkeypatch):
    from counterpoint.recipes import evaluate_joint

    scores = {"sync": {"audio-video": {"generated": {"f1": 0.5, "n": 4}}}, "model": "tiny"}
    seen = []
    monkeypatch.setattr(
        evaluate_joint, "evaluate", lambda *given, say, **options: seen.append((*given, options)) or scores
    )
    path = tmp_path / "out.json"
    code, out, _ = run("evaluate", tiny_model, "--json", path, "--prompts", 4, "--seed", 3)
    assert (code, seen) == (0, [(str(tiny_model), 4, 3, path, None, {"guidance": None, "steps": None, "obey": None})])
    assert out.splitlines() == ["sync.audio-video.generated.f1  0.5", "sync.audio-video.generated.n  4", "model  tiny"]


def test_evaluate_refuses(refuse, tmp_path, tiny_model):
    assert "--model jiont" in refuse("evaluate", "jiont")
    (tmp_path / "out.json").write_text("mine")
    assert "out.json" in refuse("evaluate", tiny_model, "--json", tmp_path / "out.json")
    assert "nowhere" in refuse("evaluate", tiny_model, "--json", tmp_path / "nowhere" / "out.json")
    assert "absent" in refuse("evaluate", tiny_model, "--data", tmp_path / "absent")
    assert (tmp_path / "out.json").read_text() == "mine"
