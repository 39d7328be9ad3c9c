"""The recipe of the video codec's refiner: a tiny run from start to saved codec, exact resume, errors."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from counterpoint.modalities.clip import ClipError
from counterpoint.modalities.video import VideoCodec
from counterpoint.recipes import video_codec, video_refiner

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory, falling_discs):
    """A bright disc that falls before a dark wall: uint8 [6, 12, 64, 64, 3]; beside it a codec, a little trained."""
    folder = tmp_path_factory.mktemp("data")
    clips = falling_discs(12)
    np.save(folder / "video.npy", clips)
    chosen = replace(video_codec.tiny(), max_steps=30, lr=3e-3, dtype="float32")
    video_codec.train(chosen, folder, folder / "codec")
    return folder


def settings(data, **changes) -> video_refiner.Settings:
    return replace(video_refiner.tiny(), start_from=str(data / "codec" / "video_codec"), **changes)


def test_training_brings_latents_nearer_and_keeps_the_codec(data, tmp_path):
    folder = video_refiner.train(settings(data, max_steps=20, log_every=1, stay=0.1), data, tmp_path)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    scores = [record["moving_psnr"] for record in log if "moving_psnr" in record]
    gains = [record["error_2"] / record["error_0"] for record in log if "error_2" in record]
    assert scores[-1] > scores[0] + 0.1  # beside the encoder's own latents
    assert np.mean(gains[-5:]) < np.mean(gains[:5])
    assert (tmp_path / "preview.png").stat().st_size > 1000
    old, new = (load_file(f / "diffusion_pytorch_model.safetensors") for f in (data / "codec/video_codec", folder))
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)
    refiner = VideoCodec.from_pretrained(folder).refiner
    assert refiner is not None
    assert refiner.scale > 0
    assert refiner.scale != 1


def test_a_stopped_run_goes_on_exactly(data, tmp_path, monkeypatch):
    video_refiner.train(settings(data), data, tmp_path / "whole")
    window_batch = video_refiner.window_batch

    def stop_at_two(motion, chosen, step, draws):
        if step == 2:
            raise KeyboardInterrupt
        return window_batch(motion, chosen, step, draws)

    monkeypatch.setattr(video_refiner, "window_batch", stop_at_two)
    with pytest.raises(KeyboardInterrupt):
        video_refiner.train(settings(data), data, tmp_path / "halves")
    monkeypatch.setattr(video_refiner, "window_batch", window_batch)
    video_refiner.train(settings(data), data, tmp_path / "halves")
    whole, halves = (load_file(tmp_path / run / "checkpoint.safetensors") for run in ("whole", "halves"))
    assert whole.keys() == halves.keys()
    for key, tensor in whole.items():
        assert torch.equal(tensor, halves[key]), key


def test_a_refiner_is_trained_anew_beside_a_codec_that_has_one(data, tmp_path):
    first = video_refiner.train(settings(data), data, tmp_path / "first")
    again = video_refiner.train(replace(settings(data), start_from=str(first)), data, tmp_path / "again")
    one, two = (load_file(f / "refiner" / "diffusion_pytorch_model.safetensors") for f in (first, again))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_what_is_missing_is_named(data, tmp_path):
    with pytest.raises(ClipError, match="start_from: has to name the folder of the video codec"):
        video_refiner.train(video_refiner.tiny(), data, tmp_path)
    with pytest.raises(ClipError, match="no video codec here"):
        video_refiner.train(replace(video_refiner.tiny(), start_from=str(tmp_path)), data, tmp_path)
    with pytest.raises(ClipError, match=r"video\.npy: missing"):
        video_refiner.train(settings(data), tmp_path, tmp_path)
