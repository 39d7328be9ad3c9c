"""Lightning's trainer as the recipes use it: our checkpoints, nothing of its own on disk or screen."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import lightning as L
import torch

from counterpoint.diffusion.checkpoints import SafetensorsIO
from counterpoint.diffusion.pipeline import fast_bf16


def make_trainer(
    device: torch.device, steps: int, clip: float, callbacks: list[L.Callback], bf16: bool = True
) -> L.Trainer:
    """A trainer of `steps` steps on one device.

    Args:
        device: where to train.
        steps: of the whole run, over all its starts.
        clip: largest gradient norm.
        callbacks: in Lightning's order.
        bf16: products in bfloat16 where the hardware is fast at them.
    """
    return L.Trainer(
        accelerator=device.type,
        devices=1,
        precision="bf16-mixed" if bf16 and fast_bf16(device) else "32-true",
        max_steps=steps,
        max_epochs=-1,
        gradient_clip_val=clip,
        callbacks=callbacks,
        plugins=[SafetensorsIO()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """No tips and no warnings about what is meant here: resuming by step, one worker, a loader of our own."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        try:
            yield
        finally:
            logger.setLevel(level)
