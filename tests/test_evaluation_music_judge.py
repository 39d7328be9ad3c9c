"""What the judge is told and what it answers: several instruments at once, unknown facts left out."""

import pytest
import torch

from counterpoint.evaluation.music_judge import MusicJudge, instrument_scores
from counterpoint.modalities.clip import ClipError

CLASSES = {"instruments": ["cello", "flute", "piano"], "mode": ["major", "minor"], "drums": ["False", "True"]}


@pytest.fixture(scope="module")
def judge():
    torch.manual_seed(0)
    return MusicJudge(CLASSES).eval().requires_grad_(False)


def test_targets(judge):
    targets = judge.targets([{"instruments": ["flute", "cello"], "drums": True}, {"mode": "minor"}])
    assert targets["instruments"].tolist() == [[1, 1, 0], [-1, -1, -1]]
    assert targets["mode"].tolist() == [-1, 1]
    assert targets["drums"].tolist() == [1, -1]
    with pytest.raises(ClipError, match="instruments: 'kazoo' is none of cello, flute, piano"):
        judge.targets([{"instruments": ["kazoo"]}])


def test_what_is_not_known_costs_nothing(judge):
    features = torch.randn(2, 128, generator=torch.Generator().manual_seed(0))
    one = judge.loss(features[:1], judge.targets([{"instruments": ["piano"], "mode": "major"}]))
    both = judge.loss(features, judge.targets([{"instruments": ["piano"], "mode": "major"}, {}]))
    assert one > 0
    torch.testing.assert_close(one, both)
    assert judge.loss(features, judge.targets([{}, {}])) == 0


def test_a_verdict_ranks_all_classes(judge):
    audio = 0.1 * torch.randn(2, 1, 8000, generator=torch.Generator().manual_seed(0))
    features = judge.features(audio)
    verdict = judge.verdict(features)
    assert sorted(verdict["instruments"][1]) == CLASSES["instruments"]
    assert verdict["mode"][0][0] == CLASSES["mode"][int(judge.opinions(features)["mode"][0].argmax())]
    torch.testing.assert_close(judge.features(audio[1:]), features[1:], atol=1e-4, rtol=1e-4)


def test_saved_is_what_is_read(judge, tmp_path):
    judge.save(tmp_path)
    again, audio = MusicJudge.load(tmp_path), torch.zeros(1, 1, 8000)
    assert again.classes == judge.classes
    assert torch.equal(again.features(audio), judge.features(audio))


def test_instruments_of_an_ensemble():
    ranked = ["violin", "cello", "viola", "flute"]
    assert instrument_scores(ranked, ["violin"]) == {"instrument": 1, "instrument_share": 1}
    assert instrument_scores(ranked, ["violin", "violin", "viola", "cello"]) == {"instrument": 1, "instrument_share": 1}
    assert instrument_scores(ranked, ["violin", "flute"]) == {"instrument": 0, "instrument_share": 0.5}
    assert instrument_scores(ranked, "flute") == {"instrument": 0, "instrument_share": 0}
