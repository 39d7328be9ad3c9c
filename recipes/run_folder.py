"""The run folder of a codec recipe: `checkpoint.safetensors` (weights, EMA, Adam moments; the counters are JSON in its
metadata) and `log.jsonl`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from counterpoint.diffusion.optimizer import MuonWithAdamW

MOMENTS = ("exp_avg", "exp_avg_sq", "step", "momentum_buffer")


@dataclass
class Progress:
    """The counters of a run: steps done, steps planned (0: not yet known), seconds so far, the budget planned for."""

    step: int = 0
    total: int = 0
    seconds: float = 0.0
    minutes: float = 0.0
    max_steps: int = 0


def save(
    run: Path, model: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write `checkpoint.safetensors` whole or not at all."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in averaged.state_dict().items()}
    for name, own in _states(model, optimizer):
        tensors |= {f"{key}.{name}": own[key] for key in MOMENTS if key in own}
    path = run / "checkpoint.safetensors"
    partial = path.with_suffix(".partial")
    save_file(
        {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()},
        partial,
        metadata={"progress": json.dumps(asdict(progress))},
    )
    os.replace(partial, path)


def load(run: Path, model: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Restore what `save` wrote, in place; a fresh `Progress` if there is no checkpoint."""
    path = run / "checkpoint.safetensors"
    if not path.exists():
        return Progress()
    with safe_open(path, framework="pt") as file:
        progress = Progress(**json.loads(file.metadata()["progress"]))
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (safe_open is no dict)
    for prefix, module in (("model.", model), ("ema.", averaged)):
        module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    device = next(model.parameters()).device
    for name, own in _states(model, optimizer):
        state = {key: tensors[f"{key}.{name}"] for key in MOMENTS if f"{key}.{name}" in tensors}
        own.update({key: value if key == "step" else value.to(device) for key, value in state.items()})
    return progress


def _states(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Name of every parameter with its optimizer's state, which is made where there is none yet."""
    flat, rest = {}, optimizer
    if isinstance(optimizer, MuonWithAdamW):
        flat, rest = dict(zip(map(id, optimizer.matrices), optimizer.flat, strict=True)), optimizer.adamw
    for name, parameter in model.named_parameters():
        if id(parameter) in flat and isinstance(optimizer, MuonWithAdamW):
            yield name, optimizer.muon.state[flat[id(parameter)]]
        else:
            yield name, rest.state[parameter]


def log(run: Path, record: dict) -> None:
    """Append one line to `log.jsonl`."""
    with (run / "log.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")


def trim_log(run: Path, step: int) -> None:
    """Forget the lines after the checkpoint: those steps are taken again."""
    path = run / "log.jsonl"
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if step and json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in lines))
