"""The shared loop: 2 + 2 steps are 4, budget, schedule, EMA, signals, settings."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from counterpoint.modalities.clip import ClipError
from counterpoint.recipes import codec_training as C

SETTINGS = C.FitSettings(max_steps=4, warmup=2, log_every=1, checkpoint_every=100, lr=0.1)


def regression(stop_at: int | None = None, interrupt: int | None = None):
    """A linear model, noisy targets, and a loss that fails or is interrupted at a step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))

    def batch(step: int, draws: torch.Generator) -> torch.Tensor:
        if step == stop_at:
            raise RuntimeError("power cut")
        if step == interrupt:
            os.kill(os.getpid(), signal.SIGTERM)
        return torch.randn(5, 3, generator=draws)

    def loss(model: nn.Module, x: torch.Tensor, draws: torch.Generator):
        noise = torch.randn(5, 1, generator=draws)
        value = (model(x) - x.sum(1, keepdim=True) - 0.1 * noise).square().mean()
        return value, {"twice": 2 * value.item()}

    return model, loss, batch


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoint.safetensors")


@pytest.mark.parametrize("how", ["stop_at", "interrupt"])
def test_two_and_two_steps_are_four(tmp_path: Path, how: str):
    C.fit(*regression(), SETTINGS, tmp_path / "whole")
    error, at = (RuntimeError, 2) if how == "stop_at" else (KeyboardInterrupt, 1)
    with pytest.raises(error):
        C.fit(*regression(**{how: at}), SETTINGS, tmp_path / "parts")
    assert len((tmp_path / "parts" / "log.jsonl").read_text().splitlines()) == 2
    C.fit(*regression(), SETTINGS, tmp_path / "parts")
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    logs = [[json.loads(line) for line in (tmp_path / r / "log.jsonl").open()] for r in ("whole", "parts")]
    assert [r["step"] for r in logs[0]] == [1, 2, 3, 4]
    assert [(r["step"], r["loss"], r["lr"]) for r in logs[0]] == [(r["step"], r["loss"], r["lr"]) for r in logs[1]]


def test_a_finished_run_is_left_alone_and_more_steps_go_on(tmp_path: Path):
    C.fit(*regression(), SETTINGS, tmp_path)
    before = weights(tmp_path)
    C.fit(*regression(stop_at=4), SETTINGS, tmp_path)  # would raise if it took another step
    assert all(torch.equal(before[key], value) for key, value in weights(tmp_path).items())
    C.fit(*regression(), replace(SETTINGS, max_steps=6), tmp_path)
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["step"] == 6


def test_the_wall_clock_ends_a_run(tmp_path: Path):
    settings = C.FitSettings(minutes=0.01, log_every=1, checkpoint_every=20, measure=5)
    C.fit(*regression(), settings, tmp_path)
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == last["total"] > 5
    assert last["seconds"] < 3.0
    assert last["lr"] < settings.lr / 2  # decayed


def test_the_plan_follows_the_measured_speed():
    progress = C.Progress(step=10, seconds=5.0)
    C.plan(C.FitSettings(minutes=1.0), progress)
    assert progress.total == 120
    C.plan(C.FitSettings(minutes=1.0, max_steps=50), progress)
    assert progress.total == 50
    C.plan(C.FitSettings(minutes=0.01), progress)
    assert progress.total == 10  # never fewer than were taken


def test_learning_rate_warms_up_and_decays_to_zero():
    settings = C.FitSettings(lr=1.0, warmup=10)
    rates = [C.learning_rate(settings, step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(0.91)
    assert rates[50] == pytest.approx(0.5)
    assert rates[100] == 0.0


def test_ema_is_a_running_mean():
    model, mean = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    nn.init.constant_(mean.weight, 0.0)
    for _ in range(3):
        C.update_ema(mean, model, 0.5)
    assert mean.weight.item() == pytest.approx(0.875)


def test_previews_come_at_the_start_at_checkpoints_and_at_the_end(tmp_path: Path):
    seen: list[int] = []

    def preview(averaged: nn.Module, step: int) -> dict[str, float]:
        assert not averaged.training
        seen.append(step)
        return {"score": 1.0}

    C.fit(*regression(), replace(SETTINGS, max_steps=5, checkpoint_every=2), tmp_path, preview)
    assert seen == [0, 2, 4, 5]


def test_every_row_comes_once_an_epoch():
    seen = [int(i) for step in range(7) for i in C.batch_indices(10, 3, step, seed=1)]
    assert sorted(seen[:10]) == sorted(seen[10:20]) == list(range(10))
    assert seen[:10] != seen[10:20]


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path):
    model, _, batch = regression()
    with pytest.raises(FloatingPointError, match="step 0: the loss is nan"):
        C.fit(model, lambda m, x, g: (m(x).sum() * float("nan"), {}), batch, SETTINGS, tmp_path)


def test_other_settings_need_another_run_folder(tmp_path: Path):
    C.fit(*regression(), SETTINGS, tmp_path)
    with pytest.raises(ClipError, match=r"was started with lr=0.1, not 0.2"):
        C.fit(*regression(), replace(SETTINGS, lr=0.2), tmp_path)


def test_settings_from_the_command_line():
    settings, paths = C.parse_settings(SETTINGS, ["lr=3e-4", "betas=0.8,0.9", "data=a", "run=b", "seed=3"])
    assert (settings.lr, settings.betas, settings.seed) == (3e-4, (0.8, 0.9), 3)
    assert paths == {"data": Path("a"), "run": Path("b")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["minuts=3", "data=a", "run=b"], "minuts.*minutes"),
        (["lr=fast", "data=a", "run=b"], "'lr': 'fast' is not a number"),
        (["run=b"], "missing data"),
        (["--help", "data=a", "run=b"], "not a setting"),
    ],
)
def test_bad_settings_are_named(arguments: list[str], message: str):
    with pytest.raises(ValueError, match=message):
        C.parse_settings(SETTINGS, arguments)
