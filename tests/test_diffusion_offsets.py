"""The offset of a track is found by a score that knows what fits; the slots judged are recorded at every shift."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from counterpoint.diffusion.likelihood import Likelihood
from counterpoint.diffusion.offsets import Shifted, search, shifted_latents
from counterpoint.modalities.audio import AudioCodec
from counterpoint.modalities.clip import Clip, ClipError, Track
from counterpoint.modalities.codecs import Codecs
from counterpoint.modalities.sensor import SensorPatches
from counterpoint.modalities.vocoder import Vocoder

RATE = 100.0


@pytest.fixture(scope="module")
def codecs() -> Codecs:
    values = {"force": np.random.default_rng(0).normal(size=(4, 1, 256)).astype("float32")}
    torch.manual_seed(0)
    audio, vocoder = AudioCodec(hidden_channels=32), Vocoder(width=16, hidden=32, layers=1, nnls_steps=2)
    return Codecs(None, audio, vocoder, SensorPatches.fit({"force": ["z"]}, {"force": "N"}, values))


def clip(seconds: float) -> Clip:
    draws = np.random.default_rng(1)
    values = draws.normal(size=(1, round(seconds * RATE))).astype("float32")
    sound = Track(0.1 * draws.normal(size=(1, round(seconds * 16000))).astype("float32"), 16000.0)
    force = {"force": Track(values, RATE, names=("z",), units=("N",))}
    return Clip(audio=sound, sensor=force)


def test_the_judged_track_stays_and_the_others_move(codecs: Codecs) -> None:
    shifts = [-0.32, 0.0, 0.32]
    found = shifted_latents(clip(1.6), "audio", ["sensor"], shifts, codecs, 1.6)
    assert (found.start, found.slots, found.of, found.given) == (2, 6, ("audio",), ("force",))
    assert (found.latents["audio"] == found.latents["audio"][1]).all()
    moved = found.latents["force"]  # [3, 6, 1, 16]
    torch.testing.assert_close(moved[2, :4], moved[1, 2:])  # the sound later by two slots: the force earlier
    torch.testing.assert_close(moved[0, 2:], moved[1, :4])


def test_too_far_a_shift_is_named(codecs: Codecs) -> None:
    with pytest.raises(
        ClipError, match=r"likelihood: no slot of 0.16 s is recorded in audio and sensor .* up to 300 ms"
    ):
        shifted_latents(clip(0.48), "audio", ["sensor"], [-0.3, 0.0, 0.3], codecs, 0.48)
    with pytest.raises(ClipError, match=r"shift: 500 ms are no less than the 0.48 s that are judged"):
        shifted_latents(clip(0.48), "audio", ["sensor"], [-0.5, 0.0, 0.5], codecs, 2.56)
    seen = replace(clip(1.6), video=Track(np.zeros((40, 64, 64, 3), "uint8"), 25.0))
    with pytest.raises(ClipError, match="video: this model can't be told it"):
        shifted_latents(seen, "audio", ["video"], [0.0], codecs, 1.6)


def test_the_search_is_in_pieces_and_finds_what_fits() -> None:
    """The score: log p(a|v) = −|a − v|², log p(a) = −7; the fourth of five shifts fits."""
    truth = torch.randn(1, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    v = truth + torch.tensor([3.0, 2.0, 1.0, 0.0, 1.0])[:, None, None, None]
    seen: list[int] = []

    def score(latents: dict[str, Tensor], known: dict[str, Tensor]) -> Likelihood:
        batch = latents["audio"].shape[0]
        seen.append(batch)
        assert not known["audio"].any()
        assert "video" not in known or known["video"].all()
        if "video" in latents:
            found = -(latents["audio"] - latents["video"]).square().flatten(1).sum(1).double()
        else:
            found = torch.full((batch,), -7.0, dtype=torch.float64)
        return Likelihood(found, torch.full((batch,), 24), None, 1)

    shifted = Shifted({"audio": truth.expand(5, -1, -1, -1), "video": v}, ("audio",), ("video",), 0)
    together, bits = search(score, shifted, batch=2)
    assert seen == [1, 2, 2, 1]
    assert together.log_prob.shape == bits.shape == (5,)
    assert int(together.log_prob.argmax()) == int(bits.argmax()) == 3
    assert bits[3].item() == pytest.approx(7 / np.log(2))
    assert together.evaluations == 3
