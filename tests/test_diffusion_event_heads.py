"""Times of events as a second thing to learn: bins, heads, and what of the network they teach."""

from __future__ import annotations

import torch

from counterpoint.backbones.transformer import CounterpointTransformer, Modality
from counterpoint.diffusion.event_heads import BINS, EventHeads, event_bins
from counterpoint.diffusion.training import JointTraining, LossSettings, OptimizerSettings

MODALITIES = [
    Modality("video", 4, 8, "video"), Modality("force", 1, 16, "sensor"), Modality("gyroscope", 2, 6, "sensor"),
]  # fmt: skip
SLOTS, BATCH = 4, 8


def network() -> CounterpointTransformer:
    torch.manual_seed(0)
    return CounterpointTransformer(CounterpointTransformer.describe(MODALITIES), 32, 3, 2, 10, multiple=2)


def batch(count: int = BATCH) -> dict[str, object]:
    """Latents whose mean over a slot says in which bin something happens: the first channel of each modality."""
    generator = torch.Generator().manual_seed(1)
    events = (torch.rand(count, SLOTS, BINS, generator=generator) < 0.2).float()
    latents = {}
    for m in MODALITIES:
        latents[m.name] = 0.1 * torch.randn(count, SLOTS, m.tokens, m.channels, generator=generator)
        latents[m.name][..., :BINS] += 3 * events[:, :, None]
    text = {"text": torch.randn(count, 5, 10, generator=generator), "text_mask": torch.ones(count, 5, dtype=torch.bool)}
    return {"latents": latents, "events": events, **text}


def test_bins() -> None:
    bins = event_bins([0.0, 0.0399, 0.04, 0.161, 0.639, 0.64, -0.01, 7.0], SLOTS, 0.16)
    assert bins.shape == (SLOTS, BINS)
    assert bins.nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [3, 3]]
    assert event_bins([], 2, 0.16).sum() == 0


def test_a_head_reads_its_own_groups_tokens_alone() -> None:
    net = network()
    heads = EventHeads(net)
    layout = net.layout({m.name: torch.zeros(0) for m in MODALITIES})
    tokens = torch.randn(2, SLOTS, 7, 32)
    logits = heads(tokens, layout)
    assert {group: one.shape for group, one in logits.items()} == dict.fromkeys(("video", "sensor"), (2, SLOTS, BINS))
    other = tokens.clone()
    other[:, :, 4:] = torch.randn(2, SLOTS, 3, 32)  # of the sensors; a constant would be lost in the norm
    again = heads(other, layout)
    assert torch.equal(again["video"], logits["video"])
    assert not torch.allclose(again["sensor"], logits["sensor"])
    assert list(heads(tokens[:, :, :4], net.layout({"video": torch.zeros(0)}))) == ["video"]


def test_what_the_heads_teach() -> None:
    """Their gradient reaches the blocks that they stand behind and no other, and they are trained with the network."""
    module = JointTraining(network(), LossSettings(events=1.0, isolate=0), OptimizerSettings(), 4, 0)
    losses = module.losses(batch(), torch.Generator().manual_seed(0))
    losses["events"].backward()
    reached = [
        any(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())
        for block in module.transformer.transformer_blocks
    ]
    assert reached == [True, True, False]
    assert all(p.grad is not None for p in module.event_heads.parameters())  # pyright: ignore
    optimizer = module.configure_optimizers()["optimizer"]
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert all(id(p) in held for p in module.event_heads.parameters())  # pyright: ignore
    assert module.transformer.transformer_blocks[1]._forward_hooks == {}


def test_their_weight_and_their_absence() -> None:
    torch.manual_seed(0)
    with_heads = JointTraining(network(), LossSettings(events=2.0), OptimizerSettings(), 4, 0)
    without = JointTraining(network(), LossSettings(), OptimizerSettings(), 4, 0)
    assert without.event_heads is None
    both, plain = (m.losses(batch(), torch.Generator().manual_seed(0)) for m in (with_heads, without))
    assert set(both) - set(plain) == {"events"}
    assert all(torch.equal(both[name], plain[name]) for name in plain)  # the same draws, the same denoising


def test_events_are_learned_from_what_tells_them() -> None:
    module = JointTraining(network(), LossSettings(events=1.0), OptimizerSettings(), 60, 0)
    optimizer = torch.optim.AdamW(module.parameters(), 5e-3)
    clips = batch(32)
    seen = []
    for step in range(60):
        losses = module.losses(clips, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        losses["events"].backward()
        optimizer.step()
        seen.append(losses["events"].item())
    assert sum(seen[-5:]) < 0.5 * sum(seen[:5])
