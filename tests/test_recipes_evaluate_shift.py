"""The search for the offset of a sound: latents move as the sound does, a planted offset is found, runs go on."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoint.diffusion.pipeline import CounterpointPipeline
from counterpoint.recipes import evaluate_shift
from counterpoint.recipes.evaluate_shift import (
    REACH,
    evaluate,
    margin,
    nats,
    offsets,
    shifted,
    shifts_ms,
    summary,
    table,
)


def test_shifts_move_latents_later():
    T, S, C = 16, 4, 2
    latents = torch.arange(T * S, dtype=torch.float32)[:, None].expand(-1, C).reshape(T, S, C)
    moved = shifted(latents)
    assert moved.shape == (21, 10, S, C)
    assert margin(S) == 3
    assert (moved[REACH] == latents[3:13]).all()
    assert (moved[REACH + 4] == latents[2:12]).all()  # 160 ms later: what was heard a slot before
    assert moved.min() == 2
    assert moved.max() == 61
    assert shifts_ms()[::10] == [-400, 0, 400]


def test_latents_of_a_shifted_sound_are_shifted_latents(tiny_model: Path):
    codec = CounterpointPipeline.from_pretrained(tiny_model, dtype="float32").codecs
    sound = 0.1 * torch.randn(1, 1, 40960, generator=torch.Generator().manual_seed(0))
    later = torch.cat([torch.zeros(1, 1, 3200), sound[..., :-3200]], dim=2)  # by 200 ms
    moved = shifted(codec.encode({"audio": sound})["audio"][0])[REACH + 5]
    again = codec.encode({"audio": later})["audio"][0][3:13]
    plain = shifted(codec.encode({"audio": sound})["audio"][0])[REACH]
    assert (moved - again).square().mean() < 0.02 * (plain - again).square().mean()


def test_a_planted_offset_is_found():
    draws = np.random.default_rng(0)
    quiet = draws.normal(size=(6, 21))  # what a shift alone makes probable
    told = np.zeros((6, 21))
    told[:4, REACH] = told[4, REACH + 1] = told[5, 0] = 1
    rows = [{"own": 9 * q + t, "another": 9 * q, "alone": 9 * q} for q, t in zip(quiet, told, strict=True)]
    found = summary(rows)["information"]
    assert found["offsets_ms"] == [0, 0, 0, 0, 40, -400]
    assert (found["at_0"], found["within_40_ms"]) == (pytest.approx(4 / 6), pytest.approx(5 / 6))
    assert offsets(told[5:])["median_ms"] == 400
    assert found["bits"][REACH] == 0
    assert found["bits"][0] == pytest.approx((1 - 4) / 6 / np.log(2))


def test_nats_fall_with_the_error_of_the_sound(tiny_model: Path):
    """A denoiser that takes the sound for what the video says; the noise is the same for all."""

    class Stub:
        device = torch.device("cpu")

        def denoiser(self, prompts):
            def denoise(name, noised, sigma):
                assert (sigma["video"] == 0).all()
                level = sigma["audio"][0, 0]
                return {"audio": (noised["audio"] - noised["video"]) / level}  # ε − x0 if x0 is the video

            return denoise

    video = torch.randn(1, 3, 4, 2).expand(3, -1, -1, -1)
    latents = {"audio": video + torch.tensor([0.0, 1.0, 2.0])[:, None, None, None], "video": video}
    found = partial(nats, Stub())("", latents, levels=2, low=1.0, high=3.0)
    assert found[0] == pytest.approx(0, abs=1e-9)
    sigmas = [1 / (1 + np.exp(-level)) for level in (1.5, 2.5)]
    expected = -sum((1 - s) ** 2 * 24 / s**2 for s in sigmas)  # v − v̂ = (x0 − video)/σ
    assert found[1].item() == pytest.approx(expected, rel=1e-4)
    assert found[2].item() == pytest.approx(4 * expected, rel=1e-4)


def test_a_run_is_complete_and_goes_on(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    options = {"work": tmp_path / "work", "workers": 1, "levels": 1, "sides": [("sensor",)], "say": lambda _: None}
    scores = evaluate(tiny_model, tmp_path / "s.json", 2, **options)
    found = scores["beside"]["sensor"]
    assert len(found["information"]["offsets_ms"]) == 2
    assert set(found["likelihood_of_another"]["offsets_ms"]) <= set(shifts_ms())
    first, second = table(scores).split("\n\n")
    assert [len(part.splitlines()) for part in (first, second)] == [4, 4]
    (tmp_path / "s.json").unlink()
    monkeypatch.setattr(evaluate_shift, "nats", lambda *_, **__: 1 / 0)  # everything was judged
    again = evaluate(tiny_model, tmp_path / "s.json", 2, **options)
    assert again["beside"]["sensor"]["information"] == found["information"]
