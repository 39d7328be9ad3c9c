"""The offset of a track is found by a score that knows what fits; the slots judged are recorded at every shift."""

import numpy as np
import pytest
import torch
from torch import Tensor

from counterpoint.diffusion.likelihood import Likelihood
from counterpoint.diffusion.offsets import Shifted, search, shifted_latents
from counterpoint.modalities.clip import Clip, ClipError, Track
from counterpoint.modalities.codecs import Codecs
from counterpoint.modalities.sensor import SensorPatches

RATE = 100.0


@pytest.fixture(scope="module")
def codecs() -> Codecs:
    values = {"force": np.random.default_rng(0).normal(size=(4, 1, 256)).astype("float32")}
    return Codecs(None, None, None, SensorPatches.fit({"force": ["z"]}, {"force": "N"}, values))


def clip(seconds: float) -> Clip:
    values = np.random.default_rng(1).normal(size=(1, round(seconds * RATE))).astype("float32")
    return Clip(sensor={"force": Track(values, RATE, names=("z",), units=("N",))})


def test_slots_that_a_shift_leaves_empty_are_left_out_of_all(codecs: Codecs) -> None:
    shifts = [-0.32, 0.0, 0.32]
    found = shifted_latents(clip(1.6), "sensor", [], shifts, codecs, 1.6)
    assert (found.start, found.slots, found.of, found.given) == (2, 6, ("force",), ())
    moved = found.latents["force"]  # [3, 6, 1, 16]
    torch.testing.assert_close(moved[2, 2:], moved[1, :4])  # later by two slots
    torch.testing.assert_close(moved[0, :4], moved[1, 2:])


def test_too_far_a_shift_is_named(codecs: Codecs) -> None:
    with pytest.raises(ClipError, match=r"likelihood: no slot of 0.16 s is recorded in sensor .* up to 300 ms"):
        shifted_latents(clip(0.48), "sensor", [], [-0.3, 0.0, 0.3], codecs, 0.48)
    with pytest.raises(ClipError, match=r"shift: 500 ms are no less than the 0.48 s that are judged"):
        shifted_latents(clip(0.48), "sensor", [], [-0.5, 0.0, 0.5], codecs, 2.56)
    with pytest.raises(ClipError, match="audio: this model can't be told it"):
        shifted_latents(clip(1.6), "sensor", ["audio"], [0.0], codecs, 1.6)


def test_the_search_is_in_pieces_and_finds_what_fits() -> None:
    """The score: log p(a|v) = −|a − v|², log p(a) = 0; the fourth of five shifts fits."""
    truth = torch.randn(1, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    a = truth + torch.tensor([3.0, 2.0, 1.0, 0.0, 1.0])[:, None, None, None]
    seen: list[int] = []

    def score(latents: dict[str, Tensor], known: dict[str, Tensor]) -> Likelihood:
        batch = latents["audio"].shape[0]
        seen.append(batch)
        assert not known["audio"].any()
        assert "video" not in known or known["video"].all()
        off = latents["audio"] - latents["video"] if "video" in latents else torch.zeros(batch, 1)
        found = -off.square().flatten(1).sum(1).double()
        return Likelihood(found, torch.full((batch,), 24), None, 1)

    shifted = Shifted({"video": truth.expand(5, -1, -1, -1), "audio": a}, ("audio",), ("video",), 0)
    together, bits = search(score, shifted, batch=2)
    assert seen == [2, 2, 2, 2, 1, 1]
    assert together.log_prob.shape == bits.shape == (5,)
    assert int(together.log_prob.argmax()) == int(bits.argmax()) == 3
    assert together.evaluations == 3
