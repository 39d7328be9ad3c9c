"""From a prompt to a clip: the pipeline, in the layout and with the manners of diffusers.

pipeline = CounterpointPipeline.from_pretrained("joint")          # a shipped name, or a folder
clip = pipeline("a small glass ball drops on a wooden floor", seed=7)
"""

from __future__ import annotations

import copy
import importlib.metadata
import importlib.resources
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from ..backbones.transformer import CounterpointTransformer
from ..guidance.classifier_free import ClassifierFree, Guidance
from ..modalities.clip import Clip, ClipError
from ..modalities.codecs import GROUPS, SLOT_SECONDS, Codecs
from ..modalities.text import TextEncoder
from .sampling import Tracks, draw_noise, make_scheduler, sample

DEFAULTS: dict[str, Any] = {"steps": 10, "guidance": 2.0, "seconds": 2.56, "solver": "unipc", "shift": 1.0}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def weights_folder() -> Path:
    """Where the weights that ship with the package lie."""
    return Path(str(importlib.resources.files("counterpoint.weights")))


def model_folder(name: str | Path) -> Path:
    """Folder of a shipped model by name, or the folder itself; neither is a ClipError."""
    for folder in (Path(name), weights_folder() / str(name)):
        if (folder / "model_index.json").is_file():
            return folder
    known = sorted(path.parent.name for path in weights_folder().glob("*/model_index.json"))
    raise ClipError(f"model: {name} is neither a folder with a model_index.json nor one of: {', '.join(known)}")


def choose_device(device: str) -> torch.device:
    """`auto` is cuda, mps or cpu, in this order; anything else is taken by its name."""
    if device != "auto":
        try:
            chosen = torch.device(device)
        except RuntimeError as error:
            raise ClipError(f"device: {device!r} is not auto, cpu, cuda, cuda:N or mps") from error
        if chosen.type == "cuda" and not torch.cuda.is_available():
            raise ClipError(f"device: {device} was asked for, but this PyTorch sees no CUDA device")
        return chosen
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def fast_bf16(device: torch.device) -> bool:
    """Whether matrix products in bf16 are faster than in fp32 there (on a CPU: avx512_bf16 or AMX)."""
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the hardware multiplies it fast, else float32."""
    if dtype == "auto":
        return torch.bfloat16 if fast_bf16(device) else torch.float32
    if dtype not in DTYPES:
        raise ClipError(f"dtype: {dtype!r} is not auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


class CounterpointPipeline(DiffusionPipeline):
    """Text to a synchronized clip of video, sound and sensors.

    Args:
        transformer: the network.
        codecs: video, audio and sensor codecs.
        text_encoder: prompts to token states.
        defaults: steps, guidance, seconds, solver and shift used where a call gives none.
        name: what the metadata of clips call this model.
    """

    def __init__(
        self,
        transformer: CounterpointTransformer,
        codecs: Codecs,
        text_encoder: TextEncoder,
        defaults: Mapping[str, Any] | None = None,
        name: str = "counterpoint",
    ) -> None:
        super().__init__()
        self.transformer, self.codecs, self.text_encoder = transformer, codecs, text_encoder
        self.defaults = {**DEFAULTS, **(defaults or {})}
        self.model_name = name

    @property
    def device(self) -> torch.device:
        """Where the network's weights are."""
        return self.transformer.device

    def to(self, *args: Any, **kwargs: Any) -> CounterpointPipeline:
        """Moves the network, the codecs and the text encoder; a dtype is the network's alone."""
        self.transformer.to(*args, **kwargs)
        device = self.transformer.device
        self.codecs.to(device)
        self.text_encoder.to(device)
        return self

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, model: str | Path, device: str = "auto", dtype: str = "auto"
    ) -> CounterpointPipeline:
        """Loads a shipped model by name, or a folder written by `save_pretrained`.

        Args:
            model: a shipped name such as `"joint"`, or a folder.
            device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
            dtype: `auto`, `float32`, `bfloat16` or `float16`, of the network and the video codec.

        Raises:
            ClipError: no such model, an unknown device or dtype, or a part of the model missing.
        """
        folder, where = model_folder(model), choose_device(device)
        index = json.loads((folder / "model_index.json").read_text())
        if not (folder / "transformer" / "config.json").is_file():
            raise ClipError(f"{folder / 'transformer'}: no network there (config.json is missing)")
        kind = choose_dtype(dtype, where)
        transformer = CounterpointTransformer.from_pretrained(
            str(folder / "transformer"), torch_dtype=kind, low_cpu_mem_usage=False
        )
        codecs = Codecs.from_pretrained(folder / "codecs", dtype=kind)
        lost = [name for name in transformer.modalities if name not in codecs.shapes()]
        if lost:
            raise ClipError(f"{folder / 'codecs'}: no codec for {', '.join(lost)}, which the network generates")
        encoder = TextEncoder(index["text_encoder"], index["text_length"])
        return cls(transformer, codecs, encoder, index["defaults"], str(model)).to(where)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Writes `model_index.json`, `transformer/` and `codecs/`; the text encoder stays in its own package.

        A `dtype` of 16 bits is the network's; the codecs are then rounded to fp16, whose finer mantissa they need.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_transformer(self.transformer, folder / "transformer", dtype)
        self.codecs.save_pretrained(folder / "codecs", torch.float16 if dtype == torch.bfloat16 else dtype)
        index = {
            "_class_name": type(self).__name__,
            "text_encoder": self.text_encoder.name,
            "text_length": self.text_encoder.length,
            "defaults": self.defaults,
        }
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
        for path in folder.rglob("config.json"):
            _forget_origin(path)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str = "",
        steps: int | None = None,
        guidance: float | Mapping[str, float] | Sequence[Guidance] | None = None,
        seconds: float | None = None,
        seed: int | Sequence[int] = 0,
        tracks: Sequence[str] = GROUPS,
        progress: Callable[[int, int], None] | None = None,
    ) -> Any:
        """Generates a clip, or a list of clips where a list of prompts is given.

        Args:
            prompt: one prompt, or several that are generated as a batch.
            negative_prompt: what guidance leads away from.
            steps: solver steps; each costs one pass of the network, and one more with guidance.
            guidance: one scale (1 is none), a scale per track, e.g. `{"audio": 3, "video": 2}`, or guidance objects.
            seconds: duration, rounded up to whole slots of 0.16 s.
            seed: one per prompt, or one number s, which gives prompt i the seed s + i.
            tracks: any of `video`, `audio`, `sensor`.
            progress: called with (steps done, steps).

        Returns:
            `Clip`, or a list of them; each clip's metadata says how to make it again.

        Raises:
            ClipError: an argument that cannot be used, by its name.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts:
            raise ClipError("prompt: none given")
        seeds = _seeds(seed, len(prompts))
        settings = self._settings(negative_prompt, steps, guidance, seconds, tracks)
        latents = self.generate_latents(prompts, seeds, settings, guidance, progress)
        clips = [
            Clip(clip.audio, clip.video, clip.sensor, metadata={"prompt": text, "seed": own, **settings})
            for clip, text, own in zip(self.codecs.decode(latents), prompts, seeds, strict=True)
        ]
        return clips[0] if isinstance(prompt, str) else clips

    @torch.no_grad()
    def generate_latents(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        settings: Mapping[str, Any],
        guidance: Any = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tracks:
        """Latents `{modality: [B, T, S, C]}` of a batch; `settings` as in a clip's metadata."""
        names = self.codecs.names(settings["tracks"])
        slots = slots_of(settings["seconds"])
        shapes = {n: (slots, m.tokens, m.channels) for n, m in self.transformer.modalities.items() if n in names}
        noise = {name: value.to(self.device) for name, value in draw_noise(shapes, seeds).items()}
        guidances = self._guidances(settings["guidance"] if guidance is None else guidance)
        denoiser = self.denoiser(prompts, settings["negative_prompt"])
        scheduler = make_scheduler(self.defaults["solver"], self.defaults["shift"])
        return sample(denoiser, noise, scheduler, settings["steps"], guidances, progress=progress)

    def denoiser(self, prompts: Sequence[str], negative_prompt: str = "") -> Callable[[str, Tracks, Tracks], Tracks]:
        """The network with its prompts bound, for `sample`; text is encoded once."""
        text, mask = self.text_encoder([*prompts, negative_prompt])
        text, mask = text.to(self.device, self.transformer.dtype), mask.to(self.device)
        batch = len(prompts)
        negative = text[-1:].expand(batch, -1, -1), mask[-1:].expand(batch, -1)
        conditions = {
            "conditional": (text[:-1], mask[:-1]),
            "unconditional": negative,
            "isolated": (text[:-1], mask[:-1]),
        }

        def denoise(name: str, latents: Tracks, sigma: Tracks) -> Tracks:
            states, said = conditions[name]
            with self.transformer.cache_context(name):
                v = self.transformer(latents, sigma, states, said, isolate=name == "isolated")
            return {key: value.float() for key, value in v.items()}

        return denoise

    def _settings(
        self, negative_prompt: str, steps: int | None, guidance: Any, seconds: float | None, tracks: Sequence[str]
    ) -> dict[str, Any]:
        """Everything that, beside prompt and seed, decides what comes out, as JSON."""
        count = int(self.defaults["steps"] if steps is None else steps)
        duration = float(self.defaults["seconds"] if seconds is None else seconds)
        guidance = self.defaults["guidance"] if guidance is None else guidance
        if count < 1:
            raise ClipError(f"steps: {steps} is less than 1")
        if not 0 < duration <= 60:
            raise ClipError(f"seconds: {seconds} is not between 0 and 60")
        if isinstance(guidance, Mapping):
            guidance = {name: float(scale) for name, scale in guidance.items()}
            self._scales(guidance)
        elif not isinstance(guidance, (int, float)):
            guidance = [repr(kind) for kind in guidance]
        self.codecs.names(tracks)
        return {
            "negative_prompt": negative_prompt,
            "steps": count,
            "guidance": guidance,
            "seconds": duration,
            "tracks": list(tracks),
            "model": self.model_name,
            "version": importlib.metadata.version("counterpoint"),
        }

    def _guidances(self, guidance: Any) -> list[Guidance]:
        if isinstance(guidance, Mapping):
            return [ClassifierFree(scale=1.0, scales=self._scales(guidance))]
        if isinstance(guidance, (int, float)):
            return [ClassifierFree(scale=float(guidance))]
        return list(guidance)

    def _scales(self, guidance: Mapping[str, float]) -> dict[str, float]:
        """Scales per modality from scales per track or modality; a track left out keeps the default scale."""
        default = self.defaults["guidance"]
        scales = dict.fromkeys(
            self.transformer.modalities, float(default) if isinstance(default, (int, float)) else 1.0
        )
        for name, scale in guidance.items():
            hit = [n for n, m in self.transformer.modalities.items() if name in (n, m.group)]
            if not hit:
                raise ClipError(f"guidance: no track is called {name!r}; known are {', '.join(GROUPS)}")
            scales.update(dict.fromkeys(hit, float(scale)))
        return scales


def slots_of(seconds: float) -> int:
    """Whole slots that cover a duration."""
    return max(1, -int(-(seconds - 1e-6) // SLOT_SECONDS))


def save_transformer(transformer: CounterpointTransformer, folder: Path, dtype: torch.dtype | None) -> None:
    """Saves a network, rounded to `dtype` if one is given, and leaves it as it was."""
    if dtype is None or dtype == transformer.dtype:
        transformer.save_pretrained(str(folder))
        return
    rounded = copy.deepcopy(transformer)
    torch.nn.Module.to(rounded, dtype)
    rounded.save_pretrained(str(folder))


def _forget_origin(path: Path) -> None:
    """Takes the folder that a part was loaded from out of its configuration: it says nothing to anybody else."""
    config = json.loads(path.read_text())
    if config.pop("_name_or_path", None) is not None:
        path.write_text(json.dumps(config, indent=2) + "\n")


def _seeds(seed: int | Sequence[int], count: int) -> list[int]:
    seeds = [seed + i for i in range(count)] if isinstance(seed, int) else [int(s) for s in seed]
    if len(seeds) != count:
        raise ClipError(f"seed: {len(seeds)} seeds for {count} prompts")
    if min(seeds) < 0:
        raise ClipError(f"seed: {min(seeds)} is negative")
    return seeds
