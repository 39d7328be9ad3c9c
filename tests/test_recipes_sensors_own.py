"""Own recordings: what is masked is not learned, and one checkpoint generates, fills gaps and foretells."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from counterpoint.data.series_table import Channel, read_series
from counterpoint.data.series_windows import Scale, Windows
from counterpoint.data.series_write import write_series
from counterpoint.diffusion.training import LossSettings, OptimizerSettings
from counterpoint.evaluation.forecast import forecast_scores
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes.sensors import tiny, train
from counterpoint.recipes.sensors_own import (
    RecordingBatches,
    RecordingTraining,
    build_network,
    conditions_of,
    draw_given,
)
from counterpoint.recipes.sensors_own_generator import Conditions, RecordingGenerator, from_cells, to_cells
from counterpoint.recipes.settings import override

COLUMNS = ["time=time", "group=window", "label=kind", "static=mass", "length=8", "stride=4"]


def levels(count, seed):
    """Recordings whose level is near 2 (`high`) or −2 (`low`): x has it in all steps, y its negative in every other."""
    rng = np.random.default_rng(seed)
    kind = np.arange(count) % 2
    level = (4.0 * kind - 2.0 + 0.6 * rng.standard_normal(count))[:, None, None]
    windows = (level * [1, -1] + 0.1 * rng.standard_normal((count, 12, 2))).astype(np.float32)
    windows[:, 1::2, 1] = np.nan
    return windows, np.array(["low", "high"])[kind]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    windows, kinds = levels(120, 0)
    windows[::3, 4:6] = np.nan  # gaps
    told = {"kind": kinds, "mass [kg]": np.arange(120) % 7 * 1.0}
    channels = Channel("x", "m"), Channel("y", "N", 2)
    return write_series(tmp_path_factory.mktemp("data") / "levels.parquet", windows, channels, 0.5, told=told)


@pytest.fixture(scope="module")
def settings():
    return replace(override(tiny(), COLUMNS), length=8, patch=4)


@pytest.fixture(scope="module")
def model(table, settings, tmp_path_factory):
    longer = override(settings, ["steps=160", "batch=48", "checkpoint_every=160", "log_every=100", "sample_steps=6"])
    return RecordingGenerator.from_pretrained(train(longer, table, tmp_path_factory.mktemp("runs") / "own"))


def prepared(table, settings):
    read = read_series(table, "time", "window", ["kind"], ["mass"])
    scale, conditions = (
        Scale.fit(read.recordings, read.channels),
        conditions_of(read.recordings, read.classes, ["mass"]),
    )
    batches = RecordingBatches(Windows(read.recordings, 8, 4), scale, conditions)
    network = build_network(settings, 2, conditions)
    for parameter in network.parameters():  # the last layer begins at zero
        torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(parameter.numel()))
    loss = LossSettings(mixture=settings.mixture, weights={}, drop_text=0.1, process=settings.process)
    return batches, RecordingTraining(network, loss, OptimizerSettings(), 4, 0)


def test_cells_without_a_sample_neither_reach_the_network_nor_the_loss(table, settings):
    batches, module = prepared(table, settings)
    batch = batches[[(i, 0.0) for i in range(16)]]
    spoiled = {**batch, "values": torch.where(batch["mask"], batch["values"], torch.tensor(1e3))}
    first, second = (module.losses(b, torch.Generator().manual_seed(1))["sensor"] for b in (batch, spoiled))
    assert not batch["mask"].all()
    assert first == second
    changed = {**batch, "values": batch["values"] + 0.1}
    assert module.losses(changed, torch.Generator().manual_seed(1))["sensor"] != first


def test_what_is_given_was_measured_and_comes_in_all_kinds():
    mask = torch.rand(400, 12, 3, generator=torch.Generator().manual_seed(0)) < 0.8
    given = draw_given(mask, torch.Generator().manual_seed(1))
    assert not (given & ~mask).any()
    nothing = ~given.flatten(1).any(1)
    assert 0.3 < nothing.float().mean() < 0.6
    start = [bool(g.any() and (g == m)[: g.any(1).nonzero().max() + 1].all()) for g, m in zip(given, mask, strict=True)]
    assert sum(start) > 40  # beginnings that are given whole
    whole = ((given == mask).all(1) | ~given.any(1)).all(1) & ~nothing
    assert whole.sum() > 10  # whole channels


def test_cells_and_windows_are_the_same_numbers():
    windows = torch.arange(48.0).reshape(2, 8, 3)
    cells = to_cells(windows, 4)
    assert cells.shape == (2, 2, 3, 4)
    assert cells[1, 1, 2].tolist() == windows[1, 4:, 2].tolist()
    assert torch.equal(from_cells(cells), windows)


def test_conditions_are_a_token_each_and_unknown_ones_are_padding():
    told = Conditions({"kind": ("a", "b"), "hand": ("l", "r", "x")}, ("mass",), (10.0,), (2.0,))
    text, mask = told.states(*told.read({"hand": ["r", "x"]}, {"mass": 14.0}, 2))
    assert mask.tolist() == [[False, True, True]] * 2
    assert text[0].tolist() == [[0.0] * 7, [0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1, 2]]
    for label, static, wrong in (
        ({"hands": "l"}, None, "nearest: 'hand'"), ({"hand": "m"}, None, "no class 'm', expected one of l, r, x"),
        ({"hand": ["l"] * 3}, None, "3 classes for 2 windows"), (None, {"age": 3}, "no such condition"),
    ):  # fmt: skip
        with pytest.raises(ClipError, match=wrong):
            told.read(label, static, 2)


def test_it_generates_windows_of_a_class_at_any_length_in_units(model):
    assert [(c.header, c.every) for c in model.scale.channels] == [("x [m]", 1), ("y [N]", 2)]
    high = model.sample(60, length=22, label={"kind": "high"})
    low = model.sample(60, label={"kind": "low"}, static={"mass": 3.0})
    assert high.shape == (60, 22, 2)
    assert low.shape == (60, 8, 2)
    assert not np.isnan(high[:, :, 0]).any()
    assert (np.isnan(high[:, :, 1]) == (np.arange(22) % 2 == 1)).all()
    assert high[:, :, 0].mean() > 1
    assert np.nanmean(high[:, :, 1]) < -1
    assert low[:, :, 0].mean() < -1
    np.testing.assert_allclose(model.sample(5, length=22, label={"kind": "high"}), high[:5], atol=1e-4)
    both = model.sample(200)[:, :, 0].mean(axis=1)
    assert 0.25 < (both > 0).mean() < 0.75
    mild, strong = (abs(model.sample(60, label={"kind": "low"}, guidance=g)[:, :, 0].mean()) for g in (1.0, 2.0))
    assert strong > mild


def test_it_fills_gaps_and_foretells_and_leaves_what_is_given(model):
    real, _ = levels(40, 9)
    holes = real.copy()
    holes[:, 3:7, 0] = np.nan
    full = model.complete(holes, ensemble=3)
    assert full.shape == (3, 40, 12, 2)
    given = ~np.isnan(holes)
    for member in full:
        np.testing.assert_array_equal(member[given], holes[given])
    assert (np.isnan(full) == np.isnan(real)).all()
    assert not np.array_equal(full[0], full[1])
    ahead = model.forecast(real[:, :8], 4, ensemble=19)
    assert ahead.shape == (19, 40, 4, 2)
    scores, blind = (forecast_scores(s, real[:, 8:]) for s in (ahead, np.roll(ahead, 1, axis=1)))
    assert scores["crps"] < 0.4 * blind["crps"]
    assert scores["coverage"]["0.9"] > 0.5
    with pytest.raises(ClipError, match="expected \\[windows, steps, 2\\]"):
        model.complete(real[:, :, :1])


def test_groups_held_out_and_gone_recordings_are_kept_with_the_model(table, settings, tmp_path):
    folder = train(override(settings, ["hold=1,3", "steps=1"]), table, tmp_path / "run")
    again = train(override(settings, ["hold=1,3", "steps=1"]), table, tmp_path / "run")
    generator = RecordingGenerator.from_pretrained(again)
    assert folder == again
    assert generator.facts["held"] == ["1", "3"]
    assert generator.facts["windows"] == 118 * 2
    with pytest.raises(ClipError, match="time=clock: no such column"):
        train(override(settings, ["time=clock"]), table, tmp_path / "other")
    with pytest.raises(ClipError, match=r"recordings\.json: missing"):
        RecordingGenerator.from_pretrained(tmp_path)
