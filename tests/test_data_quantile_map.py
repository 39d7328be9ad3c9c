"""Quantile mapping: each channel gets the data's distribution, and keeps its order."""

import numpy as np
import pytest
import torch

from counterpoint.data.quantile_map import QuantileMap


@pytest.fixture(scope="module")
def windows():
    """`[3000, 4, 3]`: a channel with a value that a third of the data share, which came out as a bell; one that varies
    a tenth too little; one that does not vary."""
    draws = np.random.default_rng(0)
    data = draws.normal(size=(3000, 4, 3)).astype(np.float32)
    data[..., 0] = np.where(np.abs(data[..., 0]) < 0.43, 0.0, data[..., 0])
    made = draws.normal(size=(3000, 4, 3)).astype(np.float32) * np.float32([1, 0.9, 1])
    data[..., 2] = made[..., 2] = 0.5
    return torch.from_numpy(data), torch.from_numpy(made)


def test_what_was_made_gets_the_distribution_of_the_data(windows):
    data, made = windows
    fresh = torch.from_numpy(np.random.default_rng(1).normal(size=(3000, 4, 3)).astype(np.float32))
    mapped = QuantileMap.fit(made, data).apply(fresh * torch.tensor([1, 0.9, 1]))
    assert (mapped[..., 0] == 0).double().mean().item() == pytest.approx(
        (data[..., 0] == 0).double().mean().item(), abs=0.01
    )
    levels = torch.tensor([0.001, 0.02, 0.3, 0.5, 0.7, 0.98, 0.999])
    for channel in (0, 1):
        found, wanted = mapped[..., channel].quantile(levels), data[..., channel].quantile(levels)
        torch.testing.assert_close(found, wanted, atol=0.15, rtol=0)
        torch.testing.assert_close(found[1:-1], wanted[1:-1], atol=0.12, rtol=0)
    assert (mapped[..., 2] == 0.5).all()


def test_order_is_kept_and_nothing_leaves_the_range(windows):
    data, made = windows
    line = torch.linspace(-9, 9, 500)[:, None, None].expand(-1, 4, 3)
    mapped = QuantileMap.fit(made, data).apply(line)
    assert (mapped.diff(dim=0) >= 0).all()
    torch.testing.assert_close(mapped[0], data.amin(dim=(0, 1)).expand(4, 3))
    torch.testing.assert_close(mapped[-1], data.amax(dim=(0, 1)).expand(4, 3))


def test_each_step_of_runs_that_begin_alike_has_its_own_map():
    draws = torch.randn(4000, 3, 1, generator=torch.Generator().manual_seed(0))
    data = draws[:2000] * torch.tensor([0.1, 1.0, 2.0])[:, None]
    made = draws[2000:] * torch.tensor([0.2, 1.0, 1.0])[:, None]
    pooled, own = (QuantileMap.fit(made, data, per_step).apply(made).std(dim=0)[:, 0] for per_step in (False, True))
    torch.testing.assert_close(own, data.std(dim=0)[:, 0], atol=0.01, rtol=0)
    assert (pooled[0] / data[:, 0].std()) > 1.5


def test_of_equal_distributions_it_changes_nothing(windows):
    data = windows[0]
    torch.testing.assert_close(QuantileMap.fit(data, data).apply(data), data, atol=0.02, rtol=0)


def test_what_draws_differ_by_is_left_out():
    """Two channels: one is right, and each draw of it is off by chance; one is off in all draws alike."""
    draws = np.random.default_rng(2)
    data = torch.from_numpy(draws.normal(size=(4000, 5, 2)).astype(np.float32))
    off = 0.2 * draws.normal(size=(8, 1, 1, 2)) * [1, 0] + [0, 0.5]
    made = torch.from_numpy((draws.normal(size=(8, 100, 5, 2)) + off).reshape(800, 5, 2).astype(np.float32))
    fitted = QuantileMap.fit(made, data, draws=8)
    assert fitted.tensors["share"][0] < 0.7
    assert fitted.tensors["share"][1] > 0.98
    moved = fitted.apply(made).mean((0, 1)) - made.mean((0, 1))
    assert abs(moved[0]) < 0.7 * abs(made[..., 0].mean() - data[..., 0].mean())
    assert moved[1] == pytest.approx(-0.5, abs=0.06)
    assert (QuantileMap.fit(made, data).tensors["share"] == 1).all()
    with pytest.raises(ValueError, match="800 windows are not 7 draws"):
        QuantileMap.fit(made, data, draws=7)


def test_it_is_saved_whole(windows, tmp_path):
    quantiles = QuantileMap.fit(windows[1], windows[0])
    quantiles.save(tmp_path / "map.safetensors")
    again = QuantileMap.load(tmp_path / "map.safetensors")
    assert torch.equal(again.apply(windows[1]), quantiles.apply(windows[1]))


def test_other_windows_are_refused(windows):
    with pytest.raises(ValueError, match=r"\[4, 3\] and of \[4, 2\]"):
        QuantileMap.fit(windows[1], windows[0][..., :2])
