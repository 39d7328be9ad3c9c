"""Prompts: the same states in any batch, padding masked, what is not said masked whole."""

import pytest
import torch

from counterpoint.modalities import text
from counterpoint.modalities.clip import ClipError
from counterpoint.modalities.text import DEFAULT_ENCODER, TextEncoder, encoder_folder


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(length=12)


def test_states_and_mask(encoder: TextEncoder) -> None:
    prompts = ["a small glass ball drops", "a ball", "", "  "]
    states, mask = encoder(prompts)
    assert states.shape == (4, 12, encoder.channels) == (4, 12, 384)
    assert mask.sum(1).tolist() == [7, 4, 0, 0]  # words and the two marks around them
    assert not states[~mask].any()
    assert states[mask].isfinite().all()
    assert (states[0, 2] - states[0, 3]).norm() > 1


def test_a_prompt_has_the_same_states_in_any_batch(encoder: TextEncoder) -> None:
    whole, _ = encoder(["a large metal block falls on a stone floor", "a ball", ""])
    for i, prompt in enumerate(["a large metal block falls on a stone floor", "a ball"]):
        torch.testing.assert_close(encoder([prompt])[0][0], whole[i], atol=1e-5, rtol=1e-4)
    assert torch.equal(encoder(["A BALL"])[0], encoder(["a ball"])[0])  # uncased
    trimmed, mask = encoder(["a ball", "a large metal block"], trim=True)
    assert mask.sum(1).tolist() == [4, 6]
    torch.testing.assert_close(trimmed[0, :4], encoder(["a ball"])[0][0, :4], atol=1e-5, rtol=1e-4)
    words = [encoder([f"a {material} ball"])[0] for material in ("glass", "metal")]
    assert (words[0] - words[1]).norm() > 1


def test_a_long_prompt_is_cut_with_a_warning(encoder: TextEncoder) -> None:
    with pytest.warns(UserWarning, match=r"prompt: 22 tokens, only the first 12 are read: 'ball ball"):
        _, mask = encoder(["ball " * 20])
    assert mask.all()


def test_it_is_frozen(encoder: TextEncoder) -> None:
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())


def test_bad_input_is_named(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="prompts: a list of strings is wanted"):
        encoder("a ball")
    assert encoder_folder("some/folder") == "some/folder"
    monkeypatch.setattr(text.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ClipError, match=f"the package {DEFAULT_ENCODER} is not installed"):
        encoder_folder(DEFAULT_ENCODER)


def test_words_and_numbers_are_told_beside_the_states() -> None:
    full = TextEncoder(length=16, features=("states", "words", "numbers"))
    prompts = ["tempo=66 in D minor", "at 66 bpm", "at 67 bpm", "at 132 bpm, 8.25 seconds"]
    both, mask = full(prompts)
    assert both.shape == (4, 16, full.channels) == (4, 16, 384 + 384 + text.NUMBER_CHANNELS)
    torch.testing.assert_close(both[..., :384], TextEncoder(length=16)(prompts)[0])
    words = both[..., 384:768]
    assert torch.equal(words[0, 3], words[1, 2])  # "66", whatever stands around it
    assert words[0, 3].std() == pytest.approx(1.0, abs=0.01)
    numbers = both[..., 768:]
    assert torch.equal(numbers[0, 3], numbers[1, 2])
    assert [row.any(-1).sum().item() for row in numbers] == [1, 1, 1, 4]  # 132, and "8", ".", "25"
    assert torch.equal(numbers[3, 6], numbers[3, 8])  # of one number
    one, near, double = numbers[1, 2], numbers[2, 2], numbers[3, 2]
    torch.testing.assert_close(one[4:8], double[4:8], atol=1e-4, rtol=0)  # sines of periods of an octave and less
    assert 0.1 < (one - near).norm() < (one - double).norm()
    assert not both[~mask].any()


def test_unknown_features_are_named() -> None:
    with pytest.raises(ClipError, match="text features: sounds; known are states, words, numbers"):
        TextEncoder(features=("states", "sounds"))
