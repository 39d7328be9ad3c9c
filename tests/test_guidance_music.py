"""Scores of tempo and key: sounds that have them score higher, and gradients lead there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from counterpoint.diffusion.pipeline import CounterpointPipeline
from counterpoint.guidance import music
from counterpoint.guidance.music import Asked, Ending, Key, Tempo, autocorrelation, mean_chroma, onsets, repeats
from counterpoint.modalities.audio import GRID, RATE, SLOT, AudioCodec, mel_spectrogram
from counterpoint.modalities.clip import ClipError
from counterpoint.modalities.codecs import Codecs
from counterpoint.modalities.vocoder import Vocoder

SECONDS = 5.12
MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)


def melody(tempo: float, tonic: int = 0, scale: tuple[int, ...] = MAJOR) -> Tensor:
    """A note with four partials on every beat, up a scale; the tonic and its chord come twice: `[1, 1, N]`."""
    time = torch.arange(int(SECONDS * RATE)) / RATE
    order = [0, 2, 4, 0, 1, 2, 3, 4, 5, 6, 0, 4]
    sound = torch.zeros_like(time)
    for beat in range(int(SECONDS * tempo / 60)):
        age = time - beat * 60 / tempo
        pitch = 261.63 * 2 ** ((tonic + scale[order[beat % len(order)]]) / 12)
        tone = sum(torch.sin(6.2832 * pitch * k * age) / k for k in range(1, 5))
        sound += 0.2 * tone * torch.exp(-4 * age.clamp_min(0)) * (age >= 0)
    return sound[None, None]


@pytest.fixture(scope="module")
def codecs() -> Codecs:
    """An audio codec that is all principal components: it rebuilds the melodies it was fitted on."""
    codec = AudioCodec(16, channels=64, linear=True)
    heard = torch.cat([melody(t, k, s) for t, k, s in ((90, 0, MAJOR), (120, 2, MINOR), (75, 7, MAJOR))])
    assert codec.patches is not None
    codec.patches.fit(mel_spectrogram(heard))
    for part in (codec.vae.vae.encoder, codec.vae.vae.decoder):
        part.learnable_gain.data.fill_(-1.0)
    mean = codec.vae.vae.get_buffer("data_mean")
    mean.copy_(codec.patches.mean[None, :, None])
    return Codecs(None, codec, Vocoder(16, 32, 1, 2), None)


def latents(codecs: Codecs, sound: Tensor) -> dict[str, Tensor]:
    assert codecs.audio is not None
    return {"audio": codecs.audio.encode(sound)}


@pytest.mark.parametrize("tempo", [75.0, 90.0, 120.0])
def test_the_tempo_of_a_melody_scores_best(codecs: Codecs, tempo: float):
    clean = latents(codecs, melody(tempo))
    own = Tempo(codecs, tempo)(clean)
    assert own.shape == (1,)
    for other in (tempo * 0.8, tempo * 1.12, tempo * 1.37):
        assert own > Tempo(codecs, other)(clean) + 1


@pytest.mark.parametrize(("tonic", "scale", "mode"), [(0, MAJOR, "major"), (7, MAJOR, "major"), (2, MINOR, "minor")])
def test_the_key_of_a_melody_scores_best(codecs: Codecs, tonic: int, scale: tuple[int, ...], mode: str):
    clean = latents(codecs, melody(100, tonic, scale))
    own = Key(codecs, (tonic, mode))(clean)
    rivals = [((tonic + step) % 12, kind) for step in range(1, 12) for kind in ("major", "minor")]
    assert all(own > Key(codecs, rival)(clean) for rival in rivals)


def test_a_gradient_leads_to_the_tempo_and_key_asked(codecs: Codecs):
    start = latents(codecs, melody(100, 0))["audio"]
    score = Asked(codecs, ("a tune in G major, 90 bpm",))
    moved = start.clone()
    for _ in range(20):
        moved = moved.detach().requires_grad_()
        (slope,) = torch.autograd.grad(score({"audio": moved}).sum(), moved)
        moved = moved + 0.03 * slope / slope.square().mean().sqrt()
    assert score({"audio": moved}) > score({"audio": start}) + 3


def test_a_batch_has_its_own_wishes_and_what_is_not_asked_is_free(codecs: Codecs):
    clean = latents(codecs, torch.cat([melody(90), melody(120, 7), melody(75)]))
    prompts = ("tempo=90 key=C", "in G major", "a soft piece")
    total = Asked(codecs, prompts)(clean)
    assert total[2] == 0
    each = [Asked(codecs, (p,))({"audio": clean["audio"][i : i + 1]})[0] for i, p in enumerate(prompts)]
    torch.testing.assert_close(total, torch.stack(each), atol=1e-4, rtol=1e-4)
    assert Asked(codecs, prompts).any
    assert not Asked(codecs, prompts[2:]).any
    assert Asked(codecs, ("at 300 bpm",))({"audio": clean["audio"][:1]}) == 0  # no such tempo: nothing to lead to


def test_an_ending_is_silence_after_the_last_note(codecs: Codecs):
    whole = melody(120)
    ended = whole.clone()
    ended[..., 4 * RATE :] = 0.0
    goes_on, ends = (latents(codecs, sound) for sound in (whole, ended))
    for end, other, asked in ((ends, goes_on, 3.6), (ends, goes_on, True), (goes_on, ends, False)):
        assert Ending(codecs, [asked])(end) > Ending(codecs, [asked])(other) + 1
    assert Ending(codecs, [3.6])(ends) > Ending(codecs, [2.0])(ends) + 0.5  # later than asked is no ending then
    assert not Ending(codecs, [None, 9.0])({"audio": ends["audio"].expand(2, -1, -1, -1)}).any()  # beyond the window
    assert Asked(codecs, ("a tune, 4 seconds long",)).any
    torch.testing.assert_close(Asked(codecs, ("a tune, ends=3.6",))(ends), Ending(codecs, [3.6])(ends))
    start = goes_on["audio"]
    moved, score = start.clone(), Ending(codecs, [3.6])
    for _ in range(20):
        moved = moved.detach().requires_grad_()
        (slope,) = torch.autograd.grad(score({"audio": moved}).sum(), moved)
        moved = moved + 0.03 * slope / slope.square().mean().sqrt()
    assert score({"audio": moved}) > score({"audio": start}) + 3


def test_measures_are_what_they_say():
    sound = melody(120)
    envelope = onsets(mel_spectrogram(sound))
    correlation = autocorrelation(envelope)
    assert correlation[0, 0] == pytest.approx(1.0)
    values = repeats(correlation, torch.tensor([120.0, 97.0]))[0]
    assert values[0] > values[1] + 0.3
    chroma = mean_chroma(mel_spectrogram(sound), GRID)[0]
    assert chroma[0] == chroma.max()
    assert music.chroma_map(GRID).shape == (12, 128)
    assert sound.shape[-1] == SLOT * 32


def test_bad_wishes_are_named(codecs: Codecs):
    with pytest.raises(ClipError, match="tempo: 300 is not between 40 and 240"):
        Tempo(codecs, 300)
    with pytest.raises(ClipError, match=r"key: \(0, 'dorian'\) is not a tonic"):
        Key(codecs, [(0, "dorian")])
    with pytest.raises(ClipError, match="ending: no sound is generated, only video"):
        Ending(codecs, [True])({"video": torch.zeros(1, 2, 16, 64)})
    with pytest.raises(ClipError, match="tempo: no sound is generated, only video"):
        Tempo(codecs, 90)({"video": torch.zeros(1, 2, 16, 64)})


def test_the_pipeline_obeys_what_a_prompt_names(tiny_model):
    pipeline = CounterpointPipeline.from_pretrained(tiny_model)
    torch.nn.init.normal_(pipeline.transformer.proj_out["audio"].weight, std=0.1)  # an untrained network says nothing
    options = {"seed": 1, "tracks": ["audio"]}
    plain = pipeline("in D minor, 90 bpm", **options)
    led = pipeline("in D minor, 90 bpm", obey=5.0, **options)
    free = pipeline("a ball", obey=5.0, **options)
    assert "obey" not in plain.metadata
    assert led.metadata["obey"] == 5.0
    assert abs(led.audio.values - plain.audio.values).max() > 1e-3
    assert abs(free.audio.values - pipeline("a ball", **options).audio.values).max() == 0
    with pytest.raises(ClipError, match=r"obey: -1\.0 is no scale"):
        pipeline("in D minor", obey=-1, **options)
