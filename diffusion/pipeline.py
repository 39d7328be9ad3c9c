"""From a prompt, and from whatever is given, to a clip: the pipeline, in the layout and with the manners of diffusers.

pipeline = CounterpointPipeline.from_pretrained("joint")          # a shipped name, or a folder
clip = pipeline("a small glass ball drops on a wooden floor", seed=7)
clip = pipeline(given={"video": "in.mp4"}, tracks=["audio"])
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from ..backbones.transformer import CounterpointTransformer
from ..guidance.auto import with_weak
from ..guidance.interface import Denoiser, Guidance
from ..modalities.clip import Clip, ClipError
from ..modalities.codecs import Codecs
from ..modalities.text import TextEncoder
from .conditions import Condition, slots_start
from .conversion import as_flow
from .given import Given, Stretch, slots_of
from .model_files import (
    choose_device,
    choose_dtype,
    fast_bf16,
    model_folder,
    save_transformer,
    weights_folder,
)
from .process import add_noise, process_of
from .requests import Request, Scales, made_modalities, obedience, request_of, settings_of, walk_guidances
from .sampling import Tracks, draw_noise, make_scheduler, sample
from .splicing import finish
from .streaming import Noise, Prompts, endless, tellers, window_of
from .windows import Sampler, busy, circular, decode_chunks, join, slide, spans

__all__ = [
    "CounterpointPipeline", "choose_device", "choose_dtype", "fast_bf16", "model_folder", "save_transformer",
    "slots_of", "weights_folder",
]  # fmt: skip
DEFAULTS: dict[str, Any] = {
    "steps": 10, "guidance": 2.0, "isolation": 1.0, "parallel": 1.0, "seconds": 2.56, "solver": "unipc",
    "shift": 1.0, "whole": False, "obey": 0.0,
}  # fmt: skip
"""What a call leaves open; `seconds` is also the length that the network was trained on. Of a model that is `whole` a
shorter clip is the beginning of that length, for one whose prompts say when the clip ends."""


class CounterpointPipeline(DiffusionPipeline):
    """Text to a synchronized clip of video, sound and sensors.

    Args:
        transformer: the network.
        codecs: video, audio and sensor codecs.
        text_encoder: prompts to token states.
        defaults: steps, guidance, isolation, parallel, seconds, solver and shift used where a call gives none.
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
        encoder = TextEncoder(index["text_encoder"], index["text_length"], index.get("text_features", ("states",)))
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
            "text_features": list(self.text_encoder.features),
            "defaults": self.defaults,
        }
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        given: Given | Clip | str | Path | Mapping[str, Any] | None = None,
        known: Sequence[Stretch] | None = None,
        strength: float | None = None,
        loop: bool = False,
        negative_prompt: str = "",
        steps: int | None = None,
        guidance: float | Mapping[str, float] | Sequence[Guidance] | None = None,
        isolation: Scales | None = None,
        parallel: Scales | None = None,
        obey: float | None = None,
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
            strength: varies what is given instead of keeping it: it is noised to this σ, above 0 and at most 1 (nothing
                is kept), and walked down from there in `tracks`, with all the `steps`.
            loop: the end leads into the beginning; costs two passes for one.
            negative_prompt: what guidance leads away from.
            steps: solver steps; each costs one pass of the network, and one more for each of guidance and isolation.
            guidance: one scale (1 is none), a scale per track, e.g. `{"audio": 3, "video": 2}`, or guidance objects,
                which take the place of `isolation` and `parallel` too.
            isolation: scale of the guidance towards the other tracks (1 is none), or a scale per track, where a track
                left out has none.
            parallel: share, or share per track, of what guidance and isolation say along the predicted clean latents
                that is kept (`guidance.interface.ScaledGuidance`); a track left out keeps all of it.
            obey: scale of the guidance towards the tempo and the key that a prompt for music names (0 is none).
            seconds: duration, rounded up to whole slots of 0.16 s where nothing is given; None is that of what is
                given, or the model's. Beyond the trained length a window slides (`windows`).
            seed: one per prompt, or one number s, which gives prompt i the seed s + i.
            tracks: any of `video`, `audio`, `sensor`; None is those not given whole; with `strength`, those given.
            progress: called with (steps done, steps).
            say: called with a line on everything given that can't be used as it is.

        Returns:
            `Clip`, or a list of them; each clip's metadata says how to make it again.

        Raises:
            ClipError: an argument that cannot be used, by its name.
        """
        request = request_of(
            self, prompt, given=given, known=known, strength=strength, loop=loop, negative_prompt=negative_prompt,
            steps=steps, guidance=guidance, isolation=isolation, parallel=parallel, obey=obey, seconds=seconds,
            seed=seed, tracks=tracks, say=say,
        )  # fmt: skip
        chunks = list(self._chunks(request, progress))
        clips = [
            finish(join(parts), request.condition, {"prompt": text, "seed": own, **request.settings})
            for *parts, text, own in zip(*chunks, request.prompts, request.seeds, strict=True)
        ]
        return clips[0] if prompt is None or isinstance(prompt, str) else clips

    @torch.no_grad()
    def stream(
        self,
        prompt: str | Callable[[], str] | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> Iterator[Clip]:
        """The clip of `__call__` in pieces of half a window, each as soon as it is made, or pieces without an end.

        Every piece holds what is generated, on the model's clock, and begins where the one before ended
        (`Track.start`); joined, they are what `__call__` returns where nothing is given. Given samples are not
        repeated. Options and errors are those of `__call__`; the first piece comes after the first window.

        Args:
            prompt: one prompt, or a function that gives the prompt of now and is asked once per window. A window hears
                the one before in its first half, so that a new prompt makes no seam.
            progress: called with (steps done, steps), of each window where the stream has no end.
            options: of `__call__`. `seconds=math.inf` goes on for ever, in constant memory, with nothing given.
        """
        request = request_of(self, "" if callable(prompt) else prompt, endless=True, **options)
        prompts = Prompts(prompt if callable(prompt) else request.prompts)
        settings = {name: value for name, value in request.settings.items() if value != math.inf}
        for [chunk] in self._chunks(request, progress, prompts):
            [text] = prompts.of(window_of(slots_of(chunk.duration) - 1, self.window))
            yield replace(chunk, metadata={"prompt": text, "seed": request.seeds[0], **settings})

    def _chunks(
        self, request: Request, progress: Callable[[int, int], None] | None, prompts: Prompts | None = None
    ) -> Iterator[list[Clip]]:
        """Decoded pieces, each a clip per prompt."""
        settings, said = request.settings, prompts or Prompts(request.prompts)
        slots = math.inf if settings["seconds"] == math.inf else slots_of(settings["seconds"])
        walk = self._walk(said, request.seeds, settings, request.guidance, progress, request.condition)
        hop = int(slots) if slots <= self.window else max(1, self.window // 2)
        yield from decode_chunks(self.codecs, walk, request.made, slots, hop, bool(settings.get("loop")))

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
        *_, (_, latents) = self._walk(Prompts(prompts), seeds, settings, guidance, progress, condition)
        return {name: x[:, : slots_of(settings["seconds"])] for name, x in latents.items()}

    def _walk(
        self, prompts: Prompts, seeds: Sequence[int], settings: Mapping[str, Any], guidance: Any,
        progress: Callable[[int, int], None] | None, condition: Condition | None,
    ) -> Iterator[tuple[int, Tracks]]:  # fmt: skip
        """Window after window: (slots that are final, latents `{modality: [B, T, S, C]}`), maybe past the end."""
        told = () if condition is None else tuple(condition.known)
        names = {*made_modalities(self.codecs, settings["tracks"], condition), *told}
        shapes = {n: (m.tokens, m.channels) for n, m in self.transformer.modalities.items() if n in names}
        if settings["seconds"] == math.inf:
            sampler = self._sampler(prompts, settings, guidance, shapes, tellers(progress, None))
            yield from endless(sampler, Noise(shapes, seeds, self.device), self.window)
            return
        slots = slots_of(settings["seconds"])
        windows = [(0, slots)] if settings.get("loop") else spans(slots, self.window, beyond=condition is None)
        if self.defaults["whole"] and len(windows) == 1 and condition is None and not settings.get("loop"):
            windows = [(0, max(slots, self.window))]
        total = windows[-1][1]
        drawn = draw_noise({name: (total, *shape) for name, shape in shapes.items()}, seeds)
        noise = {name: value.to(self.device) for name, value in drawn.items()}
        start = {name: slots_start(condition, name, total) for name in noise}
        clean = {
            name: condition.latents[name].to(x).expand_as(x) if condition is not None and name in told else x
            for name, x in noise.items()
        }
        varied = {} if condition is None else condition.start
        for name in varied:
            noise[name] = add_noise(clean[name], noise[name], start[name][None].to(self.device))
        known = {name: level == 0 for name, level in start.items()}
        tell = tellers(progress, busy(known, windows))
        sampler = self._sampler(prompts, settings, guidance, shapes, tell, slots if settings.get("loop") else None)
        yield from slide(sampler, noise, known, clean, windows, start if varied else None)

    def _sampler(
        self, prompts: Prompts, settings: Mapping[str, Any], guidance: Any, names: Collection[str],
        tell: Iterator[Callable[[int, int], None]], circle: int | None = None,
    ) -> Sampler:  # fmt: skip
        """What generates a window; `circle` is the number of slots of a loop. Text is encoded where it has changed."""
        always = walk_guidances(self, settings, guidance, names)
        scheduler = make_scheduler(self.defaults["solver"], self.defaults["shift"])

        @lru_cache(maxsize=1)
        def speak(texts: tuple[str, ...]) -> Denoiser:
            words = texts, settings["negative_prompt"]
            denoiser = with_weak(self.denoiser(*words), always, *words)
            return denoiser if circle is None else circular(denoiser, circle, self.window)

        def sampler(window: Tracks, grid: Any, clean: Tracks) -> Tracks:
            texts = prompts.read()
            denoiser, guidances = speak(texts), [*always, *obedience(self, settings, texts, names)]
            return sample(denoiser, window, scheduler, settings["steps"], guidances, grid, clean, next(tell))

        return sampler

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
        return settings_of(self, negative_prompt, steps, guidance, seconds, tracks)
