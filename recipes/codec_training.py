"""What the codec recipes share: one training loop with a wall-clock budget, EMA and exact resume.

`fit` owns the order of things and nothing else: a batch and a random generator are keyed by (seed, step), so the run
that was stopped and started again by the same command takes the same steps as the one that was not.
A run folder holds `settings.json`, `log.jsonl` and `checkpoint.safetensors` (weights, EMA, Adam moments; the counters
are JSON in its metadata).
"""

from __future__ import annotations

import copy
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from counterpoint.diffusion.optimizer import MuonWithAdamW, kernels
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes.run_folder import Progress, load, log, save, trim_log
from counterpoint.recipes.settings import override

FREE = ("minutes", "max_steps", "checkpoint_every", "log_every")  # may change between two starts of one run


@dataclass(frozen=True)
class FitSettings:
    """How long and how fast to train; recipes subclass it and add what is theirs."""

    minutes: float = 10.0  # wall clock, over all starts of the run
    max_steps: int = 1_000_000  # whichever of the two comes first
    batch: int = 16
    lr: float = 1e-3  # of AdamW
    muon: float = 0.0  # learning rate of Muon, which then trains all kernels; 0: AdamW trains everything
    warmup: int = 50  # steps
    measure: int = 10  # steps timed before the number of steps that fit the budget is first estimated
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0  # gradient norm
    ema: float = 0.998
    checkpoint_every: int = 200  # steps; the estimate of the budget is renewed at the same time
    log_every: int = 20
    seed: int = 0


S = TypeVar("S", bound=FitSettings)
Batch = Callable[[int, torch.Generator], Any]
Loss = Callable[[nn.Module, Any, torch.Generator], tuple[Tensor, dict[str, float]]]


def generator(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step: a fresh CPU generator keyed by (seed, step)."""
    state = int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state >> 1)


def batch_indices(count: int, batch: int, step: int, seed: int) -> np.ndarray:
    """The rows of step `step`: epochs are permutations keyed by (seed, epoch), the last incomplete batch wraps over.

    Returns: int64 [batch]
    """
    places = np.arange(step * batch, (step + 1) * batch)
    epochs = {e: np.random.default_rng((seed, e)).permutation(count) for e in np.unique(places // count).tolist()}
    return np.array([epochs[int(p) // count][int(p) % count] for p in places])


def learning_rate(settings: FitSettings, step: int, total: int) -> float:
    """Linear warm-up times linear decay to zero at `total` steps."""
    return settings.lr * min(1.0, (step + 1) / max(settings.warmup, 1)) * max(1.0 - step / total, 0.0)


def plan(settings: FitSettings, progress: Progress) -> None:
    """Set `total`, the number of steps that fit the budget at the speed so far."""
    progress.minutes, progress.max_steps = settings.minutes, settings.max_steps
    affordable = int(settings.minutes * 60 / (progress.seconds / progress.step))
    progress.total = max(min(settings.max_steps, affordable), progress.step)


def fit(
    model: nn.Module,
    loss: Loss,
    batch: Batch,
    settings: FitSettings,
    run: Path,
    preview: Callable[[nn.Module, int], dict[str, float] | None] | None = None,
) -> nn.Module:
    """Train `model` within the budget and return its EMA copy, in eval mode.

    Args:
        loss: `loss(model, batch, generator) -> (scalar, {name: number})`.
        batch: `batch(step, generator) -> anything`.
        run: the run folder; if it holds a checkpoint the run goes on from there.
        preview: `preview(ema model, step) -> numbers for the log`; at step 0, at every checkpoint and at the end.

    Raises:
        ClipError: the run folder was started with other settings.
        FloatingPointError: the loss is not finite (the checkpoint of the last good step is kept).
        KeyboardInterrupt: SIGINT or SIGTERM came; the step was finished and saved first.
    """
    run.mkdir(parents=True, exist_ok=True)
    _check_settings(settings, run)
    averaged = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = make_optimizer(model, settings)
    progress = load(run, model, averaged, optimizer)
    if progress.total and (progress.minutes, progress.max_steps) != (settings.minutes, settings.max_steps):
        plan(settings, progress)  # the budget was changed between two starts
    trim_log(run, progress.step)
    saved = progress.step if progress.step else -1
    with _deferred_signals() as stopped:
        try:
            while progress.step < (progress.total or settings.max_steps):
                start = time.perf_counter()
                if preview is not None and progress.step == 0:
                    log(run, {"step": 0, **(preview(averaged, 0) or {})})
                    start = time.perf_counter()  # the first preview is not a step
                record = _step(model, averaged, optimizer, loss, batch, settings, progress)
                progress.step += 1
                progress.seconds += time.perf_counter() - start
                start = time.perf_counter()
                due = progress.step % settings.checkpoint_every == 0
                if due or (not progress.total and progress.step >= settings.measure):
                    plan(settings, progress)
                last = progress.step == (progress.total or settings.max_steps)
                if last or progress.step % settings.log_every == 0:
                    log(run, {"step": progress.step, "total": progress.total, **_seconds(progress), **record})
                if due or last:
                    if preview is not None:
                        log(run, {"step": progress.step, **(preview(averaged, progress.step) or {})})
                    progress.seconds += time.perf_counter() - start
                    save(run, model, averaged, optimizer, progress)
                    saved = progress.step
                if stopped:
                    raise KeyboardInterrupt(f"stopped at step {progress.step}; the same command goes on from there")
        finally:
            if progress.step != saved and progress.step:
                save(run, model, averaged, optimizer, progress)
    return averaged


def make_optimizer(model: nn.Module, settings: FitSettings) -> torch.optim.Optimizer:
    """AdamW, or Muon on the kernels with AdamW on the rest; each group keeps its own full rate in `peak`."""
    if settings.muon > 0.0:
        optimizer = MuonWithAdamW(model, settings.muon, settings.lr, settings.weight_decay, kernels)
    else:
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay
        )
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    return optimizer


def _step(model, averaged, optimizer, loss: Loss, batch: Batch, settings: FitSettings, progress: Progress) -> dict:
    draws = generator(settings.seed, progress.step)
    rate = learning_rate(settings, progress.step, progress.total or settings.max_steps)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * rate / settings.lr
    model.train()
    optimizer.zero_grad(set_to_none=True)
    value, numbers = loss(model, batch(progress.step, draws), draws)
    if not torch.isfinite(value):
        raise FloatingPointError(f"step {progress.step}: the loss is {value.item()}")
    value.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
    optimizer.step()
    update_ema(averaged, model, min(settings.ema, (1 + progress.step) / (10 + progress.step)))
    return {"loss": value.item(), "lr": rate, "norm": float(norm), **numbers}


@torch.no_grad()
def update_ema(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    """ema ← decay·ema + (1 − decay)·weights; buffers are copied."""
    for mean, value in zip(averaged.parameters(), model.parameters(), strict=True):
        mean.lerp_(value, 1.0 - decay)
    for mean, value in zip(averaged.buffers(), model.buffers(), strict=True):
        mean.copy_(value)


def parse_settings(settings: S, arguments: list[str]) -> tuple[S, dict[str, Path]]:
    """`key=value …` over a preset; `data=` and `run=` come back as paths.

    Raises:
        SettingsError: an unknown key (names the nearest known one), or a value of the wrong type.
        ClipError: `data=` or `run=` is missing.
    """
    pairs = [argument.partition("=") for argument in arguments]
    paths = {key: Path(text) for key, _, text in pairs if key in ("data", "run")}
    if missing := {"data", "run"} - set(paths):
        raise ClipError(f"missing {' and '.join(sorted(missing))}: give {' '.join(f'{m}=FOLDER' for m in missing)}")
    return override(settings, ["".join(pair) for pair in pairs if pair[0] not in paths]), paths


def _check_settings(settings: FitSettings, run: Path) -> None:
    path, now = run / "settings.json", json.loads(json.dumps(asdict(settings)))
    before = json.loads(path.read_text()) if path.exists() else now
    for key in sorted(set(before) | set(now)):
        if key not in FREE and before.get(key) != now.get(key):
            raise ClipError(f"{run}: was started with {key}={before.get(key)}, not {now.get(key)}; use another run=")
    path.write_text(json.dumps(now, indent=1) + "\n")


def _seconds(progress: Progress) -> dict[str, float]:
    return {"seconds": round(progress.seconds, 2)}


@contextmanager
def _deferred_signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM wait for the end of the step: the list gets the signal's number."""
    caught: list[int] = []
    try:
        old = {s: signal.signal(s, lambda number, _: caught.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: signals go elsewhere
        old = {}
    try:
        yield caught
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
