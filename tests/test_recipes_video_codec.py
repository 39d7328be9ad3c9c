"""The video codec's recipe: a tiny run from start to saved codec, exact resume, bad data refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from counterpoint.modalities.clip import ClipError
from counterpoint.modalities.video import VideoCodec
from counterpoint.recipes import video_codec

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory, falling_discs):
    """A bright disc that falls before a dark wall: uint8 [6, 12, 64, 64, 3]."""
    folder = tmp_path_factory.mktemp("data")
    clips = falling_discs(12)
    np.save(folder / "video.npy", clips)
    return folder


def settings(**changes) -> video_codec.Settings:
    return replace(video_codec.tiny(), dtype="float32", **changes)


def test_training_lowers_the_loss_and_saves_a_codec(data, tmp_path):
    chosen = settings(max_steps=30, lr=3e-3, log_every=1)
    folder = video_codec.train(chosen, data, tmp_path)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in log if "loss" in record]
    scores = [record["psnr"] for record in log if "psnr" in record]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert scores[-1] > scores[0] + 3
    assert (tmp_path / "preview.png").stat().st_size > 1000
    codec = VideoCodec.from_pretrained(folder)
    clips = torch.cat([video_codec.to_tensor(clip)[None] for clip in np.load(data / "video.npy")[:4]])
    latents = codec.encode(clips).flatten(0, 2).unflatten(1, (4, 4)).transpose(1, 2).flatten(0, 1)
    assert latents.std(0).sub(1).abs().max() < 0.1


def test_a_stopped_run_goes_on_exactly(data, tmp_path, monkeypatch):
    video_codec.train(settings(), data, tmp_path / "whole")
    window_batch = video_codec.window_batch

    def stop_at_two(motion, chosen, step, draws):
        if step == 2:
            raise KeyboardInterrupt
        return window_batch(motion, chosen, step, draws)

    monkeypatch.setattr(video_codec, "window_batch", stop_at_two)
    with pytest.raises(KeyboardInterrupt):
        video_codec.train(settings(), data, tmp_path / "halves")
    monkeypatch.setattr(video_codec, "window_batch", window_batch)
    video_codec.train(settings(), data, tmp_path / "halves")
    for name in ("checkpoint.safetensors", "video_codec/diffusion_pytorch_model.safetensors"):
        whole, halves = (load_file(tmp_path / run / name) for run in ("whole", "halves"))
        assert whole.keys() == halves.keys()
        for key, tensor in whole.items():
            assert torch.equal(tensor, halves[key]), key


def test_windows_weigh_what_moves(data):
    chosen = settings(moving_weight=7.0)
    videos = video_codec.load_videos(data, chosen)
    motion = video_codec.Motion(videos, chosen.frames)
    window, weight = video_codec.window_batch(motion, chosen, 0, torch.Generator().manual_seed(0))
    assert window.shape == (2, 3, 8, 64, 64)
    assert weight.shape == (2, 1, 8, 64, 64)
    assert set(weight.unique().tolist()) == {1.0, 7.0}
    bright = window.amax(dim=1, keepdim=True) > 0.5
    assert torch.equal(weight == 7.0, bright)


def test_crops_follow_what_moves(data):
    chosen = settings(moving_weight=7.0)
    motion = video_codec.Motion(video_codec.load_videos(data, chosen), chosen.frames)
    window, weight = video_codec.window_batch(motion, chosen, 1, torch.Generator().manual_seed(0))
    assert window.shape == (8, 3, 8, 32, 32)
    assert weight.shape == (8, 1, 8, 32, 32)
    assert (weight == 7.0).flatten(1).any(1).sum() >= 7
    moving = torch.zeros(64, 64)
    moving[41, 3] = 1.0  # only the crops whose top is 16, 24 or 32 and whose left is 0 hold this pixel
    places = {video_codec.crop_place(moving, 32, 32, torch.Generator().manual_seed(n)) for n in range(40)}
    assert places >= {(16, 0), (24, 0), (32, 0)}
    assert len(places) < 10
    assert video_codec.crop_place(moving, 64, 64, torch.Generator()) == (0, 0)


def test_held_out_clips_are_never_drawn(data):
    chosen = settings(held_out=3)
    videos = np.load(data / "video.npy")
    videos[3:] = 255
    motion = video_codec.Motion(videos, chosen.frames)
    for step in range(10):
        window, _ = video_codec.window_batch(motion, chosen, step, torch.Generator().manual_seed(step))
        assert window.amin(dim=(1, 2, 3, 4)).max() < 0


def test_bad_data_is_refused_by_name(data, tmp_path):
    with pytest.raises(ClipError, match=r"video\.npy: missing"):
        video_codec.load_videos(tmp_path, settings())
    with pytest.raises(ClipError, match="N > 6"):
        video_codec.load_videos(data, settings(held_out=6))
    with pytest.raises(ClipError, match="shorter than frames=16"):
        video_codec.load_videos(data, settings(frames=16))
    np.save(tmp_path / "video.npy", np.zeros((4, 8, 64, 64, 3), np.float32))
    with pytest.raises(ClipError, match="expected uint8"):
        video_codec.load_videos(tmp_path, settings())


@torch.no_grad()
def test_a_codec_grows_channels_and_stays_the_same_at_first(data, tmp_path):
    old = VideoCodec.create((8, 16, 32), channels=16).eval()
    old.fit_statistics([torch.randn(1, 3, 8, 32, 32)])
    old.save_pretrained(tmp_path / "old")
    new = video_codec.create(settings(channels=32, start_from=str(tmp_path / "old"))).eval()
    video = torch.rand(1, 3, 8, 32, 32) * 2 - 1
    (mean, logvar), (more, also) = old.posterior(video), new.posterior(video)
    torch.testing.assert_close(more[:, :4], mean)
    torch.testing.assert_close(also[:, :4], logvar)
    assert more[:, 4:].std() > 0
    torch.testing.assert_close(new.reconstruct(more), old.reconstruct(mean))
    with pytest.raises(ClipError, match="old: a video codec of other widths, or with more blocks or channels"):
        video_codec.create(settings(channels=8, start_from=str(tmp_path / "old")))
    with pytest.raises(ClipError, match="of other widths"):
        video_codec.create(settings(widths=(16, 32, 64), start_from=str(tmp_path / "old")))


def test_a_codec_grows_blocks_and_stays_the_same_at_first(data, tmp_path):
    old = VideoCodec.create((8, 16, 32), channels=16).eval()
    old.save_pretrained(tmp_path / "old")
    asked = settings(layers=(2, 2, 1), decoder_layers=(0, 1, 2), start_from=str(tmp_path / "old"))
    new = video_codec.create(asked).eval()
    video = torch.rand(1, 3, 8, 32, 32) * 2 - 1
    latents = old.posterior(video)[0]
    torch.testing.assert_close(new.posterior(video)[0], latents)
    torch.testing.assert_close(new.reconstruct(latents), old.reconstruct(latents))
    new.posterior(video)[0].square().sum().backward()  # the new blocks hear, and so can learn
    assert all(
        parameter.grad is not None and parameter.grad.abs().max() > 0
        for name, parameter in new.vae.encoder.named_parameters()
        if name.startswith("down_blocks.0.resnets.") and ".conv2." in name
    )
    with pytest.raises(ClipError, match="more blocks or channels"):
        video_codec.create(settings(layers=(0, 0, 1), start_from=str(tmp_path / "old")))


@pytest.mark.parametrize(("half", "kept"), [("decoder", "encoder"), ("encoder", "decoder")])
def test_half_of_a_codec_learns_alone(data, tmp_path, half, kept):
    """The other half and what the latents are scaled by stay as they were, so that trained models still fit."""
    first = video_codec.train(settings(max_steps=2), data, tmp_path / "first")
    asked = settings(only=half, start_from=str(first), change=1.0)
    folder = video_codec.train(asked, data, tmp_path / "second")
    old, new = (load_file(f / "diffusion_pytorch_model.safetensors") for f in (first, folder))
    same = {name for name, weights in old.items() if torch.equal(weights, new[name])}
    assert same >= {name for name in old if name.startswith((f"{kept}.", "latents_"))}
    assert any(name not in same for name in old if name.startswith(f"{half}."))
    with pytest.raises(ClipError, match=f"start_from has to say beside what the {half} learns"):
        video_codec.create(settings(only=half))
    with pytest.raises(ClipError, match="has 16 channels, not 32"):
        video_codec.create(replace(asked, channels=32))


def test_only_names_a_half():
    with pytest.raises(ClipError, match="only: 'head' is neither encoder nor decoder"):
        video_codec.create(settings(only="head"))


def test_flicker_costs_more_than_a_steady_error(data, monkeypatch):
    codec = VideoCodec.create((8, 16, 32), channels=16)
    video = torch.zeros(1, 3, 8, 32, 32)
    weight = torch.ones(1, 1, 8, 32, 32)
    weight[..., 16:] = 10.0
    flicker = torch.tensor([1.0, -1.0] * 4).view(1, 1, 8, 1, 1)
    cost = {}
    for name, error in (("steady", torch.ones_like(flicker)), ("flicker", flicker)):
        monkeypatch.setattr(codec, "reconstruct", lambda raw, error=error: video + 0.1 * error)
        for change in (0.0, 1.0):
            loss, numbers = video_codec.codec_loss(
                codec, (video, weight), torch.Generator().manual_seed(0), settings(change=change)
            )
            cost[name, change] = loss.item()
        assert numbers["change"] == pytest.approx(0.2 if name == "flicker" else 0.0)
    assert cost["steady", 1.0] == cost["steady", 0.0] == pytest.approx(cost["flicker", 0.0])
    assert cost["flicker", 1.0] == pytest.approx(cost["flicker", 0.0] + 0.2)


def test_noise_on_latents_is_of_their_size(data, monkeypatch):
    codec = VideoCodec.create((8, 16, 32), channels=16)
    motion = video_codec.Motion(np.load(data / "video.npy"), 8)
    batch = video_codec.window_batch(motion, settings(), 0, torch.Generator().manual_seed(0))
    heard = []
    monkeypatch.setattr(codec, "reconstruct", lambda raw: heard.append(raw) or batch[0])
    with torch.no_grad():
        for noise in (0.0, 0.5):
            chosen = settings(latent_noise=noise)
            for seed in range(20):
                video_codec.codec_loss(codec, batch, torch.Generator().manual_seed(seed), chosen)
        mean, _ = codec.posterior(batch[0])
    plain, noisy = torch.stack(heard[:20]), torch.stack(heard[20:])
    added = (noisy - plain).std(dim=(0, 1, 3, 4, 5)) / mean.std(dim=(0, 2, 3, 4))  # of each channel
    assert added.tolist() == pytest.approx([0.5 / 3**0.5] * 4, rel=0.3)  # a level even from 0 to .5
