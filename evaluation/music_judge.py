"""The music judge: a small network that hears instruments, their family, mode, dynamics and drums in a log-mel.

It is trained on renderings of other pieces with another soundfont (`recipes/music_judge.py`). Its 128-d features are
those in which realism is measured.

Legend: `B` batch, `N` samples, `A` an attribute's classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from ..modalities.clip import ClipError
from .judges import FEATURES, AudioJudge

INSTRUMENTS = "instruments"  # the one attribute that has several values at once
ATTRIBUTES = (INSTRUMENTS, "family", "mode", "dynamics", "drums")


class MusicJudge(nn.Module):
    """The audio judge's network with a head for each attribute.

    Args:
        classes: the values of each attribute in a fixed order; `instruments` may hold several at once.
    """

    def __init__(self, classes: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.classes = {name: tuple(str(v) for v in values) for name, values in classes.items()}
        self.body = AudioJudge()
        self.heads = nn.ModuleDict({name: nn.Linear(FEATURES, len(v)) for name, v in self.classes.items()})

    def prepare(self, audio: Tensor) -> Tensor:
        """Sound `[B, 1, N]` at 16 kHz, N a multiple of 320 → log-mel of about unit range `[B, 1, 128, N / 320]`."""
        return self.body.prepare(audio)

    def features(self, audio: Tensor) -> Tensor:
        """Sound `[B, 1, N]` → `[B, 128]`."""
        return self.body(self.prepare(audio))

    def opinions(self, features: Tensor) -> dict[str, Tensor]:
        """Features `[B, 128]` → logits `{attribute: [B, A]}`."""
        return {name: head(features) for name, head in self.heads.items()}

    def targets(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """What is true of clips: `instruments` float `[B, A]` of 0 and 1, others int64 `[B]`; -1 where not known.

        Raises:
            ClipError: a value that the judge has never heard.
        """
        targets = {}
        for name, values in self.classes.items():
            rows = [_names(row.get(name)) for row in facts]
            for unknown in (value for row in rows for value in row if value not in values):
                raise ClipError(f"{name}: {unknown!r} is none of {', '.join(values)}")
            if name == INSTRUMENTS:
                known = [[float(value in row) if row else -1.0 for value in values] for row in rows]
                targets[name] = torch.tensor(known)
            else:
                targets[name] = torch.tensor([values.index(row[0]) if row else -1 for row in rows])
        return targets

    def loss(self, features: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        """Sum of the cross-entropies of what is known: of each instrument's presence, of one class of the others."""
        total = features.new_zeros(())
        for name, logits in self.opinions(features).items():
            target = targets[name]
            if name == INSTRUMENTS:
                each = functional.binary_cross_entropy_with_logits(logits, target.clamp_min(0), reduction="none")
                known = (target >= 0).float()
                total = total + (each * known).sum() / known[:, :1].sum().clamp_min(1)
            elif (target >= 0).any():
                total = total + functional.cross_entropy(logits, target, ignore_index=-1)
        return total

    @torch.no_grad()
    def verdict(self, features: Tensor) -> dict[str, list[list[str]]]:
        """Features → each clip's classes from the likeliest to the least likely, `{attribute: [B][A]}`."""
        ranked = {name: logits.argsort(dim=-1, descending=True) for name, logits in self.opinions(features).items()}
        return {name: [[self.classes[name][i] for i in row] for row in rows.tolist()] for name, rows in ranked.items()}

    def save(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"classes": self.classes}, indent=1) + "\n")
        weights = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        save_file(weights, folder / "model.safetensors")

    @classmethod
    def load(cls, folder: Path) -> MusicJudge:
        """Read what `save` wrote; in eval mode, without gradients.

        Raises:
            ClipError: the folder does not hold a music judge.
        """
        try:
            judge = cls(json.loads((folder / "config.json").read_text())["classes"])
            judge.load_state_dict(load_file(folder / "model.safetensors"))
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ClipError(f"{folder}: not a music judge ({str(error).splitlines()[0]})") from error
        return judge.eval().requires_grad_(False)


def instrument_scores(ranked: Sequence[str], asked: Sequence[str] | str) -> dict[str, float]:
    """How many of the instruments asked for are the likeliest ones.

    Args:
        ranked: all instruments, the likeliest first.
        asked: those of the prompt.

    Returns:
        `instrument`: 1 if the k likeliest are the k different ones asked for, which for a solo is plain accuracy;
        `instrument_share`: the share of them among the k likeliest.
    """
    wanted = set(_names(asked))
    hits = len(wanted & set(ranked[: len(wanted)]))
    return {"instrument": float(hits == len(wanted)), "instrument_share": hits / len(wanted)}


def _names(value: Any) -> list[str]:
    """The values of an attribute: none, one, or several."""
    if value is None:
        return []
    return [str(v) for v in value] if isinstance(value, (list, tuple)) else [str(value)]
