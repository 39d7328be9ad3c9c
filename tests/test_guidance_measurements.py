"""Measurements of clips: nothing is left over where the clip agrees, and gradients lead there where it does not."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from counterpoint.guidance.interface import WalkState
from counterpoint.guidance.measurements import (
    EARLY,
    Downsampled,
    Events,
    Loudness,
    LowRate,
    Masked,
    decode_log_mel,
    loudness,
    loudness_of,
    sensor_jumps,
    sound_onsets,
)
from counterpoint.guidance.reconstruction import Reconstruction
from counterpoint.modalities.audio import AudioCodec, mel_spectrogram
from counterpoint.modalities.clip import ClipError
from counterpoint.modalities.codecs import Codecs
from counterpoint.modalities.sensor import Companding, SensorPatches
from counterpoint.modalities.video import VideoCodec
from counterpoint.modalities.vocoder import Vocoder

SLOTS = 4


@pytest.fixture(scope="module")
def codecs() -> Codecs:
    torch.manual_seed(0)
    axes = tuple(Companding(name, "m/s²", 0.5, 3.0, 0.1, 0.8) for name in "xyz")
    return Codecs(
        VideoCodec.create((8, 16, 32), channels=16),
        AudioCodec(hidden_channels=32, latents_mean=(0.3,) * 32, latents_std=(2.0,) * 32),
        Vocoder(width=16, hidden=32, layers=1, nnls_steps=2),
        SensorPatches({"accelerometer": axes, "force": (Companding("z", "N", 4.0, 2.0, 0.0, 1.0),)}),
    )


@pytest.fixture
def clean(codecs: Codecs) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {name: (2, SLOTS, tokens, channels) for name, (tokens, channels, _) in codecs.shapes().items()}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def walk(clean: dict[str, Tensor], level: float = 0.5) -> WalkState:
    """A state whose predicted clean latents are `clean`."""
    sigma = {name: torch.full(x.shape[:2], level) for name, x in clean.items()}
    v = {name: torch.zeros_like(x) for name, x in clean.items()}
    return WalkState({"conditional": v}, clean, sigma, level, lambda *_: {})


def measures(codecs: Codecs, clean: dict[str, Tensor]) -> dict[str, Callable[[dict[str, Tensor]], Tensor]]:
    """Each kind of measurement of exactly this clip."""
    audio, video, sensor = codecs.audio, codecs.video, codecs.sensor
    assert audio is not None
    assert video is not None
    assert sensor is not None
    frames = video.decode(clean["video"])  # [2, 3, 16, 64, 64]
    small = frames.unflatten(3, (16, 4)).unflatten(5, (16, 4)).mean(dim=(4, 6))  # 16×16 means of 4×4 pixels
    felt, pushed = sensor.decode("accelerometer", clean["accelerometer"]), sensor.decode("force", clean["force"])
    slow = torch.stack([pushed[..., max(4 * i - 2, 0) : 4 * i + 2].mean(-1) for i in range(16)], dim=-1)
    return {
        "audio": Loudness(codecs, loudness(audio.decode_mel(clean["audio"]))),
        "accelerometer": Masked(codecs, "accelerometer", felt),
        "force": LowRate(codecs, "force", slow, 25.0),
        "video": Downsampled(codecs, small.unflatten(2, (4, 4)).mean(dim=3), 6.25),
    }


@pytest.mark.parametrize("track", ["audio", "accelerometer", "force", "video"])
def test_a_clip_that_agrees_leaves_nothing_over(codecs: Codecs, clean: dict[str, Tensor], track: str) -> None:
    exact = measures(codecs, clean)[track]
    assert float(exact(clean).abs().max()) < 2e-3
    other = {**clean, track: clean[track] + 0.5}
    assert float(exact(other).abs().max()) > 2e-2
    del other[track]
    with pytest.raises(ClipError, match=f"{'no ' + track} is generated"):
        exact(other)


@pytest.mark.parametrize("track", ["audio", "accelerometer", "force", "video"])
def test_a_guided_step_leads_towards_the_measurement(codecs: Codecs, clean: dict[str, Tensor], track: str) -> None:
    exact = measures(codecs, clean)[track]
    generator = torch.Generator().manual_seed(2)
    start = {n: x + 0.3 * torch.randn(x.shape, generator=generator) for n, x in clean.items()}
    delta = Reconstruction(0.5, measurement=exact).delta(walk(start))
    assert all(bool(x.any()) == (name == track) for name, x in delta.items())
    stepped = {n: x - 0.5 * delta[n] for n, x in start.items()}  # x0 = x − σ·v
    before, after = (exact(x).square().sum(dim=1) for x in (start, stepped))
    assert (after < 0.8 * before).all()


def test_what_is_nan_or_behind_the_end_is_left_open(codecs: Codecs, clean: dict[str, Tensor]) -> None:
    values = torch.full((3, 200), math.nan)
    values[1, 5], values[:, 64:] = 7.0, 1e3  # one sample inside the clip; its 4 slots have 64
    residual = Masked(codecs, "accelerometer", values)(clean)
    sensor = codecs.sensor
    assert sensor is not None
    assert int((residual != 0).sum()) == 2  # one in each clip of the batch
    wanted = sensor.encode("accelerometer", torch.full((2, 3, 64), 7.0))[0] - clean["accelerometer"]
    torch.testing.assert_close(residual[:, 21], -wanted[:, 0, 0, 21], atol=1e-4, rtol=1e-4)  # channel 1, sample 5
    short = Loudness(codecs, torch.zeros(10))(clean)
    assert short.isnan().sum(dim=1).tolist() == [22, 22]
    assert short.shape == (2, 32)
    assert LowRate(codecs, "force", torch.zeros(1, 50), 10.0)(clean).shape[1] >= 7
    assert Downsampled(codecs, torch.zeros(3, 99, 2, 2), 12.5)(clean).shape == (2, 3 * 8 * 4)


def test_loudness_is_that_of_the_sound(codecs: Codecs, clean: dict[str, Tensor]) -> None:
    wave = torch.zeros(1, 1, 5 * 2560)
    wave[..., 6400:] = 0.1 * torch.sin(torch.arange(6400) * 0.5)
    quiet, loud = loudness_of(wave)[0, 4], loudness_of(wave)[0, 30]
    assert float(loud - quiet) > 5
    torch.testing.assert_close(loudness_of(2 * wave)[0, 30], loud + math.log(2.0), atol=1e-3, rtol=0)
    audio = codecs.audio
    assert audio is not None
    torch.testing.assert_close(decode_log_mel(audio, clean["audio"]), audio.decode_mel(clean["audio"]))


def hits(codecs: Codecs, times: tuple[float, ...]) -> dict[str, Tensor]:
    """Sensors that feel 80 m/s² and 60 N at these times, and little else."""
    felt, pushed = torch.zeros(1, 3, 16 * SLOTS), torch.full((1, 1, 16 * SLOTS), 4.0)
    felt[:, 2] = 9.81
    for time in times:
        felt[:, 2, round(100 * time)] += 80.0
        pushed[..., round(100 * time)] += 60.0
    sensor = codecs.sensor
    assert sensor is not None
    return {"accelerometer": sensor.encode("accelerometer", felt)[0], "force": sensor.encode("force", pushed)[0]}


def test_events_are_where_they_were_asked_for(codecs: Codecs) -> None:
    felt = hits(codecs, (0.1, 0.45))
    score = {
        times: float(torch.stack(list(Events(codecs, times)(felt))).norm())
        for times in ((0.1, 0.45), (0.1, 0.3), (0.25,))
    }
    assert score[(0.1, 0.45)] < 0.75 * score[(0.1, 0.3)] < 0.75 * score[(0.25,)]
    assert all(part.isfinite().all() for part in Events(codecs, (0.3,))(hits(codecs, ())))


def test_guidance_by_events_makes_hits_at_their_times(codecs: Codecs) -> None:
    """From a clip with its hit elsewhere, a few steps on the predicted clean latents move the largest jump."""
    generator = torch.Generator().manual_seed(0)
    state = {n: x + 0.05 * torch.randn(x.shape, generator=generator) for n, x in hits(codecs, (0.5,)).items()}
    sensor = codecs.sensor
    assert sensor is not None
    guidance = Reconstruction(0.3, measurement=Events(codecs, (0.2,)))
    for _ in range(25):
        delta = guidance.delta(walk(state, 0.3))
        state = {name: x - 0.3 * delta[name] for name, x in state.items()}
    for name, unit in (("accelerometer", 20.0), ("force", 20.0)):
        peak = int(sensor_jumps(sensor.decode(name, state[name]), unit)[0].argmax())
        assert abs(peak / 100 - 0.2) <= 0.05, name


def test_onsets_of_sound_are_rises() -> None:
    log_mel = torch.full((1, 128, 20), -8.0)
    log_mel[:, :, 7:] = -2.0
    log_mel[:, :, 12:] = -9.0
    onsets = sound_onsets(log_mel)[0]
    assert int(onsets.argmax()) == 7
    assert int((onsets > 0).sum()) == 1


def test_the_rise_of_a_sound_comes_before_it_by_what_is_allowed_for() -> None:
    """Decaying tones in a little noise at eight times: the centroid of their rise, later by EARLY, is their onset."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(12800) / 16000
    for onset in (0.3 + 0.0025 * i for i in range(8)):
        since = (time - onset).clamp_min(0.0)
        tone = 0.3 * torch.exp(-since / 0.08) * (torch.sin(4400 * since) + 0.5 * torch.sin(14000 * since))
        wave = tone + 1e-3 * torch.randn(12800, generator=generator)
        rise = sound_onsets(mel_spectrogram(wave[None, None]))[0]
        rise = torch.where(rise > 0.3 * rise.max(), rise, 0.0)
        found = float((rise * torch.arange(40)).sum() / rise.sum()) / 50 + EARLY
        assert found == pytest.approx(onset, abs=0.008)


def test_events_listen_to_the_sound(codecs: Codecs, clean: dict[str, Tensor]) -> None:
    (residual,) = Events(codecs, (0.3,))({"audio": clean["audio"]})
    assert residual.shape == (2, 8 * SLOTS)
    delta = Reconstruction(measurement=Events(codecs, (0.3,))).delta(walk({"audio": clean["audio"]}))
    assert delta["audio"].any()
    assert delta["audio"].isfinite().all()


def test_bad_requests_are_named(codecs: Codecs, clean: dict[str, Tensor]) -> None:
    for times, message in (((), "none given"), ((-0.1,), "-0.1"), ((math.nan,), "nan")):
        with pytest.raises(ClipError, match=f"events: {message}"):
            Events(codecs, times)
    with pytest.raises(ClipError, match=r"events: 0.7 s is outside of the clip of 0.64 s"):
        Events(codecs, (0.1, 0.7))(clean)
    with pytest.raises(ClipError, match="events: none of audio, accelerometer and force"):
        Events(codecs, (0.1,))({"video": clean["video"]})
    with pytest.raises(ClipError, match=r"force: 200 readings a second, expected more than 0, at most 100"):
        LowRate(codecs, "force", torch.zeros(1, 5), 200.0)
    with pytest.raises(ClipError, match=r"accelerometer: values of shape \[2, 64\], expected 3 channels"):
        Masked(codecs, "accelerometer", torch.zeros(2, 9))(clean)
    with pytest.raises(ClipError, match="video: 30 frames a second"):
        Downsampled(codecs, torch.zeros(3, 9, 4, 4), 30.0)
    with pytest.raises(ClipError, match="video: 128×4 pixels"):
        Downsampled(codecs, torch.zeros(3, 9, 128, 4))(clean)
    with pytest.raises(ClipError, match="loudness: this model has no codec"):
        Loudness(Codecs(None, None, None, codecs.sensor), torch.zeros(8))({})
