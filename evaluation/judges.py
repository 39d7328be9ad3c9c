"""Judges: three small networks that read what a clip shows (material, shape, …) from each track on its own.

They are trained on world clips from other seeds (`recipes/judges.py`). Each gives a 128-d feature vector, in which
realism is measured, and log-probabilities for every attribute; adherence pools the tracks.

Legend: B batch, F frames, A an attribute's classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from ..modalities.audio import mel_spectrogram
from ..modalities.clip import ClipError

TRACKS = ("video", "audio", "sensor")
FEATURES = 128
STRIDE = 4  # the video judge looks at every 4th frame
UNITS = (2.0,) * 3 + (1.0,) * 3 + (5.0,)  # m/s², rad/s, N at which the sensors' scale turns logarithmic


def _block(inputs: int, outputs: int, kernel: int = 3, stride: int = 2) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.SiLU())


def _block1d(inputs: int, outputs: int, kernel: int = 5, stride: int = 2) -> nn.Sequential:
    convolution = nn.Conv1d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm1d(outputs), nn.SiLU())


class AudioJudge(nn.Module):
    """Log-mel image → 128-d: strided 2-D convolutions; mean and maximum over time, frequency kept in eight bands."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(_block(1, 24, 5), _block(24, 48), _block(48, 96), _block(96, 96))
        self.out = nn.Sequential(nn.Linear(2 * 96 * 8, FEATURES), nn.SiLU())

    @staticmethod
    def prepare(audio: Tensor) -> Tensor:
        """Waveform `[B, 1, samples]` in [-1, 1] → about unit-range log-mel `[B, 1, 128, F]`."""
        return (mel_spectrogram(audio).unsqueeze(1) + 5.0) / 4.0

    def forward(self, mel: Tensor) -> Tensor:
        x = self.body(mel)  # [B, 96, 8, F/16]
        return self.out(torch.cat([x.mean(3), x.amax(3)], dim=1).flatten(1))  # [B, 128]


class VideoJudge(nn.Module):
    """Every 4th frame, and what differs from the clip's mean → 2-D convolutions per frame → 1-D over time → 128-d."""

    def __init__(self) -> None:
        super().__init__()
        self.frame = nn.Sequential(_block(6, 24, 5), _block(24, 48), _block(48, 64), _block(64, 64))
        self.place = nn.Linear(64 * 4 * 4, 128)
        self.time = nn.Sequential(_block1d(128, 128, 3, 1), _block1d(128, 128, 3, 1))
        self.out = nn.Sequential(nn.Linear(256, FEATURES), nn.SiLU())

    @staticmethod
    def prepare(video: Tensor) -> Tensor:
        """Video `[B, 3, F, 64, 64]` in [-1, 1] → `[B, F/4, 3, 64, 64]`."""
        return video[:, :, ::STRIDE].transpose(1, 2).contiguous()

    def forward(self, frames: Tensor) -> Tensor:
        B, F = frames.shape[:2]
        x = torch.cat([frames, 2 * (frames - frames.mean(1, keepdim=True))], dim=2)  # [B, F, 6, 64, 64]
        x = self.frame(x.flatten(0, 1).contiguous(memory_format=torch.channels_last))  # [B·F, 64, 4, 4]
        x = functional.silu(self.place(x.flatten(1))).unflatten(0, (B, F)).transpose(1, 2)  # [B, 128, F]
        x = self.time(x)
        return self.out(torch.cat([x.mean(2), x.amax(2)], dim=1))  # [B, 128]


class SensorJudge(nn.Module):
    """Seven channels at 100 Hz, on a logarithmic scale → 1-D convolutions → 128-d."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(_block1d(14, 64, 7), _block1d(64, 96), _block1d(96, 128), _block1d(128, 128))
        self.out = nn.Sequential(nn.Linear(256, FEATURES), nn.SiLU())

    @staticmethod
    def prepare(sensor: Tensor) -> Tensor:
        """Accelerometer xyz (m/s²), gyroscope xyz (rad/s), force z (N) `[B, 7, samples]` → `[B, 14, samples]`.

        Two scales: asinh(x / unit) shows size and sign of a blow, asinh(20 x / unit) what happens near zero.
        """
        x = sensor / torch.tensor(UNITS, device=sensor.device)[:, None]
        return torch.cat([torch.asinh(x), torch.asinh(20 * x)], dim=1) / 2

    def forward(self, sensor: Tensor) -> Tensor:
        x = self.body(sensor)
        return self.out(torch.cat([x.mean(2), x.amax(2)], dim=1))


class Judges(nn.Module):
    """The three judges, their heads, and how much each track's word counts for each attribute.

    `backgrounds` `[floors, 64, 64, 3]` uint8 are the empty scenes that `video_events` compares with.

    Args:
        classes: the values of each attribute in a fixed order, e.g. `{"material": ("glass", "metal", …), …}`.
    """

    pooling: Tensor
    backgrounds: Tensor

    def __init__(self, classes: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.classes = {name: tuple(str(v) for v in values) for name, values in classes.items()}
        self.judges = nn.ModuleDict({"video": VideoJudge(), "audio": AudioJudge(), "sensor": SensorJudge()})
        sizes = {name: len(values) for name, values in self.classes.items()}
        self.heads = nn.ModuleDict(
            {t: nn.ModuleDict({a: nn.Linear(FEATURES, n) for a, n in sizes.items()}) for t in TRACKS}
        )
        self.register_buffer("pooling", torch.ones(len(TRACKS), len(self.classes)))
        floors = sizes.get("floor", 0)
        self.register_buffer("backgrounds", torch.zeros(floors, 64, 64, 3, dtype=torch.uint8))  # for `video_events`

    def prepare(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`{"video": [B, 3, F, 64, 64], "audio": [B, 1, samples], "sensor": [B, 7, samples]}`, any subset → inputs."""
        return {t: self.judges[t].prepare(tensors[t]) for t in TRACKS if t in tensors}  # pyright: ignore

    def features(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Clip tensors → `{track: [B, 128]}`."""
        return {t: self.judges[t](x) for t, x in self.prepare(tensors).items()}

    def opinions(self, features: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Features → `{track: {attribute: log-probabilities [B, A]}}`, each track on its own."""
        return {
            t: {a: head(x).log_softmax(-1) for a, head in self.heads[t].items()}  # pyright: ignore
            for t, x in features.items()
        }

    def verdict(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features → `{attribute: log-probabilities [B, A]}`: the tracks' log-probabilities, weighted and summed.

        The weights (`pooling` `[3, attributes]`, ≥ 0) are fitted on validation clips, so a track in which an
        attribute cannot be read does not speak.
        """
        return pool(self.opinions(features), self.pooling, tuple(self.classes))

    def targets(self, attributes: Sequence[Mapping[str, object]]) -> dict[str, Tensor]:
        """Class numbers `{attribute: int64 [B]}`; -1 where a clip does not state the attribute.

        Raises:
            ClipError: a value that the judges have never seen.
        """
        return {a: torch.tensor([self._number(a, row.get(a)) for row in attributes]) for a in self.classes}

    def _number(self, attribute: str, value: object) -> int:
        if value is None:
            return -1
        if str(value) not in self.classes[attribute]:
            raise ClipError(f"{attribute}: {value!r} is none of {', '.join(self.classes[attribute])}")
        return self.classes[attribute].index(str(value))

    def save(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"classes": self.classes}, indent=1) + "\n")
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}, folder / "model.safetensors"
        )

    @classmethod
    def load(cls, folder: Path) -> Judges:
        """Read what `save` wrote; in eval mode, without gradients.

        Raises:
            ClipError: the folder does not hold judges.
        """
        try:
            judges = cls(json.loads((folder / "config.json").read_text())["classes"])
            judges.load_state_dict(load_file(folder / "model.safetensors"))
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ClipError(f"{folder}: not a folder of judges ({str(error).splitlines()[0]})") from error
        return judges.eval().requires_grad_(False)


def pool(opinions: Mapping[str, Mapping[str, Tensor]], weights: Tensor, attributes: Sequence[str]) -> dict[str, Tensor]:
    """Log-linear pool: `log_softmax(Σ_track weight · log p_track)` per attribute; weights `[3, attributes]`."""
    return {
        a: sum(weights[TRACKS.index(t), i] * by[a] for t, by in opinions.items()).log_softmax(-1)  # pyright: ignore
        for i, a in enumerate(attributes)
    }


def fit_pooling(opinions: Mapping[str, Mapping[str, Tensor]], targets: Mapping[str, Tensor]) -> Tensor:
    """The pool's weights `[3, attributes]` that make the validation clips' attributes most likely."""
    raw = torch.zeros(len(TRACKS), len(targets), requires_grad=True)
    optimizer = torch.optim.LBFGS([raw], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        pooled = pool(opinions, functional.softplus(raw), tuple(targets))
        loss = sum((functional.nll_loss(pooled[a], targets[a], ignore_index=-1) for a in targets), torch.zeros(()))
        loss = loss + 1e-3 * raw.square().mean()  # keeps what does not matter where it is
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # pyright: ignore
    return functional.softplus(raw).detach()
