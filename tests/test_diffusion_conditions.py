"""Any tracks to any others, continuation, filling, gaps, loops and long clips, with a tiny model of random weights."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from counterpoint.diffusion.conditions import Condition, conversion, encode
from counterpoint.diffusion.given import Given
from counterpoint.diffusion.pipeline import CounterpointPipeline
from counterpoint.guidance.classifier_free import ClassifierFree
from counterpoint.modalities.clip import GROUPS, Clip, ClipError, Track

SENSORS = {"accelerometer": (("x", "y", "z"), "m/s²"), "gyroscope": (("x", "y", "z"), "rad/s"), "force": (("z",), "N")}
SUBSETS = [frozenset(c) for n in (0, 1, 2, 3) for c in combinations(GROUPS, n)]
PAIRS = [(made, given) for made in SUBSETS for given in SUBSETS if made and not made & given]
QUICK: dict[str, Any] = {"steps": 2, "guidance": 1.0}


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


def recorded(seconds: float = 0.48, rate: int = 48000, size: tuple[int, int] = (64, 64), fps: float = 25) -> Clip:
    """A clip that is not on the model's clock: stereo at 48 kHz, sensors at 200 Hz."""
    draws = np.random.default_rng(1)
    return Clip(
        video=Track(draws.integers(0, 256, (round(seconds * fps), *size, 3)).astype(np.uint8), fps),
        audio=Track(draws.normal(0, 0.1, (2, round(seconds * rate))).astype(np.float32), rate),
        sensor={
            name: Track(draws.normal(size=(len(axes), round(seconds * 200))).astype(np.float32), 200, 0.0, axes,
                        (unit,) * len(axes))
            for name, (axes, unit) in SENSORS.items()
        },
    )  # fmt: skip


def part(clip: Clip, groups: frozenset[str] | set[str]) -> Clip:
    return Clip(**{group: getattr(clip, group) for group in groups})


def asked(pipeline: CounterpointPipeline, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The noise levels that the network is asked for, call by call."""
    calls, forward = [], pipeline.transformer.forward
    monkeypatch.setattr(
        pipeline.transformer, "forward", lambda x, sigma, *a, **k: calls.append(sigma) or forward(x, sigma, *a, **k)
    )
    return calls


def unknown(sigma: torch.Tensor) -> str:
    return "".join("." if level == 0 else "x" for level in sigma[0].tolist())


def test_three_tracks_make_nineteen_pairs() -> None:
    assert len(PAIRS) == 19


@pytest.mark.parametrize(("made", "given"), PAIRS, ids=lambda s: "+".join(sorted(s)) or "nothing")
def test_any_tracks_lead_to_any_others(pipeline, monkeypatch, made, given) -> None:
    source, calls = recorded(0.32), asked(pipeline, monkeypatch)
    if given:
        clip = pipeline(given=part(source, given), tracks=sorted(made), **QUICK)
    else:
        clip = pipeline("a ball", seconds=0.32, tracks=sorted(made), **QUICK)
    groups = {name if name in GROUPS else "sensor" for name in clip.tracks}
    assert groups == made | given
    for name, track in source.tracks.items():
        if (name if name in GROUPS else "sensor") in given:
            assert clip.tracks[name] is track  # not a bit is changed
        elif name in clip.tracks:
            assert clip.tracks[name].duration == pytest.approx(0.32)
    assert len(calls) == 2
    for name, sigma in calls[0].items():
        told = (name if name in GROUPS else "sensor") in given
        assert (sigma == 0.0).all() if told else (sigma > 0.99).all(), name


def test_what_is_given_is_heard(pipeline: CounterpointPipeline) -> None:
    one, other = recorded(0.32), recorded(0.32)
    louder = Clip(audio=Track(other.audio.values * 3, other.audio.rate))
    a = pipeline(given=part(one, {"audio"}), tracks=["sensor"], **QUICK)
    b = pipeline(given=louder, tracks=["sensor"], **QUICK)
    assert not np.allclose(a.sensor["force"].values, b.sensor["force"].values)


def test_encoding_is_that_of_the_codecs_and_pieces_do_not_leak(pipeline: CounterpointPipeline) -> None:
    clip, cells = recorded(0.96, rate=16000), np.array([True, True, False, False, True, True])
    sound = Track(clip.audio.values[:1], 16000.0)
    latents = encode(pipeline.codecs, "audio", sound, cells)
    alone = pipeline.codecs.encode({"audio": torch.from_numpy(sound.values[None, :, : 2 * 2560])})["audio"][0]
    assert torch.allclose(latents[:2], alone, atol=1e-5)
    assert not latents[2:4].any()
    changed = sound.values.copy()
    changed[:, 2 * 2560 : 4 * 2560] = 0.7
    assert torch.equal(encode(pipeline.codecs, "audio", Track(changed, 16000.0), cells), latents)
    frames = clip.video.values.copy()
    frames[8:16] = 200
    before = encode(pipeline.codecs, "video", clip.video, cells)
    assert torch.equal(encode(pipeline.codecs, "video", Track(frames, 25.0), cells), before)


def test_a_clip_goes_on(pipeline: CounterpointPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    source, calls = recorded(0.32, size=(32, 48)), asked(pipeline, monkeypatch)
    said: list[str] = []
    clip = pipeline("a ball", given=source, seconds=0.64, tracks=["video", "audio"], say=said.append, **QUICK)
    assert {name: unknown(sigma) for name, sigma in calls[0].items()} == dict.fromkeys(source.tracks, "..xx")
    for name, track in source.tracks.items():
        out = clip.tracks[name]
        assert (out.rate, out.names, out.units, out.duration) == (track.rate, track.names, track.units, 0.64)
        same = out.values[: track.samples] if name == "video" else out.values[:, : track.samples]
        assert np.array_equal(same, track.values), name
    assert clip.video.values.shape == (16, 32, 48, 3)
    assert "video: frames are 48×32, of which the model sees the middle 32×32" in said
    assert "force: 2 of 4 slots of 0.16 s were not recorded, and are generated" in said


def test_a_stretch_is_filled(pipeline: CounterpointPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    source, calls = recorded(0.64), asked(pipeline, monkeypatch)
    clip = pipeline("a ball", given=source, known=[(0.0, 0.2), (0.4, 0.64)], **QUICK)
    assert unknown(calls[0]["audio"]) == ".xx."  # slots that are touched
    for name, track in source.tracks.items():
        inside = (track.times() >= 0.2 - 1e-6) & (track.times() < 0.4 - 1e-6)
        old = track.values if name == "video" else track.values.T
        new = clip.tracks[name].values if name == "video" else clip.tracks[name].values.T
        assert np.array_equal(new[~inside], old[~inside]), name
        assert not np.array_equal(new[inside], old[inside]), name
    assert clip.metadata["known"] == [[0.0, 0.2], [0.4, 0.64]]


def test_what_a_sensor_did_not_measure_is_filled(pipeline: CounterpointPipeline, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    rows = [f"{i / 100:.2f},{'' if i in (20, 21) else i / 10},nan,{i}" for i in range(48)]
    path.write_text("\n".join(["time [s],force.z [N],lid [1],temperature [K]", *rows]) + "\n")
    said: list[str] = []
    clip = pipeline(given={"sensor": path}, tracks=["audio"], say=said.append, **QUICK)
    force, kept = clip.sensor["force"], np.arange(48) != 20
    kept[21] = False
    assert force.mask is None
    assert np.array_equal(force.values[0, kept], (np.arange(48) / 10).astype(np.float32)[kept])
    assert np.isfinite(force.values).all()
    assert list(clip.sensor) == ["force", "lid", "temperature"]
    assert any(line.startswith("temperature: kept, but not used: this model knows video") for line in said)
    assert "force: 1 of 3 slots of 0.16 s were not recorded, and are generated" in said
    assert clip.metadata["given"][0]["path"] == str(path)


def test_units_and_channels_are_made_to_fit(pipeline: CounterpointPipeline) -> None:
    values = np.random.default_rng(0).normal(size=(3, 32)).astype(np.float32)
    plain = Track(values, 100, names=("x", "y", "z"), units=("m/s²",) * 3)
    other = Track(values[[2, 0, 1]] / 9.80665, 100, names=("z", "x", "y"), units=("g",) * 3)

    def told(track: Track, name: str = "accelerometer") -> Condition:
        return Condition.create(Given(Clip(sensor={name: track})), pipeline.codecs, 0.32)

    one, two = told(plain).latents["accelerometer"], told(other).latents["accelerometer"]
    assert torch.allclose(one, two, atol=1e-4)
    lacking = told(Track(values[:2], 100, names=("x", "y")))
    assert (lacking.unused, lacking.notes) == (
        ("accelerometer",), ("accelerometer: kept, but not used: it has no channel z",)
    )  # fmt: skip
    assert told(Track(values, 100, names=("x", "y", "z"), units=("furlong",) * 3)).unused == ("accelerometer",)
    assert conversion("rad/s", "deg/s") == pytest.approx(57.29578)
    assert conversion("g", "N") is None


def test_a_longer_clip_begins_in_the_same_way_and_windows_are_short(pipeline, monkeypatch) -> None:
    calls = asked(pipeline, monkeypatch)
    monkeypatch.setitem(pipeline.defaults, "seconds", 0.64)  # a window of four slots
    options = {"tracks": ["audio", "sensor"], "seed": 5, **QUICK}
    short, long = (pipeline("a ball", seconds=s, **options) for s in (1.28, 2.24))
    assert {sigma["audio"].shape[1] for sigma in calls} == {4}
    assert len(calls) == 2 * (3 + 6)
    assert long.duration == pytest.approx(2.24)
    same = int(1.28 / 0.16) - 4  # the decoder looks four slots ahead
    for name, track in short.tracks.items():
        count = track.samples * same // 8
        assert np.array_equal(track.values[:, :count], long.tracks[name].values[:, :count])
    pieces = list(pipeline.stream("a ball", seconds=1.28, **options))
    assert [round(piece.audio.start, 2) for piece in pieces] == [0.0, 0.32, 0.64, 0.96]
    assert np.array_equal(np.concatenate([p.audio.values for p in pieces], 1), short.audio.values)
    done: list[tuple[int, int]] = []
    pipeline(given=recorded(1.28), known=[(0, 0.96)], progress=lambda *x: done.append(x), **QUICK)
    assert done == [(1, 2), (2, 2)]  # windows in which all is known are skipped


def test_a_loop_is_decoded_as_a_circle(pipeline: CounterpointPipeline) -> None:
    clip = pipeline("a ball", seconds=0.64, loop=True, tracks=["audio"], **QUICK)
    assert clip.metadata["loop"] is True
    settings = {**pipeline._settings("", 2, 1.0, 0.64, ("audio",)), "loop": True}
    latents = pipeline.generate_latents(["a ball"], [0], settings)
    turned = {name: x.roll(2, 1) for name, x in latents.items()}
    middle = pipeline.codecs.decode({n: torch.cat([x] * 3, 1) for n, x in turned.items()})[0].audio.values
    around = np.roll(clip.audio.values, 2 * 2560, axis=1)
    assert np.abs(middle[:, 4 * 2560 : 8 * 2560] - around).max() < 0.05 * np.abs(around).max() + 1e-4


def test_the_metadata_can_be_written_down(pipeline: CounterpointPipeline) -> None:
    guidance = [ClassifierFree(2.0, {"audio": 3.0})]
    clip = pipeline("a ball", given=part(recorded(0.16), {"video"}), tracks=["audio"], steps=1, guidance=guidance)
    facts = json.loads(json.dumps(clip.metadata))
    assert facts["guidance"] == [
        {"kind": "ClassifierFree", "scale": 2.0, "scales": {"audio": 3.0}}
        | {"interval": [0.0, 1.0], "rescale": 0.0, "parallel": 1.0, "parallels": {}}
    ]
    assert (facts["given"], facts["tracks"], facts["seconds"]) == ([], ["audio"], 0.16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tracks": ["video"]}, "video is given, and can't be generated as well"),
        ({"seconds": 0.16, "known": [(0.5, 0.6)]}, "known: 0.5 s lies outside the clip"),
        ({"seconds": 90}, "seconds: 90 is not between"),
        ({"tracks": ["smell"]}, "tracks: smell"),
    ],
)
def test_what_cannot_be_asked(pipeline: CounterpointPipeline, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ClipError, match=message):
        pipeline(given=part(recorded(), {"video"}), **options)


def test_nothing_is_left_or_nothing_is_asked(pipeline: CounterpointPipeline) -> None:
    with pytest.raises(ClipError, match="nothing is left to generate"):
        pipeline(given=recorded())
    with pytest.raises(ClipError, match="prompt: none given"):
        pipeline()
    with pytest.raises(ClipError, match="known: nothing is given"):
        pipeline("a ball", known=[(0, 1)])
