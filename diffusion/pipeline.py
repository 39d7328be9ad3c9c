"""From a prompt, and from whatever is given, to a clip: the pipeline, in the layout and with the manners of diffusers.

pipeline = CounterpointPipeline.from_pretrained("joint")          # a shipped name, or a folder
clip = pipeline("a small glass ball drops on a wooden floor", seed=7)
clip = pipeline(given={"video": "in.mp4"}, tracks=["audio"])
"""

from __future__ import annotations

import importlib.metadata
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from ..backbones.transformer import CounterpointTransformer
from ..guidance.auto import with_weak
from ..guidance.interface import Guidance
from ..modalities.clip import Clip, ClipError
from ..modalities.codecs import Codecs
from ..modalities.text import TextEncoder
from .conditions import Condition, slots_known
from .conversion import as_flow
from .given import Given, Stretch, slots_of
from .model_files import (
    choose_device,
    choose_dtype,
    fast_bf16,
    forget_origin,
    model_folder,
    save_transformer,
    weights_folder,
)
from .process import process_of
from .requests import (
    Request,
    check_seconds,
    default_tracks,
    guidance_spec,
    guidances_of,
    made_modalities,
    seeds_of,
)
from .sampling import Tracks, draw_noise, make_scheduler, sample
from .splicing import finish
from .windows import busy, circular, decode_chunks, join, slide, spans

__all__ = [
    "CounterpointPipeline", "choose_device", "choose_dtype", "fast_bf16", "model_folder", "save_transformer",
    "slots_of", "weights_folder",
]  # fmt: skip
DEFAULTS: dict[str, Any] = {"steps": 10, "guidance": 2.0, "seconds": 2.56, "solver": "unipc", "shift": 1.0}
"""What a call leaves open; `seconds` is also the length that the network was trained on."""


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
            forget_origin(path)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        given: Given | Clip | str | Path | Mapping[str, Any] | None = None,
        known: Sequence[Stretch] | None = None,
        loop: bool = False,
        negative_prompt: str = "",
        steps: int | None = None,
        guidance: float | Mapping[str, float] | Sequence[Guidance] | None = None,
        seconds: float | None = None,
        seed: int | Sequence[int] = 0,
        tracks: Sequence[str] | None = None,
        progress: Callable[[int, int], None] | None = None,
        say: Callable[[str], None] = warnings.warn,
    ) -> Any:
        """Generates a clip, or a list of clips where a list of prompts is given.

        Args:
            prompt: one prompt, or several that are generated as a batch; may be left out where something is given.
            given: tracks that the clip has already: a clip, a file, or tracks and files by name, e.g.
                `{"video": "in.mp4", "force": Track(…)}`. They come out bit-identical, at their own rates and sizes.
            known: the stretches (from, to) in seconds in which they are known; None is wherever they were recorded.
                What is missing of a given track is generated: after its end, between stretches, in gaps of a sensor.
            loop: the end leads into the beginning; costs two passes for one.
            negative_prompt: what guidance leads away from.
            steps: solver steps; each costs one pass of the network, and one more with guidance.
            guidance: one scale (1 is none), a scale per track, e.g. `{"audio": 3, "video": 2}`, or guidance objects.
            seconds: duration, rounded up to whole slots of 0.16 s where nothing is given; None is that of what is
                given, or the model's. Beyond the trained length a window slides (`windows`).
            seed: one per prompt, or one number s, which gives prompt i the seed s + i.
            tracks: any of `video`, `audio`, `sensor`; None is all that are not given whole.
            progress: called with (steps done, steps).
            say: called with a line on everything given that can't be used as it is.

        Returns:
            `Clip`, or a list of them; each clip's metadata says how to make it again.

        Raises:
            ClipError: an argument that cannot be used, by its name.
        """
        request = self._request(
            prompt, given=given, known=known, loop=loop, negative_prompt=negative_prompt, steps=steps,
            guidance=guidance, seconds=seconds, seed=seed, tracks=tracks, say=say,
        )  # fmt: skip
        chunks = list(self._chunks(request, progress))
        clips = [
            finish(join(parts), request.condition, {"prompt": text, "seed": own, **request.settings})
            for *parts, text, own in zip(*chunks, request.prompts, request.seeds, strict=True)
        ]
        return clips[0] if prompt is None or isinstance(prompt, str) else clips

    @torch.no_grad()
    def stream(
        self, prompt: str | None = None, *, progress: Callable[[int, int], None] | None = None, **options: Any
    ) -> Iterator[Clip]:
        """The clip of `__call__` in pieces of half a window, each as soon as it is made.

        Every piece holds what is generated, on the model's clock, and begins where the one before ended
        (`Track.start`); joined, they are what `__call__` returns where nothing is given. Given samples are not
        repeated. Options and errors are those of `__call__`; the first piece comes after the first window.
        """
        request = self._request(prompt, **options)
        for [chunk] in self._chunks(request, progress):
            yield replace(chunk, metadata={"prompt": prompt or "", "seed": request.seeds[0], **request.settings})

    def _request(
        self, prompt: str | Sequence[str] | None, *, given: Any = None, known: Sequence[Stretch] | None = None,
        loop: bool = False, negative_prompt: str = "", steps: int | None = None, guidance: Any = None,
        seconds: float | None = None, seed: int | Sequence[int] = 0, tracks: Sequence[str] | None = None,
        say: Callable[[str], None] = warnings.warn,
    ) -> Request:  # fmt: skip
        """The arguments checked, what is given encoded, and all of it written down."""
        prompts = (prompt or "",) if prompt is None or isinstance(prompt, str) else tuple(prompt)
        if not prompts or (given is None and prompt is None):
            raise ClipError("prompt: none given")
        if given is None and known is not None:
            raise ClipError("known: nothing is given that could be known")
        seeds = seeds_of(seed, len(prompts))
        source = None if given is None else Given.read(given, known)
        if seconds is None and source is not None:
            seconds = source.seconds
        duration = check_seconds(self.defaults["seconds"] if seconds is None else seconds)
        wanted = default_tracks(source, duration) if tracks is None else tuple(tracks)
        settings = self._settings(negative_prompt, steps, guidance, duration, wanted)
        condition = None
        if source is not None:
            source.check(wanted, duration)
            condition = Condition.create(source, self.codecs, duration, self.device)
            settings |= {"given": [dict(record) for record in source.files]}
            settings |= {"known": [[a, min(b, duration)] for a, b in source.known]} if source.known is not None else {}
            for note in condition.notes:
                say(note)
        settings |= {"loop": True} if loop else {}
        made = made_modalities(self.codecs, wanted, condition)
        return Request(prompts, seeds, settings, guidance, condition, made)

    def _chunks(self, request: Request, progress: Callable[[int, int], None] | None) -> Iterator[list[Clip]]:
        """Decoded pieces, each a clip per prompt."""
        settings = request.settings
        slots, loop = slots_of(settings["seconds"]), bool(settings.get("loop"))
        walk = self._walk(request.prompts, request.seeds, settings, request.guidance, progress, request.condition)
        hop = slots if slots <= self.window else max(1, self.window // 2)
        yield from decode_chunks(self.codecs, walk, request.made, slots, hop, loop)

    @property
    def window(self) -> int:
        """Slots that the network was trained on."""
        return slots_of(self.defaults["seconds"])

    @torch.no_grad()
    def generate_latents(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        settings: Mapping[str, Any],
        guidance: Any = None,
        progress: Callable[[int, int], None] | None = None,
        condition: Condition | None = None,
    ) -> Tracks:
        """Latents `{modality: [B, T, S, C]}` of a batch; `settings` as in a clip's metadata."""
        *_, (_, latents) = self._walk(prompts, seeds, settings, guidance, progress, condition)
        return {name: x[:, : slots_of(settings["seconds"])] for name, x in latents.items()}

    def _walk(
        self, prompts: Sequence[str], seeds: Sequence[int], settings: Mapping[str, Any], guidance: Any,
        progress: Callable[[int, int], None] | None, condition: Condition | None,
    ) -> Iterator[tuple[int, Tracks]]:  # fmt: skip
        """Window after window: (slots that are final, latents `{modality: [B, T, S, C]}`), maybe past the end."""
        told = () if condition is None else tuple(condition.known)
        names = {*made_modalities(self.codecs, settings["tracks"], condition), *told}
        slots, loop = slots_of(settings["seconds"]), bool(settings.get("loop"))
        windows = [(0, slots)] if loop else spans(slots, self.window, beyond=condition is None)
        total = windows[-1][1]
        shapes = {n: (total, m.tokens, m.channels) for n, m in self.transformer.modalities.items() if n in names}
        noise = {name: value.to(self.device) for name, value in draw_noise(shapes, seeds).items()}
        known = {name: slots_known(condition, name, total) for name in noise}
        clean = {
            name: condition.latents[name].to(x).expand_as(x) if condition is not None and name in told else x
            for name, x in noise.items()
        }
        guidance = settings["guidance"] if guidance is None else guidance
        guidances = guidances_of(guidance, self.transformer.modalities, self.defaults["guidance"])
        if len(windows) > 1 and any(hasattr(kind, "measurement") for kind in guidances):
            raise ClipError(f"guidance: measurements hold for at most {self.defaults['seconds']:g} s, a single window")
        words = prompts, settings["negative_prompt"]
        denoiser = with_weak(self.denoiser(*words), guidances, *words)
        denoiser = circular(denoiser, slots, self.window) if loop else denoiser
        scheduler = make_scheduler(self.defaults["solver"], self.defaults["shift"])
        total, count = busy(known, windows), iter(range(len(windows)))

        def sampler(window: Tracks, grid: Any, clean: Tracks) -> Tracks:
            before = next(count)

            def tell(step: int, steps: int) -> None:
                if progress is not None:
                    progress(before * steps + step, total * steps)

            return sample(denoiser, window, scheduler, settings["steps"], guidances, grid, clean, tell)

        yield from slide(sampler, noise, known, clean, windows)

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

        return as_flow(denoise, process_of(self.transformer.config))

    def _settings(
        self, negative_prompt: str, steps: int | None, guidance: Any, seconds: float | None, tracks: Sequence[str]
    ) -> dict[str, Any]:
        """Everything that, beside prompt, seed and what is given, decides what comes out, as JSON."""
        count = int(self.defaults["steps"] if steps is None else steps)
        duration = check_seconds(self.defaults["seconds"] if seconds is None else seconds)
        guidance = self.defaults["guidance"] if guidance is None else guidance
        if count < 1:
            raise ClipError(f"steps: {steps} is less than 1")
        guidances_of(guidance, self.transformer.modalities, self.defaults["guidance"])
        self.codecs.names(tracks)
        return {
            "negative_prompt": negative_prompt,
            "steps": count,
            "guidance": guidance_spec(guidance),
            "seconds": duration,
            "tracks": list(tracks),
            "model": self.model_name,
            "version": importlib.metadata.version("counterpoint"),
        }
