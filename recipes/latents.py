"""Latents once, training many times: a data set through the codecs, its captions through the text encoder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from counterpoint.data.arrays import ClipArrays, read_arrays
from counterpoint.modalities.clip import ClipError
from counterpoint.modalities.codecs import Codecs, from_frames
from counterpoint.modalities.text import TextEncoder

SAME = 0.1  # mean absolute difference of latents (standard deviation 1) that is still put down to rounding


def clip_tensors(data: ClipArrays, start: int, stop: int) -> dict[str, Tensor]:
    """Clips `start … stop − 1` as tensors: video `[B, 3, F, H, W]`, audio `[B, 1, N]`, each sensor `[B, K, n]`.

    Only of the tracks that the data set has; sensors are NaN where nothing was measured.
    """
    tensors = {}
    if data.video is not None:
        tensors["video"] = from_frames(data.video[start:stop])
    if data.audio is not None:
        tensors["audio"] = torch.from_numpy(data.audio[start:stop].astype("float32"))[:, None]
    sensors = data.sensor_values(start, stop)
    return {**tensors, **{name: torch.from_numpy(values) for name, values in sensors.items()}}


def cache_latents(
    data: Path,
    codecs: Codecs,
    text_encoder: TextEncoder,
    out: Path,
    batch: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes `latents.safetensors`, `text.safetensors` and `captions.json` into `out`.

    A finished cache is kept as it is. Latents are stored in fp16 as `{modality: [N, T, S, C]}`; each different caption
    is encoded once, and stored without its padding: `states` `[tokens, channels]` of all captions in a row, caption i
    from `starts[i]` to `starts[i + 1]`, and the `length` that they are padded to.

    Raises:
        ClipError: the folder holds the latents of other clips, or of other codecs, or the sound is of another rate.
    """
    clips = read_arrays(data)
    if clips.audio is not None and codecs.audio is not None and clips.audio_rate != codecs.audio_rate:
        raise ClipError(f"{data}: sound of {clips.audio_rate} Hz, the codecs are for {codecs.audio_rate} Hz")
    if (out / "captions.json").is_file():
        _check(clips, codecs, out)
        return out
    out.mkdir(parents=True, exist_ok=True)
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, len(clips), batch):
        latents = codecs.encode(clip_tensors(clips, start, min(start + batch, len(clips))))
        for name, value in latents.items():
            parts.setdefault(name, []).append(value.half())
        if progress is not None:
            progress(min(start + batch, len(clips)), len(clips))
    _save({name: torch.cat(values) for name, values in parts.items()}, out / "latents.safetensors")
    text, content = encode_captions(clips, text_encoder)
    _save(text, out / "text.safetensors")
    (out / "captions.json.part").write_text(json.dumps(content))
    os.replace(out / "captions.json.part", out / "captions.json")
    return out


def encode_captions(clips: ClipArrays, encoder: TextEncoder) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Every different caption once: the tensors of `text.safetensors`, and the content of `captions.json`."""
    captions = sorted({caption for entry in clips.entries for caption in entry["captions"]}, key=lambda c: (len(c), c))
    states, counts = [], []
    for i in range(0, len(captions), 64):
        own, mask = encoder(captions[i : i + 64], trim=True)  # of similar length: little padding
        states.append(own[mask].half().cpu())
        counts.append(mask.sum(dim=1).cpu())
    number = {caption: i for i, caption in enumerate(captions)}
    text = {
        "states": torch.cat(states),
        "starts": torch.cat([torch.zeros(1, dtype=torch.long), torch.cat(counts).cumsum(0)]),
        "length": torch.tensor(encoder.length),
    }
    rows = [[number[caption] for caption in entry["captions"]] for entry in clips.entries]
    return text, {"captions": captions, "rows": rows}


def _check(clips: ClipArrays, codecs: Codecs, out: Path) -> None:
    """The last clip tells: another one, or other codecs, would give other latents than those stored."""
    last = len(clips) - 1
    latents = codecs.encode(clip_tensors(clips, last, last + 1))
    with safe_open(out / "latents.safetensors", "pt") as file:
        same = set(file.keys()) == set(latents)
        for name in latents if same else ():
            stored = file.get_slice(name)
            own = latents[name][0].cpu().float()
            same &= stored.get_shape() == [len(clips), *own.shape]
            same = same and bool((stored[last].float() - own).abs().mean() < SAME)
    if not same:
        raise ClipError(f"{out}: holds the latents of other clips or codecs; delete it, or use another run=")


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    partial = path.with_name(path.name + ".part")
    save_file({name: value.contiguous() for name, value in tensors.items()}, partial)
    os.replace(partial, path)
