"""The classifier's recipe: from a data set to a saved classifier that guidance can ask."""

import json
from dataclasses import replace

import pytest
import torch

from counterpoint.backbones.classifier import LatentClassifier
from counterpoint.data.arrays import write_arrays
from counterpoint.data.physics import generate
from counterpoint.diffusion.model_files import model_folder
from counterpoint.diffusion.process import add_noise
from counterpoint.modalities.clip import ClipError
from counterpoint.modalities.codecs import Codecs
from counterpoint.recipes import classifier
from counterpoint.recipes.evaluate_joint import tensors


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_arrays(tmp_path_factory.mktemp("data"), generate(range(8), "train", 1), 8).folder


def test_a_tiny_run_ends_in_a_classifier(data, tiny_model, tmp_path):
    settings = replace(classifier.tiny(), codecs=str(tiny_model))
    folder = classifier.train(settings, data, tmp_path / "run")
    model = LatentClassifier.from_pretrained(folder)
    assert {"material", "shape", "floor"} <= set(model.classes)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log if "loss" in record] == [1, 2, 3, 4]
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["held_out"] == 2
    assert all(0 <= scores[f"material_{level}"] <= 1 for level in classifier.LEVELS)


def test_clips_without_attributes_are_refused(data, tiny_model, tmp_path):
    import shutil

    shutil.copytree(data, tmp_path / "data")
    path = tmp_path / "data" / "clips.json"
    entries = json.loads(path.read_text())
    path.write_text(json.dumps([{**entry, "attributes": {}} for entry in entries]))
    settings = replace(classifier.tiny(), codecs=str(tiny_model))
    with pytest.raises(ClipError, match=r"clips\.json: no clip states attributes"):
        classifier.train(settings, tmp_path / "data", tmp_path / "run")
    with pytest.raises(ClipError, match="more than held_out=8"):
        classifier.train(replace(settings, held_out=8), data, tmp_path / "other")


def test_the_shipped_classifier_reads_clips_that_it_has_not_seen():
    model = LatentClassifier.from_pretrained(model_folder("joint") / "classifier").float().eval()
    clips = list(generate(range(10**8, 10**8 + 6), "test", 1))
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        clean = Codecs.from_pretrained(model_folder("joint") / "codecs").encode(tensors(clips))
        sigma = {name: torch.full(x.shape[:2], 0.4) for name, x in clean.items()}
        noised = {n: add_noise(x, torch.randn(x.shape, generator=draws), sigma[n]) for n, x in clean.items()}
        said = model(noised, sigma)
    targets = model.targets([clip.metadata["attributes"] for clip in clips])
    right = torch.stack([said[name].argmax(-1) == targets[name] for name in ("floor", "shape", "size", "material")])
    assert right.sum() >= 22  # of 24; by chance 8
