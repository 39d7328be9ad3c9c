"""Lightning checkpoints without pickles (tensors in safetensors, the rest as JSON), EMA, and plain log files."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.utilities.exceptions import SIGTERMException
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


class SafetensorsIO(CheckpointIO):
    """Writes a checkpoint as one safetensors file whose metadata holds everything that is not a tensor."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes under a temporary name and renames: the file at `path` is always whole."""
        tensors: dict[str, Tensor] = {}
        structure = _pack(checkpoint, tensors)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".part")
        save_file(tensors, partial, metadata={"structure": json.dumps(structure)})
        os.replace(partial, path)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads what `save_checkpoint` wrote."""
        device = map_location if isinstance(map_location, (str, torch.device)) else "cpu"
        with safe_open(path, "pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return _unpack(json.loads(file.metadata()["structure"]), tensors)

    def remove_checkpoint(self, path: Any) -> None:
        """Deletes a checkpoint, if it is there."""
        Path(path).unlink(missing_ok=True)


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON's view of a nested value; tensors go to `tensors` and leave their number."""
    if isinstance(value, Tensor):
        tensors[str(len(tensors))] = value.detach().cpu().contiguous().clone()
        return {"tensor": len(tensors) - 1}
    if isinstance(value, dict):
        return {"dict": [[_pack(key, tensors), _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [_pack(item, tensors) for item in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"checkpoint: {type(value).__name__} is neither a tensor nor JSON")


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    kind, content = next(iter(value.items()))
    if kind == "tensor":
        return tensors[str(content)]
    if kind == "dict":
        return {_unpack(key, tensors): _unpack(item, tensors) for key, item in content}
    items = [_unpack(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items


class AveragedWeights(WeightAveraging):
    """Exponential moving average of the weights, with a warm-up: decay = min(decay, (1 + n) / (10 + n))."""

    def __init__(self, decay: float) -> None:
        def average(means: Any, values: Any, count: Tensor | int) -> None:
            own = min(decay, (1.0 + float(count)) / (10.0 + float(count)))
            torch._foreach_lerp_(list(means), list(values), 1.0 - own)  # pyright: ignore[reportPrivateImportUsage]

        super().__init__(multi_avg_fn=average, use_buffers=False)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leaves the trained weights where they are, so that a checkpoint made after the last step resumes exactly."""

    @property
    def average(self) -> Any:
        """The module with the averaged weights."""
        assert self._average_model is not None
        return self._average_model.module


class RunFolder(Callback):
    """Keeps a run's folder: `log.jsonl`, `checkpoint.safetensors`, and previews with the averaged weights.

    It stands behind `average` in the list of callbacks, so that what it saves has the average of the same step.

    Args:
        folder: of the run.
        average: the callback that holds the averaged weights.
        log_every, checkpoint_every, preview_every: in steps.
        preview: `preview(transformer, step)`, called with the averaged network, also before the first step.
        minutes: the run stops, with a checkpoint, after this wall-clock time in this process.
    """

    def __init__(
        self,
        folder: Path,
        average: AveragedWeights,
        log_every: int,
        checkpoint_every: int,
        preview_every: int,
        preview: Callable[[Any, int], None] | None = None,
        minutes: float = float("inf"),
    ) -> None:
        self.folder, self.average, self.preview, self.minutes = folder, average, preview, minutes
        self.log_every, self.checkpoint_every, self.preview_every = log_every, checkpoint_every, preview_every
        self.start = self.last = time.monotonic()

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint."""
        return self.folder / "checkpoint.safetensors"

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._trim_log(trainer.global_step)
        if trainer.global_step == 0:
            self._preview(0)
        self.start = self.last = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step % self.log_every == 0:
            now = time.monotonic()
            values = {key: round(float(value), 5) for key, value in trainer.callback_metrics.items()}
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            record = {"step": step, "seconds": round((now - self.last) / self.log_every, 4), "lr": rate, **values}
            with (self.folder / "log.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
            self.last = now
        if step % self.checkpoint_every == 0:
            trainer.save_checkpoint(self.checkpoint)
        if step % self.preview_every == 0:
            self._preview(step)
            self.last = time.monotonic()
        if time.monotonic() - self.start > 60 * self.minutes:
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.save_checkpoint(self.checkpoint)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, (KeyboardInterrupt, SIGTERMException)) and trainer.global_step > 0:
            trainer.save_checkpoint(self.checkpoint)

    def _trim_log(self, step: int) -> None:
        """Forgets the lines after the checkpoint: those steps are taken again."""
        path = self.folder / "log.jsonl"
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= step]
            path.write_text("".join(line + "\n" for line in kept))

    def _preview(self, step: int) -> None:
        if self.preview is not None:
            network = self.average.average.transformer.eval()
            with torch.no_grad():
                self.preview(network, step)
