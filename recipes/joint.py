"""Train the joint model: settings → data → codecs → latents → model → train → sample → save.

    counterpoint train joint preset=small data=DATA codecs=FOLDER run=runs/joint

`DATA` is a folder of arrays (`counterpoint data physics DATA`), `codecs` a folder with the four codecs (default: the
shipped model's). The same command goes on where it stopped; `start_from` begins with the weights of another model.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from counterpoint.backbones.transformer import CounterpointTransformer, Modality
from counterpoint.data.arrays import read_arrays
from counterpoint.diffusion.checkpoints import AveragedWeights, RunFolder, SafetensorsIO
from counterpoint.diffusion.pipeline import CounterpointPipeline, choose_device, choose_dtype, model_folder
from counterpoint.diffusion.training import JointTraining, LatentClips, LossSettings, OptimizerSettings, loader
from counterpoint.evaluation.events import clip_events
from counterpoint.modalities.clip import Clip, ClipError
from counterpoint.modalities.codecs import Codecs
from counterpoint.modalities.text import DEFAULT_ENCODER, TextEncoder
from counterpoint.recipes.grow import grow
from counterpoint.recipes.latents import cache_latents
from counterpoint.recipes.preview import Preview
from counterpoint.recipes.settings import from_json, to_json
from counterpoint.recipes.trainer import make_trainer, quiet_lightning

PREVIEW_PROMPTS = (
    "a small glass ball drops on a wooden floor and bounces",
    "a large metal block falls on a stone floor",
    "a medium rubber ball is thrown across a metal floor",
    "a large wooden rod is struck on a glass floor",
)


@dataclass(frozen=True)
class ModelSettings:
    """Size of the network."""

    width: int = 192
    depth: int = 6
    heads: int = 3
    feed_forward: str = "per_group"  # or shared, per_modality, experts
    multiple: int = 4
    experts: int = 8  # with feed_forward=experts: how many there are,
    active: int = 2  # and how many a token passes
    text_modulation: bool = False  # the prompt as a whole beside the noise level; `start_from`'s network gets it too


@dataclass(frozen=True)
class Settings:
    """What a run of the joint recipe depends on."""

    codecs: str = "joint"  # a folder with the codecs, or a shipped model whose codecs are taken
    start_from: str = ""  # a model (name or folder) whose network the training starts from; empty: from scratch
    text_encoder: str = DEFAULT_ENCODER
    text_length: int = 48  # tokens
    text_features: tuple[str, ...] = ("states",)  # any of states, words, numbers: `modalities/text.py`
    model: ModelSettings = field(default_factory=ModelSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    steps: int = 10_000  # of the whole run: the learning rate cools down towards it
    batch: int = 16
    ema: float = 0.996
    seed: int = 0
    minutes: float = math.inf  # stop, with a checkpoint, after this time; the same command goes on
    log_every: int = 20
    checkpoint_every: int = 200
    preview_every: int = 500
    prompts: tuple[str, ...] = PREVIEW_PROMPTS  # of the previews
    seconds: float = 2.56  # length of the data's clips: of previews, and what the model makes where nothing is said
    guidance: float = 2.0  # the model's own scale of classifier-free guidance
    # the model's own scale of isolation guidance, or scales by track, where it makes or hears more than one track
    isolation: float | Mapping[str, float] = field(default_factory=lambda: {"video": 5.0, "audio": 3.0, "sensor": 2.0})
    # the share of guidance and isolation along what is predicted already that is kept, or shares by track
    parallel: float | Mapping[str, float] = field(default_factory=lambda: {"video": 0.0, "audio": 0.0})
    obey: float = 0.0  # scale of the model's own guidance towards tempo, key and ending of a prompt
    whole: bool = False  # the model makes shorter clips as the beginning of this length: the prompt says when they end
    device: str = "auto"


def tiny() -> Settings:
    """For tests: 0.2 million parameters, seconds."""
    model = ModelSettings(width=64, depth=2, heads=2, multiple=2)
    return Settings(model=model, steps=4, batch=4, log_every=1, checkpoint_every=2, preview_every=4)


def small() -> Settings:
    """What ships: 9 million parameters, 13 clips a second on two cores with avx512_bf16 (`benchmarks/training.py`)."""
    return Settings()


def base() -> Settings:
    """A day on one GPU: 200 million parameters."""
    model = ModelSettings(width=768, depth=12, heads=12)
    optimizer = OptimizerSettings(lr=5e-3, adamw_lr=3e-4, warmup=1000)
    return Settings(model=model, optimizer=optimizer, steps=200_000, batch=256, ema=0.9999, preview_every=5000)


PRESETS = {"tiny": tiny, "small": small, "base": base}


def codecs_folder(codecs: str) -> Path:
    """The folder of the four codecs: named directly, or inside a model."""
    folder = Path(codecs)
    parts = ("video_codec", "audio_codec", "sensor_codec")
    return folder if any((folder / part).is_dir() for part in parts) else model_folder(codecs) / "codecs"


def build_transformer(settings: Settings, codecs: Codecs, text_dim: int) -> CounterpointTransformer:
    """The network for the codecs' latents, seeded, or a copy of `start_from`'s, grown where the settings have more."""
    modalities = [Modality(name, *shape) for name, shape in codecs.shapes().items()]
    if settings.start_from:
        folder = model_folder(settings.start_from) / "transformer"
        network = CounterpointTransformer.from_pretrained(
            str(folder), torch_dtype=torch.float32, low_cpu_mem_usage=False
        )
        return grow(network, modalities, settings.model.text_modulation, settings.seed, settings.start_from)
    torch.manual_seed(settings.seed)
    model = settings.model
    return CounterpointTransformer(
        modalities=CounterpointTransformer.describe(modalities),  # by name: diffusers takes unnamed ones for defaults
        width=model.width,
        depth=model.depth,
        heads=model.heads,
        text_dim=text_dim,
        feed_forward=model.feed_forward,
        multiple=model.multiple,
        experts=model.experts,
        active=model.active,
        text_modulation=model.text_modulation,
    )


def text_encoder(settings: Settings) -> TextEncoder:
    """The encoder that the settings name."""
    return TextEncoder(settings.text_encoder, settings.text_length, settings.text_features)


def parameters(settings: Settings) -> int:
    """Parameters of the network, for `--dry-run`."""
    codecs = Codecs.from_pretrained(codecs_folder(settings.codecs))
    channels = text_encoder(settings).channels
    return sum(p.numel() for p in build_transformer(settings, codecs, channels).parameters())


def train(settings: Settings, data: Path, run: Path) -> Path:
    """Trains or goes on training; returns the folder of the model with the averaged weights.

    Args:
        settings: a preset, changed by `key=value`.
        data: a folder of arrays.
        run: the run folder: `settings.json`, `log.jsonl`, `checkpoint.safetensors`, `previews/`, `latents/`, `model/`.

    Raises:
        ClipError: data or codecs missing.
    """
    run.mkdir(parents=True, exist_ok=True)
    to_json(settings, run / "settings.json")
    device = choose_device(settings.device)
    codecs = Codecs.from_pretrained(codecs_folder(settings.codecs), dtype=choose_dtype("auto", device))
    encoder = text_encoder(settings)
    cached = cache_latents(data, codecs, encoder, run / "latents")
    latents = LatentClips(cached, event_times(data) if settings.loss.events else None)
    missing = [name for name in codecs.shapes() if name not in latents.latents]
    if missing:
        raise ClipError(f"{data}: has no {', '.join(missing)}, which the codecs are for; train codecs on these data")
    transformer = build_transformer(settings, codecs, encoder.channels)

    average = AveragedWeights(settings.ema)
    preview = Preview(run / "previews", codecs, encoder, settings.prompts, settings.seconds)
    folder = RunFolder(run, average, settings.log_every, settings.checkpoint_every, settings.preview_every, preview,
                       settings.minutes)  # fmt: skip
    resume = folder.checkpoint if folder.checkpoint.is_file() else None
    saved: dict[str, Any] = SafetensorsIO().load_checkpoint(resume) if resume else {"global_step": 0}
    start = int(saved["global_step"])
    if start >= settings.steps:  # Lightning would wait for a batch for ever; `state_dict` holds the averaged weights
        own = "transformer."
        weights = {n.removeprefix(own): value for n, value in saved["state_dict"].items() if n.startswith(own)}
        transformer.load_state_dict(weights)
        return save(transformer, codecs, encoder, run / "model", settings)
    module = JointTraining(transformer, settings.loss, settings.optimizer, settings.steps, settings.seed)
    with quiet_lightning():
        trainer = make_trainer(device, settings.steps, settings.optimizer.clip, [average, folder])
    batches = loader(latents, settings.batch, settings.seed, settings.steps, start)
    with quiet_lightning():
        trainer.fit(module, batches, ckpt_path=resume, weights_only=False)
    return save(average.average.transformer, codecs, encoder, run / "model", settings)


def event_times(data: Path) -> list[Sequence[float]]:
    """Seconds at which something happens in each clip of the arrays: as listed, or else as found in the clips' sound
    (sensors, where there is no sound; video, where there are none either).

    Raises:
        ClipError: nothing happens in any.
    """
    clips = read_arrays(data)
    events: list[Sequence[float]] = [entry.get("events", ()) for entry in clips.entries]
    if not any(events):
        events = [_found_events(clip) for clip in clips]
    if not any(events):
        raise ClipError(f"{data}: no events are listed or found in the clips, which loss.events teaches; set it to 0")
    return events


def _found_events(clip: Clip) -> list[float]:
    surest = Clip(clip.audio) if clip.audio is not None else Clip(sensor=clip.sensor) if clip.sensor else clip
    return [float(time) for times in clip_events(surest).values() for time in times]


def defaults_of(settings: Settings, tracks: Collection[str]) -> dict[str, Any]:
    """What a model of these tracks does where nothing is said."""

    def of_tracks(value: Any) -> Any:
        return {name: x for name, x in value.items() if name in tracks} if isinstance(value, Mapping) else value

    kept = ("seconds", "whole", "guidance", "isolation", "parallel", "obey")
    return {name: of_tracks(getattr(settings, name)) for name in kept}


def save(
    transformer: CounterpointTransformer, codecs: Codecs, encoder: TextEncoder, folder: Path, settings: Settings
) -> Path:
    """Writes a model folder: the network in bf16, the files of the codecs as they are."""
    defaults = defaults_of(settings, {modality.group for modality in transformer.modalities.values()})
    pipeline = CounterpointPipeline(transformer.cpu().eval(), codecs, encoder, defaults)
    pipeline.save_pretrained(folder, dtype=torch.bfloat16)
    shutil.copytree(codecs_folder(settings.codecs), folder / "codecs", dirs_exist_ok=True)
    return folder


__all__ = ["PRESETS", "Settings", "base", "from_json", "parameters", "small", "tiny", "train"]
