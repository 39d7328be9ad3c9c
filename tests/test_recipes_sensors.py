"""The generator of series: exact resume, samples by seed, a clock, and that it learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from counterpoint.data.quantile_map import QuantileMap
from counterpoint.data.series import load_windows
from counterpoint.data.series_patches import SeriesPatches
from counterpoint.data.window_start import WindowStart
from counterpoint.diffusion.angle_walk import angle_ratios, angle_walk
from counterpoint.diffusion.posterior import Posterior
from counterpoint.diffusion.process import describe
from counterpoint.diffusion.training import LossSettings, OptimizerSettings
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes.sensors import (
    SeriesTraining,
    WindowBatches,
    build_transformer,
    in_proportion,
    patch_of,
    sampling,
    small,
    some_latents,
    tiny,
    train,
    walk,
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
    alone = generator.sample(6, seed=1, independent=True)
    np.testing.assert_allclose(generator.sample(3, seed=1, independent=True), alone[:3], atol=1e-5)
    assert not np.allclose(alone, windows)
    assert not np.allclose(alone[0], alone[1])
    np.testing.assert_allclose(generator.sample(2, seed=1, first=4), windows[4:], atol=1e-5)
    np.testing.assert_allclose(generator.sample(2, seed=1, first=4, independent=True), alone[4:], atol=1e-5)


def test_fewer_windows_of_many_tokens_are_sampled_at_once(model, monkeypatch):
    generator = SeriesGenerator.from_pretrained(model)
    assert generator.batch == 1500  # two slots of one token
    together, whole = [], generator.sample(7)
    monkeypatch.setattr("counterpoint.recipes.sensors_generator.TOKENS", 6)
    monkeypatch.setattr(
        generator, "_decoded", lambda drawn, *args: together.append(len(drawn)) or decoded(drawn, *args)
    )
    decoded = SeriesGenerator._decoded.__get__(generator)
    np.testing.assert_allclose(generator.sample(7), whole, atol=1e-5)
    assert together == [3, 3, 1]
    monkeypatch.setitem(generator.facts, "length", 16)
    assert generator.batch == 2
    monkeypatch.setitem(generator.facts, "length", 8000)
    assert generator.batch == 1


def test_each_channel_has_the_distribution_of_the_training_data(model, tmp_path):
    """Of a model that has hardly learned: one of Sines, one channel of which is rounded to a few values."""
    generator = SeriesGenerator.from_pretrained(model)
    real = load_windows("Sines", 8).values
    facts = generator.facts | {"solver": "edm-dpm++"}  # whose walks have no moments of their own to keep to
    bare = SeriesGenerator(generator.codec, generator.transformer, facts)
    levels = np.linspace(0.05, 0.95, 10)

    def off(windows):
        return np.abs(np.quantile(windows, levels, axis=(0, 1)) - np.quantile(real, levels, axis=(0, 1))).max()

    before = bare.sample(1000, seed=3)
    assert off(before) > 0.05
    bare.calibrate(real, some_latents(bare.codec, real), 1000, per_step=True)
    assert off(bare.sample(1000, seed=3)) < 0.03
    assert bare.moments is not None
    assert bare.marginals is not None
    assert (bare.marginals.tensors["share"] < 1).all()  # eight draws differ by chance
    both = bare.codec.round(bare.moments.apply(bare.marginals.apply(torch.from_numpy(before))))
    np.testing.assert_array_equal(bare.sample(1000, seed=3), both.numpy())
    again = SeriesGenerator.from_pretrained(bare.save_pretrained(tmp_path))
    np.testing.assert_array_equal(again.sample(5), bare.sample(5))
    again.moments = again.marginals = None
    last = SeriesGenerator.from_pretrained(again.save_pretrained(tmp_path))
    assert last.moments is None  # not those before
    assert last.marginals is None
    bare.codec.tensors["levels.1"] = torch.tensor([0.6, 0.7, 0.8])
    assert set(np.unique(bare.sample(50)[..., 1])) <= set(np.float32([0.6, 0.7, 0.8]))


def test_a_generator_is_calibrated_on_draws_that_no_seed_gives(model, tmp_path, monkeypatch):
    generator = SeriesGenerator.from_pretrained(model)
    assert generator.moments is not None
    assert generator.marginals is not None
    bare = SeriesGenerator(generator.codec, generator.transformer, generator.facts, start=generator.start)
    real = load_windows("Sines", 8).values
    seen, fit = [], QuantileMap.fit
    monkeypatch.setattr(QuantileMap, "fit", lambda made, *rest: fit(seen.append(made) or made, *rest))
    generator.calibrate(real, some_latents(generator.codec, real), 100)
    draws = seen[0].chunk(8)
    assert [len(draw) for draw in draws] == [13] * 8  # of at least 100 in all
    for draw in draws:
        assert not any(np.allclose(draw, bare.sample(13, seed)) for seed in range(3))
        assert sum(torch.allclose(draw, other) for other in draws) == 1
    without = train(override(tiny(), ["steps=1", "calibration=0"]), None, tmp_path)
    again = SeriesGenerator.from_pretrained(without)
    assert again.moments is None
    assert again.marginals is None


def test_walks_in_angles_keep_the_moments_of_the_data(tmp_path):
    """Of a network that has hardly learned, by the whole recipe; a file keeps what was fitted."""
    settings = override(tiny(), ["sample_steps=6", "calibration=1600"])
    generator = SeriesGenerator.from_pretrained(train(settings, None, tmp_path))
    real = some_latents(generator.codec, load_windows("Sines", 8).values)
    assert generator.facts["solver"] == "angle"
    assert generator.levels is not None
    axes = sum(generator.codec.sizes)
    assert generator.levels.tensors["scale"].shape == (12, 2, axes)  # Sines' slots have moments of their own
    drawn = torch.randn(1000, axes, 2, generator=torch.Generator().manual_seed(0))
    ratios = angle_ratios(6, generator.facts["span"])

    @torch.no_grad()
    def made(levels):
        begun = generator._begun(drawn)
        return angle_walk(generator._predict, begun, ratios, generator.codec.deviation, levels)

    def off(latents):
        return float(((latents.std(dim=0) - real.std(dim=0)) / generator.codec.deviation).abs().mean())

    assert off(made(generator.levels)) < 0.2 * off(made(None))
    for levels, steps in ((generator.levels, 6), (None, 5)):  # the fitted ones belong to six steps
        ratios = angle_ratios(steps, generator.facts["span"])
        windows = generator.codec.decode(generator.codec.split(made(levels)))
        assert torch.equal(generator._decoded(drawn, steps, None, False), windows)
    first = generator.sample(5, seed=1)
    np.testing.assert_allclose(generator.sample(2, seed=1, first=3), first[3:], atol=1e-5)
    assert not np.allclose(generator.sample(5, seed=1, solver="edm-dpm++"), first)
    generator.levels = None
    assert SeriesGenerator.from_pretrained(generator.save_pretrained(tmp_path)).levels is None
    generator.transformer.register_to_config(process={"prediction": "velocity"})
    with pytest.raises(ClipError, match="angle needs a network that predicts as edm, not velocity"):
        generator.sample(1)


def test_the_first_token_carries_the_clock_and_hands_it_back():
    settings = small()
    assert [patch_of(replace(settings, length=n)) for n in (24, 64, 128, 256, 7)] == [8, 8, 8, 8, 7]
    assert [in_proportion(128, length) for length in (24, 64, 256, 8, 10_000)] == [128, 48, 12, 128, 1]
    assert in_proportion(0, 24) == 0
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
        tiny(), ["steps=150", "batch=64", "log_every=50", "checkpoint_every=150", "sample_steps=16", "calibration=800"]
    )
    folder = train(replace(settings, patch=8), None, tmp_path)
    made, real = SeriesGenerator.from_pretrained(folder).sample(1000), load_windows("Sines", 8).values
    deviation = real.std(axis=0)
    assert (np.abs(made.mean(axis=0) - real.mean(axis=0)) / deviation).max() < 0.2
    assert np.abs(made.std(axis=0) / deviation - 1).max() < 0.2


def loss_of_silence(codec, windows, deviations=None, posterior=None):
    """The loss of a network that says 0, as it does when it begins."""
    batch = WindowBatches(windows, codec)[[(row, 0.0) for row in range(len(windows))]]
    settings = LossSettings(mixture=small().mixture, process=small().process)
    own = SeriesTraining(
        build_transformer(tiny(), codec), settings, OptimizerSettings(), 1, 0,
        deviations=deviations or codec.deviations, posterior=posterior,
    )  # fmt: skip
    return own.losses(batch, torch.Generator().manual_seed(0))["sensor"].item()


def test_saying_nothing_is_best_for_gaussian_windows_of_any_deviations():
    draws = np.random.default_rng(0)
    windows = draws.normal(size=(1000, 8, 2)).cumsum(axis=1).astype(np.float32)
    codec = SeriesPatches.fit(windows, 8, 16, least=0.1)
    assert codec.deviation.min() == pytest.approx(0.1)
    assert loss_of_silence(codec, windows[:256]) == pytest.approx(1.0, abs=0.03)
    ones = {name: torch.ones_like(own) for name, own in codec.deviations.items()}
    assert loss_of_silence(codec, windows[:256], ones) < 0.7  # small axes then have small targets, and count for little


def test_a_model_keeps_how_it_is_sampled(model, tmp_path):
    generator = SeriesGenerator.from_pretrained(model)
    least = min(float(deviations.min()) for deviations in generator.codec.deviations.values())
    assert (generator.facts["solver"], generator.facts["steps"]) == ("angle", 2)
    assert generator.facts["span"] == pytest.approx([5.0, 0.33 * least])
    first = generator.sample(2)
    assert not np.allclose(generator.sample(2, solver="unipc"), first)
    edm = generator.sample(2, solver="edm-dpm++")
    generator.facts["span"] = [80.0, 0.002]
    assert not np.allclose(generator.sample(2), first)
    assert not np.allclose(generator.sample(2, solver="edm-dpm++"), edm)
    codec = SeriesPatches(8, {"deviation": torch.tensor([1.0, 0.03])}, (2,))
    other, velocity = (override(small(), [text]) for text in ("solver=edm-dpm++", "process.prediction=velocity"))
    assert walk(small(), codec) == {"solver": "angle", "steps": 9, "span": [5.0, pytest.approx(0.0099)]}
    assert walk(other, codec) == {"solver": "edm-dpm++", "steps": 15, "span": [5.0, pytest.approx(0.0099)]}
    assert walk(velocity, codec) == walk(other, codec)  # a walk in angles needs what EDM's networks predict
    codec.tensors["deviation"][1] = 0.18  # nothing is small: the walk ends earlier
    assert walk(small(), codec) == {"solver": "angle", "steps": 6, "span": [5.0, pytest.approx(0.0594)]}
    assert walk(other, codec) == {"solver": "edm-dpm++", "steps": 11, "span": [5.0, pytest.approx(0.0594)]}
    with pytest.raises(ClipError, match=r"solver: angle needs process\.prediction=edm, not velocity"):
        walk(override(velocity, ["solver=angle"]), codec)
    with pytest.raises(ClipError, match="solver: angle is for the sets"):
        sampling(override(small(), ["solver=angle", "time=t"]))
    assert sampling(replace(small(), time="t")) == {"solver": "unipc", "steps": 16}
    assert sampling(override(small(), ["solver=heun", "sample_steps=5", "time=t"])) == {"solver": "heun", "steps": 5}


@pytest.mark.parametrize("solver", ["angle", "edm-dpm++"])
def test_a_walk_begins_with_what_noised_windows_are(model, solver):
    """A network that says 0 knows each slot alone: that eight rise together it has from the start, or not at all."""
    windows = np.random.default_rng(0).normal(3.0, 1.0, (4000, 1, 1)).repeat(32, axis=1).astype(np.float32)
    codec = SeriesPatches.fit(windows, 4, 16, normal=False)
    silent = build_transformer(tiny(), codec)
    silent.register_to_config(process=describe(small().process))
    facts = {"length": 32, "solver": solver, "steps": 30, "span": [1.0, 0.001]}
    for start, ratio in ((None, 1.0), (WindowStart.fit(some_latents(codec, windows)), ((8 + 1) / (1 + 1)) ** 0.5)):
        made = SeriesGenerator(codec, silent, facts, start=start).sample(2000)
        level = codec.encode(torch.from_numpy(made))["axes0"][..., 0].mean(dim=(1, 2))
        assert level.std() * 8**0.5 == pytest.approx(ratio, rel=0.05)
    assert SeriesGenerator.from_pretrained(model).start is not None


def test_a_posterior_of_all_windows_takes_the_spread_from_the_targets(model):
    codec = SeriesPatches.from_pretrained(model / "codec")
    windows = load_windows("Sines", 8).values[:500]
    posterior = Posterior(codec.encode(torch.tensor(windows)), small().process)
    assert loss_of_silence(codec, windows[:256], posterior=posterior) < 0.9 * loss_of_silence(codec, windows[:256])


def test_a_folder_without_a_generator_is_refused(tmp_path):
    with pytest.raises(ClipError, match="no generator"):
        SeriesGenerator.from_pretrained(tmp_path)
    with pytest.raises(ClipError, match="ETTh1: no file given"):
        train(small(), None, tmp_path)
