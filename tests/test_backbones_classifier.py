"""The classifier of noised latents: it learns what is plain, hears any subset, and gives guidance a gradient."""

import pytest
import torch

from counterpoint.backbones.classifier import LatentClassifier

MODALITIES = [
    {"name": "audio", "tokens": 2, "channels": 4, "group": "audio"},
    {"name": "force", "tokens": 1, "channels": 3, "group": "sensor"},
]
CLASSES = {"material": ["glass", "wood"], "size": ["large", "medium", "small"]}


def build(seed: int = 0) -> LatentClassifier:
    torch.manual_seed(seed)
    return LatentClassifier(MODALITIES, CLASSES, width=16, depth=1, heads=1)


def batch(count: int = 3, level: float = 0.5):
    draws = torch.Generator().manual_seed(count)
    latents = {
        "audio": torch.randn(count, 5, 2, 4, generator=draws),
        "force": torch.randn(count, 5, 1, 3, generator=draws),
    }
    return latents, {name: torch.full((count, 5), level) for name in latents}


def test_probabilities_of_any_subset_add_up():
    model = build()
    latents, sigma = batch()
    for names in (("audio", "force"), ("audio",), ("force",)):
        said = model({n: latents[n] for n in names}, {n: sigma[n] for n in names})
        assert {a: p.shape for a, p in said.items()} == {"material": (3, 2), "size": (3, 3)}
        for p in said.values():
            torch.testing.assert_close(p.exp().sum(-1), torch.ones(3))


def test_it_learns_a_class_and_its_gradient_points_there():
    """Glass is +1, wood −1 in every latent; noise hides it at σ = 1."""
    model, draws = build(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        label = torch.randint(0, 2, (32,), generator=draws)
        level = torch.rand(32, 1, generator=draws).expand(32, 4)
        clean = (1.0 - 2.0 * label)[:, None, None, None] * torch.ones(32, 4, 2, 4)
        noised = (1 - level[..., None, None]) * clean + level[..., None, None] * torch.randn(
            clean.shape, generator=draws
        )
        value = torch.nn.functional.nll_loss(model({"audio": noised}, {"audio": level})["material"], label)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    x = torch.zeros(1, 4, 2, 4, requires_grad=True)
    model.log_probability({"audio": x}, {"audio": torch.full((1, 4), 0.5)}, "material", "glass").sum().backward()
    assert x.grad is not None
    assert (x.grad > 0).float().mean() > 0.9
    noise = torch.randn(64, 4, 2, 4, generator=draws)
    sure = model({"audio": noise * 0.1 + 0.9}, {"audio": torch.full((64, 4), 0.1)})["material"][:, 0].exp()
    lost = model({"audio": noise}, {"audio": torch.ones(64, 4)})["material"][:, 0].exp()
    assert sure.min() > 0.9
    assert (lost - 0.5).abs().mean() < 0.35


def test_unknown_classes_are_named():
    latents, sigma = batch()
    with pytest.raises(ValueError, match="no attribute 'colour'; known are material, size"):
        build().log_probability(latents, sigma, "colour", "red")
    with pytest.raises(ValueError, match="material 'gold' is none of glass, wood"):
        build().log_probability(latents, sigma, "material", "gold")


def test_targets_mark_what_is_not_stated():
    targets = build().targets([{"material": "wood", "size": "small"}, {"size": "large"}])
    assert {a: t.tolist() for a, t in targets.items()} == {"material": [1, -1], "size": [2, 0]}


def test_saved_and_loaded_classifiers_agree(tmp_path):
    model = build().eval()
    model.save_pretrained(tmp_path)
    again = LatentClassifier.from_pretrained(tmp_path)
    latents, sigma = batch()
    for a, p in again(latents, sigma).items():
        assert torch.equal(p, model(latents, sigma)[a])
    assert again.classes == model.classes
