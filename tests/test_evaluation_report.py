"""The report has the promised structure, and planted faults show in it."""

import json

import numpy as np
import pytest
import torch

from counterpoint.evaluation.events import clip_events
from counterpoint.evaluation.judges import Judges
from counterpoint.evaluation.report import (
    adherence_report,
    evaluate,
    features,
    realism_report,
    synchronization_report,
    table,
    to_tensors,
)
from counterpoint.modalities.clip import Clip, ClipError, Track

N = 8
RNG = np.random.default_rng(0)
TIMES = [np.cumsum(RNG.uniform(0.15, 0.75, 3)) for _ in range(N)]


def clip(times, late=0.0, split="test"):
    """Knocks that are heard and, `late` seconds later, felt; the video is noise."""
    time = np.arange(40960) / 16000
    wave, force = np.zeros(40960), np.full(256, 9.81)
    for start in times:
        age = time - start - 0.0065
        wave += np.where(age > 0, 0.4 * np.exp(-60 * age.clip(0)) * np.sin(2 * np.pi * 700 * age), 0)
        force += 120 * (1 - np.abs(np.arange(256) / 100 - start - late - 0.002) / 0.012).clip(0)
    still = np.zeros((3, 256), np.float32)
    tracks = {"accelerometer": still.copy(), "gyroscope": still, "force": force[None].astype(np.float32)}
    tracks["accelerometer"][2] = force
    return Clip(
        audio=Track(wave[None].astype(np.float32), 16000),
        video=Track(RNG.integers(0, 255, (64, 64, 64, 3), dtype=np.uint8), 25),
        sensor={name: Track(values, 100) for name, values in tracks.items()},
        events=tuple(times),
        metadata={"attributes": {"material": "wood" if len(times) % 2 else "glass"}, "split": split},
    )


REAL = [clip(t, split="unseen" if i < 3 else "test") for i, t in enumerate(TIMES)]


def test_a_planted_lag_between_sound_and_sensors_is_reported():
    late = [clip_events(clip(t, late=0.03)) for t in TIMES]
    real = [clip_events(one) for one in REAL]
    report = synchronization_report(late, real, real)["audio-sensor"]
    assert report["real"]["f1"] == 1
    assert report["real"]["median_ms"] < 3
    assert report["codec"] == report["real"]
    assert report["generated"]["f1"] == 1
    assert report["generated"]["bias_ms"] - report["real"]["bias_ms"] == pytest.approx(30, abs=2)
    assert report["mismatched"]["f1"] < 0.4


def test_to_tensors():
    tensors = to_tensors(REAL[:2])
    assert tuple(tensors["video"].shape) == (2, 3, 64, 64, 64)
    assert tuple(tensors["audio"].shape) == (2, 1, 40960)
    assert tuple(tensors["sensor"].shape) == (2, 7, 256)
    assert tensors["video"].min() == -1
    assert tensors["video"].max() <= 1
    assert (tensors["sensor"][:, 6] == tensors["sensor"][:, 2]).all()  # force z last, accelerometer z third
    with pytest.raises(ClipError, match="audio: the clips differ"):
        to_tensors([REAL[0], Clip(video=REAL[0].video, sensor=REAL[0].sensor)])


def test_adherence_counts_seen_and_unseen_apart():
    judges = Judges({"material": ["glass", "wood"]}).eval()
    head = judges.heads["audio"]["material"]  # pyright: ignore
    with torch.no_grad():
        judges.pooling.copy_(torch.tensor([[0.0], [1.0], [0.0]]))
        head.weight.zero_()
        head.bias.zero_()
        head.weight[1, 0] = 1.0  # the first feature says wood
    right = np.zeros((4, 128), np.float32)
    right[:, 0] = [5, -5, 5, 5]
    wrong = right * np.array([1, 1, 1, -1], np.float32)[:, None]
    stated = [{"material": m} for m in ("wood", "glass", "wood", "wood")]
    report = adherence_report({"audio": wrong}, {"audio": right}, judges, stated, [False, False, True, True])
    assert report["material"] == {"generated": 1, "unseen": 0.5, "real": 1, "real_unseen": 1, "chance": 0.75}


def test_realism_has_a_floor_at_the_same_number():
    real, other = RNG.normal(size=(2, 60, 128)).astype(np.float32)
    report = realism_report({"audio": real + 2}, {"audio": real}, {"audio": np.concatenate([other, other])})["audio"]
    assert report["n"] == 60
    assert report["frechet"] > report["floor"] + 400
    assert report["precision"] < report["precision_floor"]


def test_the_whole_report():
    torch.manual_seed(0)
    judges = Judges({"material": ["glass", "wood"]}).eval()
    training = features([clip(t + 0.01) for t in TIMES], judges)
    report = evaluate(REAL, REAL, REAL[:2], judges, training, seeds=[1, 2], model="joint")
    assert json.loads(json.dumps(report)) == report
    assert report["model"] == "joint"
    assert set(report["sync"]) == {"audio-video", "audio-sensor", "video-sensor"}
    for pair in report["sync"].values():
        for name in ("generated", "real", "codec", "mismatched"):
            assert {"precision", "recall", "f1", "median_ms", "p95_ms", "n"} <= set(pair[name])
    assert set(report["realism"]) == {"video", "audio", "sensor"}
    assert report["contacts"]["sensor"]["f1"] == 1
    assert report["memorization"]["ratio"] == pytest.approx(1)  # generated are the held-out clips
    text = table(report)
    assert "audio-sensor" in text
    assert "material" in text
    with pytest.raises(ClipError, match="7 clips for 8"):
        evaluate(REAL[:7], REAL, [], judges, training)
