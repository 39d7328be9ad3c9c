"""The pipeline: the same seed gives the same clip, the metadata says how, and bad arguments are named."""

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from counterpoint.backbones.transformer import CounterpointTransformer
from counterpoint.diffusion.pipeline import (
    CounterpointPipeline,
    choose_device,
    choose_dtype,
    model_folder,
    save_transformer,
    slots_of,
)
from counterpoint.guidance.classifier_free import ClassifierFree
from counterpoint.modalities.clip import Clip, ClipError

PROMPTS = ["a small glass ball drops", "a large metal block falls on a stone floor", "a rod is struck"]
SHORT = {"seconds": 0.48, "steps": 2}


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> CounterpointPipeline:
    """The tiny model in fp32, its zero-initialized projections filled, so that every input has an influence."""
    pipeline = CounterpointPipeline.from_pretrained(tiny_model, device="cpu", dtype="float32")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in pipeline.transformer.parameters():
            if not p.any():
                p.copy_(torch.randn(p.shape, generator=generator) * 0.1)
    return pipeline


def latents(pipeline: CounterpointPipeline, prompts: list[str], seeds: list[int], guidance: Any = 2.0, **changes: Any):
    settings = pipeline._settings("", 2, guidance, 0.48, ("video", "audio", "sensor"))
    return pipeline.generate_latents(prompts, seeds, {**settings, **changes}, guidance)


def distance(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor], names: list[str] | None = None):
    return max(float((one[n] - other[n]).abs().max()) for n in names or one)


def test_a_seed_gives_the_same_clip_alone_and_in_a_batch(pipeline: CounterpointPipeline) -> None:
    batch = latents(pipeline, PROMPTS, [3, 8, 5])
    for i, (prompt, seed) in enumerate(zip(PROMPTS, [3, 8, 5], strict=True)):
        alone = latents(pipeline, [prompt], [seed])
        assert distance(alone, {n: x[i : i + 1] for n, x in batch.items()}) < 1e-4
    assert distance(latents(pipeline, PROMPTS, [3, 8, 5]), batch) == 0.0
    assert distance(latents(pipeline, PROMPTS[:1], [7]), {n: x[:1] for n, x in batch.items()}) > 0.1


def test_a_clip_and_its_metadata(pipeline: CounterpointPipeline, tiny_model: Path) -> None:
    clip = pipeline(PROMPTS[0], seed=7, negative_prompt="rubber", guidance={"audio": 3}, **SHORT)
    assert list(clip.tracks) == ["video", "audio", "accelerometer", "gyroscope", "force"]
    assert clip.tracks["video"].values.shape == (12, 64, 64, 3)
    assert clip.duration == pytest.approx(0.48)
    facts = json.loads(json.dumps(clip.metadata))
    version = facts.pop("version")
    assert facts == {
        "prompt": PROMPTS[0], "seed": 7, "negative_prompt": "rubber", "steps": 2, "guidance": {"audio": 3.0},
        "seconds": 0.48, "tracks": ["video", "audio", "sensor"], "model": str(tiny_model),
    }  # fmt: skip
    assert version
    keep = ("prompt", "seed", "negative_prompt", "steps", "guidance", "seconds", "tracks")
    again = pipeline(**{key: facts[key] for key in keep})
    assert all(np.array_equal(t.values, again.tracks[n].values) for n, t in clip.tracks.items())


def test_a_list_of_prompts_gives_a_list(pipeline: CounterpointPipeline) -> None:
    clips = pipeline(PROMPTS[:2], seed=4, tracks=["sensor"], **SHORT)
    assert [(c.metadata["prompt"], c.metadata["seed"]) for c in clips] == [(PROMPTS[0], 4), (PROMPTS[1], 5)]
    assert isinstance(pipeline(PROMPTS[0], tracks=["sensor"], **SHORT), Clip)
    assert [c.metadata["seed"] for c in pipeline(PROMPTS[:2], seed=[9, 2], tracks=["sensor"], **SHORT)] == [9, 2]


def test_defaults_come_from_the_model(pipeline: CounterpointPipeline) -> None:
    clip = pipeline(PROMPTS[0], tracks=["sensor"])
    assert (clip.metadata["steps"], clip.metadata["guidance"], clip.metadata["seconds"]) == (2, 2.0, 2.56)
    assert clip.tracks["force"].values.shape == (1, 256)


def test_tracks_asked_for(pipeline: CounterpointPipeline) -> None:
    asked: list[set[str]] = []
    forward = pipeline.transformer.forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.transformer, "forward", lambda x, *a, **k: asked.append(set(x)) or forward(x, *a, **k))
        clip = pipeline(PROMPTS[0], tracks=["audio"], **SHORT)
    assert list(clip.tracks) == ["audio"]
    assert asked == [{"audio"}] * 4  # two steps of two passes, without tokens of what was not asked for


def test_prompt_negative_prompt_and_guidance_have_an_influence(pipeline: CounterpointPipeline) -> None:
    base = latents(pipeline, PROMPTS[:1], [0])
    assert distance(latents(pipeline, PROMPTS[1:2], [0]), base) > 1e-3
    assert distance(latents(pipeline, PROMPTS[:1], [0], negative_prompt="rubber"), base) > 1e-3
    assert distance(latents(pipeline, PROMPTS[:1], [0], guidance=4.0), base) > 1e-3
    none = latents(pipeline, PROMPTS[:1], [0], guidance=1.0)
    assert distance(latents(pipeline, PROMPTS[:1], [0], guidance=1.0, negative_prompt="rubber"), none) == 0.0


def test_guidance_per_track(pipeline: CounterpointPipeline) -> None:
    """With one step, what a track's scale changes is that track alone; tracks left out keep the default of 2."""

    def one(guidance: Any) -> dict[str, torch.Tensor]:
        return latents(pipeline, PROMPTS[:1], [0], guidance=guidance, steps=1)

    two, three = one(2.0), one({"audio": 3})
    rest = [n for n in two if n != "audio"]
    assert distance(two, three, rest) == 0.0
    assert distance(two, three, ["audio"]) > 1e-3
    assert distance(three, one(3.0), ["audio"]) == 0.0
    sensors = ["accelerometer", "gyroscope", "force"]
    assert distance(one({"sensor": 5.0}), one(5.0), sensors) == 0.0
    assert distance(one({"force": 5.0}), one(5.0), ["force"]) == 0.0
    assert distance(one({"force": 5.0}), two, ["gyroscope"]) == 0.0
    assert distance(one([ClassifierFree(2.0)]), two) == 0.0
    assert distance(one([]), one(1.0)) == 0.0
    zero, none = one({"video": 0, "audio": 0, "sensor": 0}), one(1.0)
    assert distance(zero, none) > 1e-3  # zero is a legal scale


@pytest.mark.parametrize(("seconds", "slots"), [
    (0.01, 1), (0.16, 1), (0.17, 2), (0.5, 4), (1.0, 7), (2.56, 16), (0.16 * 3, 3), (2.561, 17), (60, 375),
])  # fmt: skip
def test_seconds_are_rounded_up_to_slots(seconds: float, slots: int) -> None:
    assert slots_of(seconds) == slots


def test_a_duration_between_slots(pipeline: CounterpointPipeline) -> None:
    clip = pipeline(PROMPTS[0], seconds=0.5, steps=1, guidance=1.0)
    assert clip.duration == pytest.approx(0.64)
    assert clip.metadata["seconds"] == 0.5
    assert {round(t.duration, 6) for t in clip.tracks.values()} == {0.64}


def test_of_a_whole_model_a_shorter_clip_is_the_beginning_of_a_window(pipeline: CounterpointPipeline) -> None:
    whole = CounterpointPipeline(
        pipeline.transformer, pipeline.codecs, pipeline.text_encoder, {**pipeline.defaults, "whole": True}
    )
    options: dict[str, Any] = {"seed": 3, "tracks": ["audio"]}
    long, short = (whole("a ball", seconds=seconds, **options) for seconds in (2.56, 1.28))
    assert short.audio.values.shape == (1, 8 * 2560)
    full, cut, own = (
        model.generate_latents(["a ball"], [3], clip.metadata)["audio"]
        for model, clip in ((whole, long), (whole, short), (pipeline, short))
    )
    torch.testing.assert_close(cut, full[:, :8], atol=1e-5, rtol=0)
    assert (own - cut).abs().max() > 1e-3
    looped = whole("a ball", seconds=1.28, loop=True, **options)
    assert looped.audio.values.shape == (1, 8 * 2560)


def test_progress_is_told(pipeline: CounterpointPipeline) -> None:
    done: list[tuple[int, int]] = []
    pipeline(PROMPTS[0], seconds=0.16, steps=3, tracks=["sensor"], progress=lambda *x: done.append(x))
    assert done == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(("arguments", "message"), [
    ({"tracks": ["smell"]}, "tracks: smell; known are video, audio, sensor"),
    ({"tracks": []}, "tracks: none given"),
    ({"seed": -1}, "seed: -1 is negative"),
    ({"seed": [1, 2]}, "seed: 2 seeds for 1 prompts"),
    ({"steps": 0}, "steps: 0 is less than 1"),
    ({"seconds": 0}, "seconds: 0 is not between 0 and 60"),
    ({"seconds": 61}, "seconds: 61 is not"),
    ({"seconds": math.nan}, "seconds: nan is not"),
    ({"guidance": {"smell": 2}}, "guidance: no track is called 'smell'; known are video, audio, sensor"),
])  # fmt: skip
def test_bad_arguments_are_named(pipeline: CounterpointPipeline, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ClipError, match=message):
        pipeline(PROMPTS[0], **arguments)


def test_no_prompt_at_all(pipeline: CounterpointPipeline) -> None:
    with pytest.raises(ClipError, match="prompt: none given"):
        pipeline([])


def test_unknown_models_devices_and_dtypes_are_named(tiny_model: Path) -> None:
    with pytest.raises(ClipError, match="model: cello is neither a folder"):
        CounterpointPipeline.from_pretrained("cello")
    with pytest.raises(ClipError, match="dtype: 'float8' is not auto, float32"):
        CounterpointPipeline.from_pretrained(tiny_model, dtype="float8")
    with pytest.raises(ClipError, match="device: 'abacus' is not auto"):
        CounterpointPipeline.from_pretrained(tiny_model, device="abacus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(ClipError, match="device: cuda was asked for"):
            choose_device("cuda")
    assert choose_dtype("float16", torch.device("cpu")) == torch.float16


@pytest.mark.parametrize("part", ["transformer", "codecs/vocoder", "codecs/sensor_codec", "codecs/video_codec"])
def test_a_missing_part_is_named(tiny_model: Path, tmp_path: Path, part: str) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / part)
    lost = {"codecs/sensor_codec": "accelerometer", "codecs/video_codec": "video", "codecs/vocoder": "vocoder"}
    name = lost.get(part, "network")
    with pytest.raises(ClipError, match=f"no .*{name}|{name}: no "):
        CounterpointPipeline.from_pretrained(tmp_path / "model")


def test_shipped_models_go_by_name(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tiny_model, tmp_path / "flute")
    monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path)
    assert model_folder("flute") == tmp_path / "flute"
    assert model_folder(tiny_model) == tiny_model
    with pytest.raises(ClipError, match="one of: flute"):
        model_folder("oboe")


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_save_and_load(pipeline: CounterpointPipeline, tmp_path: Path, dtype: torch.dtype | None) -> None:
    before = pipeline.transformer.state_dict()
    pipeline.save_pretrained(tmp_path, dtype)
    assert not list(tmp_path.rglob("*.bin")) + list(tmp_path.rglob("*.pkl"))
    assert pipeline.transformer.dtype == torch.float32
    assert all(torch.equal(v, before[n]) for n, v in pipeline.transformer.state_dict().items())
    back = CounterpointPipeline.from_pretrained(tmp_path, device="cpu", dtype="float32")
    assert back.defaults == pipeline.defaults
    far = distance(latents(back, PROMPTS[:1], [0]), latents(pipeline, PROMPTS[:1], [0]))
    assert far == 0.0 if dtype is None else 0.0 < far < 0.1
    weights = tmp_path / "codecs" / "vocoder" / "diffusion_pytorch_model.safetensors"
    bytes_each = weights.stat().st_size / sum(p.numel() for p in pipeline.codecs.vocoder.parameters())
    assert bytes_each > 4 if dtype is None else 2 < bytes_each < 3
    text = weights.read_bytes()[:200].decode("ascii", "ignore")
    assert ("F32" if dtype is None else '"F16"') in text  # codecs keep the finer mantissa of fp16


def test_bf16_network_generates_nearly_the_same(pipeline: CounterpointPipeline, tmp_path: Path) -> None:
    save_transformer(pipeline.transformer, tmp_path, torch.bfloat16)
    rounded = CounterpointTransformer.from_pretrained(
        str(tmp_path), torch_dtype=torch.bfloat16, low_cpu_mem_usage=False
    )
    half = CounterpointPipeline(rounded, pipeline.codecs, pipeline.text_encoder, pipeline.defaults)
    mine, theirs = latents(half, PROMPTS[:1], [0]), latents(pipeline, PROMPTS[:1], [0])
    for name, x in theirs.items():
        assert mine[name].dtype == torch.float32
        assert (mine[name] - x).norm() < 0.05 * x.norm(), name


def test_a_saved_model_does_not_say_where_it_was_loaded(tiny_model: Path, tmp_path: Path) -> None:
    CounterpointPipeline.from_pretrained(tiny_model).save_pretrained(tmp_path / "again")
    configs = list((tmp_path / "again").rglob("config.json"))
    assert len(configs) == 5
    assert not [path for path in configs if str(tiny_model.parent) in path.read_text()]
