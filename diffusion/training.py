"""Training on cached latents with Lightning: the loss over a grid of noise levels, the data, exact resume.

Every random draw of a step comes from a generator keyed by (seed, step), and the order of the data from (seed, epoch),
so that the same command resumes with the same weights as a run that was never stopped.

Legend: `B` batch, `T` slots, `S` tokens, `C` channels, `L` text tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from ..backbones.transformer import CounterpointTransformer
from ..modalities.clip import ClipError
from ..modalities.codecs import SLOT_SECONDS
from .event_heads import EventHeads, event_bins
from .noise_levels import GridMixture, draw_grid
from .optimizer import MuonWithAdamW, block_matrices
from .process import Process, describe


@dataclass(frozen=True)
class LossSettings:
    """What is learned, and with which weight.

    Args:
        mixture: shares of the grids drawn.
        weights: weight of each modality's mean squared error.
        motion: extra weight of video tokens that differ from their mean over time (0: none).
        drop_text: share of clips trained without their prompt, for classifier-free guidance.
        drop_modality: share of batches trained with a random subset of the modality groups present.
        isolate: share of batches trained with cross-modal attention off, for isolation guidance.
        balance: weight of the load-balancing loss, if the network has experts.
        events: weight of the times of events, read from the tokens inside the network (`event_heads`); 0: not asked.
        process: what is noise and what is predicted; kept in the network's config unless it is flow and velocity.
    """

    mixture: GridMixture = field(default_factory=GridMixture)
    weights: Mapping[str, float] = field(
        default_factory=lambda: {"video": 2.0, "audio": 1.0, "accelerometer": 0.5, "gyroscope": 0.25, "force": 0.5}
    )
    motion: float = 1.0
    drop_text: float = 0.1
    drop_modality: float = 0.05
    isolate: float = 0.1
    balance: float = 0.01
    events: float = 0.0
    process: Process = field(default_factory=Process)


@dataclass(frozen=True)
class OptimizerSettings:
    """Muon for the matrices of the blocks, AdamW for the rest; warm-up, plateau, linear cool-down to zero."""

    lr: float = 1e-2
    adamw_lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 50  # steps
    cooldown: float = 0.3  # share of all steps
    clip: float = 1.0  # gradient norm

    def scale(self, step: int, steps: int) -> float:
        """Factor on both learning rates at a step of a run of `steps`."""
        up = min(1.0, (step + 1) / max(1, self.warmup))
        down = min(1.0, (steps - step) / max(1.0, self.cooldown * steps))
        return max(0.0, up * down)


class LatentClips(Dataset[dict[str, Any]]):
    """Cached latents and the states of their captions, read from the files of `cache_latents`.

    An item is asked for by (index, draw), the draw in [0, 1) choosing one of the clip's captions:
    `{"latents": {modality: [T, S, C]}, "text": [L, text_dim], "text_mask": [L]}`, and `"events"` `[T, BINS]` where the
    times of the clips' events are given.

    Args:
        folder: of the cache.
        events: of each clip, times in seconds.
    """

    def __init__(self, folder: Path | str, events: Sequence[Sequence[float]] | None = None) -> None:
        folder = Path(folder)
        for name in ("latents.safetensors", "text.safetensors", "captions.json"):
            if not (folder / name).is_file():
                raise ClipError(f"{folder / name}: no such file; the folder holds no cached latents")
        with safe_open(folder / "latents.safetensors", "pt") as file:
            self.latents = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        with safe_open(folder / "text.safetensors", "pt") as file:
            self.text, self.starts = file.get_tensor("states"), file.get_tensor("starts").tolist()
            self.length = int(file.get_tensor("length"))
        self.captions: list[list[int]] = json.loads((folder / "captions.json").read_text())["rows"]
        self.events: Tensor | None = None
        if events is not None:
            slots = next(iter(self.latents.values())).shape[1]
            self.events = torch.stack([event_bins(times, slots, SLOT_SECONDS) for times in events])  # [N, T, BINS]

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, key: tuple[int, float]) -> dict[str, Any]:
        index, draw = key
        rows = self.captions[index]
        row = rows[int(draw * len(rows))]
        said = self.text[self.starts[row] : self.starts[row + 1]].float()
        text = torch.nn.functional.pad(said, (0, 0, 0, self.length - len(said)))  # [L, text_dim]
        latents = {name: value[index].float() for name, value in self.latents.items()}
        item = {"latents": latents, "text": text, "text_mask": torch.arange(self.length) < len(said)}
        return item if self.events is None else {**item, "events": self.events[index]}


class KeyedBatches(Sampler[list[tuple[int, float]]]):
    """Batches of (index, draw) keyed by the seed and the epoch or the step; a run starts at any step."""

    def __init__(self, size: int, batch: int, seed: int, steps: int, start: int = 0) -> None:
        if batch > size:
            raise ClipError(f"batch: {batch} clips a step, but the data set holds {size}")
        self.size, self.batch, self.seed, self.steps, self.start = size, batch, seed, steps, start

    def __len__(self) -> int:
        return self.steps  # of the whole run: Lightning counts from the step that it resumed

    def __iter__(self) -> Iterator[list[tuple[int, float]]]:
        per_epoch = self.size // self.batch
        for step in range(self.start, self.steps):
            epoch, index = divmod(step, per_epoch)
            order = np.random.default_rng((self.seed, epoch)).permutation(self.size)
            draws = np.random.default_rng((self.seed, step, 1)).random(self.batch)
            chosen = order[index * self.batch : (index + 1) * self.batch]
            yield list(zip(chosen.tolist(), draws.tolist(), strict=True))


class JointTraining(L.LightningModule):
    """The training step: draw a grid, noise, predict what the process asks for, weigh the squared error.

    Args:
        transformer: the network; Lightning's checkpoint holds it under `transformer.`, and what is needed in training
            alone beside it.
        loss, optimizer: settings.
        steps: length of the whole run, for the learning rate.
        seed: keys every random draw, together with the step.
    """

    def __init__(
        self,
        transformer: CounterpointTransformer,
        loss: LossSettings,
        optimizer: OptimizerSettings,
        steps: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.transformer = transformer.train()
        self.loss, self.optimizer_settings, self.steps, self.seed = loss, optimizer, steps, seed
        self.groups = {m.name: m.group for m in transformer.modalities.values()}
        self.event_heads = EventHeads(transformer) if loss.events else None
        if not loss.process.is_default:
            transformer.register_to_config(process=describe(loss.process))

    def training_step(self, batch: dict[str, Any], _: int) -> Tensor:
        """Loss of one batch; the losses of the modalities are logged apart."""
        key = np.random.SeedSequence((self.seed, self.global_step)).generate_state(1)  # 32 bits: all a generator reads
        generator = torch.Generator().manual_seed(int(key[0]))
        losses = self.losses(batch, generator)
        weights = {**self.loss.weights, "balance": self.loss.balance, "events": self.loss.events}
        total = sum((weights.get(name, 1.0) * value for name, value in losses.items()), torch.zeros(()))
        self.log_dict({f"loss/{name}": value.detach() for name, value in losses.items()} | {"loss": total.detach()})
        return total

    def losses(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        """Mean squared error of the prediction over the unknown cells of each modality present.

        Beside them `balance`, the load-balancing loss (mean over blocks, 1 at best), if the network has experts, and
        `events`, the cross-entropy of the times of events, if they are asked for.
        """
        clean = self._present(batch["latents"], generator)
        first = next(iter(clean.values()))
        count, slots = first.shape[:2]
        grid = draw_grid(list(clean), count, slots, self.loss.mixture, generator)
        noise = {n: torch.randn(x.shape, generator=generator).to(x.device) for n, x in clean.items()}
        sigma = {name: level.to(first.device) for name, level in grid.sigma.items()}
        process = self.loss.process
        noised = {name: process.add_noise(x, noise[name], sigma[name]) for name, x in clean.items()}
        inputs = {name: process.scale_input(x, sigma[name]) for name, x in noised.items()}
        kept = torch.rand(count, 1, generator=generator) >= self.loss.drop_text  # [B, 1]
        mask = batch["text_mask"] & kept.to(first.device)
        isolate = bool(torch.rand((), generator=generator) < self.loss.isolate)
        routed: list[Tensor] = []
        with self._tokens() as tokens:
            predicted = self.transformer(inputs, sigma, batch["text"], mask, isolate=isolate, balance=routed)
        out = {}
        for name, x in clean.items():
            target = process.target(x, noise[name], sigma[name])
            error = (predicted[name].float() - target).square().mean(dim=-1)  # [B, T, S]
            weight = (~grid.known[name]).to(error)[..., None] * self._motion(name, x)  # [B, T, S]
            out[name] = (error * weight).sum() / weight.sum().clamp_min(1.0)
        if routed:
            out["balance"] = torch.stack(routed).mean()
        if self.event_heads is not None:
            layout = self.transformer.layout(clean)
            read = tokens[0].unflatten(1, (slots, -1))  # [B, T, S, D]
            out["events"] = self.event_heads.loss(read, layout, batch["events"].to(first.device))
        return out

    @contextmanager
    def _tokens(self) -> Iterator[list[Tensor]]:
        """A list that gets the packed tokens `[B, N, D]` which the event heads read, while the network runs within."""
        tokens: list[Tensor] = []
        if self.event_heads is None:
            yield tokens
            return
        block = self.transformer.transformer_blocks[self.event_heads.block]

        def keep(_block: nn.Module, _inputs: Any, output: Any) -> None:
            tokens.append(output)

        handle = block.register_forward_hook(keep)
        try:
            yield tokens
        finally:
            handle.remove()

    def _present(self, latents: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        groups = list(dict.fromkeys(self.groups[name] for name in latents))
        if len(groups) > 1 and torch.rand((), generator=generator) < self.loss.drop_modality:
            keep = int(torch.randint(1, len(groups), (), generator=generator))
            order = torch.randperm(len(groups), generator=generator)[:keep].tolist()
            groups = [groups[i] for i in order]
        return {name: value for name, value in latents.items() if self.groups[name] in groups}

    def _motion(self, name: str, clean: Tensor) -> Tensor:
        """Weights of mean 1 `[B, T, S]`: more where a token differs from its mean over time."""
        if self.groups[name] != "video" or self.loss.motion == 0.0:
            return torch.ones(clean.shape[:3], device=clean.device)
        moved = (clean - clean.mean(dim=1, keepdim=True)).square().mean(dim=-1)  # [B, T, S]
        weight = 1.0 + self.loss.motion * (moved / moved.mean().clamp_min(1e-6)).clamp_max(4.0)
        return weight / weight.mean()

    def configure_optimizers(self) -> Any:
        """Muon with AdamW, warm-up, plateau and cool-down by the step."""
        own = self.optimizer_settings
        optimizer = MuonWithAdamW(self, own.lr, own.adamw_lr, own.weight_decay, _of_blocks)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: own.scale(step, self.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _of_blocks(name: str, parameter: nn.Parameter) -> bool:
    return block_matrices(name.removeprefix("transformer."), parameter)


def loader(data: LatentClips, batch: int, seed: int, steps: int, start: int) -> DataLoader[dict[str, Any]]:
    """Batches `start … steps − 1` of a run, in the order that (seed, epoch) fixes."""
    sampler = KeyedBatches(len(data), batch, seed, steps, start)
    return DataLoader(data, batch_sampler=sampler, num_workers=0)  # pyright: ignore[reportArgumentType]
