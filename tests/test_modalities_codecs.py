"""All codecs together: the contract of shapes, clips out of latents, folders, and lengths that cannot be."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoint.modalities.audio import AudioCodec
from counterpoint.modalities.clip import ClipError
from counterpoint.modalities.codecs import FPS, GROUPS, SLOT_SECONDS, Codecs, from_frames, to_frames
from counterpoint.modalities.vocoder import Vocoder

SENSORS = ("accelerometer", "gyroscope", "force")


@pytest.fixture(scope="module")
def codecs(tiny_model: Path) -> Codecs:
    return Codecs.from_pretrained(tiny_model / "codecs")


def tensors(slots: int, batch: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(slots)
    channels = {"accelerometer": 3, "gyroscope": 3, "force": 1}
    return {
        "video": torch.rand(batch, 3, 4 * slots, 64, 64, generator=generator) * 2 - 1,
        "audio": torch.rand(batch, 1, 2560 * slots, generator=generator) * 0.2 - 0.1,
        **{name: torch.randn(batch, k, 16 * slots, generator=generator) for name, k in channels.items()},
    }


def test_the_slot_is_the_clock() -> None:
    assert (SLOT_SECONDS, FPS) == (0.16, 25.0)


def test_contract_of_names_and_shapes(codecs: Codecs) -> None:
    shapes = codecs.shapes()
    assert list(shapes) == ["video", "audio", *SENSORS]
    assert shapes["audio"] == (4, 32, "audio")
    assert {n: s[:2] for n, s in shapes.items() if n in SENSORS} == {
        "accelerometer": (1, 48), "gyroscope": (1, 48), "force": (1, 16)
    }  # fmt: skip
    assert codecs.names(["sensor", "video"]) == ("video", *SENSORS)  # in the fixed order
    assert codecs.names(GROUPS) == tuple(shapes)
    for bad, message in ((["smell"], "tracks: smell; known are video, audio, sensor"), ([], "tracks: none given")):
        with pytest.raises(ClipError, match=message):
            codecs.names(bad)


def test_sensors_of_a_clip_stay_within_the_range_of_their_data(codecs: Codecs) -> None:
    assert codecs.sensor is not None
    clip = codecs.decode({name: torch.full((1, 1, 1, codecs.sensor.size(name)), 50.0) for name in SENSORS})[0]
    ranges = {name: [channel.high for channel in codecs.sensor.channels[name]] for name in SENSORS}
    assert all(high is not None for highs in ranges.values() for high in highs)
    assert {name: track.values.max(axis=1).tolist() for name, track in clip.sensor.items()} == {
        name: pytest.approx(highs) for name, highs in ranges.items()
    }


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_encode_and_decode_any_number_of_slots(codecs: Codecs, slots: int) -> None:
    latents = codecs.encode(tensors(slots, batch=2))
    assert {n: x.shape for n, x in latents.items()} == {
        n: (2, slots, tokens, channels) for n, (tokens, channels, _) in codecs.shapes().items()
    }
    assert all(x.dtype == torch.float32 for x in latents.values())
    clips = codecs.decode(latents)
    assert len(clips) == 2
    for clip in clips:
        assert list(clip.tracks) == ["video", "audio", *SENSORS]
        assert clip.tracks["video"].values.shape == (4 * slots, 64, 64, 3)
        assert clip.tracks["audio"].values.shape == (1, 2560 * slots)
        assert [t.rate for t in clip.tracks.values()] == [25.0, 16000.0, 100.0, 100.0, 100.0]
        assert all(t.duration == pytest.approx(0.16 * slots) for t in clip.tracks.values())
    assert clips[0].sensor["accelerometer"].names == ("x", "y", "z")
    assert clips[0].sensor["force"].units == ("N",)


def test_sound_of_24_khz(codecs: Codecs, tmp_path: Path) -> None:
    assert codecs.audio_rate == 16000
    high = AudioCodec(16, (1, 1), 1, rate=24000), Vocoder(16, 32, 1, 2, rate=24000)
    Codecs(None, *high, None).save_pretrained(tmp_path)
    sound = Codecs.from_pretrained(tmp_path)
    assert sound.audio_rate == 24000
    assert sound.shapes() == {"audio": (4, 32, "audio")}
    (clip,) = sound.decode(sound.encode({"audio": torch.rand(1, 1, 3 * 3840) * 0.2 - 0.1}))
    assert clip.audio is not None
    assert (clip.audio.rate, clip.audio.values.shape) == (24000.0, (1, 3 * 3840))
    assert clip.audio.duration == pytest.approx(0.48)
    with pytest.raises(ClipError, match="codecs: audio codec of 24000 Hz, vocoder of 16000 Hz"):
        Codecs(None, high[0], codecs.vocoder, None)


def test_sensors_come_back_exactly_and_clips_do_not_mix(codecs: Codecs) -> None:
    given = tensors(2, batch=2)
    clips = codecs.decode(codecs.encode(given))
    for i, clip in enumerate(clips):
        for name in SENSORS:
            np.testing.assert_allclose(clip.sensor[name].values, given[name][i].numpy(), atol=1e-4)
    alone = codecs.decode(codecs.encode({name: value[1:] for name, value in given.items()}))[0]
    assert np.abs(alone.tracks["video"].values.astype(int) - clips[1].tracks["video"].values).max() <= 1
    np.testing.assert_allclose(alone.tracks["audio"].values, clips[1].tracks["audio"].values, atol=1e-4)


def test_tracks_without_latents_are_absent(codecs: Codecs) -> None:
    latents = codecs.encode({"force": tensors(2)["force"]})
    assert list(codecs.decode(latents)[0].tracks) == ["force"]


@pytest.mark.parametrize(("name", "shape"), [
    ("video", (1, 3, 6, 64, 64)), ("video", (1, 3, 0, 64, 64)), ("video", (1, 3, 4, 64, 48)),
    ("audio", (1, 1, 2561)), ("audio", (1, 2, 2560)), ("force", (1, 1, 0)), ("force", (1, 3, 16)),
    ("smell", (1, 1, 16)),
])  # fmt: skip
def test_illegal_lengths_are_named(codecs: Codecs, name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ClipError, match=name):
        codecs.encode({name: torch.zeros(shape)})


def test_frames_round_trip(recwarn: pytest.WarningsRecorder) -> None:
    frames = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16, 1).repeat(3, axis=4)
    frames[..., 1] = 7
    video = from_frames(frames)
    assert video.shape == (1, 3, 1, 16, 16)
    assert (float(video.min()), float(video.max())) == (-1.0, 1.0)
    assert np.array_equal(to_frames(video), frames)
    assert to_frames(video * 2)[0, 0, 0, 0, 0] == 0  # clipped, not wrapped around
    frames.setflags(write=False)  # as those of a memory-mapped file
    torch.set_warn_always(True)
    try:
        assert np.array_equal(to_frames(from_frames(frames)), frames)
    finally:
        torch.set_warn_always(False)
    assert not recwarn.list


def test_they_are_frozen(codecs: Codecs) -> None:
    assert not any(p.requires_grad for p in codecs.parameters())
    assert not any(m.training for m in codecs.modules())


@pytest.mark.parametrize("name", ["video_codec", "audio_codec", "vocoder", "sensor_codec"])
def test_a_damaged_codec_is_named(tiny_model: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(tiny_model / "codecs", tmp_path / "codecs")
    (tmp_path / "codecs" / name / "config.json").unlink()
    with pytest.raises(ClipError, match=f"{name}: no codec there"):
        Codecs.from_pretrained(tmp_path / "codecs")
    if name in ("audio_codec", "vocoder"):  # neither is of use alone
        shutil.rmtree(tmp_path / "codecs" / name)
        with pytest.raises(ClipError, match=f"{name}: no codec there"):
            Codecs.from_pretrained(tmp_path / "codecs")
    with pytest.raises(ClipError, match="video_codec: no codec there"):
        Codecs.from_pretrained(tmp_path)


@pytest.mark.parametrize(("group", "folders"), [
    ("video", ["video_codec"]), ("audio", ["audio_codec", "vocoder"]), ("sensor", ["sensor_codec"]),
])  # fmt: skip
def test_codecs_that_a_model_lacks(
    codecs: Codecs, tiny_model: Path, tmp_path: Path, group: str, folders: list[str]
) -> None:
    for folder in folders:
        shutil.copytree(tiny_model / "codecs" / folder, tmp_path / "one" / folder)
    one = Codecs.from_pretrained(tmp_path / "one")
    names = codecs.names([group])
    assert one.shapes() == {name: codecs.shapes()[name] for name in names}
    assert one.names(GROUPS) == names
    given = tensors(2)
    latents = one.encode({name: given[name] for name in names})
    whole = codecs.encode(given)
    assert all(torch.equal(latents[name], whole[name]) for name in names)
    assert list(one.decode(latents)[0].tracks) == list(names)
    one.save_pretrained(tmp_path / "again")
    assert sorted(p.name for p in (tmp_path / "again").iterdir()) == folders
    absent = next(name for name in whole if name not in names)
    with pytest.raises(ClipError, match=f"{absent}: this model has no codec"):
        one.encode({absent: given[absent]})
    other = next(name for name in GROUPS if name != group)
    with pytest.raises(ClipError, match=f"tracks: {other}; this model has {group} only"):
        one.names([other])


def test_codecs_that_cannot_be(codecs: Codecs) -> None:
    with pytest.raises(ClipError, match="none given"):
        Codecs(None, None, None, None)
    with pytest.raises(ClipError, match="no vocoder"):
        Codecs(None, codecs.audio, None, None)


def test_folders_in_fp16_give_nearly_the_same_clip(codecs: Codecs, tmp_path: Path) -> None:
    codecs.save_pretrained(tmp_path / "half", torch.float16)
    size = sum(p.stat().st_size for p in (tmp_path / "half").rglob("*.safetensors"))
    assert size < 2.5 * sum(p.numel() for p in codecs.parameters())  # bytes
    half = Codecs.from_pretrained(tmp_path / "half")
    given = tensors(2)
    one, other = codecs.encode(given), half.encode(given)
    for name, x in one.items():
        assert other[name].dtype == torch.float32
        assert (other[name] - x).norm() <= 0.02 * x.norm(), name
    assert next(codecs.video.parameters()).dtype == torch.float32  # saving changed nothing here
