"""All 19 directions are there, and on a tiny model some of them are scored, beside their baselines, and go on."""

import json
from pathlib import Path

import pytest
import torch

from counterpoint.diffusion.pipeline import CounterpointPipeline
from counterpoint.recipes import evaluate_directions
from counterpoint.recipes.evaluate_directions import Walks, cascades, directions, evaluate, main, name_of, table
from counterpoint.recipes.evaluate_joint import rounded

TRACKS = ("video", "audio", "sensor")
SOME = [(("video", "audio"), ()), (("audio",), ("sensor",)), (("video", "audio"), ("sensor",))]


@pytest.fixture(scope="module")
def model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a network that says something: a new one's last layer is zero."""
    pipeline = CounterpointPipeline.from_pretrained(tiny_model, dtype="float32")
    torch.manual_seed(0)
    for weight in pipeline.transformer.proj_out.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    folder = tmp_path_factory.mktemp("loud")
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("directions")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate_directions, "directions", lambda _: SOME)
        scores = evaluate(model, folder / "d.json", 4, work=folder / "work", workers=1, say=lambda _: None)
    return folder, scores


def test_there_are_19_directions():
    found = directions(TRACKS)
    assert len(set(found)) == len(found) == 19
    assert found[0] == (TRACKS, ())
    assert all(made and not set(made) & set(given) for made, given in found)
    assert len(directions(("video", "audio"))) == 5
    assert name_of(("audio",), ("video", "sensor")) == "video + sensor → audio"
    assert name_of(("audio",), ()) == "prompt → audio"


def test_cascades_make_one_track_after_the_other():
    assert [one.order for one in cascades(("video", "audio"), ("sensor",))] == ["video > audio"]
    assert cascades(("audio",), ("video",)) == []
    orders = [one.order for one in cascades(TRACKS, ())]
    assert len(set(orders)) == 6
    assert orders[0] == "video > audio > sensor"
    last = cascades(("video", "audio"), ("sensor",))[0]
    assert last.before == Walks((("video",),), ("sensor",))
    assert last.before.before is None
    assert (last.made, last.file) == (("video", "audio"), "video_then_audio_given_sensor")


def test_the_scores_are_complete(run):
    folder, scores = run
    assert json.loads((folder / "d.json").read_text())["directions"] == rounded(scores["directions"])
    assert list(scores["directions"]) == [name_of(*one) for one in SOME]
    both, one, beside = scores["directions"].values()
    assert set(both["cascades"]) == {"video > audio", "audio > video"}
    assert (one["cascades"], set(beside["cascades"])) == ({}, {"video > audio"})
    assert set(both["joint"]["sync"]) == {"audio-video"}
    assert set(one["joint"]["sync"]) == {"audio-sensor"}
    assert set(beside["joint"]["sync"]) == {"audio-video", "audio-sensor", "video-sensor"}
    for scores_of in (one, beside):
        for way in (scores_of["joint"], scores_of["independent"]):
            for row in way["sync"].values():
                assert {"f1", "chance", "codec", "real"} <= set(row)
            assert set(way["realism"]) == set(scores_of["made"])
            assert {"material", "shape"} <= set(way["adherence"])


def test_what_is_given_is_real_and_baselines_differ(run):
    _, scores = run
    beside = scores["directions"]["sensor → video + audio"]
    ways = [beside["joint"], beside["cascades"]["video > audio"], beside["independent"]]
    assert len({way["sync"]["audio-sensor"]["real"] for way in ways}) == 1
    assert len({way["realism"]["audio"]["frechet"] for way in ways}) == 3
    free = scores["directions"]["prompt → video + audio"]
    assert free["independent"]["realism"] == beside["independent"]["realism"]  # neither hears the sensors
    assert free["cascades"]["video > audio"]["realism"]["video"] == free["independent"]["realism"]["video"]


def test_it_goes_on_with_what_is_missing(run, model, monkeypatch):
    folder, before = run
    kept = json.loads((folder / "d.json").read_text())
    name = name_of(*SOME[2])
    del kept["directions"][name]
    (folder / "d.json").write_text(json.dumps(kept))
    monkeypatch.setattr(evaluate_directions, "directions", lambda _: SOME)
    monkeypatch.setattr(evaluate_directions, "walk", None)  # everything was made
    again = evaluate(model, folder / "d.json", 4, work=folder / "work", workers=1, say=lambda _: None)
    assert again["directions"][name] == before["directions"][name]


def test_the_tables_hold_every_direction(run, capsys):
    folder, scores = run
    first, second, third = table(scores).split("\n\n")
    assert len(first.splitlines()) == 2 + 1 + 1 + 3
    assert len(second.splitlines()) == 2 + 3
    assert [row.split(" | ")[0] for row in third.splitlines()[2:]] == ["| video > audio", "| audio > video"]
    for part in (first, second, third):
        assert len({row.count("|") for row in part.splitlines()}) == 1
    main(["table", str(folder / "d.json")])
    assert capsys.readouterr().out.startswith("| given → made | tracks |")
