"""The ablation of feed-forwards, tiny: equal starts and sizes, held-out losses with fixed noise, runs that go on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from counterpoint.diffusion.training import JointTraining, LatentClips, LossSettings, OptimizerSettings
from counterpoint.modalities.clip import ClipError
from counterpoint.recipes import ablate_feed_forward
from counterpoint.recipes.ablate_feed_forward import (
    Settings,
    ablate,
    active_parameters,
    build,
    held_out_losses,
    main,
    table,
)
from counterpoint.recipes.joint import ModelSettings

SHAPES = {"accelerometer": (1, 6), "audio": (2, 6), "force": (1, 4), "video": (2, 8)}
SETTINGS = Settings(
    model=ModelSettings(width=8, depth=1, heads=1, multiple=2, experts=3, active=2),
    loss=LossSettings(), optimizer=OptimizerSettings(warmup=1), steps=4, batch=4, held_out=6, evaluate_every=2,
    checkpoint_every=1, log_every=1, device="cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, draws = tmp_path_factory.mktemp("latents"), torch.Generator().manual_seed(0)
    latents = {name: torch.randn(18, 3, *shape, generator=draws).half() for name, shape in SHAPES.items()}
    save_file(latents, folder / "latents.safetensors")
    text = {"states": torch.randn(6, 10, generator=draws).half(), "starts": torch.tensor([0, 2, 6])}
    save_file({**text, "length": torch.tensor(4)}, folder / "text.safetensors")
    (folder / "captions.json").write_text(json.dumps({"rows": [[i % 2] for i in range(18)]}))
    return folder


def test_kinds_begin_alike_and_a_token_passes_as_much(cache: Path) -> None:
    clips = LatentClips(cache)
    networks = {kind: build(kind, SETTINGS, clips) for kind in SETTINGS.kinds}
    assert list(networks) == ["shared", "per_group", "per_modality", "experts"]
    assert list(networks["shared"].modalities)[:2] == ["video", "audio"]  # sensors in a row
    outside = {kind: {n: p for n, p in net.named_parameters() if ".ff." not in n} for kind, net in networks.items()}
    for kind, own in outside.items():
        assert own.keys() == outside["shared"].keys()
        assert all(torch.equal(p, outside["shared"][n]) for n, p in own.items()), kind
    passes = {kind: active_parameters(net) for kind, net in networks.items()}
    assert passes["shared"] == passes["per_group"] == passes["per_modality"]
    assert passes["shared"] == sum(p.numel() for p in networks["shared"].parameters())
    assert passes["experts"] - passes["shared"] == 3 * 8 + 8  # the router, and the second expert's last bias
    totals = [sum(p.numel() for p in net.parameters()) for net in networks.values()]
    assert totals[0] < totals[1] < totals[2]
    assert totals[3] > totals[0]


def test_held_out_losses_have_fixed_noise(cache: Path) -> None:
    clips = LatentClips(cache)
    network = build("experts", SETTINGS, clips).eval()
    first = held_out_losses(network, clips, SETTINGS)
    assert set(first) == set(SHAPES)
    assert list(first.values()) == pytest.approx([2.0] * 4, abs=0.4)  # it predicts 0 of ε − x0, both of variance 1
    assert held_out_losses(network, clips, SETTINGS) == first
    clips.latents["audio"][:12] += 1  # what is trained on
    assert held_out_losses(network, clips, SETTINGS) == first
    clips.latents["audio"][13] += 1
    assert held_out_losses(network, clips, SETTINGS)["audio"] > first["audio"]


def test_a_run_goes_on_and_is_complete(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, work = tmp_path / "scores.json", tmp_path / "work"
    settings = replace(SETTINGS, kinds=("per_modality", "experts"))
    step, taken = JointTraining.training_step, []

    def cut(self: JointTraining, batch: dict, index: int) -> torch.Tensor:
        assert len(batch["text"]) == 4
        taken.append(self.global_step)
        if len(taken) == 7:  # in the second kind's third step
            raise RuntimeError("cut off")
        return step(self, batch, index)

    monkeypatch.setattr(JointTraining, "training_step", cut)
    with pytest.raises(RuntimeError, match="cut off"):
        ablate(settings, cache, out, work)
    assert list(json.loads(out.read_text())["feed_forwards"]) == ["per_modality"]
    scores = ablate(settings, cache, out, work)
    assert taken == [0, 1, 2, 3, 0, 1, 2, 2, 3]
    monkeypatch.setattr(ablate_feed_forward, "train_kind", lambda *_: pytest.fail("a finished kind was trained on"))
    assert ablate(settings, cache, out, work)["feed_forwards"].keys() == scores["feed_forwards"].keys()

    for kind, found in scores["feed_forwards"].items():
        assert found["curve"]["steps"] == [0, 2, 4], kind
        assert found["held_out"]["video"] == found["curve"]["video"][-1] != found["curve"]["video"][0]
        assert found["seconds_per_step"] > 0
        assert ("balance" in found) is (kind == "experts")
    rows = table(scores).splitlines()
    assert rows[0].count("|") == rows[2].count("|") == 9
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| per modality", "| experts"]
    assert Image.open(out.with_suffix(".png")).width > 600
    with pytest.raises(ClipError, match="seed is 0 there and 1 here"):
        ablate(replace(settings, seed=1), cache, out, work)


def test_mistakes_are_named(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ClipError, match="missing latents and out"):
        main(["steps=3"])
    with pytest.raises(ClipError, match="kinds: none; known are shared"):
        ablate(replace(SETTINGS, kinds=("none",)), cache, tmp_path / "s.json", tmp_path)
    with pytest.raises(ClipError, match="18 clips are less than held_out=128"):
        main([f"latents={cache}", f"out={tmp_path / 's.json'}", f"work={tmp_path}"])
    assert not (tmp_path / "s.json").exists()
    found = {"parameters": 2e6, "active_parameters": 1e6, "seconds_per_step": 0.5, "held_out": {"audio": 1.0}}
    (tmp_path / "t.json").write_text(json.dumps({"feed_forwards": {"experts": found}}))
    main(["table", f"out={tmp_path / 't.json'}"])
    assert capsys.readouterr().out.splitlines()[-1] == "| experts | 2.00 M | 1.00 M | 0.5 | 1.0000 |"
