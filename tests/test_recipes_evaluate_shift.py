"""The search for the offset of a sound: the other tracks move, a planted offset is found, runs go on."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoint.diffusion.pipeline import CounterpointPipeline, weights_folder
from counterpoint.evaluation.judges import Judges
from counterpoint.recipes import evaluate_shift
from counterpoint.recipes.evaluate_joint import tensors
from counterpoint.recipes.evaluate_shift import (
    MARGIN,
    REACH,
    earlier,
    evaluate,
    nats,
    offsets,
    shifts_ms,
    summary,
    table,
)
from counterpoint.recipes.readings import HeldOut
from counterpoint.recipes.resumable import Store


def test_shifts_move_tracks_earlier():
    moved = earlier(torch.arange(256.0).expand(2, 3, -1), 100.0)
    assert moved.shape == (21, 2, 3, 256)
    assert (moved[REACH] == torch.arange(256.0)).all()
    assert (moved[REACH + 5, 1, 2, :236] == torch.arange(20.0, 256.0)).all()  # the sound 200 ms later: this earlier
    assert (moved[REACH + 5, ..., 236:] == 255).all()
    assert moved[0, 0, 0, 40:].tolist() == list(range(216))
    assert (shifts_ms()[::10], MARGIN) == ([-400, 0, 400], 3)


def test_the_others_move_and_the_sound_stays(tiny_model: Path, tmp_path: Path):
    """What a score is asked of: the latents of the sound are the same at every shift, those of the others are those of
    tracks that were really recorded earlier."""
    pipeline = CounterpointPipeline.from_pretrained(tiny_model, dtype="float32")
    held = HeldOut(pipeline, Judges.load(weights_folder() / "judges"), Store(tmp_path), 4, 0, 1, lambda _: None)
    asked: list[dict[str, torch.Tensor]] = []

    def bound(text: str, latents: dict[str, torch.Tensor]) -> torch.Tensor:
        asked.append(latents)
        return torch.zeros(21)

    evaluate_shift._judge(held, 0, partial(evaluate_shift._moved, held, ("video", "sensor")), "", bound)
    own, another = asked
    assert (own["audio"] == own["audio"][:1]).all()
    assert (own["audio"] == another["audio"]).all()
    real = pipeline.codecs.encode(tensors(held.clips[:2]))
    for latents, index in ((own, 0), (another, 1)):
        torch.testing.assert_close(latents["video"][REACH], real["video"][index, 3:13], atol=1e-4, rtol=1e-4)
        force = real["force"][index]
        torch.testing.assert_close(latents["force"][REACH + 4], force[4:14])  # earlier by 160 ms, a slot
        torch.testing.assert_close(latents["force"][REACH - 8], force[1:11])
    assert not torch.equal(own["video"][0], own["video"][-1])


def test_a_planted_offset_is_found():
    told = np.zeros((6, 21))
    told[:4, REACH] = told[4, REACH + 1] = told[5, 0] = 1
    found = summary([{"own": row, "another": np.roll(row, 3)} for row in told])
    assert found["own"]["offsets_ms"] == [0, 0, 0, 0, 40, -400]
    assert (found["own"]["at_0"], found["own"]["within_40_ms"]) == (pytest.approx(4 / 6), pytest.approx(5 / 6))
    assert found["another"]["offsets_ms"] == [120, 120, 120, 120, 160, -280]
    assert offsets(told[5:])["median_ms"] == 400
    assert found["own"]["bits"][REACH] == 0
    assert found["own"]["bits"][0] == pytest.approx((1 - 4) / 6 / np.log(2))


def test_nats_fall_with_the_error_of_the_sound(tiny_model: Path):
    """A denoiser that takes the sound for what the video says; the noise is the same for all."""

    class Stub:
        device = torch.device("cpu")

        def denoiser(self, prompts):
            def denoise(name, noised, sigma):
                assert (sigma["video"] == 0).all()
                level = sigma["audio"][0, 0]
                said = (noised["audio"] - noised["video"]) / level  # ε − x0 if x0 is the video
                return {"audio": said, "video": torch.zeros_like(noised["video"])}

            return denoise

    video = torch.randn(1, 3, 4, 2).expand(3, -1, -1, -1)
    latents = {"audio": video + torch.tensor([0.0, 1.0, 2.0])[:, None, None, None], "video": video}
    found = partial(nats, Stub())("", latents, levels=2, low=1.0, high=3.0)
    sigmas = [1 / (1 + np.exp(-level)) for level in (1.5, 2.5)]
    expected = -sum((1 - s) ** 2 * 24 / s**2 for s in sigmas)  # v − v̂ = (x0 − video)/σ
    assert (found[1] - found[0]).item() == pytest.approx(expected, rel=1e-4)
    assert (found[2] - found[0]).item() == pytest.approx(4 * expected, rel=1e-4)


def test_a_run_is_complete_and_goes_on(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    options = {"work": tmp_path / "work", "workers": 1, "levels": 1, "sides": [("sensor",)], "say": lambda _: None}
    scores = evaluate(tiny_model, tmp_path / "s.json", 2, **options)
    found = scores["beside"]["sensor"]
    assert len(found["own"]["offsets_ms"]) == 2
    assert set(found["another"]["offsets_ms"]) <= set(shifts_ms())
    first, second = table(scores).split("\n\n")
    assert [len(part.splitlines()) for part in (first, second)] == [3, 4]
    (tmp_path / "s.json").unlink()
    monkeypatch.setattr(evaluate_shift, "nats", lambda *_, **__: 1 / 0)  # everything was judged
    again = evaluate(tiny_model, tmp_path / "s.json", 2, **options)
    assert again["beside"]["sensor"]["own"] == found["own"]
