"""Scores of tempo, key and ending for `guidance.classifier.CleanScore`: what is heard in the predicted clean clip.

    CleanScore(scale=20, score=Tempo(codecs, 66))        CleanScore(scale=20, score=Key(codecs, (2, "minor")))

All read the decoded log-mel and are log-probabilities of the asked answer among all that could be given, so that they
lead away from the others as well. Legend: `B` batch, `T` slots, `F` mel frames (50 a second), `K` tempos.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from ..modalities.audio import AudioCodec, SoundGrid, filterbank
from ..modalities.clip import ClipError
from ..modalities.codecs import Codecs
from ..modalities.music_terms import FIFTH, KEYS, PROFILES, asked_ending, asked_key, asked_tempo
from .measurements import decode_log_mel

FRAMES = 50  # a second
TEMPOS = (40.0, 240.0)  # beats a minute between which another tempo could be heard
STEP, NEAR = 1.02, 0.06  # from one rival to the next, and nepers within which a tempo is none; nor is half of it,
# after whose beats all repeats as well
QUIET = -6.0  # ln of the mel magnitude below which a rise hardly counts
TAIL = 0.2  # seconds before the end asked for in which all is silent already: a file that is cut there has ended
LAST = {True: 0.16, False: 0.5}  # seconds before the window's end that are silent in music that ends, and not in other
QUIET_SHARE, LOUD_SHARE = 0.05, 0.5  # of the mean level, below and above which these are
LOUDEST = 8.0  # ln of the mel magnitude: no sound in [-1, 1] gets there, but a prediction may


@dataclass(frozen=True)
class Tempo:
    """Does the sound repeat after one, two and four beats, and less after those of other tempos?

    Args:
        codecs: of the model.
        tempos: beats a minute, 40 to 240, of every clip of the batch or of each; None asks for none.
        sharpness: what an autocorrelation of 1 is worth in nats.

    Raises:
        ClipError: a tempo out of range, or a model without sound.
    """

    codecs: Codecs = field(repr=False)
    tempos: float | Sequence[float | None]
    sharpness: float = 20.0

    def __post_init__(self) -> None:
        for tempo in (self.tempos,) if isinstance(self.tempos, (int, float)) else self.tempos:
            if tempo is not None and not TEMPOS[0] <= tempo <= TEMPOS[1]:
                raise ClipError(f"tempo: {tempo:g} is not between {TEMPOS[0]:g} and {TEMPOS[1]:g} beats a minute")
        sound_codec(self.codecs, "tempo")

    def __call__(self, clean: dict[str, Tensor]) -> Tensor:
        """Log-probability `[B]` of the tempos given clean latents; 0 where none is asked for."""
        return self.of_mel(_log_mel(self.codecs, clean, "tempo"))

    def of_mel(self, log_mel: Tensor) -> Tensor:
        """The same of their log-mel `[B, 128, F]`."""
        correlation = autocorrelation(onsets(log_mel))  # [B, F - 1]
        asked = _each(self.tempos, len(correlation))
        return torch.stack([self._row(own, tempo) for own, tempo in zip(correlation, asked, strict=True)])

    def _row(self, correlation: Tensor, tempo: float | None) -> Tensor:
        if tempo is None:
            return correlation.sum() * 0.0
        count = int(math.log(TEMPOS[1] / TEMPOS[0]) / math.log(STEP)) + 1
        every = [TEMPOS[0] * STEP**i for i in range(count)]
        rivals = [other for other in every if all(abs(math.log(other * n / tempo)) > NEAR for n in (1, 2))]
        fit = repeats(correlation[None], torch.tensor([tempo, *rivals], device=correlation.device))  # [1, K]
        return torch.log_softmax(self.sharpness * fit[0], dim=0)[0]


@dataclass(frozen=True)
class Key:
    """Does the mean chroma fit the profile of the key better than those of the 23 others?

    Args:
        codecs: of the model.
        keys: tonic (C is 0) and mode (`major`, `minor`) of every clip of the batch, or of each; None asks for none.
        sharpness: what a correlation of 1 is worth in nats.

    Raises:
        ClipError: an unknown key, or a model without sound.
    """

    codecs: Codecs = field(repr=False)
    keys: tuple[int, str] | Sequence[tuple[int, str] | None]
    sharpness: float = 20.0

    def __post_init__(self) -> None:
        for key in (self.keys,) if self.keys in KEYS else self.keys:
            if key is not None and key not in KEYS:
                raise ClipError(f"key: {key} is not a tonic from 0 to 11 and major or minor")
        sound_codec(self.codecs, "key")

    def __call__(self, clean: dict[str, Tensor]) -> Tensor:
        """Log-probability `[B]` of the keys given clean latents; 0 where none is asked for."""
        return self.of_mel(_log_mel(self.codecs, clean, "key"))

    def of_mel(self, log_mel: Tensor) -> Tensor:
        """The same of their log-mel `[B, 128, F]`."""
        chroma = mean_chroma(log_mel, sound_codec(self.codecs, "key").grid)  # [B, 12]
        profiles = torch.stack([torch.tensor(PROFILES[mode]).roll(tonic) for tonic, mode in KEYS])  # [24, 12]
        fit = _standard(chroma) @ _standard(profiles.to(chroma)).T / 12  # correlations [B, 24]
        known = torch.log_softmax(self.sharpness * fit, dim=1)
        asked = [self.keys] * len(chroma) if self.keys in KEYS else list(self.keys)
        rows = [row.sum() * 0.0 if key is None else row[KEYS.index(key)] for row, key in zip(known, asked, strict=True)]  # pyright: ignore
        return torch.stack(rows)


@dataclass(frozen=True)
class Ending:
    """Is it silent after the last note, or does the music go on up to the window's end?

    Args:
        codecs: of the model.
        ends: of each clip of the batch the second by which it has ended; True for any in the window, False where it
            goes on, None where nothing is asked. Seconds beyond the window ask for nothing.
        sharpness: what the mean level of the clip is worth in nats.

    Raises:
        ClipError: a model without sound.
    """

    codecs: Codecs = field(repr=False)
    ends: Sequence[float | bool | None]
    sharpness: float = 50.0

    def __post_init__(self) -> None:
        sound_codec(self.codecs, "ending")

    def __call__(self, clean: dict[str, Tensor]) -> Tensor:
        """Log-probability `[B]` of the answers given clean latents; 0 where nothing is asked."""
        return self.of_mel(_log_mel(self.codecs, clean, "ending"))

    def of_mel(self, log_mel: Tensor) -> Tensor:
        """The same of their log-mel `[B, 128, F]`."""
        level = torch.nn.functional.softplus(log_mel - QUIET).mean(1)  # [B, F]
        return torch.stack([self._row(own, end) for own, end in zip(level, self.ends, strict=True)])

    def _row(self, level: Tensor, end: float | bool | None) -> Tensor:
        seconds = level.shape[0] / FRAMES
        if end is None or (end is not True and end is not False and end > seconds):
            return level.sum() * 0.0
        begin = seconds - LAST[end is not False]
        if not isinstance(end, bool):
            begin = min(begin, max(0.0, end - TAIL))
        share = level[round(begin * FRAMES) :].mean() / level.mean().clamp_min(1e-6)
        apart = LOUD_SHARE - share if end is False else share - QUIET_SHARE
        return torch.nn.functional.logsigmoid(-self.sharpness * apart)


@dataclass(frozen=True)
class Asked:
    """What prompts ask of tempo, key and ending, as one score for a batch.

    Args:
        codecs: of the model.
        prompts: of each clip; what they don't name is free.
    """

    codecs: Codecs = field(repr=False)
    prompts: tuple[str, ...]

    def __call__(self, clean: dict[str, Tensor]) -> Tensor:
        """Sum of the log-probabilities `[B]`; the sound is decoded once for all."""
        log_mel = _log_mel(self.codecs, clean, "obey")
        tempos = [asked_tempo(prompt) for prompt in self.prompts]
        tempos = [t if t is not None and TEMPOS[0] <= t <= TEMPOS[1] else None for t in tempos]
        keys = [asked_key(prompt) for prompt in self.prompts]
        ends = [asked_ending(prompt) for prompt in self.prompts]
        scores = Tempo(self.codecs, tempos), Key(self.codecs, keys), Ending(self.codecs, ends)
        return sum((score.of_mel(log_mel) for score in scores), log_mel.new_zeros(len(log_mel)))

    @property
    def any(self) -> bool:
        """Whether any prompt names a tempo, a key or an ending."""
        kinds = (asked_tempo, asked_key, asked_ending)
        return any(asked(prompt) is not None for asked in kinds for prompt in self.prompts)


def sound_codec(codecs: Codecs, what: str) -> AudioCodec:
    """The audio codec; a ClipError that names what needs it if there is none."""
    if codecs.audio is None:
        raise ClipError(f"{what}: this model makes no sound")
    return codecs.audio


def _each(value: float | Sequence[float | None], count: int) -> list[float | None]:
    return [value] * count if isinstance(value, (int, float)) else list(value)


def _log_mel(codecs: Codecs, clean: dict[str, Tensor], what: str) -> Tensor:
    if "audio" not in clean:
        raise ClipError(f"{what}: no sound is generated, only {', '.join(clean)}")
    return decode_log_mel(sound_codec(codecs, what), clean["audio"])


def onsets(log_mel: Tensor) -> Tensor:
    """Onset strength: mean rise of the compressed log-mel `[B, 128, F]` from frame to frame, `[B, F − 1]`."""
    return torch.nn.functional.softplus(log_mel - QUIET).diff(dim=2).clamp_min(0.0).mean(1)


def autocorrelation(envelope: Tensor) -> Tensor:
    """`[B, F]`, 1 at lag 0, unbiased: what does not repeat tends to 0 at every lag."""
    count = envelope.shape[1]
    centred = envelope - envelope.mean(1, keepdim=True)
    power = torch.fft.rfft(centred, 2 * count).abs().square()
    raw = torch.fft.irfft(power, 2 * count)[:, :count] / (count - torch.arange(count, device=envelope.device))
    return raw / raw[:, :1].clamp_min(1e-8)


def repeats(correlation: Tensor, tempos: Tensor) -> Tensor:
    """Mean autocorrelation `[B, F]` after 1, 2 and 4 beats of tempos `[K]`, as far as half of it reaches: `[B, K]`."""
    lags = FRAMES * 60 / tempos[:, None] * torch.tensor([1.0, 2.0, 4.0], device=tempos.device)  # [K, 3]
    inside = lags < correlation.shape[1] / 2
    low = lags.clamp_max(correlation.shape[1] - 2).floor().long()
    share = (lags - low).clamp(0, 1)
    values = correlation[:, low] * (1 - share) + correlation[:, low + 1] * share  # [B, K, 3]
    return (values * inside).sum(2) / inside.sum(1).clamp_min(1)


def mean_chroma(log_mel: Tensor, grid: SoundGrid) -> Tensor:
    """Mean chroma `[B, 12]` of a log-mel `[B, 128, F]`: every frame but the quiet ones with the same weight."""
    chroma = chroma_map(grid).to(log_mel) @ log_mel.clamp_max(LOUDEST).exp()  # [B, 12, F]
    loudest = chroma.detach().amax(1, keepdim=True)  # [B, 1, F]
    mean = (chroma / torch.maximum(loudest, 0.05 * loudest.amax(2, keepdim=True) + 1e-8)).mean(2)
    return mean - FIFTH * mean.roll(7, dims=1)


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def chroma_map(grid: SoundGrid) -> Tensor:
    """`[12, 128]`: how much each mel band says of each pitch class; bands wider than a semitone say little.

    Bands around 700 Hz count most: below, a band holds several notes, above, mostly overtones.
    """
    hertz = torch.arange(1, grid.bins) * grid.rate / grid.n_fft
    fine = torch.linspace(-0.5, 0.5, 9)[:, None] * grid.rate / grid.n_fft + hertz  # [9, bins − 1], within a bin
    distance = (12 * torch.log2(fine / 261.6256) - torch.arange(12)[:, None, None] + 6) % 12 - 6  # [12, 9, bins − 1]
    classes = torch.exp(-0.5 * (distance / 0.5).square()).mean(1)  # [12, bins − 1]
    bank = filterbank(grid)[:, 1:]  # [128, bins − 1]
    shares = classes @ (bank / bank.sum(1, keepdim=True).clamp_min(1e-8)).T  # [12, 128]
    centre = (bank @ hertz / bank.sum(1).clamp_min(1e-8)).clamp_min(1.0)
    weight = torch.exp(-0.5 * torch.log2(centre / 700.0).square()) * (centre > 150)
    return (shares - shares.mean(0)).clamp_min(0.0) * weight


def _standard(values: Tensor) -> Tensor:
    """Mean 0 and variance 1 along the last axis."""
    centred = values - values.mean(-1, keepdim=True)
    return centred / centred.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6)
