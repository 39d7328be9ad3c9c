"""Sentences as conditions of own recordings: they are heard, dropped as a whole, and older models do without."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from counterpoint.data.series_captions import CHANNELS, LEAST, SentenceStates, padded
from counterpoint.data.series_table import Channel, read_series
from counterpoint.data.series_windows import Scale, Windows
from counterpoint.data.series_write import write_series
from counterpoint.diffusion.training import LossSettings, OptimizerSettings
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes.sensors import tiny, train
from counterpoint.recipes.sensors_own import RecordingBatches, RecordingTraining, build_network, told_by
from counterpoint.recipes.sensors_own_generator import Conditions, RecordingGenerator
from counterpoint.recipes.settings import override

SAID = {"high": ("a high level", "the signal is far up"), "low": ("a low level", "the signal is far down")}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Windows near 2 or −2, with a sentence that says which (every fourth says nothing), and a class of no meaning."""
    rng = np.random.default_rng(0)
    kinds = np.array(["high", "low"])[rng.integers(2, size=120)]
    level = np.where(kinds == "high", 2.0, -2.0) + 0.3 * rng.standard_normal(120)
    windows = (level[:, None, None] + 0.1 * rng.standard_normal((120, 8, 2))).astype(np.float32)
    said = ["" if n % 4 == 3 else SAID[kind][n % 2] for n, kind in enumerate(kinds)]
    hand = np.array(["l", "r"])[np.arange(120) % 2]
    told = {"caption": said, "hand": hand}
    return write_series(
        tmp_path_factory.mktemp("data") / "own.csv", windows, (Channel("x"), Channel("y")), 0.5, told=told
    )


@pytest.fixture(scope="module")
def settings():
    columns = ["time=time", "group=window", "text=caption", "label=hand", "length=8"]
    return replace(override(tiny(), columns), length=8, patch=4)


@pytest.fixture(scope="module")
def model(table, settings, tmp_path_factory):
    more = ["steps=110", "batch=32", "checkpoint_every=110", "log_every=100", "sample_steps=6"]
    return train(override(settings, more), table, tmp_path_factory.mktemp("runs") / "own")


def test_sentences_are_heard_by_sampling_completing_and_forecasting(model):
    generator = RecordingGenerator.from_pretrained(model)
    told = generator.conditions
    assert (told.text, told.text_dim, told.text_length, told.dim) == ("caption", CHANNELS, LEAST, 2 + CHANNELS)
    assert list(told.classes) == ["hand"]
    for wording in range(2):
        high, low = (generator.sample(40, text=SAID[kind][wording]).mean(axis=(1, 2)) for kind in ("high", "low"))
        assert (high > 0).mean() > 0.9
        assert (low < 0).mean() > 0.9
    mixed = generator.sample(20, text=["a high level", "a low level"] * 10, label={"hand": "l"}, guidance=1.5)
    assert (mixed[::2].mean(axis=(1, 2)) > mixed[1::2].mean(axis=(1, 2))).mean() > 0.9
    np.testing.assert_allclose(generator.sample(4, text=["a high level", None] * 2)[:2],
                               generator.sample(2, text=["a high level", ""]), atol=1e-4)  # fmt: skip
    blank = np.full((30, 8, 2), np.nan, np.float32)
    assert generator.complete(blank, text="a high level").mean() > 1
    past = np.full((30, 4, 2), np.nan, np.float32)
    assert generator.forecast(past, 4, ensemble=1, text="a low level").mean() < -1
    silent = generator.sample(200).mean(axis=(1, 2)) > 0
    assert 0.2 < silent.mean() < 0.8


def test_what_cannot_be_said_is_said(model, table, settings, tmp_path):
    generator = RecordingGenerator.from_pretrained(model)
    for options, wrong in (
        ({"text": ["a high level"] * 3}, "text: 3 sentences for 2 windows"),
        ({"label": {"caption": "a high level"}}, "the model knows no such condition"),
    ):
        with pytest.raises(ClipError, match=wrong):
            generator.sample(2, **options)
    with pytest.warns(UserWarning, match="the model reads the first 16"):
        generator.sample(1, text="a very " + "very " * 30 + "high level")
    silent = write_series(tmp_path / "silent.csv", np.random.default_rng(0).random((4, 8, 1)), (Channel("x"),), 0.5,
                          told={"caption": [""] * 4, "hand": list("lrlr")})  # fmt: skip
    with pytest.raises(ClipError, match="text=caption: no sentence in any row"):
        train(settings, silent, tmp_path / "run")


def test_models_without_text_load_as_they_were_saved_before(table, settings, tmp_path):
    folder = train(replace(settings, text="", drop=("caption",), steps=1), table, tmp_path / "run")
    path = folder / "recordings.json"
    content = json.loads(path.read_text())
    for key in ("text", "text_dim", "text_length"):
        del content["conditions"][key]
    path.write_text(json.dumps(content))
    generator = RecordingGenerator.from_pretrained(folder)
    assert generator.conditions.dim == 2
    assert generator.sample(2, label={"hand": "r"}).shape == (2, 8, 2)
    with pytest.raises(ClipError, match="text: the model was trained without sentences"):
        generator.sample(2, text="a high level")


def test_a_sentence_is_dropped_as_a_whole_and_apart_from_classes(table, settings):
    read = read_series(table, "time", "window", ["hand", "caption"])
    conditions, captions = told_by(read, read.recordings, text=True)
    batches = RecordingBatches(
        Windows(read.recordings, 8), Scale.fit(read.recordings, read.channels), conditions, captions
    )
    batch = batches[[(i, 0.0) for i in range(120)]]
    assert (batch["text_mask"][3::4, 1:]).sum() == 0  # says nothing
    assert (batch["text_mask"][:3, 1:].sum(dim=1) > 3).all()
    assert batch["text_mask"][:, 0].all()
    loss = LossSettings(mixture=settings.mixture, weights={}, drop_text=0.4, process=settings.process)
    module = RecordingTraining(build_network(settings, 2, conditions), loss, OptimizerSettings(), 4, 0)
    kept = module._kept(2000, batch["parts"], torch.Generator().manual_seed(0))
    assert (kept[:, 1:] == kept[:, 1:2]).all()
    pairs = [(kept[:, 0] == a) & (kept[:, 1] == b) for a in (True, False) for b in (True, False)]
    shares = torch.stack(pairs).float().mean(dim=1)
    expected = torch.tensor([0.6 * 0.36, 0.6 * 0.24, 0.6 * 0.24, 0.4 + 0.6 * 0.16])
    assert torch.allclose(shares, expected, atol=0.04)
    assert module.losses(batch, torch.Generator().manual_seed(0))["sensor"].isfinite()


def test_a_sentence_has_the_same_states_in_any_company_and_classes_keep_their_place():
    states = SentenceStates()
    alone = states(["a person walks"])[0]
    both = SentenceStates()(["a person walks", "somebody gets up from a seat and walks away", " ", "a person walks "])
    torch.testing.assert_close(both[0], alone, atol=1e-5, rtol=1e-4)
    assert both[3] is both[0]
    assert both[2].shape == (0, CHANNELS)
    x, mask = padded(both, 12)
    assert mask.sum(dim=1).tolist() == [len(alone), 11, 0, len(alone)]
    told = Conditions({"hand": ("l", "r")}, ("age",), (40.0,), (10.0,), "caption", CHANNELS, 12)
    text, stands = told.states(*told.read({"hand": "r"}, {"age": 50.0}, 4), both)
    assert text.shape == (4, 2 + 12, 4 + CHANNELS)
    assert told.parts.tolist() == [0, 1] + [2] * 12
    assert text[0, :2].nonzero().tolist() == [[0, 1], [1, 2], [1, 3]]
    torch.testing.assert_close(text[0, 2:, 4:], x[0])
    assert not text[:, 2:, :4].any()
    assert stands[:, 2:].equal(mask)


def test_a_saved_copy_forgets_where_it_came_from_and_may_be_rounded(model, tmp_path):
    generator = RecordingGenerator.from_pretrained(model)
    generator.save_pretrained(tmp_path / "copy", torch.bfloat16)
    assert "_name_or_path" not in json.loads((tmp_path / "copy" / "transformer" / "config.json").read_text())
    weights = "transformer/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "copy" / weights).stat().st_size < 0.6 * (model / weights).stat().st_size
    assert generator.transformer.dtype == torch.float32
    again = RecordingGenerator.from_pretrained(tmp_path / "copy").sample(4)
    np.testing.assert_allclose(again, generator.sample(4), atol=0.1)
