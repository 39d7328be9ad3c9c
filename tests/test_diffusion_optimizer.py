"""The optimizer: who gets what, one schedule for both halves, and a state that resumes exactly."""

import copy

import pytest
import torch

from counterpoint.backbones.transformer import CounterpointTransformer, Modality
from counterpoint.diffusion import optimizer as module
from counterpoint.diffusion.optimizer import BatchedMuon, MuonWithAdamW, orthogonal
from counterpoint.diffusion.training import OptimizerSettings


def network() -> CounterpointTransformer:
    torch.manual_seed(0)
    modalities = CounterpointTransformer.describe([Modality("audio", 2, 6, "audio"), Modality("force", 1, 8, "sensor")])
    return CounterpointTransformer(modalities, width=16, depth=2, heads=2, text_dim=5, multiple=2)


def optimizer(model: torch.nn.Module) -> MuonWithAdamW:
    return MuonWithAdamW(model, lr=0.02, adamw_lr=1e-3, weight_decay=0.1)


def walk(model: torch.nn.Module, own: MuonWithAdamW, schedule: torch.optim.lr_scheduler.LRScheduler, steps: range):
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        own.step()
        schedule.step()
    return [p.detach().clone() for p in model.parameters()]


def test_every_parameter_has_one_home() -> None:
    model = network()
    own = optimizer(model)
    held = [p for group in own.param_groups for p in group["params"]]
    assert len(held) == len({id(p) for p in held}) == len(list(model.parameters()))
    names = {id(p): n for n, p in model.named_parameters()}
    storage = {p.data_ptr(): n for n, p in model.named_parameters()}  # Muon sees the same numbers as matrices
    muon = {storage[p.data_ptr()] for group in own.muon.param_groups for p in group["params"]}
    assert "transformer_blocks.1.ff.audio.proj_in.weight" in muon
    assert "transformer_blocks.0.space_attn.to_q.weight" in muon
    assert all(n.startswith("transformer_blocks.") and n.endswith(".weight") for n in muon)
    rest = {n for n in names.values() if n not in muon}
    assert {"transformer_blocks.0.table", "proj_in.audio.weight", "token_embedding.force"} <= rest
    decays = {names[id(p)]: g["weight_decay"] for g in own.adamw.param_groups for p in g["params"]}
    assert decays["proj_in.audio.weight"] == 0.1
    assert decays["proj_in.audio.bias"] == decays["transformer_blocks.0.text_norm.weight"] == 0.0


def test_frozen_parameters_are_left_out() -> None:
    model = network()
    model.proj_in.requires_grad_(False)
    held = {id(p) for group in optimizer(model).param_groups for p in group["params"]}
    assert not held & {id(p) for p in model.proj_in.parameters()}


def test_every_parameter_moves_and_the_gradient_is_cleared() -> None:
    model = network()
    own = optimizer(model)
    before = [p.detach().clone() for p in model.parameters()]
    loss = own.step(lambda: _loss(model))
    assert float(loss.detach()) > 0
    moved = [bool((p != b).any()) for p, b in zip(model.parameters(), before, strict=True)]
    assert all(moved)
    own.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def _loss(model: torch.nn.Module) -> torch.Tensor:
    loss = sum(((p - 2) ** 2).sum() for p in model.parameters())
    loss.backward()
    return loss


def test_muon_steps_are_orthogonal() -> None:
    """The step of a square matrix has singular values near the learning rate, whatever the gradient's scale."""
    model = network()
    own = MuonWithAdamW(model, lr=0.02, adamw_lr=1e-3, weight_decay=0.0)
    weight = model.get_parameter("transformer_blocks.0.space_attn.to_q.weight")
    before = weight.detach().clone()
    walk(model, own, torch.optim.lr_scheduler.LambdaLR(own, lambda _: 1.0), range(1))
    values = torch.linalg.svdvals(weight.detach() - before)
    assert float(values.max()) < 0.02 * 1.3
    assert float(values.median()) > 0.02 * 0.6


@pytest.mark.parametrize("fast", [True, False])
def test_matrices_taken_together_walk_as_pytorchs_muon_takes_them_one_by_one(monkeypatch, fast) -> None:
    monkeypatch.setattr(module, "fast_bf16", lambda device: fast)
    shapes = [(6, 6), (6, 6), (12, 4), (3, 9), (12, 4)]
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(shape, generator=generator) for shape in shapes]
    walked = []
    for kind in (BatchedMuon, torch.optim.Muon):
        own = [torch.nn.Parameter(x.clone()) for x in drawn]
        muon = kind(own, lr=0.02, weight_decay=0.1)
        for step in range(4):
            for i, p in enumerate(own):
                seeded = torch.Generator().manual_seed(9 * step + i)
                p.grad = None if i == step else torch.randn(p.shape, generator=seeded)
            muon.step()
        walked.append(own)
    for mine, theirs, start in zip(*walked, drawn, strict=True):
        moved = (theirs - start).norm()
        assert float(((mine - theirs).norm() / moved).detach()) < 0.03  # bfloat16


def test_singular_values_come_near_1_in_either_precision(monkeypatch) -> None:
    matrices = torch.randn(3, 8, 20, generator=torch.Generator().manual_seed(0))
    for fast, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(module, "fast_bf16", lambda device, fast=fast: fast)
        for given in (matrices, matrices.mT):
            found = orthogonal(given, (3.4445, -4.7750, 2.0315), 5)
            assert found.dtype == dtype
            assert found.shape == given.shape
            values = torch.linalg.svdvals(found.float())
            assert 0.6 < float(values.min()) <= float(values.max()) < 1.3


def test_state_resumes_exactly() -> None:
    model = network()
    own = optimizer(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(own, lambda step: 0.9**step)
    walk(model, own, schedule, range(3))
    saved = copy.deepcopy((model.state_dict(), own.state_dict(), schedule.state_dict()))
    whole = walk(model, own, schedule, range(3, 6))
    other = network()
    again = optimizer(other)
    resumed = torch.optim.lr_scheduler.LambdaLR(again, lambda step: 0.9**step)
    other.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    resumed.load_state_dict(saved[2])
    assert all(torch.equal(a, b) for a, b in zip(whole, walk(other, again, resumed, range(3, 6)), strict=True))
    assert [g["lr"] for g in own.param_groups] == [g["lr"] for g in again.param_groups]
    assert set(saved[1]) == {"muon", "adamw"}


def test_schedule_reaches_both_halves_also_after_loading() -> None:
    own = optimizer(network())
    own.load_state_dict(copy.deepcopy(own.state_dict()))
    torch.optim.lr_scheduler.LambdaLR(own, lambda _: 0.5)
    assert [g["lr"] for g in own.muon.param_groups] == [0.01]
    assert [g["lr"] for g in own.adamw.param_groups] == [5e-4, 5e-4]


def test_learning_rate_warms_up_and_cools_down() -> None:
    settings = OptimizerSettings(warmup=10, cooldown=0.2)
    rates = [settings.scale(step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:81] == [1.0] * 72
    assert rates[90] == pytest.approx(0.5)
    assert rates[100] == 0.0
