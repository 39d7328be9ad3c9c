"""A tiny training of the audio codec from start to saved model, its losses, and exact resume."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from counterpoint.modalities.audio import SLOT, AudioCodec
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes import audio_codec as R


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight clips of four slots: struck bars."""
    draws = np.random.default_rng(0)
    time = np.arange(4 * SLOT) / 16_000
    clips = []
    for _ in range(8):
        since = time - draws.uniform(0.05, 0.4)
        clips.append(np.where(since > 0, 0.4 * np.exp(-since / 0.05) * np.sin(6283 * draws.uniform(0.3, 3) * since), 0))
    np.save(tmp_path / "audio.npy", np.stack(clips).astype(np.float16))
    return tmp_path


def test_training_ends_with_a_model_that_loads(data: Path):
    folder = R.train(replace(R.tiny(), linear=False), data, data / "run")
    codec = AudioCodec.from_pretrained(folder)
    audio = R.rows(R.load_audio(data, 2), slice(0, 6))
    latents = codec.encode(audio)
    assert latents.shape == (6, 4, 4, 32)
    flat = latents.flatten(0, 2)
    torch.testing.assert_close(flat.mean(0), torch.zeros(32), atol=0.02, rtol=0.0)
    torch.testing.assert_close(flat.std(0), torch.ones(32), atol=0.02, rtol=0.0)
    assert {p.name for p in (data / "run").glob("preview-*")} == {"preview-000000.png", "preview-000002.png"}
    log = [json.loads(line) for line in (data / "run" / "log.jsonl").open()]
    assert all(np.isfinite(list(record.values())).all() for record in log)


def test_the_codec_gets_the_rate_of_the_data(data: Path):
    """Twelve slots of 16 kHz are as many samples as eight of 24 kHz."""
    np.save(data / "audio.npy", np.tile(np.load(data / "audio.npy"), 3))
    R.train(R.tiny(), data, data / "low")
    said = {"tracks": ["audio"], "rate": 100.0, "audio_rate": 24000, "sensors": {}}
    (data / "sensors.json").write_text(json.dumps(said))
    codec = AudioCodec.from_pretrained(R.train(R.tiny(), data, data / "high"))
    assert codec.grid.rate == 24000
    assert codec.encode(R.rows(R.load_audio(data, 2), slice(0, 1))).shape == (1, 8, 4, 32)
    low = str(data / "low" / "audio_codec")
    with pytest.raises(ClipError, match=f"{data}: sound of 24000 Hz, {low} is for 16000 Hz"):
        R.train(replace(R.tiny(), start_from=low), data, data / "next")
    with pytest.raises(ClipError, match="sound of 24000 Hz"):  # the run went on with other data
        R.train(R.tiny(), data, data / "low")
    np.save(data / "audio.npy", np.zeros((4, 4 * SLOT), np.float16))
    with pytest.raises(ClipError, match=r"shape \[4, 10240\], expected \[clips, a multiple of 3840 samples\]"):
        R.load_audio(data, 2)


def test_training_lowers_the_held_out_error(data: Path):
    R.train(replace(R.tiny(), max_steps=60, batch=4, lr=5e-3, linear=False), data, data / "run")
    errors = [json.loads(line)["held_out_mel_l1"] for line in (data / "run" / "log.jsonl").open() if "held_out" in line]
    assert errors[-1] < 0.6 * errors[0]


def test_a_codec_begins_with_principal_components(data: Path):
    settings = replace(R.tiny(), channels=48)
    folder = R.train(settings, data, data / "run")
    codec = AudioCodec.from_pretrained(folder)
    assert codec.patches is not None
    assert codec.config["channels"] == 48
    audio = R.rows(R.load_audio(data, 2), slice(0, 6))
    mel = R.mel_spectrogram(audio)
    rows = (codec.patches.into.flatten(1) @ codec.patches.back.flatten(1).T)[:8, :8]
    torch.testing.assert_close(rows, torch.eye(8), atol=1e-3, rtol=0.0)
    assert codec.patches.scales.diff().max() <= 1e-3  # the largest first
    latents = codec.encode(audio)
    assert latents.shape == (6, 4, 4, 48)
    deviations = latents.flatten(0, 2).std(0)
    assert deviations[0] > 1.5 * deviations[10]
    error = (codec.decode_mel(latents) - mel).abs().mean()
    untrained = R.initialize(AudioCodec(16, channels=48), mel, 0)
    assert error < 0.2 * (untrained.reconstruct(untrained.moments(mel)[0]) - mel).abs().mean()


def test_two_and_two_steps_are_four(data: Path, monkeypatch: pytest.MonkeyPatch):
    settings = replace(R.tiny(), max_steps=4)
    R.train(settings, data, data / "whole")
    spectrogram, calls = R.mel_spectrogram, []

    def fails(audio, grid):
        calls.append(1)
        if len(calls) == 5:  # 1: statistics, 2: the first preview, 3 and 4: two steps
            raise RuntimeError("power cut")
        return spectrogram(audio, grid)

    monkeypatch.setattr(R, "mel_spectrogram", fails)
    with pytest.raises(RuntimeError, match="power cut"):
        R.train(settings, data, data / "parts")
    monkeypatch.setattr(R, "mel_spectrogram", spectrogram)
    assert [json.loads(line)["step"] for line in (data / "parts" / "log.jsonl").open()] == [0, 1, 2]
    R.train(settings, data, data / "parts")
    whole, parts = (load_file(data / run / "checkpoint.safetensors") for run in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_the_loss_is_zero_for_the_truth_and_dearer_at_onsets():
    target = torch.full((1, 128, 16), -9.0)
    target[..., 8:] = -1.0
    assert R.reconstruction_loss(target, target, 2.0).item() == 0.0
    assert R.onset_weight(target)[0, 0].nonzero()[:, 0].tolist() == [7, 8]  # the frame before must stay quiet
    late, later = target.clone(), target.clone()
    late[..., 8] -= 2.0
    later[..., 12] -= 2.0
    assert R.reconstruction_loss(late, target, 2.0) > R.reconstruction_loss(later, target, 2.0)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (None, "audio.npy: no such file"),
        (np.zeros((4, 100), np.float16), r"audio.npy: shape \[4, 100\]"),
        (np.zeros((2, SLOT), np.float16), "audio.npy: 2 clips, expected more than held_out=2"),
    ],
)
def test_bad_data_is_named(tmp_path: Path, array: np.ndarray | None, message: str):
    if array is not None:
        np.save(tmp_path / "audio.npy", array)
    with pytest.raises(ClipError, match=message):
        R.train(R.tiny(), tmp_path, tmp_path / "run")
