"""Settings of guidance are what `--guide` makes of their names, targets are each clip's own, scores are complete."""

from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoint.cli.guides import build_guides, parse_guides
from counterpoint.data.physics import generate
from counterpoint.diffusion.pipeline import CounterpointPipeline
from counterpoint.guidance.measurements import Events
from counterpoint.modalities.clip import Clip
from counterpoint.recipes import evaluate_guidance, guidance_settings
from counterpoint.recipes.evaluate_guidance import diversity, evaluate, table
from counterpoint.recipes.guidance_settings import BASE, MEASUREMENTS, ByClip, EachOwn, fixed, settings_of


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> CounterpointPipeline:
    return CounterpointPipeline.from_pretrained(tiny_model, dtype="float32")


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return list(generate(range(2), "test"))


@pytest.mark.parametrize("name", fixed())
def test_a_setting_is_what_its_name_says(name):
    assert build_guides(parse_guides(name.split()), None) == fixed()[name]


def test_a_model_is_asked_for_what_it_has(pipeline, tiny_model):
    found = settings_of(pipeline)
    assert next(iter(found)) == BASE
    assert {one.kind for one in found.values()} == {
        "classifier-free", "isolation", "diffusers", "events", "loudness", "sensor", "video"
    }  # fmt: skip
    assert len({one.file for one in found.values()}) == len(found)
    guider = found["diffusers:AdaptiveProjectedGuidance:3"].guidances(pipeline, [])[0]
    typed = build_guides(parse_guides(["diffusers:AdaptiveProjectedGuidance:3"]), pipeline)[0]
    assert (type(guider.guider), guider.guider.guidance_scale) == (type(typed.guider), 3.0)
    weak = settings_of(pipeline, str(tiny_model))[f"auto={tiny_model}:2"].guidances(pipeline, [])
    assert [one.passes for one in weak] == [("weak",)]


def test_every_clip_has_its_own_events(pipeline):
    clean = {"audio": torch.randn(2, 16, 4, 32), "force": torch.randn(2, 16, 1, 16)}
    each = [Events(pipeline.codecs, (0.5,)), Events(pipeline.codecs, (1.0, 2.0))]
    found = EachOwn(each)(clean)
    for i, measure in enumerate(each):
        for part, alone in zip(found, measure({n: x[i : i + 1] for n, x in clean.items()}), strict=True):
            torch.testing.assert_close(part[i : i + 1], alone)


def test_every_clip_is_led_to_its_own_class():
    class Known:
        classes = ("glass", "metal")

        def __call__(self, latents, sigma):
            return {"material": latents["audio"].flatten(1)[:, :2].log_softmax(-1)}

        def number(self, attribute, value):
            return self.classes.index(value)

    x = torch.randn(3, 1, 1, 2)
    found = ByClip(Known(), ("metal", None, "glass")).log_probability({"audio": x}, {}, "material", "")
    said = x.flatten(1).log_softmax(-1)
    torch.testing.assert_close(found, torch.stack([said[0, 1], torch.tensor(0.0), said[2, 0]]))


def test_the_score_of_a_clean_clip_is_the_classifiers_word_without_noise(clips):
    heard = []

    class Known:
        def __call__(self, latents, sigma):
            heard.append(sigma)
            return {"size": latents["audio"].flatten(1).log_softmax(-1)}

        def number(self, attribute, value):
            return ("small", "medium", "large").index(value)

    x = torch.randn(2, 3, 1, 1)
    found = ByClip.of(Known(), clips, "size").score("size")({"audio": x})
    true = [Known().number("size", clip.metadata["attributes"]["size"]) for clip in clips]
    torch.testing.assert_close(found, x.flatten(1).log_softmax(-1)[range(2), true])
    torch.testing.assert_close(heard[0]["audio"], torch.zeros(2, 3))


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_real_clips_meet_their_own_measurements_best(pipeline, clips, name):
    """Sensors are encoded without loss; sound and video of an untrained codec only have to be measured at all."""
    latents = pipeline.codecs.encode(guidance_latents(clips))
    measured = MEASUREMENTS[name](pipeline.codecs, clips)(latents)
    parts = [measured] if isinstance(measured, torch.Tensor) else measured
    assert all(len(part) == 2 and part.isfinite().any() for part in parts)
    if name.startswith("sensor"):
        assert parts[0].abs().max() < 0.02
        other = MEASUREMENTS[name](pipeline.codecs, clips[::-1])(latents)
        assert isinstance(other, torch.Tensor)
        assert other.abs().max() > 0.5


def guidance_latents(clips):
    from counterpoint.recipes.evaluate_joint import tensors

    return tensors(clips)


def test_diversity_tells_prompts_from_clips_of_a_prompt(monkeypatch):
    monkeypatch.setattr(evaluate_guidance, "SAME", 2)
    draws = np.random.default_rng(0)
    made = draws.normal(size=(8, 16)).astype(np.float32)
    again = np.concatenate([made, made[:2] + 1e-3, made[:2] - 1e-3])  # two further clips of the first two prompts
    found = diversity(again, 2 * made, 8)
    assert found["all"] == pytest.approx(0.5, abs=1e-6)
    assert found["same"] < 0.01


def test_the_scores_are_complete_and_go_on(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate_guidance, "SAME", 2)
    monkeypatch.setattr(evaluate_guidance, "FURTHER", 1)
    one = {BASE: fixed()[BASE], "classifier-free:2 isolation:2": fixed()["classifier-free:2 isolation:2"]}
    monkeypatch.setattr(guidance_settings, "fixed", lambda: one)
    options = {"work": tmp_path / "work", "workers": 1, "only": ["isolation", "sensor"], "say": lambda _: None}
    scores = evaluate(tiny_model, tmp_path / "g.json", 4, **options)
    found = scores["guidance"]
    assert list(found) == [*one, "classifier-free:2 sensor={slow_accelerometer}"]
    assert [row["passes_per_step"] for row in found.values()] == [2, 3, 2]
    assert found["classifier-free:2 sensor={slow_accelerometer}"]["residual"]["guided"] > 0
    for row in found.values():
        assert set(row["realism"]) == set(row["diversity"]) == set(row["contacts"]) == {"video", "audio", "sensor"}
        assert row["seconds_per_clip"] > 0
    first, second = table(scores).split("\n\n")
    assert [len(part.splitlines()) for part in (first, second)] == [2 + 3 + 2, 2 + 1]
    for part in (first, second):
        assert len({row.count("|") for row in part.splitlines()}) == 1
    (tmp_path / "g.json").unlink()
    monkeypatch.setattr(evaluate_guidance, "walk", None)  # everything was made
    assert evaluate(tiny_model, tmp_path / "g.json", 4, **options)["guidance"] == found
    (tmp_path / "g.json").unlink()
    evaluate(tiny_model, tmp_path / "g.json", 4, **options | {"only": ["sensor"]})
    again = evaluate(tiny_model, tmp_path / "g.json", 4, **options)["guidance"]
    assert list(again) == list(found)  # whatever was asked for first
