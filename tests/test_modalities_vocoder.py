"""NNLS against a known spectrum and scipy, Griffin-Lim, and the vocoder's shapes, prior and saving."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.optimize
import torch

from counterpoint.modalities.audio import (
    HOP,
    SLOT,
    AudioCodec,
    SoundGrid,
    filterbank,
    istft,
    log_mel_l1,
    mel_spectrogram,
    stft,
)
from counterpoint.modalities.clip import ClipError
from counterpoint.modalities.clip_resample import to_rate
from counterpoint.modalities.vocoder import Vocoder, griffin_lim, nnls

HIGH = SoundGrid(24000)


def ringing(samples: int = 4 * SLOT, start: int = SLOT) -> torch.Tensor:
    """A struck bar: silence, then three decaying sinusoids. [1, 1, N]"""
    time = torch.arange(samples - start) / 16_000
    sound = sum(0.2 * torch.exp(-time / 0.1) * torch.sin(2 * torch.pi * f * time) for f in (440.0, 1210.0, 2375.0))
    return torch.cat([torch.zeros(start), sound])[None, None]  # pyright: ignore[reportArgumentType]


def tiny_vocoder(rate: int = 16000) -> Vocoder:
    torch.manual_seed(0)
    return Vocoder(16, 32, 1, rate=rate).eval()


def spectra() -> torch.Tensor:
    return torch.rand(1, 513, 6, generator=torch.Generator().manual_seed(0)) ** 4


def test_nnls_recovers_the_mel_of_a_non_negative_spectrum():
    mel = filterbank() @ spectra()
    estimate = nnls(mel, steps=300)
    assert (estimate >= 0).all()
    assert (filterbank() @ estimate - mel).norm() < 0.01 * mel.norm()


def test_nnls_comes_close_to_scipys_and_never_gets_worse():
    mel = filterbank() @ spectra() + 0.002 * torch.rand(1, 128, 6, generator=torch.Generator().manual_seed(1))
    residuals = [(filterbank() @ nnls(mel, steps) - mel).norm().item() for steps in (0, 3, 10, 300)]
    assert residuals == sorted(residuals, reverse=True)
    best = [scipy.optimize.nnls(filterbank().double().numpy(), m.double().numpy())[1] for m in mel[0].T]
    assert residuals[-1] < np.linalg.norm(best) + 0.02 * mel.norm().item()


def test_nnls_recovers_a_spectrum_that_the_filters_resolve():
    spectrum = torch.zeros(1, 513, 1)
    spectrum[0, [20, 40, 60]] = torch.tensor([[1.0], [0.5], [2.0]])  # below 1 kHz a filter is about a bin wide
    estimate = nnls(filterbank() @ spectrum, steps=2000)
    torch.testing.assert_close(estimate[0, [20, 40, 60]], spectrum[0, [20, 40, 60]], rtol=0.05, atol=0.0)


def test_nnls_of_silence_is_finite_and_nearly_silent():
    estimate = nnls(mel_spectrogram(torch.zeros(1, 1, SLOT)).exp())
    assert estimate.isfinite().all()
    assert estimate.max() < 1e-2


def test_griffin_lim_gets_closer_with_every_step_and_keeps_the_mel():
    sound = ringing()
    mel = mel_spectrogram(sound)
    errors = [log_mel_l1(griffin_lim(mel, steps), sound) for steps in (0, 4, 32)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.5
    assert griffin_lim(mel).shape == sound.shape


def test_griffin_lim_does_not_depend_on_the_batch():
    mel = mel_spectrogram(torch.cat([ringing(), ringing(start=2 * SLOT)]))
    torch.testing.assert_close(griffin_lim(mel, 4)[1:], griffin_lim(mel[1:], 4), atol=1e-4, rtol=0.0)


def test_griffin_lim_rebuilds_at_24_khz_what_16_khz_can_not_hold():
    """A tone of 10 kHz: most of the sound that comes back lies at its pitch, within the width of a mel band."""
    tone = 0.3 * torch.sin(2 * torch.pi * 10_000 / 24_000 * torch.arange(6 * HIGH.slot))[None, None]
    assert np.abs(to_rate(tone.numpy(), 24_000, 16_000)[..., SLOT:-SLOT]).max() < 1e-3
    rebuilt = griffin_lim(mel_spectrogram(tone, HIGH), grid=HIGH)
    assert rebuilt.shape == tone.shape
    power = stft(rebuilt, HIGH).abs().square().sum((0, 2))  # [769]
    frequency = torch.linspace(0, 12_000, HIGH.bins)
    assert abs(float(frequency[power.argmax()]) - 10_000) < 250
    assert power[(frequency - 10_000).abs() < 500].sum() > 0.95 * power.sum()
    assert rebuilt.std() > 0.3 * tone.std()  # of the many magnitudes with this mel, that of NNLS is not as peaked


@torch.no_grad()
def test_codec_and_vocoder_make_a_round_trip_at_24_khz(tmp_path):
    codec = AudioCodec(16, (1, 1), 1, rate=24000).eval()
    sound = 0.1 * torch.randn(2, 1, 3 * HIGH.slot, generator=torch.Generator().manual_seed(0))
    latents = codec.encode(sound)
    assert latents.shape == (2, 3, 4, 32)
    assert codec.decode(latents, tiny_vocoder(24000)).shape == sound.shape
    mel = mel_spectrogram(sound, HIGH)
    torch.testing.assert_close(tiny_vocoder(24000).spectrum(mel).abs(), nnls(mel.exp(), 10, HIGH), rtol=1e-4, atol=1e-6)
    tiny_vocoder(24000).save_pretrained(tmp_path)
    assert torch.equal(Vocoder.from_pretrained(tmp_path)(mel), tiny_vocoder(24000)(mel))


@pytest.mark.parametrize("frames", [1, 2, 8, 31])
def test_vocoder_makes_320_samples_a_frame(frames: int):
    assert tiny_vocoder()(torch.zeros(2, 128, frames)).shape == (2, 1, frames * HOP)


@pytest.mark.parametrize("shape", [(128, 8), (1, 80, 8), (1, 128, 0)])
def test_vocoder_refuses_other_shapes(shape: tuple[int, ...]):
    with pytest.raises(ClipError, match="log-mel: shape"):
        tiny_vocoder()(torch.zeros(shape))


def test_untrained_vocoder_has_the_amplitude_prior():
    mel = mel_spectrogram(ringing())
    torch.testing.assert_close(tiny_vocoder().spectrum(mel).abs(), nnls(mel.exp()), rtol=1e-4, atol=1e-6)


def test_a_click_stays_within_a_hop():
    """Whatever the phase, a frame is 1,024 samples: energy elsewhere must be nothing."""
    sound = torch.zeros(1, 1, 8 * SLOT)
    place = 4 * SLOT + 77
    sound[..., place] = 0.9
    rebuilt = griffin_lim(mel_spectrogram(sound))[0, 0]
    assert abs(int(rebuilt.abs().argmax()) - place) <= HOP
    inside = rebuilt[place - 1024 : place + 1024].square().sum() / rebuilt.square().sum()
    assert inside > 0.999
    vocoded = tiny_vocoder()(mel_spectrogram(sound))[0, 0]
    assert vocoded[place - 1024 : place + 1024].square().sum() / vocoded.square().sum() > 0.999


def test_true_phase_puts_a_click_on_its_sample():
    sound = torch.zeros(1, 1, 4 * SLOT)
    sound[..., 5001] = 0.9
    spectrum = stft(sound)
    magnitude = nnls(mel_spectrogram(sound).exp(), 100)
    rebuilt = istft(magnitude * spectrum / spectrum.abs().clamp_min(1e-9))[0, 0]
    assert abs(int(rebuilt.abs().argmax()) - 5001) <= 1


@pytest.mark.parametrize(("dtype", "tolerance"), [(None, 0.0), (torch.float16, 1e-2)])
def test_saved_vocoder_is_the_same(tmp_path, dtype: torch.dtype | None, tolerance: float):
    vocoder, mel = tiny_vocoder(), mel_spectrogram(ringing())
    vocoder.save_pretrained(tmp_path / "vocoder", dtype=dtype)
    again = Vocoder.from_pretrained(tmp_path / "vocoder", torch_dtype=torch.float32)
    torch.testing.assert_close(again(mel), vocoder(mel), atol=tolerance, rtol=0.0)


@torch.no_grad()
def test_a_vocoder_saved_without_a_rate_is_of_16_khz(tmp_path):
    tiny_vocoder().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("rate") == 16000
    (tmp_path / "config.json").write_text(json.dumps(config))
    old, mel = Vocoder.from_pretrained(tmp_path), mel_spectrogram(ringing())
    assert old.grid.rate == 16000
    assert torch.equal(old(mel), tiny_vocoder()(mel))


@torch.no_grad()
def test_shift_by_a_frame_shifts_the_sound():
    mel = mel_spectrogram(ringing(8 * SLOT, 3 * SLOT))
    one, other = tiny_vocoder()(mel), tiny_vocoder()(mel.roll(1, dims=-1))
    torch.testing.assert_close(one[..., 2 * SLOT : -SLOT - HOP], other[..., 2 * SLOT + HOP : -SLOT], atol=1e-4, rtol=0)
