"""Train the classifier of noised latents that classifier guidance asks: settings → latents → model → train → save.

    counterpoint train classifier data=DATA codecs=joint run=runs/classifier

`DATA` is a folder of arrays whose clips state attributes (`counterpoint data physics DATA`). Every batch is noised like
a training batch of the model: each clip its own grid of levels, from clean to pure noise. The last clips are kept
apart; `log.jsonl` says how often they are read right at four levels. The same command goes on where it stopped.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from counterpoint.backbones.classifier import LatentClassifier
from counterpoint.backbones.transformer import CounterpointTransformer, Modality
from counterpoint.data.arrays import read_arrays
from counterpoint.diffusion.noise_levels import GridMixture, draw_grid
from counterpoint.diffusion.pipeline import choose_device, choose_dtype, fast_bf16
from counterpoint.diffusion.process import add_noise
from counterpoint.diffusion.training import LatentClips
from counterpoint.modalities.clip import ClipError
from counterpoint.modalities.codecs import Codecs
from counterpoint.modalities.text import TextEncoder
from counterpoint.recipes.codec_training import FitSettings, batch_indices, fit
from counterpoint.recipes.joint import codecs_folder
from counterpoint.recipes.latents import cache_latents

LEVELS = (0.1, 0.4, 0.7, 0.9)  # σ at which the held-out clips are read


@dataclass(frozen=True)
class Settings(FitSettings):
    """What a run depends on; the rest of the fields are those of `FitSettings`."""

    codecs: str = "joint"  # a folder with the codecs, or a shipped model whose codecs are taken
    latents: str = ""  # a finished cache of these data and codecs, such as RUN/latents of the joint recipe
    minutes: float = 20.0
    batch: int = 32
    lr: float = 2e-3
    muon: float = 0.02
    ema: float = 0.99
    width: int = 64
    depth: int = 3
    heads: int = 2
    mixture: GridMixture = field(
        default_factory=lambda: GridMixture(per_modality=0.2, clean_rows=0.1, clean_segment=0.1, uniform=0.5)
    )
    drop_modality: float = 0.2  # share of batches with some of the modality groups only
    held_out: int = 256


def tiny() -> Settings:
    """For tests: seconds."""
    return Settings(width=64, depth=1, heads=1, batch=4, max_steps=4, warmup=1, held_out=2, log_every=1)


def small() -> Settings:
    """What ships."""
    return Settings()


class Labelled:
    """Cached latents `{modality: [N, T, S, C]}` with the class numbers of each clip's attributes."""

    def __init__(self, settings: Settings, data: Path, run: Path) -> None:
        codecs = Codecs.from_pretrained(
            codecs_folder(settings.codecs), dtype=choose_dtype("auto", choose_device("cpu"))
        )
        folder = Path(settings.latents) if settings.latents else run / "latents"
        self.latents = LatentClips(cache_latents(data, codecs, TextEncoder(), folder)).latents
        self.modalities = CounterpointTransformer.describe([Modality(n, *s) for n, s in codecs.shapes().items()])
        self.attributes = [entry.get("attributes", {}) for entry in read_arrays(data).entries]
        if len(self.attributes) <= settings.held_out:
            raise ClipError(f"{data}: {len(self.attributes)} clips; more than held_out={settings.held_out} are needed")
        if not any(self.attributes):
            raise ClipError(f"{data / 'clips.json'}: no clip states attributes, which a classifier learns")
        self.groups = {m["name"]: m["group"] for m in self.modalities}

    def classes(self) -> dict[str, list[str]]:
        """The values of every attribute that has at least two, sorted."""
        names = dict.fromkeys(name for row in self.attributes for name in row)
        found = {n: sorted({str(row[n]) for row in self.attributes if row.get(n) is not None}) for n in names}
        return {name: values for name, values in found.items() if len(values) > 1}

    def rows(self, rows: Any) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        """Latents of some clips, float32, and what they state."""
        return {n: x[rows].float() for n, x in self.latents.items()}, [self.attributes[int(row)] for row in rows]


def loss(
    model: LatentClassifier, batch: tuple[dict[str, Tensor], list], draws: torch.Generator, settings: Settings,
    groups: dict[str, str],
) -> tuple[Tensor, dict[str, float]]:  # fmt: skip
    """Cross-entropy summed over the attributes, of latents noised on a random grid."""
    clean, attributes = batch
    present = sorted(set(groups.values()))
    if len(present) > 1 and torch.rand((), generator=draws) < settings.drop_modality:
        keep = int(torch.randint(1, len(present), (), generator=draws))
        chosen = {present[i] for i in torch.randperm(len(present), generator=draws)[:keep].tolist()}
        clean = {name: x for name, x in clean.items() if groups[name] in chosen}
    first = next(iter(clean.values()))
    grid = draw_grid(list(clean), len(first), first.shape[1], settings.mixture, draws)
    noised = {n: add_noise(x, torch.randn(x.shape, generator=draws), grid.sigma[n]) for n, x in clean.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast_bf16(torch.device("cpu"))):
        said = model(noised, grid.sigma)
    targets = model.targets(attributes)
    losses = {
        a: functional.nll_loss(p, targets[a], ignore_index=-1) for a, p in said.items() if (targets[a] >= 0).any()
    }
    return torch.stack(list(losses.values())).sum(), {f"loss_{a}": value.item() for a, value in losses.items()}


@torch.no_grad()
def validate(model: LatentClassifier, data: Labelled, held_out: int) -> dict[str, float]:
    """Share of the held-out clips whose attribute is read right, `{"material_0.4": …}` for each σ of `LEVELS`."""
    rows = range(len(data.attributes) - held_out, len(data.attributes))
    clean, attributes = data.rows(list(rows))
    targets, scores = model.targets(attributes), {}
    for level in LEVELS:
        draws = torch.Generator().manual_seed(0)
        sigma = {name: torch.full(x.shape[:2], level) for name, x in clean.items()}
        noised = {n: add_noise(x, torch.randn(x.shape, generator=draws), sigma[n]) for n, x in clean.items()}
        for attribute, said in model(noised, sigma).items():
            stated = targets[attribute] >= 0
            if stated.any():
                right = (said.argmax(-1) == targets[attribute])[stated].float().mean()
                scores[f"{attribute}_{level}"] = round(right.item(), 4)
    return scores


def train(settings: Settings, data: Path, run: Path) -> Path:
    """Train within the budget, or go on with `run`; the folder of the classifier (`run/classifier`, EMA, bf16).

    Raises:
        ClipError: the clips state no attributes, or are too few.
    """
    clips = Labelled(settings, data, run)
    torch.manual_seed(settings.seed)
    model = LatentClassifier(clips.modalities, clips.classes(), settings.width, settings.depth, settings.heads)
    count = len(clips.attributes) - settings.held_out
    averaged = fit(
        model,
        lambda m, batch, draws: loss(cast(LatentClassifier, m), batch, draws, settings, clips.groups),
        lambda step, _: clips.rows(batch_indices(count, settings.batch, step, settings.seed)),
        settings,
        run,
        lambda m, _: validate(cast(LatentClassifier, m), clips, settings.held_out),
    )
    classifier = cast(LatentClassifier, averaged)
    scores = validate(classifier, clips, settings.held_out)
    torch.nn.Module.to(classifier, torch.bfloat16)
    classifier.save_pretrained(run / "classifier")
    (run / "classifier" / "scores.json").write_text(
        json.dumps({"held_out": settings.held_out, **scores}, indent=1) + "\n"
    )
    return run / "classifier"
