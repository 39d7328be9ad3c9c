"""The generator of series: exact resume, samples by seed, a clock, and that it learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from counterpoint.data.series import load_windows
from counterpoint.data.series_patches import SeriesPatches
from counterpoint.diffusion.posterior import Posterior
from counterpoint.diffusion.training import LossSettings, OptimizerSettings
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes.sensors import (
    SeriesTraining,
    WindowBatches,
    build_transformer,
    patch_of,
    small,
    tiny,
    train,
)
from counterpoint.recipes.sensors_generator import SeriesGenerator, clock, token_modalities, with_clock, without_clock
from counterpoint.recipes.settings import override


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return train(tiny(), None, tmp_path_factory.mktemp("runs") / "whole")


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(model, tmp_path):
    run = tmp_path / "parts"
    train(replace(tiny(), minutes=0.0), None, run)  # one step, and a checkpoint
    lines = (run / "log.jsonl").read_text().splitlines()
    assert len(lines) < 4
    train(tiny(), None, run)
    whole, parts = (
        load_file(m / "transformer" / "diffusion_pytorch_model.safetensors") for m in (model, run / "model")
    )
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name
    assert (run / "log.jsonl").read_text().count("\n") == 4
    before = (run / "model" / "codec" / "series_patches.safetensors").read_bytes()
    train(tiny(), None, run)  # finished: saves what the checkpoint holds
    assert (run / "model" / "codec" / "series_patches.safetensors").read_bytes() == before


def test_a_sample_depends_on_its_seed_and_number_alone(model):
    generator = SeriesGenerator.from_pretrained(model)
    windows = generator.sample(6, seed=1)
    assert windows.shape == (6, 8, 5)
    assert windows.dtype == np.float32
    assert (windows >= 0).all()
    assert (windows <= 1).all()
    np.testing.assert_allclose(generator.sample(3, seed=1), windows[:3], atol=1e-5)
    assert not np.allclose(generator.sample(3, seed=2), windows[:3])


def test_the_first_token_carries_the_clock_and_hands_it_back():
    settings = small()
    assert [patch_of(replace(settings, length=n)) for n in (24, 64, 128, 256, 7)] == [8, 8, 8, 8, 7]
    draws = np.random.default_rng(0).random((200, 8, 2)).astype(np.float32)
    codec = SeriesPatches.fit(draws, 4, token=5)
    assert [(m.name, m.channels) for m in token_modalities(codec)] == [("axes0", 4 + 16), ("axes1", 4)]
    latents = codec.encode(torch.from_numpy(draws[:3]))
    told = with_clock(latents)
    assert told["axes0"].shape == (3, 2, 1, 20)
    for name, value in without_clock(told, latents).items():
        assert torch.equal(value, latents[name])
    assert torch.equal(told["axes0"][1, :, 0, 4:], clock(2))
    assert torch.pdist(clock(64)).min() > 0.1


def test_the_same_seed_builds_the_same_network():
    codec = SeriesPatches.fit(load_windows("Sines", 8).values, 4, 32)
    first, second = (build_transformer(tiny(), codec) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_trained_generator_draws_the_right_distribution(tmp_path):
    """Sines of 8 steps after 150 small steps: means and deviations of every step and channel."""
    settings = override(
        tiny(), ["steps=150", "batch=64", "log_every=50", "checkpoint_every=150", "sample_steps=8", "calibrate=2000"]
    )
    folder = train(replace(settings, patch=8), None, tmp_path)
    made, real = SeriesGenerator.from_pretrained(folder).sample(1000), load_windows("Sines", 8).values
    deviation = real.std(axis=0)
    assert (np.abs(made.mean(axis=0) - real.mean(axis=0)) / deviation).max() < 0.2
    assert np.abs(made.std(axis=0) / deviation - 1).max() < 0.2


def test_moments_are_kept_with_the_model_unless_none_are_wanted(model, tmp_path):
    with_them = SeriesGenerator.from_pretrained(model)
    without = SeriesGenerator.from_pretrained(train(override(tiny(), ["calibrate=0"]), None, tmp_path))
    assert without.moments is None
    assert with_them.moments is not None
    assert with_them.moments.slope["axes0"].shape == (2, 2, 1, 15)  # steps, slots, a token, axes
    assert not np.allclose(with_them.sample(2), without.sample(2))
    with_them.moments = None
    np.testing.assert_array_equal(with_them.sample(2), without.sample(2))
    SeriesGenerator.from_pretrained(model).save_pretrained(tmp_path / "model")
    assert SeriesGenerator.from_pretrained(tmp_path / "model").moments is not None
    with_them.save_pretrained(tmp_path / "model")
    assert SeriesGenerator.from_pretrained(tmp_path / "model").moments is None


def test_axes_count_by_their_weights(model):
    codec = SeriesPatches.from_pretrained(model / "codec")
    spread = codec.tensors["decode"].norm(dim=1)
    weights = torch.cat(list(codec.weights(1.0).values()))
    torch.testing.assert_close(weights, spread / spread.mean())
    assert all(torch.equal(w, torch.ones_like(w)) for w in codec.weights(0.0).values())

    def loss(emphasis, spoilt):
        windows = load_windows("Sines", 8).values[:64]
        batch = WindowBatches(windows, codec, emphasis)[[(row, 0.0) for row in range(64)]]
        network = build_transformer(tiny(), codec)  # says 0 as it begins
        settings = LossSettings(mixture=small().mixture, process=small().process)
        batch["latents"]["axes0"][..., spoilt] *= 3.0
        own = SeriesTraining(network, settings, OptimizerSettings(), 1, 0)
        return own.losses(batch, torch.Generator().manual_seed(0))["sensor"].item()

    assert spread[0] > 2 * spread[14]
    assert loss(0.0, 0) == pytest.approx(loss(0.0, 14), rel=0.2)
    assert loss(1.0, 0) > 1.3 * loss(1.0, 14)


def test_a_posterior_of_all_windows_takes_the_spread_from_the_targets(model):
    codec = SeriesPatches.from_pretrained(model / "codec")
    windows = load_windows("Sines", 8).values[:500]
    batch = WindowBatches(windows, codec)[[(row, 0.0) for row in range(256)]]
    settings = LossSettings(mixture=small().mixture, process=small().process)

    def loss(posterior):
        own = SeriesTraining(
            build_transformer(tiny(), codec), settings, OptimizerSettings(), 1, 0, posterior=posterior
        )  # says 0 as it begins
        return own.losses(batch, torch.Generator().manual_seed(0))["sensor"].item()

    posterior = Posterior(codec.encode(torch.tensor(windows)), small().process)
    assert loss(posterior) < 0.8 * loss(None)


def test_a_folder_without_a_generator_is_refused(tmp_path):
    with pytest.raises(ClipError, match="no generator"):
        SeriesGenerator.from_pretrained(tmp_path)
    with pytest.raises(ClipError, match="ETTh1: no file given"):
        train(small(), None, tmp_path)
