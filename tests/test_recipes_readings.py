"""What evaluations share: readings survive a file, batches hear what single calls hear, runs go on where they stood."""

from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoint.data.physics import generate
from counterpoint.diffusion.pipeline import CounterpointPipeline
from counterpoint.evaluation.judges import Judges
from counterpoint.modalities.clip import Clip, ClipError
from counterpoint.recipes.readings import Reading, as_arrays, as_tensors, encoded, walk
from counterpoint.recipes.resumable import Store, begin, fingerprint, parser


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> CounterpointPipeline:
    pipeline = CounterpointPipeline.from_pretrained(tiny_model, dtype="float32")
    pipeline.defaults.update({"isolation": 2.0, "parallel": 0.0})
    torch.manual_seed(0)
    for weight in pipeline.transformer.proj_out.parameters():
        torch.nn.init.normal_(weight, std=0.3)  # a new network says nothing
    return pipeline


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return list(generate(range(2), "test"))


def test_a_reading_survives_a_file(clips, tmp_path):
    torch.manual_seed(0)
    reading = Reading.of(clips, Judges({"material": ["glass", "wood"]}).eval())
    store = Store(tmp_path)
    back = Reading.of_arrays(store.arrays("one", reading.arrays))
    again = Reading.of_arrays(store.arrays("one", dict))  # is there already
    for other in (back, again):
        for track in ("video", "audio", "sensor"):
            assert (other.features[track] == reading.features[track]).all()
            for a, b in zip(other.events[track], reading.events[track], strict=True):
                np.testing.assert_array_equal(a, b)
    assert [path.name for path in tmp_path.iterdir()] == ["one.safetensors"]
    twice = Reading.joined([reading, reading]).chosen([2, 1])
    np.testing.assert_array_equal(twice.events["audio"][0], reading.events["audio"][0])
    assert (twice.features["audio"] == reading.features["audio"]).all()
    assert list(reading.only(["audio"]).beside(reading.only(["video"])).by_clip()[1]) == ["audio", "video"]


def test_clips_without_events_keep_their_place():
    times = [np.array([0.5]), np.zeros(0), np.array([0.1, 0.2]), np.zeros(0)]
    reading = Reading({"audio": times}, {"audio": np.zeros((4, 128), np.float32)})
    back = Reading.of_arrays(reading.arrays()).events["audio"]
    assert [list(one) for one in back] == [[0.5], [], [0.1, 0.2], []]


def test_a_batch_hears_what_each_clip_alone_hears(pipeline, clips):
    latents = encoded(pipeline, clips)
    made = walk(pipeline, ["a", "b"], [3, 4], ["audio"], {"video": latents["video"]})
    assert list(made) == ["audio"]
    for i, clip in enumerate(clips):
        alone = pipeline("ab"[i], given={"video": clip.video}, tracks=["audio"], seed=3 + i)
        batched = pipeline.codecs.decode({"audio": made["audio"][i : i + 1]})[0]
        np.testing.assert_allclose(batched.audio.values, alone.audio.values, atol=1e-4)
    free = walk(pipeline, ["a", "b"], [3, 4], ["audio"])
    assert (free["audio"] - made["audio"]).abs().max() > 1e-3


def test_latents_are_kept_in_16_bits(pipeline, clips):
    latents = encoded(pipeline, clips)
    partly = encoded(pipeline, [Clip(audio=clip.audio, sensor={"force": clip.sensor["force"]}) for clip in clips])
    assert list(partly) == ["audio", "force"]
    torch.testing.assert_close(partly["audio"], latents["audio"])
    for name, x in as_tensors(as_arrays(latents)).items():
        torch.testing.assert_close(x, latents[name], atol=1e-3, rtol=1e-3)


def test_scores_of_something_else_are_refused(tiny_model, tmp_path, monkeypatch):
    path = tmp_path / "scores.json"
    first, store = begin(tiny_model, path, tmp_path / "work", prompts=4, seed=0)
    path.write_text('{"prompts": 8}')
    with pytest.raises(ClipError, match=r"scores\.json: model is None there"):
        begin(tiny_model, path, tmp_path / "work", prompts=4, seed=0)
    path.unlink()
    again, same = begin(tiny_model, path, tmp_path / "work", prompts=4, seed=0)
    _, other = begin(tiny_model, path, tmp_path / "work", prompts=4, seed=1)
    assert (again, same.folder) == (first, store.folder)
    assert other.folder != store.folder
    assert len(first["weights"]) == 12
    monkeypatch.setattr("counterpoint.recipes.resumable.weights_folder", lambda: tmp_path)  # no judges there
    unjudged, _ = begin(tiny_model, path, tmp_path / "work", prompts=4, seed=0)
    assert unjudged["weights"] not in (first["weights"], fingerprint(tmp_path))


def test_the_command_line(tmp_path):
    told = parser("What it does.\n\nMore.", 64).parse_args(["joint", str(tmp_path / "x.json"), "--prompts", "8"])
    assert (told.model, told.prompts, told.seed) == ("joint", 8, 0)
