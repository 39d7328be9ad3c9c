"""The recipe of the decoder alone: cuts that fit latents to pixels, a tiny run, exact resume, errors."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from counterpoint.modalities.clip import ClipError
from counterpoint.modalities.video import VideoCodec, _to_tokens
from counterpoint.modalities.video_refiner import LatentRefiner
from counterpoint.recipes import video_codec, video_decoder
from counterpoint.recipes.video_codec import to_tensor

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory, falling_discs):
    """A bright disc that falls before a dark wall: uint8 [6, 16, 64, 64, 3]; beside it a codec and its latents."""
    folder = tmp_path_factory.mktemp("data")
    clips = falling_discs(16)
    np.save(folder / "video.npy", clips)
    chosen = replace(video_codec.tiny(), max_steps=20, lr=3e-3, dtype="float32")
    codec = VideoCodec.from_pretrained(video_codec.train(chosen, folder, folder / "run"))
    codec.refiner = LatentRefiner(channels=4, width=8, layers=1)
    codec.save_pretrained(folder / "codec")
    codec.refiner = None
    with torch.no_grad():
        latents = torch.cat([codec.encode(to_tensor(clip)[None]) for clip in clips])
    (folder / "latents").mkdir()
    save_file({"video": latents.half(), "audio": torch.zeros(6, 4, 4, 32)}, folder / "latents" / "latents.safetensors")
    return folder


def settings(data, **changes) -> video_decoder.Settings:
    chosen = replace(video_decoder.tiny(), start_from=str(data / "codec"), latents=str(data / "latents"))
    return replace(chosen, **changes)


def test_cuts_fit_latents_to_pixels():
    """Videos and latents say where they are: slot, row and column of cells."""
    videos = np.zeros((3, 16, 64, 64, 3), np.uint8)
    f, y, x = np.mgrid[:16, :64, :64]
    videos[:, ..., 0], videos[:, ..., 1], videos[:, ..., 2] = f // 4, y // 8, x // 8
    latents = torch.zeros(3, 4, 4, 8, 8)
    t, row, column = torch.meshgrid(torch.arange(4), torch.arange(8), torch.arange(8), indexing="ij")
    latents[:, 0], latents[:, 1], latents[:, 2] = t.float(), row.float(), column.float()
    cuts = video_decoder.Cuts(videos, latents, replace(video_decoder.tiny(), crop=40, slots=2, held_out=0))
    places = set()
    for seed in range(30):
        z, video, weight = cuts.cut(0, torch.Generator().manual_seed(seed))
        assert z.shape == (4, 2, 5, 5)
        assert video.shape == (3, 8, 40, 40)
        assert weight.shape == (1, 8, 40, 40)
        seen = ((video + 1) * 127.5).round()[:, ::4, ::8, ::8]  # one pixel of each cell
        assert torch.equal(seen, z[:3])
        slot, top, left = (int(z[i].min()) for i in range(3))
        places.add((slot, top, left))
        scored = (weight[0] > 0).float()
        expected = torch.ones(8, 40, 40)  # nothing is scored next to where a cut was made
        expected[:4] *= slot == 0
        expected[4:] *= slot == 2
        expected[:, :8] *= top == 0
        expected[:, 32:] *= top == 3
        expected[:, :, :8] *= left == 0
        expected[:, :, 32:] *= left == 3
        assert torch.equal(scored, expected)
    assert len(places) > 3


def test_what_moves_weighs_more(data):
    videos = np.load(data / "video.npy")
    latents = video_decoder.load_latents(data / "latents", videos)
    cuts = video_decoder.Cuts(videos, latents, settings(data, slots=4, crop=64, moving_weight=7.0))
    _, video, weight = cuts.cut(0, torch.Generator().manual_seed(0))  # a whole clip: all of it is scored
    bright = video.amax(dim=0, keepdim=True) > 0.5
    assert torch.equal(weight, 1.0 + 6.0 * bright.float())


def test_cached_latents_are_those_that_the_codec_decodes(data):
    videos = np.load(data / "video.npy")
    latents = video_decoder.load_latents(data / "latents", videos)
    codec = VideoCodec.from_pretrained(data / "codec")
    with torch.no_grad():
        direct = codec.decode(_to_tokens(latents.float()))
        ours = codec.reconstruct(codec.raw(latents.float())).clamp(-1, 1)
    torch.testing.assert_close(ours, direct)


def test_noise_is_of_the_size_asked_for(data, monkeypatch):
    codec, heard = VideoCodec.from_pretrained(data / "codec"), []
    monkeypatch.setattr(codec, "raw", lambda latents: heard.append(latents) or latents)
    batch = torch.zeros(8, 4, 2, 4, 4), torch.zeros(8, 3, 8, 32, 32), torch.ones(8, 1, 8, 32, 32)
    for seed in range(20):
        with torch.no_grad():
            video_decoder.decoder_loss(codec, batch, torch.Generator().manual_seed(seed), settings(data, noise=0.6))
    sizes = torch.cat(heard).flatten(1).std(1)
    assert sizes.max() < 0.7
    assert sizes.mean().item() == pytest.approx(0.3, rel=0.15)  # a level even from 0 to .6


def test_held_out_clips_are_never_drawn(data):
    videos = np.load(data / "video.npy")
    latents = torch.arange(6.0).view(6, 1, 1, 1, 1).expand(6, 4, 4, 8, 8)
    cuts = video_decoder.Cuts(videos, latents, settings(data, held_out=2))
    drawn = torch.cat([cuts.batch(step, torch.Generator().manual_seed(step))[0].flatten() for step in range(12)])
    assert set(drawn.tolist()) == {0.0, 1.0, 2.0, 3.0}


def test_the_loss_weighs_absolute_and_squared_error(data, monkeypatch):
    codec = VideoCodec.from_pretrained(data / "codec")
    video, weight = torch.zeros(1, 3, 8, 32, 32), torch.ones(1, 1, 8, 32, 32)
    weight[..., :8], weight[..., 8:16] = 0.0, 9.0  # not scored; moving
    error = torch.full_like(video, 0.1)
    error[..., :8], error[..., 8:16] = 5.0, 0.3
    monkeypatch.setattr(codec, "reconstruct", lambda raw: error)
    batch = torch.zeros(1, 4, 2, 4, 4), video, weight
    loss, numbers = video_decoder.decoder_loss(codec, batch, torch.Generator(), settings(data, squared=5.0))
    absolute, squared = (9 * 0.3 + 2 * 0.1) / 11, (9 * 0.09 + 2 * 0.01) / 11
    assert numbers == pytest.approx({"absolute": absolute, "squared": squared}, rel=1e-5)
    assert loss.item() == pytest.approx(absolute + 5.0 * squared, rel=1e-5)


def test_the_decoder_learns_and_nothing_else_changes(data, tmp_path):
    folder = video_decoder.train(settings(data, max_steps=60), data, tmp_path)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    scores = [record["psnr"] for record in log if "psnr" in record]
    assert scores[-1] > scores[0] + 3
    assert (tmp_path / "preview.png").stat().st_size > 1000
    old, new = (load_file(f / "diffusion_pytorch_model.safetensors") for f in (data / "codec", folder))
    changed = {name for name in old if not torch.equal(old[name].half(), new[name])}
    assert changed
    assert all(name.startswith("decoder.") for name in changed)
    assert VideoCodec.from_pretrained(folder).refiner is None


def test_a_stopped_run_goes_on_exactly(data, tmp_path, monkeypatch):
    video_decoder.train(settings(data), data, tmp_path / "whole")
    batch = video_decoder.Cuts.batch

    def stop_at_two(self, step, draws):
        if step == 2:
            raise KeyboardInterrupt
        return batch(self, step, draws)

    monkeypatch.setattr(video_decoder.Cuts, "batch", stop_at_two)
    with pytest.raises(KeyboardInterrupt):
        video_decoder.train(settings(data), data, tmp_path / "halves")
    monkeypatch.setattr(video_decoder.Cuts, "batch", batch)
    video_decoder.train(settings(data), data, tmp_path / "halves")
    whole, halves = (load_file(tmp_path / run / "checkpoint.safetensors") for run in ("whole", "halves"))
    assert whole.keys() == halves.keys()
    for key, tensor in whole.items():
        assert torch.equal(tensor, halves[key]), key


def test_what_does_not_fit_is_named(data, tmp_path):
    for changes, message in (
        ({"start_from": ""}, "start_from: has to name the folder"),
        ({"latents": str(tmp_path)}, r"latents\.safetensors: missing"),
        ({"slots": 5}, r"clips of 16 frames are shorter than frames=20"),
        ({"crop": 72}, "crop=72: clips have 4 slots and 64 pixels"),
        ({"crop": 36}, "multiple of 8"),
    ):
        with pytest.raises(ClipError, match=message):
            video_decoder.train(settings(data, **changes), data, tmp_path / "run")
    save_file({"audio": torch.zeros(6, 4, 4, 32)}, tmp_path / "latents.safetensors")
    with pytest.raises(ClipError, match="holds no latents of video"):
        video_decoder.train(settings(data, latents=str(tmp_path)), data, tmp_path / "run")
    save_file({"video": torch.zeros(6, 3, 16, 16)}, tmp_path / "latents.safetensors")
    with pytest.raises(ClipError, match=r"\[6, 3, 16, 16\] latents are not those of 6 clips of 16 frames 64×64"):
        video_decoder.train(settings(data, latents=str(tmp_path)), data, tmp_path / "run")
    save_file({"video": torch.zeros(6, 4, 16, 32)}, tmp_path / "latents.safetensors")
    with pytest.raises(ClipError, match="latents of 32 channels, the codec has 16"):
        video_decoder.train(settings(data, latents=str(tmp_path)), data, tmp_path / "run")
