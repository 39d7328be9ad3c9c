"""`counterpoint evaluate --guidance --guide --steps`: how clips are made goes to the recipe, and into the scores."""

from types import SimpleNamespace
from typing import Any

import pytest

from counterpoint.cli import evaluate as command
from counterpoint.guidance.classifier_free import ClassifierFree
from counterpoint.guidance.isolation import Isolation
from counterpoint.recipes.evaluate_joint import samples, settings_of

DEFAULTS = {"steps": 10, "guidance": 2.0, "isolation": 1.5, "parallel": {"video": 0.0}, "seconds": 2.56, "obey": 0.0}
OWN: dict[str, Any] = {"parallels": {"audio": 1.0, "video": 0.0}}


def fake() -> Any:
    group = SimpleNamespace(group="audio"), SimpleNamespace(group="video")
    codecs = SimpleNamespace(shapes=lambda: {"audio": (4, 32, "audio"), "video": (16, 64, "video")})
    network = SimpleNamespace(modalities=dict(zip(("audio", "video"), group, strict=True)))
    return SimpleNamespace(defaults=DEFAULTS, transformer=network, codecs=codecs, model_name="bell")


@pytest.fixture
def asked(monkeypatch, tiny_model):
    """What the recipe of a model is asked: arguments and options."""
    from counterpoint.diffusion.pipeline import CounterpointPipeline

    calls: list[Any] = []

    def evaluate(*arguments, **options):
        calls.append((arguments, options))
        return {"sync": {"f1": 0.5}, "prompts": 4}

    kind = "counterpoint.recipes.evaluate_joint"
    monkeypatch.setattr(command, "recipe_of", lambda _: SimpleNamespace(evaluate=evaluate, __name__=kind))
    monkeypatch.setattr(CounterpointPipeline, "from_pretrained", lambda *_, **__: fake())
    return calls


def test_scales_go_to_the_recipe_as_they_are(run, asked, tiny_model):
    code, out, _ = run("evaluate", tiny_model, "--guidance", "audio=3,video=2", "--steps", 4, "--prompts", 4)
    assert (code, out) == (0, "sync.f1  0.5\nprompts  4\n")
    [(arguments, options)] = asked
    assert arguments == (str(tiny_model), 4, 0, None, None)
    assert (options["guidance"], options["steps"]) == ({"audio": 3.0, "video": 2.0}, 4)
    assert run("evaluate", tiny_model)[0] == 0
    assert (asked[1][1]["guidance"], asked[1][1]["steps"]) == (None, None)
    assert "best_of" not in options
    assert run("evaluate", tiny_model, "--best-of", 4)[0] == 0
    assert asked[2][1]["best_of"] == 4


def test_music_has_nothing_to_be_best_of(refuse, monkeypatch, tiny_model):
    kind = "counterpoint.recipes.evaluate_music"
    monkeypatch.setattr(command, "recipe_of", lambda _: SimpleNamespace(evaluate=None, __name__=kind))
    assert "--best-of" in refuse("evaluate", tiny_model, "--best-of", 4)


@pytest.mark.parametrize(
    ("options", "guidance"),
    [
        (["--guide", "isolation:2"], [ClassifierFree(2.0, **OWN), Isolation(2.0)]),
        (["--guide", "isolation:2", "--guidance", 3], [ClassifierFree(3.0, **OWN), Isolation(2.0)]),
        (["--guide", "classifier-free:4"], [ClassifierFree(1.0, **OWN), Isolation(1.5, **OWN), ClassifierFree(4.0)]),
        (
            ["--guide", "isolation:2:interval=0.2-0.8", "--guide", "isolation:audio=3"],
            [ClassifierFree(2.0, **OWN), Isolation(2.0, {}, (0.2, 0.8)), Isolation(1.0, {"audio": 3.0})],
        ),
    ],
)
def test_guides_become_objects_beside_the_models_own(run, asked, tiny_model, options, guidance):
    assert run("evaluate", tiny_model, *options)[0] == 0
    [(arguments, given)] = asked
    assert given["guidance"] == guidance
    assert arguments[0].model_name == "bell"  # loaded once, for both


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sensors", "--set", "Sines", "--guide", "isolation:2"], "--guide"),
        (["sensors", "--set", "Sines", "--steps", "3"], "--steps"),
        (["MODEL", "--guide", "isolatoin:2"], "unknown kind 'isolatoin'"),
        (["MODEL", "--guidance", "much"], "--guidance much: not a number"),
        (["MODEL", "--steps", "0"], "--steps"),
        (["MODEL", "--best-of", "0"], "--best-of"),
        (["sensors", "--set", "Sines", "--best-of", "2"], "--best-of"),
    ],
)
def test_mistakes_are_one_line(refuse, asked, tiny_model, arguments, message):
    assert message in refuse("evaluate", *[str(tiny_model) if text == "MODEL" else text for text in arguments])
    assert asked == []


def test_a_model_of_recordings_is_asked_what_its_windows_are_worth(run, refuse, monkeypatch, tiny_model, tmp_path):
    from counterpoint.recipes import evaluate_imu

    calls: list[Any] = []
    monkeypatch.setattr(evaluate_imu, "evaluate", lambda *given: calls.append(given) or {"ratio": 0.9})
    (tmp_path / "recordings.json").write_text("{}")
    told = ("--data", tmp_path / "a.csv", "--test", tmp_path / "b.csv", "--json", tmp_path / "scores.json")
    code, out, _ = run("evaluate", tmp_path, *told)
    assert (code, out) == (0, "ratio  0.9\n")
    assert calls == [(tmp_path, tmp_path / "a.csv", tmp_path / "scores.json", tmp_path / "b.csv")]
    assert "--data" in refuse("evaluate", tmp_path)
    assert "--steps" in refuse("evaluate", tmp_path, "--data", tmp_path / "a.csv", "--steps", "3")
    assert "--test" in refuse("evaluate", tiny_model, "--test", tmp_path / "b.csv")
    assert len(calls) == 1


def test_scores_say_how_the_clips_were_made():
    pipeline = fake()
    assert settings_of(pipeline) == DEFAULTS
    assert settings_of(pipeline, 3.0, 4) == DEFAULTS | {"guidance": 3.0, "steps": 4}
    told = settings_of(pipeline, [ClassifierFree(2.0), Isolation(2.0)])
    assert [(one["kind"], one["scale"]) for one in told["guidance"]] == [("ClassifierFree", 2.0), ("Isolation", 2.0)]
    assert (told["isolation"], told["parallel"]) == (1.0, 1.0)  # objects take its place


def test_samples_are_made_in_batches_with_what_is_asked():
    calls: list[Any] = []

    def pipeline(prompts, **options):
        calls.append((len(prompts), options))
        return prompts

    made = list(samples(pipeline, [str(i) for i in range(20)], list(range(20)), 3.0, 4))  # pyright: ignore[reportArgumentType]
    assert made == [str(i) for i in range(20)]
    assert [count for count, _ in calls] == [16, 4]
    assert calls[1][1] == {"seed": [16, 17, 18, 19], "guidance": 3.0, "steps": 4, "obey": None}
