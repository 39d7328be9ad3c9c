"""The refiner of video latents: plain descent at first, the gradient it learns from, stretches, folders."""

import pytest
import torch
from torch import nn

from counterpoint.modalities import video as module
from counterpoint.modalities.video import VideoCodec, moving_region
from counterpoint.modalities.video_refiner import FARTHEST, LatentRefiner


def codec(steps: int = 2) -> VideoCodec:
    """Small, with a refiner that has learned something, if not what it should."""
    torch.manual_seed(0)
    made = VideoCodec.create((8, 16, 32), channels=16)
    made.refiner = refiner(steps)
    return made.eval().requires_grad_(False)


def refiner(steps: int = 2, **options: float) -> LatentRefiner:
    torch.manual_seed(1)
    made = LatentRefiner(channels=4, width=8, layers=1, steps=steps, **options)
    nn.init.normal_(made.proj_out.weight, std=0.1)
    return made


def ball(frames: int, size: int = 32, batch: int = 1) -> torch.Tensor:
    """A bright disc that moves through noise, [batch, 3, frames, size, size]."""
    noise = torch.rand(batch, 3, 1, size, size, generator=torch.Generator().manual_seed(frames)) * 0.2
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    place = torch.arange(frames)[:, None, None]
    disc = ((x - 8 - place % 16) ** 2 + (y - 12) ** 2 < 20).float()
    return (noise + disc).clamp(-1, 1) - 0.2 * torch.arange(batch).view(-1, 1, 1, 1, 1)


def test_an_untrained_refiner_takes_steps_of_plain_descent():
    plain = LatentRefiner(channels=4, steps=3)
    latents, target = torch.zeros(1, 4, 2, 4, 4), torch.zeros(1, 3, 8, 32, 32)
    matrix = torch.randn(3 * 4 * 64, 4, generator=torch.Generator().manual_seed(0)) / 8

    def rebuild(standard: torch.Tensor) -> torch.Tensor:
        """4 numbers → 4 frames of 8×8 pixels, linearly."""
        pixels = torch.einsum("pc,bcthw->bpthw", matrix, standard)
        pixels = pixels.unflatten(1, (3, 4, 8, 8)).permute(0, 1, 5, 2, 6, 3, 7, 4)
        return pixels.reshape(1, 3, 8, 32, 32)

    wanted = torch.randn(latents.shape, generator=torch.Generator().manual_seed(2))
    target = rebuild(wanted)
    moving = torch.ones(1, 1, 8, 32, 32, dtype=torch.bool)
    plain.scale.fill_(100.0)
    weight = 10.0 * moving.float()
    before = plain.error(rebuild(latents), target, weight).sum()
    refined = plain.refine(rebuild, latents, target, moving)
    assert plain.error(rebuild(refined), target, weight).sum() < 0.9 * before
    assert (refined - wanted).square().sum() < wanted.square().sum()


def test_the_error_is_weighted():
    made = refiner(squared=2.0)
    rebuilt, video = torch.full((1, 3, 4, 16, 16), 0.5), torch.zeros(1, 3, 4, 16, 16)
    weight = torch.ones(1, 1, 4, 16, 16)
    weight[..., 8:] = 10.0
    error = made.error(rebuilt, video, weight)
    assert error[..., :8].unique().tolist() == pytest.approx([0.5 + 2.0 * 0.25])
    assert error[..., 8:].unique().tolist() == pytest.approx([10.0])


def test_what_moves_weighs_more_in_the_gradient(monkeypatch):
    made, heard = refiner(steps=1, moving_weight=7.0), []
    monkeypatch.setattr(made, "error", lambda rebuilt, video, weight: heard.append(weight) or rebuilt.square())
    moving = torch.zeros(1, 1, 4, 16, 16, dtype=torch.bool)
    moving[..., 3] = True
    made.refine(lambda latents: latents, torch.ones(1, 4, 1, 2, 2), torch.zeros(1, 3, 4, 16, 16), moving)
    assert torch.equal(heard[0], 1.0 + 6.0 * moving.float())


def test_a_step_learns_from_the_error_after_it():
    """With one step, the gradient is that of the error (in units of `scale`) right through the decoder."""
    made, coded = refiner(steps=1), codec(1)
    made.scale.fill_(3.0)
    rebuild, video = coded.rebuild(), ball(8)
    weight = 1.0 + 9.0 * moving_region(video).float()
    latents = coded.standard(coded.posterior(video)[0])
    loss, errors = made.learn(rebuild, latents, video, weight, stay=0.0)
    loss.backward()
    learned = [parameter.grad.clone() for parameter in made.parameters()]
    made.zero_grad()
    gradient, _ = made.gradient(rebuild, latents, video, weight)
    moved = made(latents, gradient, torch.zeros_like(latents))
    error = made.error(rebuild(latents + moved), video, weight)
    (error.sum() / made.scale / moved.numel()).backward()
    for ours, parameter in zip(learned, made.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-3, atol=1e-6)
    assert errors == pytest.approx([errors[0], error.sum().item() / (3 * weight.sum().item())])
    assert loss.item() == pytest.approx(errors[-1])


def test_steps_go_on_from_where_the_one_before_ended(monkeypatch):
    made, heard = refiner(steps=3), []

    def step(latents: torch.Tensor, gradient: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
        heard.append((latents.mean().item(), gradient.mean().item(), moved.mean().item()))
        return torch.full_like(latents, 0.1)

    monkeypatch.setattr(made, "forward", step)
    made.scale.fill_(2.0)
    monkeypatch.setattr(made, "error", lambda rebuilt, video, weight: rebuilt.square())
    latents, video = torch.ones(1, 4, 1, 2, 2), torch.zeros(1, 3, 4, 16, 16)
    moving = torch.zeros(1, 1, 4, 16, 16, dtype=torch.bool)
    refined = made.refine(lambda standard: standard, latents, video, moving)
    torch.testing.assert_close(refined, torch.full_like(latents, 1.3))
    places = [1.0, 1.1, 1.2]  # where each step begins; the gradient there is 2x, half of it in units of the scale
    assert heard == [pytest.approx((x, x, x - 1.0)) for x in places]
    heard.clear()
    made.learn(lambda standard: standard, latents, video, 1.0 + moving.float(), stay=0.0)
    assert heard == [pytest.approx((x, x, x - 1.0)) for x in places]


def test_moving_has_its_price():
    made = refiner(steps=2)
    latents, video = torch.randn(1, 4, 2, 4, 4), torch.zeros(1, 3, 8, 32, 32)
    nothing = torch.zeros(1, 1, 8, 32, 32)
    nothing[..., 0, 0] = 1e-12  # the errors hardly count: what is left of the loss is the price

    def rebuild(standard: torch.Tensor) -> torch.Tensor:
        return standard.mean() * torch.ones_like(video)

    loss, _ = made.learn(rebuild, latents, video, nothing, stay=2.0)
    loss.backward()
    learned = made.proj_out.weight.grad.clone()
    made.zero_grad()
    first = made(latents, torch.zeros_like(latents), torch.zeros_like(latents))
    moved = first.detach()
    second = made(latents + moved, torch.zeros_like(latents), moved)
    price = first.square() + (moved + second).square()  # half of 2, times the squared distance after each step
    price.mean().backward()
    assert learned.abs().max() > 1e-3
    torch.testing.assert_close(learned, made.proj_out.weight.grad, rtol=1e-3, atol=1e-6)


def test_no_step_is_too_far():
    made = refiner()
    nn.init.normal_(made.proj_out.weight, std=100.0)
    step = made(torch.randn(1, 4, 2, 4, 4), 1e6 * torch.randn(1, 4, 2, 4, 4), torch.zeros(1, 4, 2, 4, 4))
    assert FARTHEST - 1e-3 < step.abs().max() <= FARTHEST


@torch.no_grad()
def test_encoding_refines_every_clip_on_its_own():
    coded, video = codec(), ball(16, batch=2)
    both = coded.encode(video)
    assert both.dtype == torch.float32
    for clip in range(2):  # the gradient of an absolute error jumps: rounding in a batch moves single numbers a little
        assert (coded.encode(video[clip : clip + 1])[0] - both[clip]).abs().mean() < 1e-3
    coded.refiner = None
    assert (coded.encode(video) - both).abs().mean() > 0.05


@torch.no_grad()
def test_stretches_see_beyond_their_ends(monkeypatch):
    coded, video = codec(), ball(40)
    whole = coded.encode(video)
    monkeypatch.setattr(module, "STRETCH", 3)
    monkeypatch.setattr(module, "CONTEXT", 10)
    torch.testing.assert_close(coded.encode(video), whole, rtol=1e-4, atol=1e-5)  # all slots are in every context
    monkeypatch.setattr(module, "CONTEXT", 2)
    near = (coded.encode(video) - whole).abs().max()
    monkeypatch.setattr(module, "CONTEXT", 0)
    assert near < (coded.encode(video) - whole).abs().max()


@torch.no_grad()
def test_gradients_are_not_asked_of_a_bfloat16_decoder_that_cannot_give_them(monkeypatch):
    coded = codec()
    coded.vae.to(torch.bfloat16)
    latents = torch.randn(1, 4, 2, 4, 4)
    for trusted in (torch.float32, torch.bfloat16):
        monkeypatch.setattr(module, "training_dtype", lambda device, trusted=trusted: trusted)
        assert coded.rebuild()(latents).dtype == trusted
    assert coded.vae.dtype == torch.bfloat16
    assert coded.encode(ball(8)).dtype == torch.bfloat16


@torch.no_grad()
def test_a_codec_is_saved_with_its_refiner(tmp_path):
    coded, video = codec(), ball(8)
    coded.save_pretrained(tmp_path)
    again = VideoCodec.from_pretrained(tmp_path)
    assert again.refiner is not None
    assert again.refiner.steps == 2
    assert torch.equal(again.encode(video), coded.encode(video))
    coded.refiner = None
    coded.save_pretrained(tmp_path / "bare")
    assert VideoCodec.from_pretrained(tmp_path / "bare").refiner is None
