"""A grown network says what the old one said, until it learns more."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from counterpoint.backbones.transformer import CounterpointTransformer, Modality
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes.grow import grow

VIDEO, AUDIO = Modality("video", 4, 8, "video"), Modality("audio", 2, 6, "audio")


@pytest.fixture
def network() -> CounterpointTransformer:
    """A tiny one, whose projections that start at zero are filled."""
    torch.manual_seed(0)
    described = CounterpointTransformer.describe([VIDEO, AUDIO])
    made = CounterpointTransformer(described, width=16, depth=2, heads=2, text_dim=7, multiple=2)
    for p in made.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.3)
    return made.eval()


def say(model: CounterpointTransformer, video: Tensor, audio: Tensor, text: Tensor) -> dict[str, Tensor]:
    level = torch.linspace(0.1, 0.9, 3).expand(2, 3)
    return model({"video": video, "audio": audio}, {"video": level, "audio": level}, text)


@torch.no_grad()
def test_more_channels_are_silent_and_unheard_at_first(network: CounterpointTransformer) -> None:
    video, audio, text = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 2, 6), torch.randn(2, 5, 7)
    before = say(network, video, audio, text)
    grown = grow(network, [replace(VIDEO, channels=12), AUDIO], False, seed=3).eval()
    after = say(grown, torch.cat([video, torch.randn(2, 3, 4, 4)], dim=3), audio, text)
    torch.testing.assert_close(after["video"][..., :8], before["video"])  # sums over 12 channels round differently
    torch.testing.assert_close(after["audio"], before["audio"])
    assert not after["video"][..., 8:].any()
    assert grown.config["modalities"][0]["channels"] == 12


@torch.no_grad()
def test_the_pooled_prompt_is_silent_at_first(network: CounterpointTransformer, tmp_path: Path) -> None:
    args = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 2, 6), torch.randn(2, 5, 7)
    before = say(network, *args)
    grown = grow(network, [VIDEO, AUDIO], True, seed=3).eval()
    assert all(torch.equal(said, before[name]) for name, said in say(grown, *args).items())
    assert grow(grown, [VIDEO, AUDIO], False, seed=4) is grown
    assert grown.text_pool is not None
    last: Any = grown.text_pool.mix[-1]
    last.weight.normal_()
    learned = say(grown, *args)
    assert not torch.allclose(learned["audio"], before["audio"], atol=1e-3)
    grown.save_pretrained(tmp_path)
    again = CounterpointTransformer.from_pretrained(str(tmp_path), low_cpu_mem_usage=False)
    assert all(torch.equal(said, learned[name]) for name, said in say(again, *args).items())


def test_what_has_not_changed_is_not_copied(network: CounterpointTransformer) -> None:
    assert grow(network, [VIDEO, AUDIO], False, seed=0) is network


def test_codecs_that_do_not_fit_are_named(network: CounterpointTransformer) -> None:
    with pytest.raises(ClipError, match="mine: video has 8 channels, the codec makes 4"):
        grow(network, [replace(VIDEO, channels=4), AUDIO], False, 0, "mine")
    with pytest.raises(ClipError, match=r"mine: knows 4 tokens a slot \(video\) as video, the codecs make 1 tokens"):
        grow(network, [replace(VIDEO, tokens=1), AUDIO], False, 0, "mine")
    with pytest.raises(ClipError, match="as audio, the codecs make nothing"):
        grow(network, [VIDEO], False, 0, "mine")
