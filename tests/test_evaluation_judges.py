"""The judges' pool listens to the tracks that know; what is saved is what is read."""

import pytest
import torch

from counterpoint.evaluation.judges import FEATURES, TRACKS, Judges, fit_pooling, pool
from counterpoint.modalities.clip import ClipError

CLASSES = {"material": ["glass", "wood"], "size": ["large", "medium", "small"]}


def clips(count=3):
    draws = torch.Generator().manual_seed(0)
    return {
        "video": torch.rand(count, 3, 64, 64, 64, generator=draws) * 2 - 1,
        "audio": 0.1 * torch.randn(count, 1, 40960, generator=draws),
        "sensor": 10 * torch.randn(count, 7, 256, generator=draws),
    }


def test_features_and_verdicts_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    judges, tensors = Judges(CLASSES).eval(), clips()
    with torch.inference_mode():
        together = judges.features(tensors)
        alone = judges.features({t: x[1:2] for t, x in tensors.items()})
        verdict = judges.verdict(together)
    assert {t: tuple(x.shape) for t, x in together.items()} == dict.fromkeys(TRACKS, (3, FEATURES))
    for track in TRACKS:
        torch.testing.assert_close(together[track][1:2], alone[track], atol=1e-4, rtol=1e-4)
    assert verdict["size"].exp().sum(1).tolist() == pytest.approx([1.0] * 3, abs=1e-5)


def test_each_judge_reads_its_own_track_only():
    judges, tensors = Judges(CLASSES).eval(), clips()
    with torch.inference_mode():
        whole = judges.features(tensors)
        part = judges.features({"audio": tensors["audio"]})
    assert list(part) == ["audio"]
    torch.testing.assert_close(part["audio"], whole["audio"])


def test_the_pool_trusts_the_track_that_knows():
    draws = torch.Generator().manual_seed(1)
    target = torch.randint(2, (400,), generator=draws)
    knows = torch.where(torch.rand(400, generator=draws) < 0.9, target, 1 - target)  # right nine times of ten
    confident = torch.randn(400, 2, generator=draws) * 4  # loud and wrong half of the time
    opinions = {
        "video": {"material": (torch.nn.functional.one_hot(knows, 2) * 1.0).log_softmax(-1)},
        "audio": {"material": confident.log_softmax(-1)},
    }
    weights = fit_pooling(opinions, {"material": target})
    assert weights[0, 0] > 10 * weights[1, 0]
    pooled = pool(opinions, weights, ["material"])["material"]
    share = (knows == target).float().mean()
    assert (pooled.argmax(-1) == target).float().mean() == pytest.approx(share.item(), abs=0.01)
    right = pooled.exp()[torch.arange(400), knows]
    assert right.mean() == pytest.approx(share.item(), abs=0.02)  # calibrated


def test_save_and_load(tmp_path):
    torch.manual_seed(0)
    judges = Judges(CLASSES | {"floor": ["stone"]}).eval()
    judges.backgrounds.fill_(7)
    judges.pooling.fill_(0.5)
    judges.save(tmp_path / "judges")
    again, tensors = Judges.load(tmp_path / "judges"), clips(1)
    assert again.classes == judges.classes
    assert (again.backgrounds == 7).all()
    assert (again.pooling == 0.5).all()
    with torch.inference_mode():
        one, two = judges.verdict(judges.features(tensors)), again.verdict(again.features(tensors))
    assert all(torch.equal(one[a], two[a]) for a in one)


def test_attributes_that_are_not_stated_are_marked():
    judges = Judges(CLASSES)
    targets = judges.targets([{"material": "wood", "size": "small"}, {"material": "glass"}])
    assert targets["material"].tolist() == [1, 0]
    assert targets["size"].tolist() == [2, -1]
    with pytest.raises(ClipError, match="material: 'tin' is none of glass, wood"):
        judges.targets([{"material": "tin"}])
