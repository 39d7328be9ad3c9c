"""Training: keyed batches, exact resume through Lightning, checkpoints without pickles."""

from __future__ import annotations

import json
from pathlib import Path

import lightning as L
import pytest
import torch
from safetensors.torch import save_file

from counterpoint.backbones.transformer import CounterpointTransformer, Modality
from counterpoint.diffusion.checkpoints import AveragedWeights, RunFolder, SafetensorsIO
from counterpoint.diffusion.noise_levels import GridMixture
from counterpoint.diffusion.process import Process, process_of
from counterpoint.diffusion.training import (
    JointTraining,
    KeyedBatches,
    LatentClips,
    LossSettings,
    OptimizerSettings,
    loader,
)
from counterpoint.modalities.clip import ClipError

MODALITIES = [Modality("video", 4, 8, "video"), Modality("audio", 2, 6, "audio"), Modality("force", 1, 16, "sensor")]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    shapes = {m.name: (12, 4, m.tokens, m.channels) for m in MODALITIES}
    save_file(
        {n: torch.randn(s, generator=generator).half() for n, s in shapes.items()}, tmp_path / "latents.safetensors"
    )
    states = {
        "states": torch.randn(5 * 6, 10, generator=generator).half(),
        "starts": torch.arange(0, 31, 6),
        "length": torch.tensor(6),
    }
    save_file(states, tmp_path / "text.safetensors")
    (tmp_path / "captions.json").write_text(json.dumps({"rows": [[i % 5, (i + 1) % 5] for i in range(12)]}))
    return tmp_path


def run(cache: Path, folder: Path, steps: int, stop_at: int | None = None) -> dict[str, torch.Tensor]:
    """Trains to `steps`, or until `stop_at`; returns the raw and the averaged weights of the checkpoint."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    network = CounterpointTransformer(CounterpointTransformer.describe(MODALITIES), 32, 2, 2, 10, multiple=2)
    module = JointTraining(network, LossSettings(), OptimizerSettings(warmup=2), steps, seed=3)
    average = AveragedWeights(0.9)
    callback = RunFolder(folder, average, log_every=1, checkpoint_every=1000, preview_every=1000)
    resume = callback.checkpoint if callback.checkpoint.is_file() else None
    start = SafetensorsIO().load_checkpoint(resume)["global_step"] if resume else 0
    trainer = L.Trainer(
        accelerator="cpu", max_steps=stop_at or steps, max_epochs=-1, gradient_clip_val=1.0,
        callbacks=[average, callback], plugins=[SafetensorsIO()], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader(LatentClips(cache), 4, 3, steps, start), ckpt_path=resume, weights_only=False)
    saved = SafetensorsIO().load_checkpoint(callback.checkpoint)
    assert saved["global_step"] == (stop_at or steps)
    return {f"{key}.{n}": v for key in ("state_dict", "current_model_state") for n, v in saved[key].items()}


def test_two_and_two_steps_equal_four(cache: Path, tmp_path: Path) -> None:
    whole = run(cache, tmp_path / "whole", 4)
    run(cache, tmp_path / "parts", 4, stop_at=2)
    with (tmp_path / "parts" / "log.jsonl").open("a") as log:  # a step that was taken but not saved
        log.write('{"step": 3, "loss": 99}\n')
    parts = run(cache, tmp_path / "parts", 4)
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name
    moved = [
        n
        for n in whole
        if n.startswith("state_dict") and not torch.equal(whole[n], whole["current_model_state" + n[10:]])
    ]
    assert moved, "the averaged weights must differ from the raw ones"
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]


def test_keyed_batches_start_anywhere() -> None:
    whole = list(KeyedBatches(10, 4, seed=1, steps=7))
    assert list(KeyedBatches(10, 4, seed=1, steps=7, start=3)) == whole[3:]
    assert len({index for batch in whole[:2] for index, _ in batch}) == 8  # no repetition inside an epoch
    assert whole[0] != whole[2]
    with pytest.raises(ClipError, match="batch: 11"):
        KeyedBatches(10, 11, 0, 1)


def test_known_cells_are_not_learned(cache: Path) -> None:
    network = CounterpointTransformer(CounterpointTransformer.describe(MODALITIES), 32, 1, 2, 10, multiple=2)
    rows = GridMixture(shared=0, per_modality=0, per_segment=0, clean_rows=1, clean_segment=0)
    settings = LossSettings(mixture=rows, drop_modality=0, isolate=0, motion=0)
    module = JointTraining(network, settings, OptimizerSettings(), 4, 0)
    batch = next(iter(loader(LatentClips(cache), 8, 0, 1, 0)))
    losses = module.losses(batch, torch.Generator().manual_seed(5))
    # the untrained network predicts 0, so that the loss of what is learned is that of ε − x0: 2 for unit variances
    assert all(abs(float(value.detach()) - 2.0) < 0.5 for value in losses.values())
    whole = GridMixture(shared=0, per_modality=0, per_segment=0, clean_rows=0, clean_segment=1)
    module.loss = LossSettings(mixture=whole, drop_modality=0, isolate=0, motion=0)
    assert all(float(value) > 0 for value in module.losses(batch, torch.Generator().manual_seed(5)).values())


@pytest.mark.parametrize(("process", "expected"), [
    (Process(), 2.0), (Process("cosine", "epsilon"), 1.0), (Process("linear", "v_prediction"), 1.0),
    (Process("cosine", "sample"), 1.0), (Process("edm", "edm"), 1.0),
])  # fmt: skip
def test_what_is_learned_follows_the_process(cache: Path, tmp_path: Path, process: Process, expected: float) -> None:
    """The untrained network predicts 0: its loss is the variance of the target; what it predicts is in its config."""
    network = CounterpointTransformer(CounterpointTransformer.describe(MODALITIES), 32, 1, 2, 10, multiple=2)
    module = JointTraining(network, LossSettings(process=process, motion=0), OptimizerSettings(), 4, 0)
    batch = next(iter(loader(LatentClips(cache), 12, 0, 1, 0)))
    heard: list[torch.Tensor] = []
    network.register_forward_pre_hook(lambda _, args: heard.append(args[0]["video"]))
    losses = module.losses(batch, torch.Generator().manual_seed(5))
    assert [float(value) for value in losses.values()] == pytest.approx([expected] * 3, abs=0.3 * expected)
    assert float(heard[0].square().mean()) < 1.5  # EDM's input is scaled
    network.save_pretrained(str(tmp_path / "net"))
    config = json.loads((tmp_path / "net" / "config.json").read_text())
    assert (config["process"] is not None) == (not process.is_default)
    again = CounterpointTransformer.from_pretrained(str(tmp_path / "net"), low_cpu_mem_usage=False)
    assert process_of(again.config) == process


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, "x", True], "b": (torch.arange(3), {3: torch.ones(2, dtype=torch.bfloat16)})}
    SafetensorsIO().save_checkpoint(value, tmp_path / "c.safetensors")
    back = SafetensorsIO().load_checkpoint(tmp_path / "c.safetensors")
    assert back["a"] == value["a"]
    assert torch.equal(back["b"][0], torch.arange(3))
    assert back["b"][1][3].dtype == torch.bfloat16
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]
    with pytest.raises(TypeError, match="neither"):
        SafetensorsIO().save_checkpoint({"a": object()}, tmp_path / "d.safetensors")
    assert not (tmp_path / "d.safetensors").exists()


def test_missing_cache_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"latents\.safetensors: no such file"):
        LatentClips(tmp_path)
