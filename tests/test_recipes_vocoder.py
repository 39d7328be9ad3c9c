"""A tiny training of the vocoder from start to saved model, its crops and losses, and exact resume."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from counterpoint.modalities.audio import SLOT, AudioCodec, mel_spectrogram
from counterpoint.modalities.clip import ClipError
from counterpoint.modalities.vocoder import Vocoder
from counterpoint.recipes import vocoder as R
from counterpoint.recipes.codec_training import generator


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six clips of four slots: struck bars."""
    draws = np.random.default_rng(0)
    time = np.arange(4 * SLOT) / 16_000
    clips = []
    for _ in range(6):
        since = time - draws.uniform(0.05, 0.4)
        clips.append(np.where(since > 0, 0.4 * np.exp(-since / 0.05) * np.sin(6283 * draws.uniform(0.3, 3) * since), 0))
    np.save(tmp_path / "audio.npy", np.stack(clips).astype(np.float16))
    return tmp_path


def test_training_ends_with_a_model_that_loads(data: Path):
    folder = R.train(R.tiny(), data, data / "run")
    sound = R.rows(R.load_audio(data, 2), slice(0, 1))
    assert Vocoder.from_pretrained(folder)(mel_spectrogram(sound)).shape == sound.shape
    log = [json.loads(line) for line in (data / "run" / "log.jsonl").open()]
    assert {"held_out_log_mel_l1", "held_out_spectral_convergence", "griffin_lim_log_mel_l1"} <= log[-1].keys()


def test_the_vocoder_gets_the_rate_of_the_data(data: Path):
    np.save(data / "audio.npy", np.tile(np.load(data / "audio.npy"), 3))
    said = {"tracks": ["audio"], "rate": 100.0, "audio_rate": 24000, "sensors": {}}
    (data / "sensors.json").write_text(json.dumps(said))
    for rate in (16000, 24000):
        AudioCodec(16, (1, 1), 1, rate=rate).save_pretrained(data / str(rate))
    vocoder = Vocoder.from_pretrained(R.train(replace(R.tiny(), codec=str(data / "24000")), data, data / "run"))
    assert vocoder.grid.rate == 24000
    assert vocoder(torch.zeros(1, 128, 8)).shape == (1, 1, 3840)
    with pytest.raises(ClipError, match=f"sound of 24000 Hz, {data / '16000'} is for 16000 Hz"):
        R.train(replace(R.tiny(), codec=str(data / "16000")), data, data / "other")


def test_training_lowers_the_loss(data: Path):
    R.train(replace(R.tiny(), max_steps=40, batch=4, lr=5e-3), data, data / "run")
    losses = [json.loads(line)["loss"] for line in (data / "run" / "log.jsonl").open() if '"loss"' in line]
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])


def test_two_and_two_steps_are_four_also_with_a_codec(data: Path, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    AudioCodec(16, (1, 1), 1).save_pretrained(data / "audio_codec")
    settings = replace(R.tiny(), max_steps=4, codec=str(data / "audio_codec"))
    R.train(settings, data, data / "whole")
    crop, calls = R.crop, []

    def fails(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("power cut")
        return crop(*arguments)

    monkeypatch.setattr(R, "crop", fails)
    with pytest.raises(RuntimeError, match="power cut"):
        R.train(settings, data, data / "parts")
    monkeypatch.setattr(R, "crop", crop)
    R.train(settings, data, data / "parts")
    whole, parts = (load_file(data / run / "checkpoint.safetensors") for run in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_the_share_of_reconstructions_is_a_setting(data: Path):
    torch.manual_seed(0)
    codec, sound = AudioCodec(16, (1, 1), 1), R.rows(R.load_audio(data, 2), slice(0, 3))
    seen: list[torch.Tensor] = []

    class Listener(torch.nn.Module):
        def forward(self, mel: torch.Tensor) -> torch.Tensor:
            seen.append(mel)
            return sound

    for share in (0.0, 1.0):
        R.vocoder_loss(replace(R.tiny(), share=share), codec)(Listener(), sound, generator(0, 0))
    assert torch.equal(seen[0], mel_spectrogram(sound))
    assert torch.equal(seen[1], codec.decode_mel(codec.encode(sound)))


def test_crops_are_where_the_sound_is():
    sound = torch.zeros(32, 1, 16 * SLOT)
    sound[..., 9 * SLOT : 10 * SLOT] = 0.5
    crops = R.crop(sound, 4, generator(0, 0))
    assert crops.shape == (32, 1, 4 * SLOT)
    assert (crops.amax((1, 2)) > 0).float().mean() > 0.8
    assert len({int(c[0].nonzero()[0]) for c in crops if c.any()}) > 1  # not always at the same place


def test_the_loss_is_zero_for_the_truth_and_sees_an_early_onset():
    time = torch.arange(2 * SLOT) / 16_000
    ring = torch.where(time > 0.1, torch.exp(-(time - 0.1) / 0.02) * torch.sin(6283 * time), 0.0)[None, None]
    assert [v.item() for v in R.spectral_loss(ring, ring, (64, 512))] == [0.0, 0.0]
    moved = [torch.stack(R.spectral_loss(ring.roll(-n, -1), ring, (64, 512))).sum().item() for n in (0, 16, 160)]
    assert moved == sorted(moved)
    assert moved[2] > 2 * moved[1] > 0
