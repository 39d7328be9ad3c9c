"""What can be asked of a clip, as residuals of the predicted clean latents for `guidance.reconstruction`.

Each is a frozen dataclass around a model's codecs; called with clean latents `{modality: [B, T, S, C]}` it decodes what
it needs, with gradients, and returns measured less wanted, `[B, M]`, NaN where nothing is wanted.

Legend: `B` batch, `T` slots, `S` tokens, `C` channels, `K` channels of a sensor, `N` its samples, `F` frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from ..modalities.audio import GRID, HOP, RATE, AudioCodec, SoundGrid, mel_spectrogram
from ..modalities.clip import ClipError
from ..modalities.codecs import FPS, SLOT_SECONDS, Codecs
from ..modalities.sensor import SensorPatches

Latents = dict[str, Tensor]
C = TypeVar("C")


@dataclass(frozen=True)
class Loudness:
    """The loudness envelope of the sound, in nats (×8.69: dB), 50 a second, read from the decoded log-mel.

    Args:
        codecs: of the model.
        envelope: `[F]` or `[B, F]`, 8 values a slot, as `loudness_of` makes it; NaN where any loudness will do, as
            behind its end; what lies behind the clip's end is left out.
    """

    codecs: Codecs = field(repr=False)
    envelope: Tensor = field(repr=False)

    def __call__(self, clean: Latents) -> Tensor:
        """Residual `[B, F]`; a ClipError if no sound is generated."""
        measured = loudness(decode_log_mel(_codec(self.codecs.audio, "loudness"), _of(clean, "audio", "loudness")))
        return measured - _fitted(self.envelope.to(measured), measured.shape[1])


@dataclass(frozen=True)
class Masked:
    """Samples of a sensor where they were measured; residual in the codec's companded units (standard deviation 1).

    Args:
        codecs: of the model.
        sensor: e.g. `"accelerometer"`.
        values: `[K, N]` or `[B, K, N]` in physical units at the codec's rate; NaN where not measured, as behind their
            end; what lies behind the clip's end is left out.
    """

    codecs: Codecs = field(repr=False)
    sensor: str
    values: Tensor = field(repr=False)

    def __call__(self, clean: Latents) -> Tensor:
        """Residual `[B, M]`; a ClipError if the sensor is not generated or has another number of channels."""
        codec = _codec(self.codecs.sensor, self.sensor)
        samples = codec.decode(self.sensor, _of(clean, self.sensor, self.sensor).float())  # [B, K, 16·T]
        return _companded_difference(codec, self.sensor, samples, _fitted(self.values, samples.shape[2]))


@dataclass(frozen=True)
class LowRate:
    """A sensor read at a lower rate: each reading is the mean of the clip's samples within half a period of its time.

    Args:
        codecs: of the model.
        sensor: e.g. `"force"`.
        values: `[K, n]` or `[B, K, n]` in physical units, the first at time 0; NaN where not measured. Readings behind
            the clip's end are left out.
        rate: readings a second, not above the codec's.

    Raises:
        ClipError: a rate that is not between 0 and the codec's.
    """

    codecs: Codecs = field(repr=False)
    sensor: str
    values: Tensor = field(repr=False)
    rate: float

    def __post_init__(self) -> None:
        most = _codec(self.codecs.sensor, self.sensor).rate
        if not 0 < self.rate <= most:
            raise ClipError(f"{self.sensor}: {self.rate:g} readings a second, expected more than 0, at most {most:g}")

    def __call__(self, clean: Latents) -> Tensor:
        """Residual `[B, M]`; a ClipError if the sensor is not generated or has another number of channels."""
        codec = _codec(self.codecs.sensor, self.sensor)
        samples = codec.decode(self.sensor, _of(clean, self.sensor, self.sensor).float())  # [B, K, N]
        position = torch.arange(samples.shape[2]) * (self.rate / codec.rate)  # in readings
        means = _means((position + 0.5 + 1e-4).floor(), samples, most=self.values.shape[-1])  # [n, N]
        return _companded_difference(codec, self.sensor, samples @ means.T, self.values[..., : means.shape[0]])


@dataclass(frozen=True)
class Downsampled:
    """A small or slow video: every value is the mean of the pixels and frames that it covers.

    Args:
        codecs: of the model.
        video: `[3, f, h, w]` or `[B, 3, f, h, w]` in [−1, 1]; NaN where not known. Frames behind the clip's end are
            left out.
        rate: its frames a second, not above the codec's 25; frame i covers the time from i/rate to (i + 1)/rate.

    Raises:
        ClipError: a rate that is not between 0 and 25.
    """

    codecs: Codecs = field(repr=False)
    video: Tensor = field(repr=False)
    rate: float = FPS

    def __post_init__(self) -> None:
        if not 0 < self.rate <= FPS:
            raise ClipError(f"video: {self.rate:g} frames a second, expected more than 0, at most {FPS:g}")

    def __call__(self, clean: Latents) -> Tensor:
        """Residual `[B, 3·f·h·w]`; a ClipError if no video is generated, or it is the smaller one."""
        frames = _codec(self.codecs.video, "video").decode(_of(clean, "video", "video")).float()  # [B, 3, F, H, W]
        height, width = self.video.shape[-2:]
        if height > frames.shape[3] or width > frames.shape[4]:
            raise ClipError(f"video: {height}×{width} pixels, the clip has only {frames.shape[3]}×{frames.shape[4]}")
        position = torch.arange(frames.shape[2]) * (self.rate / FPS)  # in frames of the slow video
        means = _means((position + 1e-4).floor(), frames, most=self.video.shape[-3])  # [f, F]
        small = functional.adaptive_avg_pool3d(frames, (frames.shape[2], height, width))  # [B, 3, F, h, w]
        slow = torch.einsum("fn,bcnhw->bcfhw", means, small)
        return (slow - self.video[..., : means.shape[0], :, :].to(slow)).flatten(1)


JUMP = {"accelerometer": 20.0, "force": 20.0}  # m/s², N: from this change within a sample on, growth is logarithmic
ONSET = 0.5  # nats: from this rise of loudness between frames on, likewise
EARLY = 0.021  # seconds by which the rise between two frames comes before the onset that their windows of 64 ms reach


@dataclass(frozen=True)
class Events:
    """Hits at these times and none at others, in the sound, the accelerometer and the force plate, as far as generated.

    Each track has an onset envelope: the sound the mean rise of its log-mel between frames, a sensor the size of the
    change between samples (a high pass), both compressed logarithmically. It is compared with a train of equal pulses;
    both are scaled to length 1, so that how hard the hits are is left open. The network carries the times to the video.

    Args:
        codecs: of the model.
        times: seconds, each inside the clip.
        width: standard deviation of a pulse in seconds.

    Raises:
        ClipError: no times, or a negative one.
    """

    codecs: Codecs = field(repr=False)
    times: tuple[float, ...]
    width: float = 0.01

    def __post_init__(self) -> None:
        if not self.times or not all(math.isfinite(time) and time >= 0 for time in self.times):
            raise ClipError(f"events: {', '.join(map(str, self.times)) or 'none given'}; expected seconds from 0 on")

    def __call__(self, clean: Latents) -> list[Tensor]:
        """A residual `[B, M]` of each track; a ClipError for a time behind the clip's end, or if there is no track."""
        seconds = next(iter(clean.values())).shape[1] * SLOT_SECONDS
        if max(self.times) >= seconds:
            raise ClipError(f"events: {max(self.times):g} s is outside of the clip of {seconds:.2f} s")
        parts = []
        if "audio" in clean and self.codecs.audio is not None:
            log_mel = decode_log_mel(self.codecs.audio, clean["audio"])
            parts.append(self._shape(sound_onsets(log_mel), RATE / HOP, EARLY * RATE / HOP))
        if self.codecs.sensor is not None:
            for name in (name for name in JUMP if name in clean and name in self.codecs.sensor.channels):
                samples = self.codecs.sensor.decode(name, clean[name].float())
                parts.append(self._shape(sensor_jumps(samples, JUMP[name]), self.codecs.sensor.rate, -0.5))
        if not parts:
            raise ClipError("events: none of audio, accelerometer and force is generated")
        return parts

    def _shape(self, envelope: Tensor, rate: float, offset: float) -> Tensor:
        """An envelope `[B, F]` whose value i sits at (i + offset)/rate, less the pulses, both of length 1."""
        at = (torch.arange(envelope.shape[1], device=envelope.device) + offset) / rate
        times = torch.tensor(self.times, device=envelope.device)
        pulses = torch.exp(-0.5 * ((at[:, None] - times) / self.width).square()).sum(dim=1)  # [F]
        return functional.normalize(envelope, dim=1, eps=1e-3) - functional.normalize(pulses, dim=0)


def decode_log_mel(codec: AudioCodec, latents: Tensor) -> Tensor:
    """Latents `[B, T, 4, C]` → log-mel `[B, 128, 8·T]`: `AudioCodec.decode_mel`, with gradients."""
    raw = latents.to(codec.dtype).flatten(1, 2).mT  # [B, C, 4·T]
    mean, std = codec.statistics(raw)
    return codec.reconstruct(raw * std + mean).float()


def loudness(log_mel: Tensor) -> Tensor:
    """Root of the energy over all bands in nats: log-mel `[B, 128, F]` → `[B, F]`."""
    return 0.5 * torch.logsumexp(2.0 * log_mel, dim=1)


def loudness_of(audio: Tensor, grid: SoundGrid = GRID) -> Tensor:
    """The envelope of a sound `[B, 1, N]` at the rate of the codec's `grid`, N whole hops: `[B, N/hop]` in nats."""
    return loudness(mel_spectrogram(audio, grid))


def sound_onsets(log_mel: Tensor) -> Tensor:
    """Mean rise of the bands from one frame to the next, compressed: log-mel `[B, 128, F]` → `[B, F]`."""
    rise = functional.pad(log_mel.diff(dim=2), (1, 0)).clamp_min(0.0).mean(dim=1)
    return torch.log1p(rise / ONSET)


def sensor_jumps(samples: Tensor, unit: float) -> Tensor:
    """Size of the change from one sample to the next, compressed: `[B, K, N]` → `[B, N]`."""
    change = functional.pad(samples.diff(dim=2), (1, 0)).square().sum(dim=1)
    return torch.log1p(torch.sqrt(change / unit**2 + 1e-6) - 1e-3)


def _companded_difference(codec: SensorPatches, sensor: str, samples: Tensor, wanted: Tensor) -> Tensor:
    """Samples `[B, K, n]` less `wanted`, both companded, 0 where `wanted` is NaN: `[B, M]`."""
    if wanted.ndim < 2 or wanted.shape[-2] != samples.shape[1]:
        raise ClipError(f"{sensor}: values of shape {list(wanted.shape)}, expected {samples.shape[1]} channels")
    wanted = wanted.to(samples).expand_as(samples)
    mask = wanted.isfinite()
    return (codec.encode(sensor, samples, mask)[0] - codec.encode(sensor, wanted, mask)[0]).flatten(1)


def _means(group: Tensor, like: Tensor, most: int) -> Tensor:
    """Averages over the samples `[N]` of each group 0, 1, …: `[groups, N]`, at most the first `most` groups."""
    count = min(most, int(group.max()) + 1)
    members = (group == torch.arange(count)[:, None]).to(like)
    return members / members.sum(dim=1, keepdim=True)


def _fitted(values: Tensor, count: int) -> Tensor:
    """The first `count` values of the last axis, NaN behind the end."""
    return functional.pad(values[..., :count].float(), (0, max(count - values.shape[-1], 0)), value=math.nan)


def _codec(codec: C | None, name: str) -> C:
    if codec is None:
        raise ClipError(f"{name}: this model has no codec for it")
    return codec


def _of(clean: Latents, name: str, what: str) -> Tensor:
    if name not in clean:
        raise ClipError(f"{what}: no {name} is generated, only {', '.join(clean)}")
    return clean[name]
