"""Mel against librosa and diffusers, the inverse STFT against the identity, codec shapes, saving, scores."""

from __future__ import annotations

import json

import librosa
import numpy as np
import pytest
import torch

from counterpoint.modalities import audio as A
from counterpoint.modalities.clip import ClipError

GRIDS = [A.SoundGrid(16000), A.SoundGrid(24000)]
HIGH = A.SoundGrid(24000)


def noise(batch: int = 2, samples: int = 2 * A.SLOT, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(batch, 1, samples, generator=torch.Generator().manual_seed(seed))


def tiny_codec(rate: int = 16000) -> A.AudioCodec:
    torch.manual_seed(0)
    return A.AudioCodec(16, (1, 1), 1, rate=rate).eval()


def test_both_rates_have_one_grid_of_time():
    assert [(g.hop, g.n_fft, g.bins, g.pad, g.slot) for g in GRIDS] == [
        (320, 1024, 513, 352, 2560), (480, 1536, 769, 528, 3840)
    ]  # fmt: skip
    assert A.SoundGrid() == A.GRID == GRIDS[0]
    for grid in GRIDS:
        assert grid.rate / grid.hop == 50
        assert grid.slot / grid.rate == 0.16


@pytest.mark.parametrize("rate", [0, 22050, 44100])
def test_other_rates_are_refused(rate: int):
    with pytest.raises(ClipError, match=f"rate: {rate} samples a second, expected 16000 or 24000"):
        tiny_codec(rate)


@pytest.mark.parametrize("grid", GRIDS)
def test_filterbank_is_librosas(grid: A.SoundGrid):
    expected = librosa.filters.mel(sr=grid.rate, n_fft=grid.n_fft, n_mels=A.MELS)
    np.testing.assert_allclose(A.filterbank(grid).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("grid", GRIDS)
def test_mel_spectrogram_is_librosas(grid: A.SoundGrid):
    sound = noise(1, 2 * grid.slot)
    padded = np.pad(sound[0, 0].numpy(), grid.pad, mode="reflect")
    expected = librosa.feature.melspectrogram(
        y=padded, sr=grid.rate, n_fft=grid.n_fft, hop_length=grid.hop, n_mels=A.MELS, center=False, power=1.0
    )
    mel = A.mel_spectrogram(sound, grid)[0].numpy()
    np.testing.assert_allclose(mel, np.log(np.maximum(expected, A.FLOOR)), atol=1e-3)
    if grid == A.GRID:
        assert np.array_equal(A.mel_spectrogram(sound)[0].numpy(), mel)


@pytest.mark.parametrize("grid", GRIDS)
def test_mel_spectrogram_is_the_front_end_of_mmaudio(grid: A.SoundGrid):
    sound = noise(2, 2 * grid.slot)
    expected = tiny_codec(grid.rate).vae.mel_converter(sound[:, 0])
    torch.testing.assert_close(A.mel_spectrogram(sound, grid), expected, atol=2e-3, rtol=0.0)


def test_silence_is_the_floor():
    mel = A.mel_spectrogram(torch.zeros(1, 1, A.SLOT))
    torch.testing.assert_close(mel, torch.full((1, 128, 8), float(np.log(1e-5))))


@pytest.mark.parametrize("frame", [0, 3, 7, 15])
def test_frames_are_centred_between_hops(frame: int):
    sound = torch.zeros(1, 1, 2 * A.SLOT)
    sound[..., frame * A.HOP + A.HOP // 2] = 0.5  # a click at (frame + ½) · hop
    level = A.mel_spectrogram(sound)[0].mean(0)
    assert level.argmax() == frame
    if 0 < frame < 15:
        torch.testing.assert_close(level[frame - 1], level[frame + 1], atol=1e-2, rtol=0.0)


@pytest.mark.parametrize("samples", [2 * A.HOP, A.SLOT, 16 * A.SLOT])
def test_istft_inverts_stft(samples: int):
    sound = noise(2, samples)
    spectrum = A.stft(sound)
    assert spectrum.shape == (2, 513, samples // A.HOP)
    torch.testing.assert_close(A.istft(spectrum), sound, atol=1e-5, rtol=0.0)


def test_istft_inverts_stft_at_24_khz():
    sound = noise(2, HIGH.slot)
    spectrum = A.stft(sound, HIGH)
    assert spectrum.shape == (2, 769, 8)
    torch.testing.assert_close(A.istft(spectrum, HIGH), sound, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("shape", [(1, A.SLOT), (1, 2, A.SLOT), (1, 1, A.SLOT + 1), (1, 1, A.HOP), (1, 1, 0)])
def test_mel_refuses_other_shapes(shape: tuple[int, ...]):
    with pytest.raises(ClipError, match=r"audio: .*expected"):
        A.mel_spectrogram(torch.zeros(shape))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("slots", [1, 2, 16])
def test_codec_shapes(slots: int, grid: A.SoundGrid):
    codec = tiny_codec(grid.rate)
    latents = codec.encode(noise(2, slots * grid.slot))
    assert latents.shape == (2, slots, 4, 32)
    assert codec.decode_mel(latents).shape == (2, 128, 8 * slots)


@pytest.mark.parametrize("samples", [0, A.HOP, 2 * A.HOP, A.SLOT - 1, A.SLOT + A.HOP])
def test_codec_refuses_parts_of_slots(samples: int):
    with pytest.raises(ClipError, match=f"audio: {samples} samples, expected a positive multiple of 2560"):
        tiny_codec().encode(torch.zeros(1, 1, samples))


def test_codec_refuses_sound_of_another_rate():
    with pytest.raises(ClipError, match="audio: 2560 samples, expected a positive multiple of 3840"):
        tiny_codec(24000).encode(torch.zeros(1, 1, A.SLOT))


@pytest.mark.parametrize("shape", [(1, 16, 32), (1, 2, 4, 31), (1, 2, 3, 32), (1, 0, 4, 32)])
def test_decode_refuses_other_shapes(shape: tuple[int, ...]):
    with pytest.raises(ClipError, match="audio latents: shape"):
        tiny_codec().decode_mel(torch.zeros(shape))


def test_latents_are_standardized_and_undone():
    codec, sound = tiny_codec(), noise(2)
    raw, mel = codec.encode(sound), codec.decode_mel(codec.encode(sound))
    mean, std = torch.arange(32.0), torch.arange(1.0, 33.0)
    codec.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())
    torch.testing.assert_close(codec.encode(sound), (raw - mean) / std)
    torch.testing.assert_close(codec.decode_mel(codec.encode(sound)), mel, atol=1e-4, rtol=1e-4)


def test_decode_goes_through_the_vocoder():
    codec, seen = tiny_codec(), []

    def vocoder(mel: torch.Tensor) -> torch.Tensor:
        seen.append(mel)
        return torch.full((mel.shape[0], 1, mel.shape[2] * A.HOP), 3.0)

    latents = codec.encode(noise(1))
    sound = codec.decode(latents, vocoder)
    assert torch.equal(sound, torch.ones(1, 1, 2 * A.SLOT))  # clamped to [-1, 1]
    assert torch.equal(seen[0], codec.decode_mel(latents))


@pytest.mark.parametrize(("dtype", "tolerance"), [(None, 0.0), (torch.float16, 0.02)])
def test_saved_codec_is_the_same(tmp_path, dtype: torch.dtype | None, tolerance: float):
    codec, sound = tiny_codec(), noise(1)
    codec.register_to_config(latents_mean=[0.5] * 32, latents_std=[2.0] * 32)
    codec.save_pretrained(tmp_path / "audio_codec", dtype=dtype)
    assert {p.name for p in (tmp_path / "audio_codec").iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }
    again = A.AudioCodec.from_pretrained(tmp_path / "audio_codec", torch_dtype=torch.float32)
    assert codec.dtype == again.dtype == torch.float32
    torch.testing.assert_close(again.encode(sound), codec.encode(sound), atol=tolerance, rtol=0.0)


def test_the_rate_is_saved_and_16_khz_where_none_is(tmp_path):
    sound = noise(1)
    for rate in (16000, 24000):
        tiny_codec(rate).save_pretrained(tmp_path / str(rate))
        assert A.AudioCodec.from_pretrained(tmp_path / str(rate)).grid.rate == rate
    path = tmp_path / "16000" / "config.json"
    config = json.loads(path.read_text())
    del config["rate"]  # as it was written before there was another rate
    path.write_text(json.dumps(config))
    old = A.AudioCodec.from_pretrained(path.parent)
    assert old.grid == A.GRID
    assert torch.equal(old.encode(sound), tiny_codec().encode(sound))


def test_scores_are_zero_for_equal_and_right_for_scaled_sounds():
    sound = noise(1, 4 * A.SLOT)
    assert A.log_mel_l1(sound, sound) == 0.0
    assert A.multi_scale_stft(sound, sound) == {"log_magnitude": 0.0, "spectral_convergence": 0.0}
    assert A.log_mel_l1(0.5 * sound, sound) == pytest.approx(np.log(2), abs=1e-4)
    halved = A.multi_scale_stft(0.5 * sound, sound)
    assert halved["log_magnitude"] == pytest.approx(np.log(2), abs=1e-3)
    assert halved["spectral_convergence"] == pytest.approx(0.5, abs=1e-4)


def test_magnitudes_of_white_noise_read_its_rms():
    rms = A.magnitudes(noise(1, 16 * A.SLOT), 1024).square().mean().sqrt()
    assert rms.item() == pytest.approx(0.1, rel=0.03)
