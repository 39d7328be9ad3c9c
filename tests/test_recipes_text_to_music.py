"""Text to music, end to end and tiny: tones → codecs → model → a sentence's wav."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoint.data.arrays import write_arrays
from counterpoint.diffusion.conditions import encode
from counterpoint.diffusion.pipeline import CounterpointPipeline
from counterpoint.modalities.clip import Clip, ClipError, Track
from counterpoint.recipes import codecs, text_to_music
from counterpoint.recipes.settings import from_json
from counterpoint.recipes.text_to_music import PRESETS, SECONDS, Settings, parameters, tiny, train

COUNT, SLOTS = 8, 8


def tones(folder: Path, rate: int) -> Path:
    """Clips of 1.28 s, sound alone: tones of eight pitches, with two captions each."""
    time = np.arange(rate * 4 // 25 * SLOTS) / rate

    def clip(i: int) -> Clip:
        tone = 0.4 * np.exp(-2 * time) * np.sin(2 * np.pi * 220 * 2 ** (i / 12) * time)
        captions = [f"a tone of {220 + 20 * i} Hz", f"pitch={i}"]
        return Clip(audio=Track(tone[None].astype(np.float32), float(rate)), metadata={"captions": captions})

    write_arrays(folder, (clip(i) for i in range(COUNT)), COUNT)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 16 kHz."""
    return tones(tmp_path_factory.mktemp("data"), 16000)


@pytest.fixture(scope="module")
def codec(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the codecs, two steps each."""
    return codecs.train(codecs.tiny(), data, tmp_path_factory.mktemp("codecs"))


@pytest.fixture(scope="module")
def model(data: Path, codec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model of four steps."""
    run = tmp_path_factory.mktemp("runs") / "music"
    return train(replace(tiny(), codecs=str(codec), device="cpu"), data, run)


def test_the_codecs_are_of_sound_alone(codec: Path) -> None:
    assert sorted(p.name for p in codec.iterdir()) == ["audio_codec", "vocoder"]


def test_the_run_folder(model: Path, codec: Path) -> None:
    run = model.parent
    assert from_json(Settings, run / "settings.json") == replace(tiny(), codecs=str(codec), device="cpu")
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [1, 2, 3, 4]
    assert all(entry["loss"] == pytest.approx(entry["loss/audio"]) for entry in log)
    assert not [key for key in log[0] if key in ("loss/video", "loss/force")]


def test_a_sentence_becomes_a_wav(model: Path, tmp_path: Path) -> None:
    pipeline = CounterpointPipeline.from_pretrained(model, device="cpu")
    assert pipeline.transformer.modalities.keys() == {"audio"}
    clip = pipeline("a slow piece for solo cello", seed=1, steps=2)
    assert clip.metadata["seconds"] == SECONDS
    assert list(clip.tracks) == ["audio"]
    assert clip.audio.values.shape == (1, 163840)
    clip.save(tmp_path / "cello.wav")
    back = Clip.read(tmp_path / "cello.wav")
    assert back.audio is not None
    assert np.abs(back.audio.values - clip.audio.values).max() < 1e-3
    assert back.metadata["prompt"] == "a slow piece for solo cello"


def test_data_of_24_khz_make_a_model_of_24_khz(data: Path, codec: Path, tmp_path: Path) -> None:
    high = tones(tmp_path / "data", 24000)
    own = codecs.train(codecs.tiny(), high, tmp_path / "codecs")
    settings = replace(tiny(), codecs=str(own), device="cpu", steps=2, preview_every=2)
    pipeline = CounterpointPipeline.from_pretrained(train(settings, high, tmp_path / "run"), device="cpu")
    assert pipeline.codecs.audio_rate == 24000
    clip = pipeline("a slow piece for solo cello", seed=1, steps=1, seconds=1.28)
    assert clip.audio.rate == 24000
    assert clip.audio.values.shape == (1, 3840 * SLOTS)
    latents = pipeline.codecs.encode({"audio": torch.from_numpy(clip.audio.values)[None]})["audio"][0]
    told = encode(pipeline.codecs, "audio", clip.audio, np.ones(SLOTS, bool))
    assert torch.allclose(told, latents, atol=1e-4)
    more = pipeline("it goes on", given=clip, seconds=1.6, steps=1)
    assert more.audio.rate == 24000
    assert np.array_equal(more.audio.values[:, : 3840 * SLOTS], clip.audio.values)
    clip.save(tmp_path / "cello.wav")
    back = Clip.read(tmp_path / "cello.wav").audio
    assert back is not None
    assert (back.rate, back.samples) == (24000, 3840 * SLOTS)
    for given, folder, rate in ((high, codec, 16000), (data, own, 24000)):
        with pytest.raises(ClipError, match=f"{given}: sound of {40000 - rate} Hz, .*audio_codec is for {rate} Hz"):
            train(replace(settings, codecs=str(folder)), given, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_presets_train_one_modality(codec: Path) -> None:
    assert list(PRESETS) == ["tiny", "small", "base"]
    counts = {}
    for name, preset in PRESETS.items():
        settings = preset()
        assert settings.loss.weights == {"audio": 1.0}
        assert settings.loss.isolate == settings.loss.mixture.per_modality == settings.loss.mixture.clean_rows == 0
        assert settings.loss.mixture.clean_segment > 0  # to continue, to fill, to loop
        assert settings.text_length >= 64
        if name != "base":
            counts[name] = parameters(replace(settings, codecs=str(codec)))
    assert counts["tiny"] < 500_000 < counts["small"] < 20_000_000
    assert not [name for name in text_to_music.__all__ if not hasattr(text_to_music, name)]


def test_the_command_line_knows_it(model: Path, codec: Path, tiny_model: Path, capsys: pytest.CaptureFixture) -> None:
    from counterpoint.cli.evaluate import recipe_of
    from counterpoint.cli.main import main

    assert recipe_of(str(model)).__name__.endswith("evaluate_music")
    assert recipe_of(str(tiny_model)).__name__.endswith("evaluate_joint")
    with pytest.raises(SystemExit) as ended:
        main(["train", "music", "preset=tiny", f"codecs={codec}", "--dry-run"])
    assert ended.value.code == 0
    assert "run: runs/text_to_music-tiny" in capsys.readouterr().out


def test_missing_codecs_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="cello is neither a folder"):
        train(replace(tiny(), codecs="cello"), data, tmp_path)
