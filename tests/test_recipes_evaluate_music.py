"""The evaluation recipe of music on a tiny model and made-up pieces: complete, whole or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoint.evaluation.music_judge import MusicJudge
from counterpoint.evaluation.music_melody import figures, index
from counterpoint.modalities.clip import Clip, Track
from counterpoint.recipes import evaluate_music, evaluate_music_codecs
from counterpoint.recipes.evaluate_joint import rounded
from counterpoint.recipes.evaluate_music import evaluate, facts_of, held_out, prompt_of

NAMES = ["cello", "flute"]


def make(seeds, music=None, workers=1, rate=16000):
    """Clips of 2.56 s in the form of `data.scores.generate`: a scale on a bass, its tempo and key by the seed."""
    for seed in seeds:
        time, tempo, tonic = np.arange(rate * 64 // 25) / rate, 80 + 7 * (seed % 9), seed % 12
        audio = np.zeros(len(time))
        for i in range(int(2.4 * tempo / 60)):
            age = time - i * 60 / tempo
            for pitch in (60 + tonic + (0, 4, 7, 5, 2)[i % 5], 48 + tonic):
                envelope = np.sin(np.pi / 2 * (age / 0.005).clip(0, 1)) ** 2 * np.exp(-5 * age.clip(0))
                audio += 0.1 * envelope * np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * age)
        facts = {
            "tempo": tempo, "tonic": tonic, "mode": "major", "instruments": [NAMES[seed % 2]], "family": "strings",
            "meter": "4/4", "dynamics": "p", "drums": False, "voices": 1, "texture": "solo", "soundfont": "none",
        }  # fmt: skip
        captions = ["music", f"{NAMES[seed % 2]}, {tempo} bpm", f"tempo={tempo} key={tonic}"]
        stated = [[], ["instruments", "tempo"], ["drums", "dynamics", "instruments", "key", "meter", "tempo"]]
        metadata = {"captions": captions, "stated": stated, "facts": facts, "seed": seed, "split": music.split}
        yield Clip(audio=Track(audio[None].astype(np.float32), float(rate)), metadata=metadata)


@pytest.fixture(scope="module")
def scores(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("scores")
    torch.manual_seed(0)
    MusicJudge({"instruments": NAMES, "dynamics": ["f", "p"]}).save(folder / "judge")
    path, said = folder / "music.json", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate_music, "generate", make)
        patch.setattr(evaluate_music, "known_figures", lambda _: index([[60, 64, 67, 65, 62, 60, 64, 67, 65, 62, 60]]))
        patch.setattr(evaluate_music, "CONTROL", 4)
        returned = evaluate(tiny_model, 8, json_path=path, say=said.append, judge=folder / "judge")
    assert sorted(p.name for p in folder.iterdir()) == ["judge", "music.json"]
    assert json.loads(path.read_text()) == json.loads(json.dumps(rounded(returned)))
    assert "tempo_octave" in said[-1]
    return returned


def test_the_scores_are_complete(scores: dict) -> None:
    assert scores["prompts"] == scores["clips"] == 8
    assert scores["structured"] == 8  # the only captions that state tempo, key and instruments
    assert scores["soundfonts"] == ["none"]
    for name in ("tempo", "tempo_octave", "key", "key_mirex", "mode", "meter", "instrument", "dynamics"):
        row = scores["adherence"][name]
        assert set(row) == {"generated", "unseen", "real", "real_unseen", "codec", "shuffled", "n"}
        assert row["n"] == 8
        assert row["unseen"] is not None
    assert set(scores["sound"]) == {"generated", "real", "codec"}
    assert set(scores["melody"]) == {"generated", "real", "codec", "training"}
    assert scores["realism"]["kernel"] > abs(scores["realism"]["kernel_floor"])  # the network is untrained
    assert scores["adherence"]["tempo_octave"]["real"] > 0.6


def test_the_caption_that_states_the_most() -> None:
    (clip,) = make([3], evaluate_music.Music(split="test"))
    text, asked = prompt_of(clip.metadata)
    assert text == clip.metadata["captions"][2]
    assert asked.keys() == {"drums", "dynamics", "instruments", "family", "tonic", "mode", "meter", "tempo"}
    assert facts_of(clip.metadata["facts"], ["tempo", "pace"]) == {"tempo": 101}


def test_a_quarter_of_the_prompts_is_of_unseen_combinations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_music, "generate", make)
    clips = held_out(100, 8, evaluate_music.Music())
    assert [clip.metadata["split"] for clip in clips] == ["test"] * 6 + ["unseen"] * 2
    assert [clip.metadata["seed"] for clip in clips] == list(range(100, 108))


def test_known_figures_are_those_of_every_part(monkeypatch: pytest.MonkeyPatch) -> None:
    class Piece:
        parts = tuple(np.array([[i, 1, p + low] for i, p in enumerate(line)], float) for line, low in LINES)

    monkeypatch.setattr(evaluate_music, "read_scores", lambda _: None)
    monkeypatch.setattr(evaluate_music, "pieces_of", lambda _, split: [Piece()] if split == "train" else [])
    known = evaluate_music.known_figures(evaluate_music.Music())
    assert known == {figures(line)[0] for line, _ in LINES}


LINES = (([0, 2, 4, 5, 7, 9, 11, 12, 14], 60), ([0, 5, 7, 0, 5, 7, 0, 5, 0], 36))


def test_kinds_of_sound() -> None:
    kind, solo = evaluate_music_codecs.kind_of, {"family": "strings", "voices": 1, "texture": "solo", "drums": False}
    assert kind(solo) == "sustained"
    assert kind({**solo, "family": "plucked"}) == "plucked"
    assert kind({**solo, "family": "mallets"}) == "percussive"
    assert kind({**solo, "drums": True}) == "percussive"
    assert kind({**solo, "voices": 4, "texture": "parts"}) == "chords"
    assert kind({**solo, "family": "keyboard"}) is None


def test_codec_scores_stand_beside_griffin_lim(tiny_model: Path) -> None:
    from counterpoint.modalities.codecs import Codecs

    (clip,) = make([0], evaluate_music.Music())
    audio = torch.from_numpy(clip.tracks["audio"].values)[None]
    scores = evaluate_music_codecs.audio_scores(
        audio, [clip.metadata["facts"]], Codecs.from_pretrained(tiny_model / "codecs")
    )
    assert set(scores) == {"original", "codec_mel", "vocoder", "griffin_lim", "codec_vocoder", "codec_griffin_lim"}
    assert scores["griffin_lim"]["log_mel_l1"] < scores["codec_griffin_lim"]["log_mel_l1"]  # an untrained codec
    assert scores["original"]["tempo_octave"] == 1


def test_codecs_of_24_khz_are_listened_to_at_16_khz(monkeypatch: pytest.MonkeyPatch) -> None:
    from counterpoint.modalities.audio import AudioCodec
    from counterpoint.modalities.codecs import Codecs
    from counterpoint.modalities.vocoder import Vocoder

    (clip,) = make([0], evaluate_music.Music(), rate=24000)
    codecs = Codecs(None, AudioCodec(16, (1, 1), 1, rate=24000), Vocoder(16, 32, 1, 2, rate=24000), None)
    heard, read = [], evaluate_music_codecs.music.read
    monkeypatch.setattr(evaluate_music_codecs.music, "read", lambda sound: heard.append(len(sound)) or read(sound))
    audio = torch.from_numpy(clip.tracks["audio"].values)[None]
    scores = evaluate_music_codecs.audio_scores(audio, [clip.metadata["facts"]], codecs)
    assert heard == [40960] * 5  # 61,440 samples each before
    assert scores["griffin_lim"]["log_mel_l1"] < scores["codec_griffin_lim"]["log_mel_l1"]
    assert scores["original"]["tempo_octave"] == scores["griffin_lim"]["tempo_octave"] == 1
