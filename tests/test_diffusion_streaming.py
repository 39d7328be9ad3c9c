"""Streams without an end: the same pieces as with one, in constant memory, with a prompt that may change."""

import json
import math
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from counterpoint.diffusion.pipeline import CounterpointPipeline
from counterpoint.diffusion.sampling import draw_noise
from counterpoint.diffusion.streaming import Noise, Prompts, endless, tellers, window_of
from counterpoint.diffusion.windows import CONTEXT, decode_chunks, join, slide, spans
from counterpoint.modalities.clip import Clip, ClipError, Track

SHAPES = {"video": (2, 3), "force": (1, 5)}
QUICK: dict[str, Any] = {"steps": 2, "guidance": 1.0, "tracks": ["audio", "sensor"], "seed": 5}


@pytest.fixture
def pipeline(tiny_model: Path) -> CounterpointPipeline:
    """The tiny model in fp32 with windows of four slots, its zero-initialized projections filled."""
    pipeline = CounterpointPipeline.from_pretrained(tiny_model, device="cpu", dtype="float32")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in pipeline.transformer.parameters():
            if not p.any():
                p.copy_(torch.randn(p.shape, generator=generator) * 0.1)
    pipeline.defaults["seconds"] = 0.64
    return pipeline


def cumulative(noise, grid, given):
    """A toy window: every unknown slot is the one before plus its own noise; a known one stays."""
    out = {}
    for name, x in noise.items():
        known = torch.zeros(x.shape[1], dtype=torch.bool) if grid is None else grid.known[name][0]
        rows = []
        for t in range(x.shape[1]):
            rows.append(given[name][:, t] if known[t] else x[:, t] + (rows[-1] if rows else 0))
        out[name] = torch.stack(rows, 1)
    return out


def test_noise_drawn_slot_by_slot_is_that_of_a_clip() -> None:
    whole = draw_noise({name: (15, *shape) for name, shape in SHAPES.items()}, [4, 7])
    source = Noise(SHAPES, [4, 7])
    parts = [source.draw(count) for count in (1, 2, 5, 7)]  # odd numbers of values too
    for name, x in whole.items():
        assert torch.equal(torch.cat([part[name] for part in parts], 1), x)


@pytest.mark.parametrize("length", [1, 2, 5, 16])
def test_windows_without_an_end_are_those_of_a_long_clip_and_hold_no_more(length: int) -> None:
    windows = spans(100, length)
    noise = draw_noise({name: (windows[-1][1], *shape) for name, shape in SHAPES.items()}, [3])
    none = {name: torch.zeros(windows[-1][1], dtype=torch.bool) for name in noise}
    *_, (_, clip) = slide(cumulative, noise, none, noise, windows)
    hop, held, ready = max(1, length // 2), [], 0
    for ready, latents in islice(endless(cumulative, Noise(SHAPES, [3]), length), len(windows)):
        held.append(latents["video"].shape[1])
        for name, x in latents.items():
            assert torch.equal(x, clip[name][:, ready - held[-1] : ready])
    assert ready == windows[-1][1]
    assert max(held) <= hop + max(length - hop, hop + 2 * CONTEXT)
    assert len(set(held[-10:])) == 1


class Level:
    """A decoder that hears its whole chunk: the sound is the mean of all latents given."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def decode(self, latents):
        x = latents["audio"].mean((2, 3))  # [B, T]
        self.heard.append(x.shape[1])
        sound = x.mean(1, keepdim=True).expand_as(x).repeat_interleave(2560, 1).numpy()
        return [Clip(audio=Track(row[None], 16000.0)) for row in sound]


def test_chunks_without_an_end_go_over_into_one_another() -> None:
    def ramp(noise, grid, given):
        return {"audio": noise["audio"] * 0 + (torch.arange(16) % 8)[None, :, None, None]}

    codecs = Level()
    walk = endless(ramp, Noise({"audio": (1, 1)}, [0]), 16)
    clips = [clips[0] for clips in islice(decode_chunks(codecs, walk, ["audio"], math.inf, 8, False), 6)]
    assert [round(clip.audio.start / 0.16) for clip in clips] == [0, 8, 16, 24, 32, 40]
    assert codecs.heard == [8 + CONTEXT, *[8 + 2 * CONTEXT] * 5]
    sound = join(clips).audio.values[0]
    assert len(sound) == 48 * 2560
    assert np.ptp(sound) > 0.1  # what would be a jump
    assert np.abs(np.diff(sound)).max() < 0.01


def test_an_endless_stream_begins_as_a_clip_does(pipeline: CounterpointPipeline) -> None:
    clip = pipeline("a ball", seconds=2.24, **QUICK)
    pieces = list(islice(pipeline.stream("a ball", seconds=math.inf, **QUICK), 9))
    assert [round(piece.audio.start, 2) for piece in pieces] == [round(i * 0.32, 2) for i in range(9)]
    sure = 2 * int((2.24 / 0.16 - CONTEXT) / 2)  # slots in pieces whose surroundings lie inside the clip
    joined = join(pieces)
    for name, track in clip.tracks.items():
        count = track.samples * sure // 14
        assert np.array_equal(track.values[:, :count], joined.tracks[name].values[:, :count]), name
    facts = json.loads(json.dumps(pieces[-1].metadata, allow_nan=False))
    assert (facts["prompt"], facts["seed"], facts["steps"]) == ("a ball", 5, 2)
    assert "seconds" not in facts


def test_the_sound_of_a_stream_has_no_jump_where_pieces_meet(pipeline: CounterpointPipeline) -> None:
    pieces = list(islice(pipeline.stream("a ball", seconds=math.inf, **{**QUICK, "tracks": ["audio"]}), 8))
    steps = np.abs(np.diff(join(pieces).audio.values[0]))
    seams = [2 * 2560 * i - 1 for i in range(1, 8)]
    assert steps[seams].max() <= np.delete(steps, seams).max()
    assert np.median(steps[seams]) < 4 * np.quantile(steps, 0.9)


def test_memory_stays_the_same(pipeline: CounterpointPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, decode = [], pipeline.codecs.decode
    monkeypatch.setattr(pipeline.codecs, "decode", lambda x: sizes.append(x["audio"].shape[1]) or decode(x))
    asked, forward = [], pipeline.transformer.forward
    monkeypatch.setattr(
        pipeline.transformer, "forward", lambda x, *a, **k: asked.append(x["audio"].shape[1]) or forward(x, *a, **k)
    )
    done: list[tuple[int, int]] = []
    stream = pipeline.stream("a ball", seconds=math.inf, progress=lambda *x: done.append(x), **QUICK)
    pieces = list(islice(stream, 12))
    assert {piece.audio.samples for piece in pieces} == {2 * 2560}
    assert set(asked) == {4}
    assert sizes == [6, 8, *[10] * 10]
    assert done == [(1, 2), (2, 2)] * (len(asked) // 2)


@pytest.mark.parametrize("seconds", [math.inf, 2.56])
def test_a_prompt_may_change_between_windows(pipeline, monkeypatch, seconds: float) -> None:
    encoded, encoder = [], pipeline.text_encoder.forward
    monkeypatch.setattr(pipeline.text_encoder, "forward", lambda texts: encoded.append(texts[0]) or encoder(texts))
    asked: list[int] = []

    def now() -> str:
        asked.append(len(asked))
        return "a metal rod" if len(asked) > 4 else "a ball"

    pieces = list(islice(pipeline.stream(now, seconds=seconds, **QUICK), 8))
    assert encoded == ["a ball", "a metal rod"]
    plain = list(islice(pipeline.stream("a ball", seconds=seconds, **QUICK), 8))
    window = [window_of(2 * i + 1, 4) for i in range(8)]
    assert window == [0, 0, 1, 2, 3, 4, 5, 6]
    assert len(asked) >= 7
    assert [piece.metadata["prompt"] for piece in pieces] == ["a ball"] * 5 + ["a metal rod"] * 3
    same = [
        np.array_equal(a.sensor["force"].values, b.sensor["force"].values) for a, b in zip(pieces, plain, strict=True)
    ]
    assert same == [True] * 5 + [False] * 3


def test_prompts_forget_what_is_over() -> None:
    said = iter("aabbbcdd")
    prompts = Prompts(lambda: next(said))
    assert [prompts.read() for _ in range(8)] == [(letter,) for letter in "aabbbcdd"]
    assert "".join(prompts.of(i)[0] for i in range(8)) == "aabbbcdd"
    assert prompts.changes == [(6, ("d",))]
    with pytest.raises(ClipError, match="prompt: None is no text"):
        Prompts(lambda: None).read()  # pyright: ignore


def test_progress_of_all_windows_or_of_each() -> None:
    told: list[tuple[int, int]] = []
    for windows, expected in ((2, [(1, 6), (4, 6)]), (None, [(1, 3), (1, 3)])):
        told.clear()
        for tell in islice(tellers(lambda *x: told.append(x), windows), 2):
            tell(1, 3)
        assert told == expected


@pytest.mark.parametrize(("options", "message"), [
    ({"loop": True}, "seconds: a stream without an end has no loop"),
    ({"given": Clip(audio=Track(np.zeros((1, 2560), np.float32), 16000.0))}, "without an end can hold nothing given"),
])  # fmt: skip
def test_what_has_no_place_in_an_endless_stream(pipeline, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ClipError, match=message):
        next(iter(pipeline.stream("a ball", seconds=math.inf, **options)))


def test_only_a_stream_is_endless(pipeline: CounterpointPipeline) -> None:
    with pytest.raises(ClipError, match="seconds: inf is not between 0 and 60"):
        pipeline("a ball", seconds=math.inf)
    with pytest.raises(ClipError, match="seconds: 61 is not between 0 and 60"):
        next(iter(pipeline.stream("a ball", seconds=61)))
