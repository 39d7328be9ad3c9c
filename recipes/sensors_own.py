"""Train on your own recordings: table → windows with masks → network → train → save; called by `sensors.train`.

    counterpoint train sensors data=my.csv time=timestamp group=subject label=activity length=64 run=runs/walks

With `text=caption` a column of sentences is a condition too. Cells without a sample are not learned and reach the
network as zeros, marked as such. In part of the windows a beginning, all but a gap, scattered samples or whole channels
are given, so that the same network forecasts and fills gaps.

Legend: `B` batch, `L` steps of a window, `T` slots, `C` channels, `P` steps of a patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from counterpoint.backbones.transformer import CounterpointTransformer
from counterpoint.data.series_captions import CHANNELS, SentenceStates, room
from counterpoint.data.series_table import Recording, SeriesTable, read_series
from counterpoint.data.series_windows import Scale, Windows, split_groups
from counterpoint.diffusion.noise_levels import draw_grid
from counterpoint.diffusion.training import JointTraining
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes.sensors import fit, patch_of, sampling
from counterpoint.recipes.sensors_own_generator import Conditions, RecordingGenerator, modalities_of, predict, to_cells

if TYPE_CHECKING:
    from counterpoint.recipes.sensors import Settings

GIVEN = (0.4, 0.2, 0.15, 0.15, 0.1)  # shares of windows where: nothing, a beginning, all but a gap, scattered samples,
# whole channels are given


class RecordingBatches(Dataset[dict[str, Any]]):
    """Whole batches of windows by their keys `[(row, draw), …]`: `values`, `mask` `[B, L, C]`, `text`, `text_mask`.

    Args:
        captions: the sentences, where the model reads some; the windows' last label is then the place of theirs.
    """

    def __init__(self, windows: Windows, scale: Scale, conditions: Conditions, captions: Sequence[str] = ()) -> None:
        self.windows, self.scale, self.conditions = windows, scale, conditions
        self.said = SentenceStates()([*captions, ""])  # code −1 is the empty one

    def __getitem__(self, keys: Sequence[tuple[int, float]]) -> dict[str, Any]:
        batch = self.windows.batch([row for row, _ in keys], self.scale)
        said = [self.said[code] for code in batch.labels[:, -1]] if self.conditions.text else None
        text, text_mask = self.conditions.states(batch.labels, batch.static, said)
        values, mask = torch.from_numpy(batch.values), torch.from_numpy(batch.mask)
        return {"values": values, "mask": mask, "text": text, "text_mask": text_mask, "parts": self.conditions.parts}


class RecordingTraining(JointTraining):
    """`JointTraining` of windows with a mask: what was not measured is not learned, what is given is not noised."""

    def losses(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        """The mean squared error over the samples that were measured and are not given, as one loss."""
        patch = next(iter(self.transformer.modalities.values())).channels // 4
        given = draw_given(batch["mask"].cpu(), generator).to(batch["mask"].device)
        clean, mask, has = (to_cells(x, patch) for x in (batch["values"], batch["mask"], given))  # [B, T, C, P]
        wanted = mask & ~has
        grid = draw_grid(["sensor"], len(clean), clean.shape[1], self.loss.mixture, generator)
        sigma = grid.sigma["sensor"].to(clean.device)  # [B, T]
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        process = self.loss.process
        noised = process.scale_input(process.add_noise(clean, noise, sigma), sigma)
        told = batch["text_mask"] & self._kept(len(clean), batch["parts"].cpu(), generator).to(clean.device)
        said = predict(self.transformer, noised, wanted, clean, has, sigma, batch["text"], told)
        error = torch.where(wanted, said - process.target(clean, noise, sigma), torch.zeros_like(said)).square()
        return {"sensor": error.sum() / wanted.sum().clamp_min(1)}

    def _kept(self, count: int, parts: Tensor, generator: torch.Generator) -> Tensor:
        """The tokens `[B, K]` that are told: a share of the windows has none, others lose single conditions."""
        whole = torch.rand(count, 1, generator=generator) >= self.loss.drop_text
        each = torch.rand(count, int(parts.max()) + 1, generator=generator) >= self.loss.drop_text
        return (whole & each)[:, parts]


def draw_given(mask: Tensor, generator: torch.Generator) -> Tensor:
    """Which of the measured samples `[B, L, C]` are given, by `GIVEN`, on the CPU."""
    count, length, channels = mask.shape
    kind = torch.multinomial(torch.tensor(GIVEN), count, replacement=True, generator=generator)[:, None, None]
    time = ((torch.arange(length) + 0.5) / length)[None, :, None]
    ends = torch.rand(count, 2, generator=generator).sort(dim=1).values[:, :, None, None]  # [B, 2, 1, 1]
    share = torch.rand(count, 1, 1, generator=generator)
    choices = (
        time < share,
        (time < ends[:, 0]) | (time >= ends[:, 1]),
        torch.rand(count, length, channels, generator=generator) < share,
        torch.rand(count, 1, channels, generator=generator) < share,
    )
    given = torch.zeros_like(mask)
    for number, choice in enumerate(choices, start=1):
        given |= (kind == number) & choice
    return given & mask


def train_own(settings: Settings, data: Path | None, run: Path) -> Path:
    """Trains on a table, or goes on; the folder of the `RecordingGenerator`.

    Args:
        settings: with `time`, and what else of `group`, `label`, `text`, `static`, `drop`, `rate`, `stride`, `hold` is
            wanted.
        data: `.csv`, `.parquet` or `.npz`.
        run: the run folder.

    Raises:
        ClipError: what `read_series`, `split_groups` and `Windows` say of the table.
    """
    if data is None:
        raise ClipError("data: none given; time= is a column of a table of your own, data=my.csv")
    table = read_series(
        data,
        settings.time,
        settings.group,
        (*settings.label, *([settings.text] if settings.text else [])),
        settings.static,
        settings.drop,
        settings.rate,
        settings.repeats,
    )
    kept = split_groups(table.recordings, hold=settings.hold)[0] if settings.hold else list(table.recordings)
    scale = Scale.fit(kept, table.channels)
    windows = Windows(kept, settings.length, settings.stride)
    conditions, captions = told_by(table, kept, bool(settings.text))
    facts = {
        "length": settings.length, "patch": patch_of(settings), "step": table.step, "time": table.time,
        "dates": table.dates, "windows": len(windows), "held": list(settings.hold), "group": settings.group,
        "dropped": table.dropped, **sampling(settings),
        "trained": list(dict.fromkeys(own.group for own in kept)),
        "stride": settings.stride, "drop": list(settings.drop), "repeats": settings.repeats,
    }  # fmt: skip

    def save(transformer: CounterpointTransformer) -> Path:
        return RecordingGenerator(scale, conditions, transformer, facts).save_pretrained(run / "model")

    settings = replace(settings, batch=min(settings.batch, len(windows)))
    network = build_network(settings, len(table.channels), conditions)
    batches = RecordingBatches(windows, scale, conditions, captions)
    return fit(settings, run, network, RecordingTraining, batches, len(windows), save)


def told_by(table: SeriesTable, kept: Sequence[Recording], text: bool) -> tuple[Conditions, tuple[str, ...]]:
    """The conditions of a table, and with `text` the sentences of its last column of labels."""
    if not text:
        return conditions_of(kept, table.classes, table.statics), ()
    name, captions = list(table.classes.items())[-1]
    if not captions:
        raise ClipError(f"{table.path}: text={name}: no sentence in any row")
    classes = {label: own for label, own in table.classes.items() if label != name}
    told = conditions_of(kept, classes, table.statics)
    length = room(SentenceStates()(captions))
    return replace(told, text=name, text_dim=CHANNELS, text_length=length), captions


def conditions_of(
    recordings: Sequence[Recording], classes: dict[str, tuple[str, ...]] | Any, statics: Sequence[str]
) -> Conditions:
    """Classes, and the mean and deviation of each covariate over the groups; 0 and 1 where they say nothing."""
    each = {own.group: own.static for own in recordings}
    mean, std = [], []
    for k in range(len(statics)):
        values = np.array([own[k] for own in each.values()], np.float64)
        values = values[~np.isnan(values)]
        mean.append(float(values.mean()) if len(values) else 0.0)
        std.append(float(values.std()) if len(values) and values.std() > 0 else 1.0)
    return Conditions(dict(classes), tuple(statics), tuple(mean), tuple(std))


def build_network(settings: Settings, channels: int, conditions: Conditions) -> CounterpointTransformer:
    """The network for a table's channels, seeded; it says what process it was trained with when it trains."""
    torch.manual_seed(settings.seed)
    model = settings.model
    return CounterpointTransformer(
        modalities=CounterpointTransformer.describe(modalities_of(channels, patch_of(settings))),
        width=model.width,
        depth=model.depth,
        heads=model.heads,
        text_dim=conditions.dim,
        feed_forward=model.feed_forward,
        multiple=model.multiple,
        experts=model.experts,
        active=model.active,
    )
