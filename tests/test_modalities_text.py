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
