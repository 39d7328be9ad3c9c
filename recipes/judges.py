"""Train the judges that read attributes from each track (`evaluation/judges.py`).

    python -m counterpoint.recipes.judges data=FOLDER run=FOLDER [tiny] [minutes=5] [key=value …]

The data folder holds `video.npy` uint8 [N, 64, 64, 64, 3], `audio.npy` float16 [N, 40960], `sensor.npy` float32
[N, 7, 256] and `clips.json` (a list of {"attributes": {…}, …}). Use clips of other seeds than the model's.
The same command resumes.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from counterpoint.data.arrays import read_arrays
from counterpoint.evaluation.judges import Judges, fit_pooling
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes.codec_training import FitSettings, batch_indices, fit, parse_settings

ATTRIBUTES = ("material", "shape", "size", "floor", "action", "count")


@dataclass(frozen=True)
class JudgesSettings(FitSettings):
    """How the judges are trained; every augmentation is a stand-in for what a generator smears."""

    validation: float = 0.1  # share of clips that fit the pool's weights and are scored for the log
    video_noise: float = 0.08  # largest standard deviation of added noise (video is in [-1, 1])
    mel_noise: float = 0.15  # the same for the log-mel (in units of 4 nepers)
    sensor_noise: float = 0.05  # the same for the sensors, on their logarithmic scale
    blur: float = 0.5  # share of clips whose inputs are blurred
    gain: float = 0.15  # largest change of brightness, contrast and level


def tiny() -> JudgesSettings:
    """For tests: a few steps."""
    return JudgesSettings(minutes=1.0, max_steps=4, batch=4, checkpoint_every=4, log_every=1, measure=1)


def small() -> JudgesSettings:
    """What ships."""
    return JudgesSettings(minutes=6.0, batch=32, lr=2e-3, ema=0.99, weight_decay=0.02, checkpoint_every=100)


class WorldClips:
    """The memory-mapped arrays of a data folder and their attributes; the last clips are for validation."""

    def __init__(self, folder: Path, validation: float) -> None:
        clips = read_arrays(folder)
        self.arrays: dict[str, np.ndarray] = {}
        records = clips.entries
        for name, array in (("video", clips.video), ("audio", clips.audio), ("sensor", clips.sensor)):
            if array is None:
                raise ClipError(f"{folder / name}.npy: no such file; judges need video, audio and sensors")
            self.arrays[name] = array
        for name, array in self.arrays.items():
            if len(array) != len(records):
                raise ClipError(f"{folder / name}.npy: {len(array)} clips, but clips.json has {len(records)}")
        self.attributes = [record["attributes"] for record in records]
        self.held_out = max(1, round(validation * len(records)))
        self.count = len(records) - self.held_out

    def classes(self) -> dict[str, list[str]]:
        """Every attribute's values, sorted."""
        return {a: sorted({str(r[a]) for r in self.attributes if r.get(a) is not None}) for a in ATTRIBUTES}

    def tensors(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Rows `[B]` → video `[B, 3, 64, 64, 64]`, audio `[B, 1, 40960]`, sensor `[B, 7, 256]`."""
        video, audio, sensor = (torch.from_numpy(self.arrays[t][np.sort(rows)]) for t in ("video", "audio", "sensor"))
        video = video.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        return {"video": video, "audio": audio.float().unsqueeze(1), "sensor": sensor.float()}

    def backgrounds(self, clips: int = 60) -> Tensor:
        """The empty scene over each floor, `[floors, 64, 64, 3]` uint8: the median of many clips' frames."""
        scenes = []
        for floor in self.classes()["floor"]:
            rows = [i for i in range(self.count) if str(self.attributes[i].get("floor")) == floor][:clips]
            frames = np.concatenate([self.arrays["video"][i][[0, 31, -1]] for i in rows])  # [clips · 3, H, W, 3]
            scenes.append(torch.from_numpy(np.median(frames, axis=0).astype(np.uint8)))
        return torch.stack(scenes)

    def batch(self, judges: Judges, rows: np.ndarray) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Rows → the judges' inputs and their targets."""
        with torch.no_grad():
            inputs = judges.prepare(self.tensors(rows))
        return inputs, judges.targets([self.attributes[i] for i in np.sort(rows)])


def augment(inputs: dict[str, Tensor], settings: JudgesSettings, draws: torch.Generator) -> dict[str, Tensor]:
    """Blur, gain, noise and mirror images, each clip its own; inputs as `Judges.prepare` gives them."""
    video, mel, sensor = inputs["video"], inputs["audio"], inputs["sensor"]
    B = len(video)

    def uniform(dims: int) -> Tensor:
        return torch.rand((B,) + (1,) * (dims - 1), generator=draws)

    def noisy(x: Tensor, largest: float) -> Tensor:
        return x + largest * uniform(x.ndim) ** 2 * torch.randn(x.shape, generator=draws)

    smooth = functional.avg_pool2d(video.flatten(0, 1), 3, 1, 1, count_include_pad=False).view_as(video)
    video = video.lerp(smooth, uniform(5) * (uniform(5) < settings.blur))
    video = video * (1 + settings.gain * (2 * uniform(5) - 1)) + settings.gain / 2 * (2 * uniform(5) - 1)
    video = torch.where(uniform(5) < 0.5, video.flip(-1), video)
    smooth = functional.avg_pool2d(mel, (3, 3), 1, 1, count_include_pad=False)
    mel = mel.lerp(smooth, uniform(4) * (uniform(4) < settings.blur)) + settings.gain * (2 * uniform(4) - 1)
    smooth = functional.avg_pool1d(sensor, 3, 1, 1, count_include_pad=False)
    sensor = sensor.lerp(smooth, uniform(3) * (uniform(3) < settings.blur))
    return {
        "video": noisy(video, settings.video_noise),
        "audio": noisy(mel, settings.mel_noise),
        "sensor": noisy(sensor, settings.sensor_noise),
    }


def loss(judges: Judges, batch: tuple[dict[str, Tensor], dict[str, Tensor]]) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy summed over tracks and attributes."""
    inputs, targets = batch
    opinions = judges.opinions({t: judges.judges[t](x) for t, x in inputs.items()})
    by_track = {
        t: torch.stack([functional.nll_loss(p, targets[a], ignore_index=-1) for a, p in by.items()]).sum()
        for t, by in opinions.items()
    }
    return torch.stack(list(by_track.values())).sum(), {f"loss_{t}": v.item() for t, v in by_track.items()}


@torch.no_grad()
def validate(judges: Judges, clips: WorldClips, batch: int = 64) -> dict[str, float]:
    """Fit the pool on the validation clips; accuracy of the pool and of each track on them."""
    rows = np.arange(clips.count, clips.count + clips.held_out)
    parts = [judges.features(clips.tensors(rows[i : i + batch])) for i in range(0, len(rows), batch)]
    features = {t: torch.cat([p[t] for p in parts]) for t in parts[0]}
    opinions, targets = judges.opinions(features), judges.targets([clips.attributes[i] for i in rows])
    judges.pooling.copy_(fit_pooling(opinions, targets))

    def accuracy(by: dict[str, Tensor], name: str) -> dict[str, float]:
        return {f"{name}_{a}": round((p.argmax(-1) == targets[a]).float().mean().item(), 4) for a, p in by.items()}

    scores = accuracy(judges.verdict(features), "pool")
    for track, by in opinions.items():
        scores |= accuracy(by, track)
    return scores


def train(settings: JudgesSettings, data: Path, run: Path) -> Path:
    """Train within `settings.minutes` and return the folder of the judges (`run/judges`).

    Raises:
        ClipError: the data folder is incomplete, or the run folder was started with other settings.
    """
    clips = WorldClips(data, settings.validation)
    torch.manual_seed(settings.seed)
    judges = Judges(clips.classes())
    judges.backgrounds.copy_(clips.backgrounds())

    def batch(step: int, draws: torch.Generator) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        inputs, targets = clips.batch(judges, batch_indices(clips.count, settings.batch, step, settings.seed))
        return augment(inputs, settings, draws), targets

    averaged = fit(
        judges,
        lambda model, made, _: loss(model, made),  # pyright: ignore
        batch,
        settings,
        run,
        preview=lambda model, _: validate(model, clips),  # pyright: ignore
    )
    scores = validate(averaged, clips)  # pyright: ignore
    averaged.save(run / "judges")  # pyright: ignore
    (run / "judges" / "scores.json").write_text(
        json.dumps({"validation": scores, "clips": clips.count}, indent=1) + "\n"
    )
    return run / "judges"


def main(arguments: list[str]) -> None:
    """`[tiny] data=FOLDER run=FOLDER key=value …`"""
    preset = tiny() if "tiny" in arguments else small()
    settings, paths = parse_settings(preset, [a for a in arguments if a not in ("tiny", "small")])
    print(train(settings, **paths))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ClipError as error:
        sys.exit(f"error: {error}")
