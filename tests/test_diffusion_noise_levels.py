"""Grids of noise levels: every kind by its definition, the shares by counting."""

import pytest
import torch

from counterpoint.diffusion.noise_levels import Grid, GridMixture, condition_grid, draw_grid, generation_grid

NAMES = ("video", "audio", "force")
KINDS = ("shared", "per_modality", "per_segment", "clean_rows", "clean_segment")
NONE = dict.fromkeys(KINDS, 0.0)


def draw(mixture: GridMixture, batch: int = 400, names: tuple[str, ...] = NAMES, slots: int = 6, seed: int = 0) -> Grid:
    return draw_grid(names, batch, slots, mixture, torch.Generator().manual_seed(seed))


def stack(grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """Levels and roles as `[B, M, T]`."""
    return torch.stack(list(grid.sigma.values()), 1), torch.stack(list(grid.known.values()), 1)


def kind_of(sigma: torch.Tensor, known: torch.Tensor) -> str:
    """What a single grid `[M, T]` looks like."""
    if known.any():
        return "clean_rows" if (known.all(1) | ~known.any(1)).all() else "clean_segment"
    if (sigma[:, :1] != sigma).any():
        return "per_segment"
    return "per_modality" if (sigma[:1] != sigma).any() else "shared"


@pytest.mark.parametrize("slots", [1, 2, 16])
def test_shapes_ranges_and_what_is_never(slots: int) -> None:
    sigma, known = stack(draw(GridMixture(), 2000, slots=slots))
    assert sigma.shape == known.shape == (2000, 3, slots)
    assert known.dtype == torch.bool
    assert sigma.min() >= 0
    assert sigma.max() <= 1
    assert not known.flatten(1).all(1).any()  # something is always left to learn
    assert sigma[known].max() <= 0.1
    assert 0.35 < float((sigma[known] == 0).float().mean()) < 0.65  # half of the conditions are perfectly clean


def test_shares_are_respected() -> None:
    mixture = GridMixture(shared=2.0, per_modality=1.0, per_segment=1.0, clean_rows=1.0, clean_segment=0.0)
    kinds = [kind_of(s, k) for s, k in zip(*stack(draw(mixture, 4000)), strict=True)]
    share = {kind: kinds.count(kind) / 4000 for kind in KINDS}
    assert share == pytest.approx(dict(zip(KINDS, (0.4, 0.2, 0.2, 0.2, 0.0), strict=True)), abs=0.03)


def test_shared_and_per_modality() -> None:
    sigma, known = stack(draw(GridMixture(**{**NONE, "shared": 1.0})))
    assert not known.any()
    assert (sigma == sigma[:, :1, :1]).all()
    assert sigma[:, 0, 0].unique().numel() > 390  # one level a clip
    sigma, _ = stack(draw(GridMixture(**{**NONE, "per_modality": 1.0})))
    assert (sigma == sigma[:, :, :1]).all()
    assert (sigma[:, 0, 0] != sigma[:, 1, 0]).all()


def test_per_segment_is_one_step_in_time_for_all_modalities() -> None:
    sigma, known = stack(draw(GridMixture(**{**NONE, "per_segment": 1.0})))
    assert not known.any()
    assert (sigma == sigma[:, :1]).all()
    changes = (sigma[:, 0, 1:] != sigma[:, 0, :-1]).sum(1)
    assert (changes == 1).all()
    where = (sigma[:, 0, 1:] != sigma[:, 0, :-1]).float().mean(0)
    assert (where > 0.12).all()  # the boundary falls everywhere


def test_clean_rows_are_whole_modalities() -> None:
    sigma, known = stack(draw(GridMixture(**{**NONE, "clean_rows": 1.0})))
    rows = known[:, :, 0]
    assert (known == rows[..., None]).all()
    assert set(rows.sum(1).tolist()) == {1, 2}  # never none, never all
    assert (rows.float().mean(0) > 0.3).all()
    unknown = torch.where(known, torch.nan, sigma).flatten(1)
    assert (unknown.nan_to_num(-1).amax(1) == unknown.nan_to_num(2).amin(1)).all()  # one level for what is learned
    _, alone = stack(draw(GridMixture(**{**NONE, "clean_rows": 1.0}), names=("video",)))
    assert not alone.any()


def test_clean_segment_is_a_prefix_a_suffix_or_both() -> None:
    _, known = stack(draw(GridMixture(**{**NONE, "clean_segment": 1.0}), 2000))
    assert (known == known[:, :1]).all()
    patterns = {"".join("k" if k else "." for k in row) for row in known[:, 0].tolist()}
    assert {"kkk...", "...kkk", "kk..kk", "k....k", "kkkkk."} <= patterns
    assert all("." in p and "k" not in p.strip("k") for p in patterns), patterns  # the unknown is one piece


def test_levels_follow_the_mixture() -> None:
    flat, _ = stack(draw(GridMixture(**{**NONE, "shared": 1.0}, uniform=1.0), 4000))
    assert float(flat[:, 0, 0].std()) == pytest.approx(12**-0.5, abs=0.01)
    noisy, _ = stack(draw(GridMixture(**{**NONE, "shared": 1.0}, uniform=0.0, location=1.0, scale=0.5), 4000))
    logit = noisy[:, 0, 0].logit()
    assert float(logit.mean()) == pytest.approx(1.0, abs=0.03)
    assert float(logit.std()) == pytest.approx(0.5, abs=0.03)


def test_the_generator_alone_decides() -> None:
    torch.manual_seed(1)
    one = stack(draw(GridMixture(), seed=5))
    torch.manual_seed(2)
    again, other = stack(draw(GridMixture(), seed=5)), stack(draw(GridMixture(), seed=6))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], other[0])


def test_generation_grid_knows_nothing() -> None:
    sigma, known = stack(generation_grid(NAMES, 2, 5))
    assert sigma.shape == (2, 3, 5)
    assert (sigma == 1).all()
    assert not known.any()


def test_condition_grid_keeps_what_is_known_clean() -> None:
    cells = {"video": torch.tensor([True, False, True]), "audio": torch.zeros(3, dtype=torch.bool)}
    sigma, known = stack(condition_grid(cells, 2))
    assert known.tolist() == [[[True, False, True], [False, False, False]]] * 2
    assert sigma.tolist() == [[[0.0, 1.0, 0.0], [1.0, 1.0, 1.0]]] * 2
