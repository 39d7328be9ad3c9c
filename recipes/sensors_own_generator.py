"""A trained generator of your own recordings: new windows, gaps filled, forecasts, from one checkpoint.

    generator = RecordingGenerator.from_pretrained("runs/walks/model")
    made = generator.sample(100, length=512, label={"activity": "walk"})    # [100, 512, C] in the channels' units
    full = generator.complete(values, ensemble=20)                          # NaN filled: [20, N, L, C]
    ahead = generator.forecast(values, 48, ensemble=20)                     # [20, N, 48, C]

A token is a channel's patch of P steps. Beside its noised samples it carries which of them are wanted, and those that
are given, clean: what to generate, to fill or to foretell is a choice of these cells. Nothing tells the network where
in a recording it is, so windows of any length slide over each other as in `diffusion.windows`.

Classes and static covariates stand where a prompt would: a token each, whose embedding is learned. The tokens of a
sentence follow them; their states are those of a frozen encoder.

Legend: `B` batch, `N` windows, `L` steps, `T` slots, `C` channels, `P` steps of a patch, `S` samples of an ensemble.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from counterpoint.backbones.transformer import CounterpointTransformer, Modality
from counterpoint.data.series_captions import SentenceStates, padded
from counterpoint.data.series_windows import Scale
from counterpoint.diffusion.conversion import as_flow
from counterpoint.diffusion.model_files import save_transformer
from counterpoint.diffusion.process import process_of
from counterpoint.diffusion.sampling import draw_noise, make_scheduler, sample
from counterpoint.diffusion.windows import spans
from counterpoint.guidance.classifier_free import ClassifierFree
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes.settings import nearest

TOKENS = 50_000  # of a batch of samples
Labels = Mapping[str, str | Sequence[str]] | None
Statics = Mapping[str, float | Sequence[float]] | None
Text = str | Sequence[str | None] | None


@dataclass(frozen=True)
class Conditions:
    """What a window can be told: classes, numbers and a sentence.

    Args:
        classes: `{label: its classes}`.
        statics: names of the covariates; `mean`, `std`: of each over the groups trained on.
        text: the column of the sentences; `""` where the model reads none.
        text_dim, text_length: channels of a sentence's token states, and how many tokens are read.
    """

    classes: Mapping[str, tuple[str, ...]]
    statics: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    text: str = ""
    text_dim: int = 0
    text_length: int = 0

    @property
    def dim(self) -> int:
        """Channels of a token: a place for each class, two for each covariate, then those of a sentence's states."""
        return max(1, sum(len(own) for own in self.classes.values()) + 2 * len(self.statics) + self.text_dim)

    @property
    def parts(self) -> Tensor:
        """The condition that each token belongs to, `[K]`: one each, and the last for all tokens of the sentence."""
        each = max(1, len(self.classes) + len(self.statics))
        return torch.arange(each + self.text_length).clamp_max(each)

    def states(
        self, labels: np.ndarray, static: np.ndarray, said: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens `[B, K, dim]` and which of them stand `[B, K]`, of classes `[B, labels]` and numbers `[B, statics]`.

        A class is a one at its place, so that the network's projection holds its embedding; a covariate is a one and
        the number of standard deviations from the mean. −1 and NaN are padding. `said` are the token states of a
        sentence for each window, `[tokens, text_dim]`.
        """
        count, kinds = len(labels), len(self.classes)
        text = torch.zeros(count, len(self.parts), self.dim)
        mask = torch.zeros(text.shape[:2], dtype=torch.bool)
        place = 0
        for k, own in enumerate(self.classes.values()):
            codes = torch.from_numpy(np.asarray(labels[:, k], np.int64))
            mask[:, k] = codes >= 0
            text[mask[:, k], k, place + codes[mask[:, k]]] = 1.0
            place += len(own)
        for k in range(len(self.statics)):
            value = torch.from_numpy((np.asarray(static[:, k], np.float64) - self.mean[k]) / self.std[k]).float()
            mask[:, kinds + k] = value.isfinite()
            text[:, kinds + k, place] = mask[:, kinds + k].float()
            text[:, kinds + k, place + 1] = value.nan_to_num(0.0, 0.0, 0.0)
            place += 2
        if self.text and said is not None:
            first = len(self.parts) - self.text_length
            text[:, first:, place:], mask[:, first:] = padded(said, self.text_length)
        return text, mask

    def read(self, label: Labels, static: Statics, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Codes `[count, labels]` and numbers `[count, statics]` of what a caller says, one for all or one each."""
        label, static = label or {}, static or {}
        for name in (*label, *static):
            known = (*self.classes, *self.statics)
            if name not in known:
                raise ClipError(f"'{name}': the model knows no such condition{nearest(name, known)}")
        codes, numbers = np.full((count, len(self.classes)), -1), np.full((count, len(self.statics)), np.nan)
        for k, (name, classes) in enumerate(self.classes.items()):
            told = label.get(name)
            each = [told] * count if told is None or isinstance(told, str) else list(told)
            for own in each:
                if own is not None and own not in classes:
                    raise ClipError(f"{name}: no class '{own}', expected one of {', '.join(classes)}")
            if len(each) != count:
                raise ClipError(f"{name}: {len(each)} classes for {count} windows")
            codes[:, k] = [-1 if own is None else classes.index(own) for own in each]
        for k, name in enumerate(self.statics):
            if name in static:
                numbers[:, k] = np.broadcast_to(np.asarray(static[name], np.float64), count)
        return codes, numbers

    def sentences(self, text: Text, count: int) -> list[str]:
        """What a caller says in words, one sentence for all windows or one each; `""` where nothing is said."""
        if text is not None and not self.text:
            raise ClipError("text: the model was trained without sentences; train one with text=COLUMN")
        each = [text] * count if text is None or isinstance(text, str) else list(text)
        if len(each) != count:
            raise ClipError(f"text: {len(each)} sentences for {count} windows")
        return [own or "" for own in each]


def modalities_of(channels: int, patch: int) -> list[Modality]:
    """What the network must know of each channel: noised samples, wanted, given samples, given."""
    return [Modality(f"channel{i}", 1, 4 * patch, "sensor") for i in range(channels)]


def to_cells(windows: Tensor, patch: int) -> Tensor:
    """`[B, L, C]` → `[B, T, C, P]`."""
    return windows.unflatten(1, (-1, patch)).transpose(2, 3)


def from_cells(cells: Tensor) -> Tensor:
    """`[B, T, C, P]` → `[B, L, C]`."""
    return cells.transpose(2, 3).flatten(1, 2)


def predict(
    transformer: CounterpointTransformer, noised: Tensor, wanted: Tensor, clean: Tensor, given: Tensor, sigma: Tensor,
    text: Tensor, text_mask: Tensor,
) -> Tensor:  # fmt: skip
    """What the network says of every cell, `[B, T, C, P]`.

    Args:
        noised: samples as the process scales them; `clean`: samples where they are given; both `[B, T, C, P]`.
        wanted, given: bool `[B, T, C, P]`, never both; where neither is True, nothing was measured.
        sigma: `[B, T]`.
        text, text_mask: of `Conditions.states`.
    """
    zero = torch.zeros((), device=noised.device)
    parts = (torch.where(wanted, noised, zero), wanted, torch.where(given, clean, zero), given)
    inputs = torch.cat([part.to(noised.dtype) for part in parts], dim=-1)  # [B, T, C, 4P]
    names = list(transformer.modalities)
    latents = {name: inputs[:, :, i, None] for i, name in enumerate(names)}
    said = transformer(latents, dict.fromkeys(names, sigma), text, text_mask)
    return torch.cat([said[name][..., : noised.shape[3]] for name in names], dim=2).float()


class RecordingGenerator:
    """Scale, network and how to sample.

    Args:
        scale: of the channels, with their names and units.
        conditions: what windows can be told.
        transformer: denoises.
        facts: `length`, `patch`, `step`, `time`, `dates`, `solver`, `steps` and what else is kept; must be JSON.
    """

    def __init__(self, scale: Scale, conditions: Conditions, transformer: CounterpointTransformer, facts: dict) -> None:
        self.scale, self.conditions, self.facts = scale, conditions, facts
        self.transformer = transformer.eval()
        self.sentences = SentenceStates()

    def sample(
        self, count: int, length: int | None = None, label: Labels = None, static: Statics = None, seed: int = 0,
        guidance: float = 1.0, steps: int | None = None, solver: str | None = None, text: Text = None,
    ) -> np.ndarray:  # fmt: skip
        """New windows `[count, length, C]` float32 in the channels' units; window i depends on `seed` and i alone.

        Args:
            length: steps, of any number; None: as trained.
            label: `{column: class}`, one for all windows or one each; static: `{column: number}`, likewise.
            guidance: how far towards the conditions; 1 is none beyond what was learned.
            steps, solver: None for the model's own.
            text: a sentence, one for all windows or one each (None: nothing said).

        Returns:
            NaN where a slower channel has no sample.
        """
        blank = np.full((count, length or self.facts["length"], len(self.scale.channels)), np.nan, np.float32)
        return self.complete(blank, 1, label, static, seed, guidance, steps, solver, text)[0]

    def forecast(self, past: np.ndarray, ahead: int, ensemble: int = 20, **options) -> np.ndarray:
        """The `ahead` steps behind windows `[N, L, C]`, as samples `[S, N, ahead, C]`; options of `complete`."""
        if ahead < 1:
            raise ClipError(f"ahead: {ahead} steps, expected 1 or more")
        past = np.asarray(past, np.float32)
        blank = np.full((len(past), ahead, past.shape[2]), np.nan, np.float32)
        return self.complete(np.concatenate([past, blank], axis=1), ensemble, **options)[:, :, -ahead:]

    def complete(
        self, values: np.ndarray, ensemble: int = 1, label: Labels = None, static: Statics = None, seed: int = 0,
        guidance: float = 1.0, steps: int | None = None, solver: str | None = None, text: Text = None,
    ) -> np.ndarray:  # fmt: skip
        """Windows `[N, L, C]` with every NaN filled, `[S, N, L, C]`; the other values stay as they are, to the bit.

        Cells of a slower channel between its samples stay NaN. Options as in `sample`.

        Raises:
            ClipError: another number of channels, infinite values, an unknown condition or class, or a sentence for
                a model that reads none.
        """
        values = np.asarray(values, np.float32)
        if values.ndim != 3 or values.shape[2] != len(self.scale.channels) or values.shape[1] < 1:
            raise ClipError(f"values: {list(values.shape)}, expected [windows, steps, {len(self.scale.channels)}]")
        if np.isinf(values).any():
            raise ClipError("values: infinite, expected numbers, and NaN where there is none")
        if ensemble < 1:
            raise ClipError(f"ensemble: {ensemble} samples, expected 1 or more")
        given = ~np.isnan(values)
        wanted = self._wanted(given)
        known = np.where(given, self.scale.apply(values), np.float32(0))
        said = self.sentences(self.conditions.sentences(text, len(values)))
        states = self.conditions.states(*self.conditions.read(label, static, len(values)), said)
        out = np.repeat(values[None], ensemble, axis=0)
        size = max(1, TOKENS // (values.shape[2] * max(1, self.facts["length"] // self.facts["patch"])))
        for number in range(ensemble):
            seeds = np.random.SeedSequence((seed, 13, number)).generate_state(len(values))
            for first in range(0, len(values), size):
                part = slice(first, first + size)
                told = states[0][part], states[1][part]
                args = (known[part], given[part], wanted[part], told, seeds[part].tolist())
                made = self.scale.undo(self._fill(*args, guidance, steps, solver))
                out[number, part] = np.where(wanted[part], made, values[part])
        return out

    def _wanted(self, given: np.ndarray) -> np.ndarray:
        """The cells `[N, L, C]` to generate: those not given; of a slower channel, in step with those that are."""
        wanted = np.ones_like(given)
        steps = np.arange(given.shape[1])
        for c, channel in enumerate(self.scale.channels):
            if channel.every > 1:
                phases = np.stack([given[:, p :: channel.every, c].sum(axis=1) for p in range(channel.every)], axis=1)
                wanted[:, :, c] = steps % channel.every == phases.argmax(axis=1)[:, None]
        return wanted & ~given

    @torch.no_grad()
    def _fill(
        self, known: np.ndarray, given: np.ndarray, wanted: np.ndarray, told: tuple[Tensor, Tensor],
        seeds: Sequence[int], guidance: float, steps: int | None, solver: str | None,
    ) -> np.ndarray:  # fmt: skip
        """Scaled windows `[B, L, C]` with the wanted cells generated, window after window where they are long."""
        patch, device, length = self.facts["patch"], self.transformer.device, known.shape[1]
        more = -length % patch
        x, has, left = (
            to_cells(torch.from_numpy(np.pad(a, ((0, 0), (0, more), (0, 0)))), patch).to(device)
            for a in (known, given, wanted)
        )  # [B, T, C, P]
        noise = draw_noise({"sensor": x.shape[1:]}, seeds)["sensor"].to(device)  # pyright: ignore[reportArgumentType]
        for begin, stop in spans(x.shape[1], self.facts["length"] // patch, beyond=False):
            part = slice(begin, stop)
            if left[:, part].any():
                cells = (noise[:, part], left[:, part], x[:, part], has[:, part])
                fresh = self._window(*cells, told, guidance, steps, solver)
                x[:, part] = torch.where(left[:, part], fresh, x[:, part])
                has[:, part] |= left[:, part]
                left[:, part] = False
        return from_cells(x)[:, :length].cpu().numpy()

    def _window(
        self, noise: Tensor, wanted: Tensor, clean: Tensor, given: Tensor, told: tuple[Tensor, Tensor],
        guidance: float, steps: int | None, solver: str | None,
    ) -> Tensor:  # fmt: skip
        text, mask = (x.to(noise.device) for x in told)

        def denoise(name: str, latents: dict[str, Tensor], sigma: dict[str, Tensor]) -> dict[str, Tensor]:
            stands = mask & (name != "unconditional")
            args = (latents["sensor"], wanted, clean, given, sigma["sensor"], text, stands)
            return {"sensor": predict(self.transformer, *args)}

        denoiser = as_flow(denoise, process_of(self.transformer.config))
        scheduler = make_scheduler(solver or self.facts["solver"])
        count = self.facts["steps"] if steps is None else steps
        guides = [ClassifierFree(scale=guidance)] if guidance != 1.0 and bool(mask.any()) else []
        return sample(denoiser, {"sensor": noise}, scheduler, count, guides)["sensor"]

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> Path:
        """Writes `recordings.json` (scale, conditions, facts) and `transformer/`, rounded to `dtype` if it is given."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_transformer(self.transformer, folder / "transformer", dtype)
        content = {**self.scale.to_dict(), "conditions": asdict(self.conditions), "facts": self.facts}
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (folder / "recordings.json").write_text(text + "\n", encoding="utf-8")
        return folder

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> RecordingGenerator:
        """Reads what `save_pretrained` wrote; a folder without it is a ClipError."""
        path = Path(folder) / "recordings.json"
        if not path.is_file():
            raise ClipError(f"{path}: missing; train a model with `counterpoint train sensors data=FILE time=COLUMN`")
        content = json.loads(path.read_text(encoding="utf-8"))
        told = content["conditions"]
        classes = {name: tuple(own) for name, own in told["classes"].items()}
        statics, mean, std = (tuple(told[key]) for key in ("statics", "mean", "std"))
        words = told.get("text", ""), told.get("text_dim", 0), told.get("text_length", 0)  # older models read none
        conditions = Conditions(classes, statics, mean, std, *words)
        network = CounterpointTransformer.from_pretrained(
            str(Path(folder) / "transformer"), torch_dtype=torch.float32, low_cpu_mem_usage=False
        )
        return cls(Scale.from_dict(content), conditions, network, content["facts"])
