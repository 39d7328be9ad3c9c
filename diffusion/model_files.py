"""Where models lie, and on what device and in what type of number they are loaded."""

from __future__ import annotations

import copy
import importlib.resources
from pathlib import Path

import torch

from ..backbones.transformer import CounterpointTransformer
from ..modalities.audio import forget_origin
from ..modalities.clip import ClipError

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


def save_transformer(transformer: CounterpointTransformer, folder: Path, dtype: torch.dtype | None) -> None:
    """Saves a network, rounded to `dtype` if one is given, and leaves it as it was; where it came from is not kept."""
    saved = transformer
    if dtype is not None and dtype != transformer.dtype:
        saved = copy.deepcopy(transformer)
        torch.nn.Module.to(saved, dtype)
    saved.save_pretrained(str(folder))
    forget_origin(folder / "config.json")
