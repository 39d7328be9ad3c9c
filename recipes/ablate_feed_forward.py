"""The four feed-forwards at equal compute: one for all tokens, one a group, one a modality, token-routed experts.

    python -m counterpoint.recipes.ablate_feed_forward latents=RUN/latents out=docs/scores/feed_forward.json steps=2000
    python -m counterpoint.recipes.ablate_feed_forward table out=docs/scores/feed_forward.json

Each is the joint recipe's network, trained on the same cached latents for the same steps with the same batches, noise
and learning rates, and outside the feed-forwards from the same weights; in each a token passes as many hidden units.
The last clips are kept apart: every `evaluate_every` steps the averaged network predicts them at five noise levels, and
the noise is the same each time. Scores are written after each kind, curves are drawn beside them (`.png`), and a run
that was cut off goes on where it stood. `data=DATA` and `codecs=` make the latents where they are missing.
"""

from __future__ import annotations

import copy
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import default_collate

from counterpoint.backbones.transformer import FEED_FORWARDS, CounterpointTransformer, Modality
from counterpoint.diffusion.checkpoints import AveragedWeights, RunFolder, SafetensorsIO
from counterpoint.diffusion.given import group_of
from counterpoint.diffusion.pipeline import choose_device, choose_dtype, fast_bf16
from counterpoint.diffusion.training import JointTraining, LatentClips, LossSettings, OptimizerSettings, loader
from counterpoint.modalities.clip import ClipError
from counterpoint.modalities.codecs import GROUPS, Codecs
from counterpoint.modalities.text import TextEncoder
from counterpoint.recipes.evaluate_joint import commit, rounded, write_scores
from counterpoint.recipes.joint import ModelSettings, codecs_folder
from counterpoint.recipes.latents import cache_latents
from counterpoint.recipes.resumable import store_of
from counterpoint.recipes.settings import SettingsError, override, to_dict
from counterpoint.recipes.trainer import make_trainer, quiet_lightning

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)  # σ of all cells of a held-out clip
FREE = ("codecs", "kinds", "checkpoint_every", "log_every", "device")  # may change between two starts
NAMES = {"shared": "shared", "per_group": "per group", "per_modality": "per modality", "experts": "experts"}


@dataclass(frozen=True)
class Settings:
    """What decides the curves. `model.feed_forward` is set to each of `kinds` in turn."""

    codecs: str = "joint"  # of the data, where the latents are not cached yet
    kinds: tuple[str, ...] = FEED_FORWARDS
    model: ModelSettings = field(default_factory=ModelSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    steps: int = 2000
    batch: int = 16
    ema: float = 0.99
    seed: int = 0
    held_out: int = 128  # clips
    evaluate_every: int = 100
    checkpoint_every: int = 100
    log_every: int = 10
    device: str = "auto"


def ablate(settings: Settings, latents: Path, out: Path, work: Path, data: Path | None = None) -> dict[str, Any]:
    """The scores of all kinds, written to `out` and drawn after each of them.

    Args:
        settings: what is trained.
        latents: a cache, such as `RUN/latents` of the joint recipe; made from `data` where it isn't there.
        out: scores; what it holds of the same settings is kept.
        work: the runs.

    Raises:
        ClipError: no latents, too few clips, an unknown kind, or `out` holds the scores of other settings.
    """
    if unknown := [kind for kind in settings.kinds if kind not in FEED_FORWARDS]:
        raise ClipError(f"kinds: {', '.join(unknown)}; known are {', '.join(FEED_FORWARDS)}")
    if data is not None and not (latents / "captions.json").is_file():
        dtype = choose_dtype("auto", choose_device("cpu"))
        codecs = Codecs.from_pretrained(codecs_folder(settings.codecs), dtype=dtype)
        cache_latents(data, codecs, TextEncoder(), latents)
    clips = LatentClips(latents)
    if len(clips) < settings.held_out + settings.batch:
        raise ClipError(f"{latents}: {len(clips)} clips are less than held_out={settings.held_out} and a batch")
    decisive = {key: value for key, value in to_dict(settings).items() if key not in FREE}
    facts = json.loads(json.dumps(rounded({**decisive, "clips": len(clips), "levels": LEVELS})))
    scores = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {**facts, "feed_forwards": {}}
    for key, value in facts.items():
        if scores.get(key) != value:
            raise ClipError(f"{out}: {key} is {scores.get(key)!r} there and {value!r} here; name another file")
    runs = store_of(work, out.stem, facts).folder
    for kind in settings.kinds:
        if kind not in scores["feed_forwards"]:
            scores["feed_forwards"][kind] = train_kind(kind, settings, clips, runs / kind)
            write_scores({**scores, "commit": commit()}, out)
        draw(scores, out.with_suffix(".png"))
    return scores


def build(kind: str, settings: Settings, clips: LatentClips) -> CounterpointTransformer:
    """The network of a kind; outside the feed-forwards all kinds begin with the same weights."""
    names = sorted(clips.latents, key=lambda name: GROUPS.index(group_of(name)))  # groups in a row: fewer products
    shapes = {name: clips.latents[name].shape for name in names}  # [N, T, S, C]
    modalities = [Modality(name, shape[2], shape[3], group_of(name)) for name, shape in shapes.items()]
    model = settings.model

    def seeded(feed_forward: str) -> CounterpointTransformer:
        torch.manual_seed(settings.seed)
        return CounterpointTransformer(
            modalities=CounterpointTransformer.describe(modalities),
            width=model.width,
            depth=model.depth,
            heads=model.heads,
            text_dim=clips.text.shape[1],
            feed_forward=feed_forward,
            multiple=model.multiple,
            experts=model.experts,
            active=model.active,
        )

    network = seeded(kind)
    common = {name: value for name, value in seeded("shared").state_dict().items() if ".ff." not in name}
    network.load_state_dict(common, strict=False)
    return network


def active_parameters(network: CounterpointTransformer) -> int:
    """Of the network: those that one token passes, with all that lies outside the feed-forwards."""
    total = sum(p.numel() for name, p in network.named_parameters() if ".ff." not in name)
    blocks: Any = network.transformer_blocks
    for block in blocks:
        own = next(iter(block.ff.values()))
        experts = getattr(own, "experts", [])
        idle = sum(p.numel() for expert in list(experts)[getattr(own, "active", 0) :] for p in expert.parameters())
        total += sum(p.numel() for p in own.parameters()) - idle
    return total


def train_kind(kind: str, settings: Settings, clips: LatentClips, run: Path) -> dict[str, Any]:
    """Trains one kind, or goes on; its scores.

    Raises:
        ClipError: the training was interrupted.
    """
    run.mkdir(parents=True, exist_ok=True)
    device, average = choose_device(settings.device), AveragedWeights(settings.ema)
    network = build(kind, settings, clips)
    curve = Curve(run / "held_out.jsonl", clips, settings)
    folder = RunFolder(run, average, settings.log_every, settings.checkpoint_every, settings.evaluate_every, curve)
    resume = folder.checkpoint if folder.checkpoint.is_file() else None
    start = int(SafetensorsIO().load_checkpoint(resume)["global_step"]) if resume else 0
    if start < settings.steps:
        known = copy.copy(clips)
        known.captions = clips.captions[: -settings.held_out]
        module = JointTraining(network, settings.loss, settings.optimizer, settings.steps, settings.seed)
        with quiet_lightning():
            trainer = make_trainer(device, settings.steps, settings.optimizer.clip, [average, folder])
            batches = loader(known, settings.batch, settings.seed, settings.steps, start)
            trainer.fit(module, batches, ckpt_path=resume, weights_only=False)
    saved = SafetensorsIO().load_checkpoint(folder.checkpoint)  # its `state_dict` holds the averaged weights
    if saved["global_step"] < settings.steps:
        raise ClipError(f"{run}: stopped at step {saved['global_step']}; the same command goes on")
    if settings.steps not in curve.points():
        network.load_state_dict({n.removeprefix("transformer."): v for n, v in saved["state_dict"].items()})
        torch.nn.Module.to(network, device)
        curve(network.eval(), settings.steps)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return summary(network, curve.points(), log)


def summary(
    network: CounterpointTransformer, points: Mapping[int, Mapping[str, float]], log: Sequence[Mapping[str, float]]
) -> dict[str, Any]:
    """Size, speed and the curve of one kind: `held_out` at the end, `curve` with `steps` and a list a modality.

    `balance`, with experts alone, is the load-balancing loss over the last tenth of the log: 1 at best.
    """
    steps = sorted(points)
    balance = [line["loss/balance"] for line in log[-max(1, len(log) // 10) :] if "loss/balance" in line]
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "active_parameters": active_parameters(network),
        "seconds_per_step": statistics.median(line["seconds"] for line in log) if log else None,
        "held_out": dict(points[steps[-1]]),
        "curve": {"steps": steps, **{name: [points[step][name] for step in steps] for name in points[steps[-1]]}},
    } | ({"balance": statistics.mean(balance)} if balance else {})


class Curve:
    """Called with a network and a step: its losses on the held-out clips as a line of a file.

    Args:
        path: of the file; a step that is taken again replaces its line.
        clips: the last `settings.held_out` of them are judged.
    """

    def __init__(self, path: Path, clips: LatentClips, settings: Settings) -> None:
        self.path, self.clips, self.settings = path, clips, settings

    def __call__(self, network: CounterpointTransformer, step: int) -> None:
        losses = held_out_losses(network, self.clips, self.settings)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **losses}) + "\n")

    def points(self) -> dict[int, dict[str, float]]:
        """`{step: {modality: loss}}`."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        return {line.pop("step"): line for line in map(json.loads, lines)}


@torch.no_grad()
def held_out_losses(network: CounterpointTransformer, clips: LatentClips, settings: Settings) -> dict[str, float]:
    """Mean squared error of the prediction over `LEVELS`, by modality, with the same noise at every call."""
    rows, totals = range(len(clips) - settings.held_out, len(clips)), dict.fromkeys(clips.latents, 0.0)
    process, device = settings.loss.process, network.device
    for first in rows[:: settings.batch]:
        chosen = range(first, min(first + settings.batch, rows.stop))
        batch = default_collate([clips[(row, 0.0)] for row in chosen])
        text, mask = batch["text"].to(device), batch["text_mask"].to(device)
        for place, level in enumerate(LEVELS):
            draws = torch.Generator().manual_seed(first * len(LEVELS) + place)
            clean: dict[str, Tensor] = batch["latents"]
            noise = {n: torch.randn(x.shape, generator=draws) for n, x in clean.items()}
            sigma = {n: torch.full(x.shape[:2], level) for n, x in clean.items()}
            noised = {n: process.add_noise(x, noise[n], sigma[n]) for n, x in clean.items()}
            inputs = {n: process.scale_input(x, sigma[n]).to(device) for n, x in noised.items()}
            with torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16(device)):
                said = network(inputs, {n: s.to(device) for n, s in sigma.items()}, text, mask)
            for name, x in clean.items():
                error = said[name].float().cpu() - process.target(x, noise[name], sigma[name])
                totals[name] += float(error.square().mean()) * len(chosen)
    return {name: total / (len(rows) * len(LEVELS)) for name, total in totals.items()}


def draw(scores: Mapping[str, Any], path: Path) -> None:
    """The curves as a PNG: a panel for each modality, a line for each kind, from the second point on."""
    kinds = scores["feed_forwards"]
    names = list(next(iter(kinds.values()))["held_out"])
    figure = Figure(figsize=(3.6 * len(names), 3.4), layout="constrained")
    for column, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), column + 1)
        for kind, found in kinds.items():
            axes.plot(found["curve"]["steps"][1:], found["curve"][name][1:], label=NAMES[kind], linewidth=1.4)
        axes.set_title(name)
        axes.set_xlabel("steps")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("loss of held-out clips")
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=90)


def table(scores: Mapping[str, Any]) -> str:
    """The scores as a table in Markdown."""
    return "\n".join(_rows(scores["feed_forwards"]))


def _rows(kinds: Mapping[str, Any]) -> Iterator[str]:
    names = list(next(iter(kinds.values()))["held_out"])
    yield f"| feed-forward | parameters | a token passes | seconds a step | {' | '.join(names)} |"
    yield "|---" * (4 + len(names)) + "|"
    for kind, found in kinds.items():
        sizes = [f"{found[key] / 1e6:.2f} M" for key in ("parameters", "active_parameters")]
        cells = [*sizes, f"{found['seconds_per_step']:.3g}", *(f"{found['held_out'][name]:.4f}" for name in names)]
        yield f"| {NAMES[kind]} | {' | '.join(cells)} |"


def main(arguments: Sequence[str]) -> None:
    """`latents=FOLDER out=OUT.json [data=FOLDER work=FOLDER] key=value …`, or `table out=OUT.json`."""
    pairs = [argument.partition("=") for argument in arguments if argument != "table"]
    paths = {key: Path(text) for key, _, text in pairs if key in ("data", "latents", "out", "work")}
    if missing := ({"out"} if "table" in arguments else {"latents", "out"}) - set(paths):
        raise ClipError(f"missing {' and '.join(sorted(missing))}: give {' '.join(f'{m}=…' for m in sorted(missing))}")
    if "table" in arguments:
        scores = json.loads(paths["out"].read_text(encoding="utf-8"))
    else:
        settings = override(Settings(), ["".join(pair) for pair in pairs if pair[0] not in paths])
        work = paths.get("work", Path("runs/feed_forward"))
        scores = ablate(settings, paths["latents"], paths["out"], work, paths.get("data"))
    print(table(scores))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ClipError, SettingsError) as error:
        sys.exit(f"error: {error}")
