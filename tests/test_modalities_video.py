"""The video codec: slots and latents keep step, illegal shapes are refused, what is saved comes back."""

import pytest
import torch

from counterpoint.modalities.clip import ClipError
from counterpoint.modalities.video import VideoCodec, _to_tokens, moving_region, psnr, training_dtype


def codec(seed: int = 0) -> VideoCodec:
    torch.manual_seed(seed)
    return VideoCodec.create((8, 16, 32), channels=16).eval()


def video(frames: int, size: int = 64, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, frames, size, size, generator=torch.Generator().manual_seed(frames)) * 2 - 1


@pytest.mark.parametrize(("slots", "size"), [(1, 64), (2, 64), (5, 64), (16, 64), (2, 32)])
@torch.no_grad()
def test_shapes_of_legal_lengths(slots, size):
    model, tokens = codec(), (size // 16) ** 2
    latents = model.encode(video(4 * slots, size, batch=2))
    assert latents.shape == (2, slots, tokens, 16)
    assert model.decode(latents).shape == (2, 3, 4 * slots, size, size)
    assert model.decode(100 * latents).abs().max() <= 1


@pytest.mark.parametrize("shape", [(1, 3, 0, 64, 64), (1, 3, 6, 64, 64), (1, 3, 4, 60, 60), (1, 3, 4, 64, 32)])
def test_illegal_videos_are_refused_by_name(shape):
    with pytest.raises(ClipError, match=r"video \["):
        codec().encode(torch.zeros(shape))
    with pytest.raises(ClipError, match="batch, 3, frames"):
        codec().encode(torch.zeros(1, 1, 4, 64, 64))


@pytest.mark.parametrize("shape", [(1, 2, 15, 16), (1, 2, 16, 8), (1, 0, 16, 16), (2, 16, 16)])
def test_illegal_latents_are_refused(shape):
    with pytest.raises(ClipError, match="video latents"):
        codec().decode(torch.zeros(shape))


def test_widths_have_to_double_and_cells_share_the_channels():
    with pytest.raises(ClipError, match="twice"):
        VideoCodec.create((8, 16, 24))
    with pytest.raises(ClipError, match="multiple of 4"):
        VideoCodec.create((8, 16, 32), channels=18)


@pytest.mark.parametrize("slot", [0, 1, 3])
@torch.no_grad()
def test_a_slot_changes_its_own_latents_and_no_earlier_ones(slot):
    model, before = codec(), video(16)
    after = before.clone()
    after[:, :, 4 * slot + 3] = -after[:, :, 4 * slot + 3]  # the last frame of the slot alone
    change = (model.encode(after) - model.encode(before)).abs().amax(dim=(0, 2, 3))  # [T]
    assert torch.all(change[:slot] == 0)
    assert change[slot] > 1e-4


@torch.no_grad()
def test_tokens_are_row_major():
    model, before = codec(), video(4)
    after = before.clone()
    after[..., :16, 48:] = 1.0  # the top right corner
    change = (model.encode(after) - model.encode(before)).abs().mean(dim=(0, 1, 3))  # [S]
    assert change[[0, 3, 12, 15]].argmax() == 1  # token 3 of the four in the corners


@torch.no_grad()
def test_statistics_make_latents_standard_and_decoding_inverts_them():
    model, clips = codec(), [video(8), video(12)]
    raw = model.posterior(clips[0])[0]
    plain = model.reconstruct(raw)
    model.fit_statistics(clips)
    tokens = torch.cat([model.encode(clip).flatten(0, 2) for clip in clips])  # [tokens, C]
    latents = tokens.unflatten(1, (4, 4)).transpose(1, 2).flatten(0, 1)  # the channels of all cells
    torch.testing.assert_close(latents.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std(0), torch.ones(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(model.decode(model.encode(clips[0])), plain.clamp(-1, 1), atol=1e-5, rtol=0)


@torch.no_grad()
def test_samples_scatter_around_the_mean_by_the_posterior():
    model, clip = codec(), video(4)
    model.fit_statistics([clip])
    draws = [model.encode(clip, sample=True, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    std = (0.5 * model.posterior(clip)[1]).exp() / model.vae.get_buffer("latents_std").view(1, -1, 1, 1, 1)
    z = (draws[0] - model.encode(clip)) / _to_tokens(std.expand(-1, 4, -1, -1, -1))
    assert abs(z.std().item() - 1) < 0.2


@torch.no_grad()
def test_saved_and_loaded_codecs_are_equal(tmp_path):
    model, clip = codec(), video(8)
    model.fit_statistics([clip])
    model.save_pretrained(tmp_path / "exact")
    assert sorted(p.name for p in (tmp_path / "exact").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    again = VideoCodec.from_pretrained(tmp_path / "exact")
    again.save_pretrained(tmp_path / "again")  # a copy does not tell where it came from
    assert (tmp_path / "again" / "config.json").read_text() == (tmp_path / "exact" / "config.json").read_text()
    assert torch.equal(again.encode(clip), model.encode(clip))
    assert torch.equal(again.decode(again.encode(clip)), model.decode(model.encode(clip)))
    model.save_pretrained(tmp_path / "half", dtype=torch.float16)
    assert next(model.parameters()).dtype == torch.float32
    half = VideoCodec.from_pretrained(tmp_path / "half")
    torch.testing.assert_close(half.encode(clip), model.encode(clip), atol=0.05, rtol=0)
    with pytest.raises(ClipError, match=r"config\.json is missing"):
        VideoCodec.from_pretrained(tmp_path / "nowhere")


def gradients(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    model, clip = codec().train(), video(8)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        output = model.reconstruct(model.posterior(clip)[0])
    (output.float() - clip).square().mean().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_gradients_in_the_training_dtype_agree_with_float32():
    exact, used = gradients(torch.float32), gradients(training_dtype("cpu"))
    for name, gradient in exact.items():
        assert torch.isfinite(used[name]).all(), name
        assert (used[name] - gradient).norm() <= 0.06 * gradient.norm() + 1e-6, name


@pytest.mark.parametrize(
    ("bf16", "amx", "capped", "expected"),
    [
        (False, False, "", torch.float32),
        (True, False, "", torch.bfloat16),
        (True, True, "", torch.float32),
        (True, True, "AVX512_CORE_BF16", torch.bfloat16),
    ],
)
def test_the_guard_knows_which_processors_to_trust(monkeypatch, bf16, amx, capped, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", capped)
    assert training_dtype("cpu") == expected


def test_psnr_and_moving_region_have_known_values():
    clip = torch.zeros(2, 3, 9, 16, 16)
    clip[0, 1, 4, 2, 3] = 0.5  # one pixel flashes in one frame
    moving = moving_region(clip)
    assert moving.shape == (2, 1, 9, 16, 16)
    assert moving.nonzero().tolist() == [[0, 0, 4, 2, 3]]
    other = clip + 0.2
    torch.testing.assert_close(psnr(clip, other), torch.full((2,), 20.0))  # 10·log10(2² / 0.2²)
    other[0, :, 4, 2, 3] = clip[0, :, 4, 2, 3] + 0.02
    assert psnr(clip, other, moving)[0].item() == pytest.approx(40.0, abs=1e-3)
    assert torch.isnan(psnr(clip, other, moving)[1])
