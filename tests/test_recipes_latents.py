"""Caching: what the codecs and the text encoder say of a data set, once, on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from counterpoint.data.arrays import SENSORS, ClipArrays, write_arrays
from counterpoint.diffusion.training import LatentClips
from counterpoint.modalities.clip import Clip, ClipError, Track
from counterpoint.modalities.codecs import Codecs
from counterpoint.modalities.text import TextEncoder
from counterpoint.recipes.latents import cache_latents, clip_tensors

CAPTIONS = [["a ball drops", "it drops"], ["a rod is struck"], ["it drops", "a ball drops", "a ball"]]


@pytest.fixture(scope="module")
def codecs(tiny_model: Path) -> Codecs:
    return Codecs.from_pretrained(tiny_model / "codecs")


@pytest.fixture
def data(tmp_path: Path) -> ClipArrays:
    rng = np.random.default_rng(0)

    def clip(i: int) -> Clip:
        sensor = {
            name: Track(rng.normal(size=(len(c), 32)).astype(np.float32), 100.0) for name, (c, _) in SENSORS.items()
        }
        audio = Track(rng.uniform(-0.5, 0.5, (1, 5120)).astype(np.float32), 16000.0)
        video = Track(rng.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8), 25.0)
        return Clip(audio, video, sensor, metadata={"captions": CAPTIONS[i]})

    return write_arrays(tmp_path / "data", (clip(i) for i in range(3)), 3)


def test_clip_tensors(data: ClipArrays, recwarn: pytest.WarningsRecorder) -> None:
    tensors = clip_tensors(data, 1, 3)
    assert {n: tuple(x.shape) for n, x in tensors.items()} == {
        "video": (2, 3, 8, 64, 64), "audio": (2, 1, 5120), "accelerometer": (2, 3, 32), "gyroscope": (2, 3, 32),
        "force": (2, 1, 32),
    }  # fmt: skip
    clip = data.clip(2)
    for name in SENSORS:
        assert np.array_equal(tensors[name][1].numpy(), clip.sensor[name].values)
    assert np.array_equal(tensors["audio"][1].numpy(), clip.tracks["audio"].values)
    assert float(tensors["video"].min()) >= -1
    assert not [w for w in recwarn if "writable" in str(w.message)]


def test_clip_tensors_of_other_tracks(codecs: Codecs, tmp_path: Path) -> None:
    """Only what is there; what was not measured is NaN, and the sensor's usual value as a latent."""
    mask = np.ones((1, 32), bool)
    mask[:, :16] = False
    force = Track(np.ones((1, 32), np.float32), 100.0, mask=mask)
    data = write_arrays(tmp_path, [Clip(sensor={"force": force})], 1)
    tensors = clip_tensors(data, 0, 1)
    assert list(tensors) == ["force"]
    assert tensors["force"].isnan()[0].tolist() == (~mask).tolist()
    latents = codecs.encode(tensors)["force"]
    assert latents.isfinite().all()
    assert latents[0, 0].abs().max() == 0 < latents[0, 1].abs().min()


def test_the_cache_holds_what_the_codecs_say(data: ClipArrays, codecs: Codecs, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    encoder = TextEncoder(length=8)
    out = cache_latents(data.folder, codecs, encoder, tmp_path / "cache", 2, lambda *x: done.append(x))
    assert done == [(2, 3), (3, 3)]
    assert sorted(p.name for p in out.iterdir()) == ["captions.json", "latents.safetensors", "text.safetensors"]
    cached = load_file(out / "latents.safetensors")
    want = codecs.encode(clip_tensors(data, 0, 3))
    assert cached.keys() == want.keys()
    for name, x in want.items():
        assert cached[name].dtype == torch.float16
        torch.testing.assert_close(cached[name].float(), x, atol=2e-3, rtol=2e-3)
    captions = json.loads((out / "captions.json").read_text())
    assert len(captions["captions"]) == 4  # each different caption once
    assert [[captions["captions"][r] for r in rows] for rows in captions["rows"]] == CAPTIONS
    clips = LatentClips(out)
    item = clips[2, 0.99]
    torch.testing.assert_close(item["text"], encoder(["a ball"])[0][0], atol=2e-3, rtol=2e-3)
    assert item["text_mask"].tolist() == encoder(["a ball"])[1][0].tolist()
    assert torch.equal(item["latents"]["force"], cached["force"][2].float())
    assert torch.equal(clips[0, 0.0]["text"], clips[2, 0.5]["text"])


def test_a_finished_cache_is_kept_and_an_unfinished_one_is_not(
    data: ClipArrays, codecs: Codecs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = TextEncoder(length=8)
    out = tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr(TextEncoder, "forward", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cache_latents(data.folder, codecs, encoder, out)
    with pytest.raises(ClipError, match="no such file"):
        LatentClips(out)
    cache_latents(data.folder, codecs, encoder, out)
    with monkeypatch.context() as patch:
        patch.setattr(TextEncoder, "forward", lambda *_, **__: pytest.fail("a finished cache was made again"))
        assert cache_latents(data.folder, codecs, encoder, out) == out


def test_a_cache_of_other_clips_is_refused(data: ClipArrays, codecs: Codecs, tmp_path: Path) -> None:
    encoder = TextEncoder(length=8)
    out = cache_latents(data.folder, codecs, encoder, tmp_path / "cache")
    clips = [data.clip(i) for i in (0, 2, 1)]
    other = write_arrays(tmp_path / "other", clips, 3)
    with pytest.raises(ClipError, match="cache: holds the latents of other clips"):
        cache_latents(other.folder, codecs, encoder, out)
    fewer = write_arrays(tmp_path / "fewer", [data.clip(2)], 1)
    with pytest.raises(ClipError, match="cache: holds the latents of other clips"):
        cache_latents(fewer.folder, codecs, encoder, out)


def test_missing_data_is_named(codecs: Codecs, tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"video\.npy: no such file"):
        cache_latents(tmp_path / "nothing", codecs, TextEncoder(length=8), tmp_path / "cache")
