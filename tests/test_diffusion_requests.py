"""What a call asks for: isolation guidance by default, and clips that are varied."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from counterpoint.backbones.transformer import Modality
from counterpoint.diffusion.conditions import Condition
from counterpoint.diffusion.given import Given
from counterpoint.diffusion.pipeline import CounterpointPipeline
from counterpoint.diffusion.requests import guidances_of, isolation_of
from counterpoint.guidance.classifier_free import ClassifierFree
from counterpoint.guidance.isolation import Isolation
from counterpoint.modalities.clip import Clip, ClipError, Track
from counterpoint.modalities.codecs import GROUPS, from_frames

QUICK: dict[str, Any] = {"steps": 2, "guidance": 1.0}
SHORT: dict[str, Any] = {"steps": 2, "seconds": 0.32}


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


@pytest.fixture
def calls(
    pipeline: CounterpointPipeline, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[dict[str, torch.Tensor], bool]]:
    """The noise levels that the network is asked for, and whether isolated, call by call."""
    seen, forward = [], pipeline.transformer.forward

    def listen(x: Any, sigma: Any, *rest: Any, isolate: bool = False, **more: Any) -> Any:
        seen.append((sigma, isolate))
        return forward(x, sigma, *rest, isolate=isolate, **more)

    monkeypatch.setattr(pipeline.transformer, "forward", listen)
    return seen


def same(one: Clip, other: Clip) -> bool:
    assert list(one.tracks) == list(other.tracks)
    return all(np.array_equal(t.values, other.tracks[n].values) for n, t in one.tracks.items())


def test_isolation_is_a_default_of_the_model(pipeline, monkeypatch, calls, tmp_path) -> None:
    assert pipeline.defaults["isolation"] == 1.0
    plain = pipeline("a ball", **SHORT)
    assert [isolated for _, isolated in calls] == [False] * 4
    assert "isolation" not in plain.metadata
    monkeypatch.setitem(pipeline.defaults, "isolation", 2.0)
    calls.clear()
    clip = pipeline("a ball", **SHORT)
    assert [isolated for _, isolated in calls] == [False, False, True] * 2
    assert (clip.metadata["guidance"], clip.metadata["isolation"]) == (2.0, 2.0)
    assert same(clip, pipeline("a ball", guidance=[ClassifierFree(2.0), Isolation(2.0)], **SHORT))
    assert not same(clip, plain)
    off = pipeline("a ball", isolation=1, **SHORT)
    assert same(off, plain)
    assert "isolation" not in off.metadata
    pipeline.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "model_index.json").read_text())["defaults"]["isolation"] == 2.0


def test_isolation_has_a_scale_per_track(pipeline, monkeypatch, calls) -> None:
    scales = {"video": 5.0, "sensor": 2}
    clip = pipeline("a ball", isolation=scales, **SHORT)
    assert [isolated for _, isolated in calls] == [False, False, True] * 2
    assert clip.metadata["isolation"] == {"video": 5.0, "sensor": 2.0}
    sensors = [name for name, modality in pipeline.transformer.modalities.items() if modality.group == "sensor"]
    own = Isolation(1.0, {"video": 5.0, **dict.fromkeys(sensors, 2.0)})
    assert same(clip, pipeline("a ball", guidance=[ClassifierFree(2.0), own], **SHORT))
    monkeypatch.setitem(pipeline.defaults, "isolation", scales)
    assert same(clip, pipeline("a ball", **SHORT))


def test_a_track_left_out_keeps_the_models_scale(pipeline) -> None:
    modalities = pipeline.transformer.modalities
    for default, video in ((4.0, 4.0), ({"video": 3.0}, 3.0), ({}, 1.0), ([ClassifierFree(5.0)], 1.0)):
        (free,) = guidances_of({"audio": 2}, modalities, default)
        assert (free.scales["audio"], free.scales["video"]) == (2.0, video)


def test_guidance_and_isolation_keep_a_share_of_what_is_parallel(pipeline, monkeypatch) -> None:
    plain = pipeline("a ball", isolation=2.0, **SHORT)
    clip = pipeline("a ball", isolation=2.0, parallel={"video": 0}, **SHORT)
    assert "parallel" not in plain.metadata
    assert clip.metadata["parallel"] == {"video": 0.0}
    shares = {"parallels": {n: float(m.group != "video") for n, m in pipeline.transformer.modalities.items()}}
    own = [ClassifierFree(2.0, **shares), Isolation(2.0, **shares)]
    assert same(clip, pipeline("a ball", guidance=own, **SHORT))
    assert not same(clip, plain)
    assert same(clip, pipeline("a ball", guidance={"audio": 2.0}, isolation=2.0, parallel={"video": 0}, **SHORT))
    monkeypatch.setitem(pipeline.defaults, "parallel", 0.0)
    assert pipeline("a ball", **SHORT).metadata["parallel"] == 0.0
    assert same(plain, pipeline("a ball", isolation=2.0, parallel=1, **SHORT))
    assert "parallel" not in pipeline("a ball", guidance=own, **SHORT).metadata
    with pytest.raises(ClipError, match="parallel: guidance objects take its place"):
        pipeline("a ball", guidance=own, parallel=0.5, **SHORT)


@pytest.mark.parametrize("option", ["isolation", "parallel"])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"smell": 2.0}, "no track is called 'smell'"), ({"video": "5"}, "5 is no number"), ("much", "much is no number"),
     (float("inf"), "inf is no number")],
)  # fmt: skip
def test_numbers_beside_guidance_are_checked(option, wrong, message, pipeline) -> None:
    with pytest.raises(ClipError, match=f"{option}: {message}"):
        pipeline("a ball", **{option: wrong}, **SHORT)


@pytest.mark.parametrize("scales", [2.0, {"video": 5.0, "audio": 3.0}])
def test_the_metadata_makes_it_again_under_another_default(scales, pipeline, monkeypatch) -> None:
    monkeypatch.setitem(pipeline.defaults, "isolation", scales)
    monkeypatch.setitem(pipeline.defaults, "parallel", {"audio": 0.0})
    clip = pipeline("a ball", guidance={"audio": 3}, seed=4, **SHORT)
    facts = json.loads(json.dumps(clip.metadata))
    monkeypatch.setitem(pipeline.defaults, "isolation", 5.0)
    monkeypatch.setitem(pipeline.defaults, "parallel", 1.0)
    keep = ("prompt", "seed", "steps", "guidance", "isolation", "parallel", "seconds", "tracks")
    assert same(clip, pipeline(**{key: facts[key] for key in keep}))
    latents = pipeline.generate_latents(["a ball"], [4], facts)
    assert same(clip, pipeline.codecs.decode(latents)[0])


def test_objects_take_the_place_of_the_default(pipeline, monkeypatch, calls) -> None:
    monkeypatch.setitem(pipeline.defaults, "isolation", 2.0)
    clip = pipeline("a ball", guidance=[ClassifierFree(2.0)], **SHORT)
    assert not any(isolated for _, isolated in calls)
    assert "isolation" not in clip.metadata
    with pytest.raises(ClipError, match="isolation: guidance objects take its place"):
        pipeline("a ball", guidance=[ClassifierFree(2.0)], isolation=2.0, **SHORT)
    with pytest.raises(ClipError, match="isolation: nan is no number"):
        pipeline("a ball", isolation=float("nan"), **SHORT)


def test_one_track_has_nothing_to_be_isolated_from(pipeline, calls) -> None:
    pipeline("a ball", tracks=["audio"], isolation=2.0, **SHORT)
    assert [isolated for _, isolated in calls] == [False] * 4
    alone = {"audio": Modality("audio", 4, 32, "audio")}
    assert guidances_of(2.0, alone, 2.0, 3.0) == [ClassifierFree(2.0)]
    assert isolation_of(2.0, 3.0, 1.0, alone) == 1.0


def on_the_clock(seconds: float = 0.32) -> Clip:
    """A clip at the model's own rates and sizes, of smooth signals."""
    t, frames = np.arange(round(seconds * 16000)) / 16000, round(seconds * 25)
    picture = np.linspace(0, 255, 64)[None, :, None, None] * np.ones((frames, 1, 64, 3))
    return Clip(
        video=Track(picture.astype(np.uint8), 25.0),
        audio=Track((0.3 * np.sin(880 * np.pi * t) * np.exp(-4 * t))[None].astype(np.float32), 16000.0),
        sensor={"force": Track(np.linspace(0, 9, round(seconds * 100))[None].astype(np.float32), 100.0, 0.0, ("z",))},
    )


def distance(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in other)


def varied(pipeline: CounterpointPipeline, source: Clip, strength: float) -> dict[str, torch.Tensor]:
    """Latents of the sound and picture of a clip, varied."""
    tracks = ("video", "audio")
    condition = Condition.create(Given(source), pipeline.codecs, source.duration).varied(tracks, strength)
    settings = pipeline._settings("", 4, 1.0, source.duration, tracks)
    return pipeline.generate_latents(["a ball"], [3], settings, condition=condition)


def test_little_strength_is_the_round_trip_and_more_goes_further(pipeline) -> None:
    source = Clip(video=on_the_clock().video, audio=on_the_clock().audio)
    tensors = {"video": from_frames(source.video.values[None]), "audio": torch.from_numpy(source.audio.values[None])}
    there = pipeline.codecs.encode(tensors)
    far = [distance(varied(pipeline, source, strength), there) for strength in (1e-4, 0.2, 0.6)]
    assert far[0] < 2e-3
    assert far[0] < far[1] < far[2]
    clip = pipeline("a ball", given=source, strength=1e-5, **QUICK)
    [back] = pipeline.codecs.decode(there)
    assert np.abs(clip.video.values.astype(int) - back.video.values.astype(int)).max() <= 1
    assert np.abs(clip.audio.values - back.audio.values).max() < 1e-2 * np.abs(back.audio.values).max()


def test_full_strength_is_plain_generation(pipeline) -> None:
    new = pipeline("a ball", given=on_the_clock(), strength=1, tracks=GROUPS, seed=8, **QUICK)
    assert same(new, pipeline("a ball", tracks=GROUPS, seconds=0.32, seed=8, **QUICK))
    assert not same(new, pipeline("a ball", given=on_the_clock(), strength=0.9, tracks=GROUPS, seed=8, **QUICK))


def test_what_is_given_is_varied_and_walks_from_its_strength(pipeline, calls) -> None:
    source, said = on_the_clock(), []
    clip = pipeline(
        "a ball", given={"audio": source.audio, "video": source.video}, strength=0.5, say=said.append, **QUICK
    )
    assert list(clip.tracks) == ["video", "audio"]
    assert clip.audio.values.shape == source.audio.values.shape
    assert said == []
    facts = json.loads(json.dumps(clip.metadata))
    assert (facts["strength"], facts["given"], facts["seconds"], facts["tracks"]) == (0.5, [], 0.32, ["video", "audio"])
    assert [float(s["audio"].max()) for s, _ in calls] == pytest.approx([0.5, 0.25], abs=1e-3)
    assert all((s["audio"] == s["video"]).all() for s, _ in calls)


def test_tracks_that_are_not_given_begin_at_noise_and_those_not_asked_for_stay(pipeline, calls) -> None:
    source = on_the_clock()
    clip = pipeline("a ball", given=source, strength=0.4, tracks=["audio", "sensor"], **QUICK)
    first = {name: sigma[0].tolist() for name, sigma in calls[0][0].items()}
    assert clip.video is source.video
    assert first["video"] == [0.0, 0.0]
    assert first["audio"] == first["force"] == pytest.approx([0.4, 0.4], abs=1e-3)
    assert first["gyroscope"] == pytest.approx([1.0, 1.0], abs=1e-3)
    longer = pipeline("a ball", given={"audio": source.audio}, strength=0.4, seconds=0.64, say=lambda _: None, **QUICK)
    assert calls[2][0]["audio"][0].tolist() == pytest.approx([0.4, 0.4, 1.0, 1.0], abs=1e-3)
    assert longer.duration == pytest.approx(0.64)


def test_vary_in_batches_windows_and_loops(pipeline, monkeypatch, calls) -> None:
    options = {"given": {"audio": on_the_clock(1.28).audio}, "strength": 0.5, **QUICK}
    batch = pipeline(["a ball", "a rod"], seed=[3, 9], **options)
    alone = pipeline("a rod", seed=9, **options)
    assert np.abs(batch[1].audio.values - alone.audio.values).max() < 1e-3
    monkeypatch.setitem(pipeline.defaults, "seconds", 0.64)  # a window of four slots
    calls.clear()
    pieces = list(pipeline.stream("a rod", **options))
    starts = [sigma["audio"][0].tolist() for sigma, _ in calls[::2]]
    assert starts == [pytest.approx(row, abs=1e-3) for row in ([0.5] * 4, *[[0, 0, 0.5, 0.5]] * 2)]
    long = pipeline("a rod", **options)
    assert np.array_equal(np.concatenate([p.audio.values for p in pieces], 1), long.audio.values)
    assert pipeline("a rod", loop=True, **options).metadata["loop"] is True


@pytest.mark.parametrize(("options", "message"), [
    ({"strength": 0}, "strength: 0 is not above 0 and at most 1"),
    ({"strength": 1.5}, "strength: 1.5 is not above 0"),
    ({"strength": float("nan")}, "strength: nan is not above 0"),
    ({"strength": 0.5, "known": [(0, 0.16)]}, "strength: varies all of a clip, so no stretch of it can be known"),
    ({"strength": 0.5, "tracks": ["sensor"]}, "strength: nothing to vary is given of sensor"),
    ({"strength": 0.5, "given": None}, "strength: nothing is given that could be varied"),
])  # fmt: skip
def test_what_cannot_be_varied(pipeline, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ClipError, match=message):
        pipeline("a ball", **{"given": {"audio": on_the_clock().audio}, **options})


def test_a_solver_that_begins_at_noise_cannot_vary(pipeline, monkeypatch) -> None:
    monkeypatch.setitem(pipeline.defaults, "solver", "ddim")
    with pytest.raises(ClipError, match="solver: begins at noise"):
        pipeline("a ball", given={"audio": on_the_clock().audio}, strength=0.5, **QUICK)
