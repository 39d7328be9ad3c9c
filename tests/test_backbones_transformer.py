"""The network's contract: what is absent has no influence, what is isolated is not heard, what is saved comes back."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor

from counterpoint.backbones.transformer import CounterpointTransformer, Layout, Modality

MODALITIES = [
    Modality("video", 4, 8, "video"),
    Modality("audio", 2, 6, "audio"),
    Modality("accelerometer", 1, 16, "sensor"),
    Modality("force", 1, 16, "sensor"),
]
B, T, L = 2, 3, 5


def build(randomized: bool = True, **changes: object) -> CounterpointTransformer:
    """A tiny network; `randomized` fills the projections that start at zero, which would hide every influence."""
    torch.manual_seed(0)
    settings = {"width": 16, "depth": 2, "heads": 2, "text_dim": 7, "multiple": 2, **changes}
    model = CounterpointTransformer(CounterpointTransformer.describe(MODALITIES), **settings)
    for p in model.parameters():
        if randomized and not p.any():
            torch.nn.init.normal_(p, std=0.3)
    return model.eval()


def inputs(seed: int = 1) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latents = {m.name: torch.randn(B, T, m.tokens, m.channels, generator=generator) for m in MODALITIES}
    sigma = {m.name: torch.rand(B, T, generator=generator) for m in MODALITIES}
    return latents, sigma, torch.randn(B, L, 7, generator=generator), torch.ones(B, L, dtype=torch.bool)


def close(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 1e-5) -> bool:
    assert one.keys() == other.keys()
    return all(torch.allclose(one[n], other[n], atol=tolerance, rtol=tolerance) for n in one)


def test_nothing_asks_a_text_of_one_token() -> None:
    latents, sigma, text, mask = inputs()
    model, asked = build(), []
    for block in model.transformer_blocks:
        block.text_norm.register_forward_hook(lambda *_: asked.append(1))
    several = model(latents, sigma, text, mask)
    assert len(asked) == 2
    one = model(latents, sigma, text[:, :1], mask[:, :1])
    assert len(asked) == 2
    assert not close(one, several)
    repeated = text[:, :1].expand_as(text)  # the same answer from each of five keys
    assert close(model(latents, sigma, repeated, mask), one)


def test_velocities_have_the_shapes_of_the_latents() -> None:
    latents, *rest = inputs()
    out = build()(latents, *rest)
    assert {n: v.shape for n, v in out.items()} == {n: x.shape for n, x in latents.items()}
    assert list(out) == list(latents)
    assert not any(v.any() for v in build(randomized=False)(latents, *rest).values())  # starts by predicting 0


@pytest.mark.parametrize("tokens", [(2, 1, 3), (1, 1, 1)])
def test_what_belongs_to_cells_is_given_to_each_of_their_tokens(tokens: tuple[int, ...]) -> None:
    cells = torch.randn(2, 3, len(tokens), 4, requires_grad=True)
    spread = Layout(("a", "b", "c"), tokens, ("x", "x", "y")).spread(cells)
    torch.testing.assert_close(spread, cells.repeat_interleave(torch.tensor(tokens), dim=-2))
    spread.sum().backward()
    counts = torch.tensor(tokens, dtype=torch.float32)[:, None].expand(2, 3, -1, 4)
    assert cells.grad is not None
    torch.testing.assert_close(cells.grad, counts)


@torch.no_grad()
def test_an_absent_modality_is_no_tokens() -> None:
    latents, sigma, text, mask = inputs()
    model, only = build(), ("video", "force")
    part = {n: latents[n] for n in only}
    want = model(part, {n: sigma[n] for n in only}, text, mask)
    assert set(want) == set(only)
    assert close(model(part, sigma, text, mask), want, 0.0)  # levels of what is absent are not looked at
    assert close(model({n: part[n] for n in reversed(only)}, sigma, text, mask), want, 0.0)  # nor is the order
    with torch.no_grad():
        model.token_embedding["audio"].fill_(9.0)
        model.proj_in["audio"].weight.fill_(9.0)
    assert close(model(part, sigma, text, mask), want, 0.0)  # nor the weights that only the absent one has
    whole = model(latents, sigma, text, mask)
    assert not close({n: whole[n] for n in only}, want, 1e-3)  # while one that is present is heard


@torch.no_grad()
@pytest.mark.parametrize("feed_forward", ["per_group", "shared", "per_modality", "experts"])
def test_isolation(feed_forward: str) -> None:
    latents, sigma, text, mask = inputs()
    other = {**latents, "audio": inputs(2)[0]["audio"]}
    levels = {**sigma, "audio": inputs(2)[1]["audio"]}
    model = build(feed_forward=feed_forward)
    rest = [n for n in latents if n != "audio"]
    for isolate in (True, False):
        before, after = (model(x, s, text, mask, isolate=isolate) for x, s in ((latents, sigma), (other, levels)))
        assert close({n: before[n] for n in rest}, {n: after[n] for n in rest}) is isolate
        assert not close({"audio": before["audio"]}, {"audio": after["audio"]}, 1e-2)
    alone = model({"force": latents["force"]}, sigma, text, mask)["force"]
    together = model(latents, sigma, text, mask, isolate=True)["force"]
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-5)  # isolated is as if alone


@torch.no_grad()
def test_noise_level_of_one_cell_matters() -> None:
    latents, sigma, text, mask = inputs()
    model = build()
    before = model(latents, sigma, text, mask)
    sigma["force"][:, 2] += 0.05
    after = model(latents, sigma, text, mask)
    assert (before["force"][:, 2] - after["force"][:, 2]).abs().max() > 1e-3
    assert (before["video"][:, 0] - after["video"][:, 0]).abs().max() > 0  # through space and time attention


@torch.no_grad()
@pytest.mark.parametrize("text_modulation", [False, True])
def test_a_level_that_all_cells_share_can_be_said_once(text_modulation: bool) -> None:
    latents, _, *text = inputs()
    model = build(text_modulation=text_modulation)
    levels = {name: 0.1 * i + 0.2 for i, name in enumerate(latents)}
    full = model(latents, {name: torch.full((B, T), level) for name, level in levels.items()}, *text)
    once = model(latents, {name: torch.full((1, 1), level) for name, level in levels.items()}, *text)
    assert close(full, once)


@torch.no_grad()
def test_time_has_an_order_and_clips_do_not_mix() -> None:
    latents, sigma, text, mask = inputs()
    model = build()
    out = model(latents, sigma, text, mask)
    turned = model({n: x.flip(1) for n, x in latents.items()}, {n: s.flip(1) for n, s in sigma.items()}, text, mask)
    assert not close({n: v.flip(1) for n, v in turned.items()}, out, 1e-4)  # rotary positions tell past from future
    first = model({n: x[:1] for n, x in latents.items()}, {n: s[:1] for n, s in sigma.items()}, text[:1], mask[:1])
    assert close(first, {n: v[:1] for n, v in out.items()})


@torch.no_grad()
def test_masked_text_has_no_influence() -> None:
    latents, sigma, text, mask = inputs()
    model = build()
    mask[:, 3:] = False
    want = model(latents, sigma, text, mask)
    noisy = text.clone()
    noisy[:, 3:] += 5.0
    assert close(model(latents, sigma, noisy, mask), want, 0.0)
    noisy[:, 2] += 5.0
    assert not close(model(latents, sigma, noisy, mask), want, 1e-3)
    nothing = torch.zeros_like(mask)
    assert close(model(latents, sigma, text, nothing), model(latents, sigma, torch.zeros(B, 1, 7), nothing[:, :1]))
    assert torch.equal(model.encode_text(text, nothing), model.text_pad.expand(B, L, -1))
    torch.testing.assert_close(model.encode_text(text, None), model.text_proj(text))


def test_bad_input_is_named() -> None:
    latents, sigma, text, mask = inputs()
    with pytest.raises(ValueError, match="accelerometer: 16 channels a token do not fit a width of 12"):
        build(width=12)
    with pytest.raises(ValueError, match="feed_forward: 'mine' is none of shared, per_group"):
        build(feed_forward="mine")
    with pytest.raises(ValueError, match=r"\['smell'\]; this model knows video, audio"):
        build()({**latents, "smell": latents["audio"]}, sigma, text, mask)
    with pytest.raises(ValueError, match="none given"):
        build()({}, sigma, text, mask)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    grads = []
    for checkpointed in (False, True):
        model = build().train()
        calls = 0
        if checkpointed:
            model.enable_gradient_checkpointing()
            plain = model._gradient_checkpointing_func

            def count(*args: object, plain=plain) -> Tensor:
                nonlocal calls
                calls += 1
                return plain(*args)

            model._gradient_checkpointing_func = count
        sum(v.square().mean() for v in model(*inputs()).values()).backward()
        assert calls == (2 if checkpointed else 0)
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    assert len(grads[0]) == len(list(build().parameters()))  # every parameter learns
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], msg=name)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_save_and_load(tmp_path: Path, dtype: torch.dtype) -> None:
    model = build(feed_forward="shared", slot_seconds=0.2).to(dtype)
    model.save_pretrained(str(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    back = CounterpointTransformer.from_pretrained(str(tmp_path), torch_dtype=dtype, low_cpu_mem_usage=False)
    assert back.dtype == dtype
    assert back.config.slot_seconds == 0.2
    assert close(back(*inputs()), model(*inputs()), 0.0)


@torch.no_grad()
def test_bf16_is_close_to_fp32() -> None:
    want = build()(*inputs())
    got = build().to(torch.bfloat16)(*inputs())
    for name, v in got.items():
        assert v.dtype == torch.bfloat16
        error = (v.float() - want[name]).norm() / want[name].norm()
        assert error < 0.05, f"{name}: {error}"


@torch.no_grad()
def test_passes_of_guidance_have_a_context_of_their_own() -> None:
    model = build()
    want = model(*inputs())
    with model.cache_context("unconditional"):
        assert close(model(*inputs()), want, 0.0)


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")
def test_lora_adapter() -> None:
    from peft import LoraConfig

    model = build()
    want = model(*inputs())
    model.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    assert not close(model(*inputs()), want, 1e-4)
    model.disable_adapters()
    assert close(model(*inputs()), want)
