"""Experts: what a dense feed-forward is, tokens that know nothing of one another, gradients, the balance loss."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from counterpoint.backbones.experts import Experts, FeedForward, Reorder, balance_loss
from counterpoint.backbones.transformer import CounterpointTransformer, Modality
from counterpoint.diffusion.pipeline import weights_folder
from counterpoint.diffusion.training import JointTraining, LossSettings, OptimizerSettings

MODALITIES = [
    Modality("video", 4, 8, "video"),
    Modality("accelerometer", 1, 16, "sensor"),
    Modality("force", 1, 16, "sensor"),
]
WIDTH, HIDDEN = 8, 12


def make(experts: int, active: int) -> Experts:
    """With outputs that are not zero, as they are before training, and a router that prefers something."""
    torch.manual_seed(0)
    made = Experts(WIDTH, HIDDEN, experts, active)
    for p in made.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return made


def tokens(*shape: int) -> Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(1))


def network(kind: str) -> CounterpointTransformer:
    torch.manual_seed(0)
    description = CounterpointTransformer.describe(MODALITIES)
    model = CounterpointTransformer(description, 16, 2, 2, 7, kind, 2, experts=4)
    for p in model.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.3)
    return model


def batch(count: int = 2, slots: int = 3) -> dict:
    draws = torch.Generator().manual_seed(2)
    latents = {m.name: torch.randn(count, slots, m.tokens, m.channels, generator=draws) for m in MODALITIES}
    mask = torch.ones(count, 5, dtype=torch.bool)
    return {"latents": latents, "text": torch.randn(count, 5, 7, generator=draws), "text_mask": mask}


def arguments(count: int = 2) -> tuple:
    own = batch(count)
    return own["latents"], {n: torch.full((count, 3), 0.5) for n in own["latents"]}, own["text"], own["text_mask"]


@torch.no_grad()
def test_between_its_layers_a_feed_forward_has_the_exact_gelu() -> None:
    x = torch.linspace(-4, 4, 9)[:, None].double()
    ff = FeedForward(1, 1).double()
    for layer in (ff.proj_in, ff.proj_out):
        layer.weight.fill_(1.0)
        layer.bias.zero_()
    torch.testing.assert_close(ff(x), x * torch.distributions.Normal(0.0, 1.0).cdf(x), atol=1e-6, rtol=0)


@torch.no_grad()
def test_one_of_one_expert_is_dense() -> None:
    experts, x = make(1, 1), tokens(2, 3, 5)
    dense = FeedForward(WIDTH, HIDDEN)
    dense.load_state_dict(experts.experts[0].state_dict())
    torch.testing.assert_close(experts(x), dense(x))


@torch.no_grad()
def test_equal_weights_make_slices_of_a_dense_one() -> None:
    experts, x = make(2, 2), tokens(7)
    experts.router.zero_()
    dense, (a, b) = FeedForward(WIDTH, HIDDEN), experts.experts
    dense.proj_in.weight.copy_(torch.cat([a.proj_in.weight, b.proj_in.weight]))
    dense.proj_in.bias.copy_(torch.cat([a.proj_in.bias, b.proj_in.bias]))
    dense.proj_out.weight.copy_(torch.cat([a.proj_out.weight, b.proj_out.weight], dim=1))
    dense.proj_out.bias.copy_(a.proj_out.bias + b.proj_out.bias)
    torch.testing.assert_close(experts(x), dense(x))


@torch.no_grad()
@pytest.mark.parametrize("active", [1, 2, 3])
def test_a_token_gets_its_own_experts_whatever_the_others_are(active: int) -> None:
    experts, x = make(5, active), tokens(40)
    together = experts(x)
    chances = (x @ experts.router.T).softmax(dim=-1)
    for row, token in enumerate(x):
        best = chances[row].topk(active)
        weights = active * best.values / best.values.sum() if active > 1 else best.values
        expected = sum(w * experts.experts[int(e)](token) for w, e in zip(weights, best.indices, strict=True))
        torch.testing.assert_close(together[row], expected)
        torch.testing.assert_close(experts(token[None])[0], together[row])  # alone
    crowd = torch.cat([x[:1].expand(200, -1), x])  # all of them want the same experts: nobody is turned away
    torch.testing.assert_close(experts(crowd), torch.cat([together[:1].expand(200, -1), together]))


@pytest.mark.parametrize("active", [1, 2])
def test_gradients_reach_the_router_and_the_experts_that_were_used(active: int) -> None:
    experts, x = make(4, active), tokens(6).requires_grad_()
    with torch.no_grad():
        experts.router[3] = -experts.router[:3].sum(dim=0)  # somebody's last choice
    experts(x).square().mean().backward()
    used = (x @ experts.router.T).topk(active).indices.unique().tolist()
    assert experts.router.grad is not None
    assert experts.router.grad.abs().sum() > 0
    assert x.grad is not None
    assert (x.grad.abs().sum(dim=-1) > 0).all()
    for number, expert in enumerate(experts.experts):
        for p in expert.parameters():
            assert p.grad is not None, "an idle expert has a gradient of zero, so that optimizers see all parameters"
            assert bool(p.grad.any()) is (number in used)


def test_reordering_is_undone_by_its_gradient() -> None:
    order = torch.tensor([2, 0, 1])
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.equal(Reorder.apply(x, order, order.argsort()), x[order])
    assert torch.autograd.gradcheck(lambda y: Reorder.apply(y, order, order.argsort()).square(), x)
    assert torch.autograd.gradgradcheck(lambda y: Reorder.apply(y, order, order.argsort()).pow(3), x)


def test_balance_is_one_at_best() -> None:
    even, counts = torch.full((10, 4), 0.25), torch.tensor([5, 5, 5, 5])
    assert float(balance_loss(even, counts)) == pytest.approx(1)
    always = torch.tensor([1.0, 0, 0, 0]).expand(10, -1)
    assert float(balance_loss(always, torch.tensor([10, 0, 0, 0]))) == pytest.approx(4)
    experts, x = make(4, 2), tokens(50) + 1
    with torch.no_grad():
        experts.router[0] += 0.5  # everybody's first choice
    optimizer = torch.optim.Adam([experts.router], lr=0.05)
    found: list[Tensor] = []
    for _ in range(40):
        experts(x, found)
        optimizer.zero_grad()
        found[-1].backward()
        optimizer.step()
    assert len(found) == 40
    assert 1.3 < found[0].item() < 2
    assert found[-1].item() < 1 + 0.3 * (found[0].item() - 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_at_batch_1(dtype: torch.dtype) -> None:
    """Also with experts that no token chose."""
    experts, x = make(8, 2), tokens(1)
    with torch.no_grad():
        want = experts(x)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            found = experts(x)
            assert experts.chances(x.to(dtype)).dtype == torch.float32
    assert found.dtype == dtype
    assert (found.float() - want).norm() < 0.05 * want.norm()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        experts(x).float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in experts.parameters())


def test_impossible_numbers_are_named() -> None:
    with pytest.raises(ValueError, match="active: 3 of 2 experts"):
        Experts(8, 12, 2, 3)
    with pytest.raises(ValueError, match="active: a hidden width of 12 does not part into 5"):
        Experts(8, 12, 8, 5)


def test_checkpointing_changes_neither_loss_nor_gradient() -> None:
    results = []
    for checkpointed in (False, True):
        model, routed = network("experts").train(), []
        if checkpointed:
            model.enable_gradient_checkpointing()
        out = model(*arguments(), balance=routed)
        assert len(routed) == 2  # one a block
        loss = sum(v.square().mean() for v in out.values()) + torch.stack(routed).mean()
        loss.backward()
        assert len(routed) == 2  # what was computed again is not counted again
        assert not [n for n, value in model.transformer_blocks[0].ff["all"].__dict__.items() if torch.is_tensor(value)]
        results.append((loss.detach(), {n: p.grad for n, p in model.named_parameters()}))
    (one, grads), (other, again) = results
    torch.testing.assert_close(one, other)
    for name, grad in grads.items():
        assert grad is not None, name
        torch.testing.assert_close(grad, again[name], msg=name)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["shared", "per_group", "per_modality", "experts"])
def test_names_and_save_and_load(tmp_path: Path, kind: str) -> None:
    model = network(kind)
    owners = {"per_group": ["video", "sensor"], "per_modality": [m.name for m in MODALITIES]}.get(kind, ["all"])
    assert list(model.transformer_blocks[0].ff) == owners
    routed: list[Tensor] = []
    want = model(*arguments(1), balance=routed)
    assert bool(routed) is (kind == "experts")
    model.save_pretrained(str(tmp_path))
    back = CounterpointTransformer.from_pretrained(str(tmp_path), low_cpu_mem_usage=False)
    assert (back.config["feed_forward"], back.config["experts"], back.config["active"]) == (kind, 4, 2)
    kept = back.state_dict()
    assert kept.keys() == model.state_dict().keys()
    assert all(torch.equal(p, kept[n]) for n, p in model.state_dict().items())
    for name, v in back(*arguments(1)).items():  # products of few rows are rounded by where the weights lie in memory
        torch.testing.assert_close(v, want[name], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_per_modality_feed_forwards_are_private() -> None:
    model = network("per_modality").eval()
    latents, sigma, text, mask = arguments()
    before = model(latents, sigma, text, mask, isolate=True)
    for block in model.transformer_blocks:
        block.ff["force"].proj_out.bias.add_(1.0)
    after = model(latents, sigma, text, mask, isolate=True)
    assert {n for n in before if not torch.equal(before[n], after[n])} == {"force"}


def test_the_model_that_ships_has_the_parameters_it_had() -> None:
    config = CounterpointTransformer.load_config(str(weights_folder() / "joint" / "transformer"))
    model = CounterpointTransformer.from_config(config)
    names = {n.split(".ff.")[1] for n, _ in model.named_parameters() if n.startswith("transformer_blocks.0.ff")}
    kinds = ("proj_in.weight", "proj_in.bias", "proj_out.weight", "proj_out.bias")
    assert names == {f"{group}.{kind}" for group in ("video", "audio", "sensor") for kind in kinds}


def test_the_training_step_logs_and_weighs_the_balance() -> None:
    logged, totals = [], []
    for weight in (0.0, 0.5):
        loss = LossSettings(balance=weight, drop_modality=0.0)
        module = JointTraining(network("experts"), loss, OptimizerSettings(), 4, 0)
        module.log_dict = logged.append  # pyright: ignore
        totals.append(module.training_step(batch(), 0))
    assert set(logged[0]) == {"loss", "loss/balance", *(f"loss/{m.name}" for m in MODALITIES)}
    assert logged[1]["loss/balance"] >= 0.99
    torch.testing.assert_close(totals[1] - totals[0], 0.5 * logged[1]["loss/balance"])
    router = module.transformer.transformer_blocks[0].ff["all"].router
    assert any(router is p for group in module.configure_optimizers()["optimizer"].adamw.param_groups
               for p in group["params"])  # fmt: skip
