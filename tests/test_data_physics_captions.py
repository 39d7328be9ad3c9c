"""Captions name every fact of the scene, and none that is not so."""

import pytest

from counterpoint.data.physics_captions import FLOOR_WORDS, MATERIAL_WORDS, SIZE_WORDS, TEMPLATES, write_captions
from counterpoint.data.physics_scene import ACTIONS, SHAPE_ACTIONS, Scene


def scene(action: str, seed: int = 0, second: str | None = None) -> Scene:
    shape = next(shape for shape, actions in SHAPE_ACTIONS.items() if action in actions)
    return Scene(seed, "train", "glass", shape, "small", "wood", action, second)


@pytest.mark.parametrize("action", ACTIONS)
def test_every_caption_states_the_facts(action):
    assert len(set(TEMPLATES[action])) >= 6
    second = "metal" if action in ("collide", "two objects") else None
    for seed in range(10):
        captions = write_captions(scene(action, seed, second), bounces=True, strikes=2)
        assert len(set(captions)) == len(captions) == 4
        for caption in captions:
            assert "glass" in caption
            assert any(word in caption for word in SIZE_WORDS["small"])
            assert any(words in caption for words in FLOOR_WORDS["wood"])
            assert second is None or any(word in caption for word in MATERIAL_WORDS["metal"])
            assert not any(mark in caption for mark in "[]{}")


@pytest.mark.parametrize("action", ["drop", "tilted drop", "throw"])
def test_only_what_bounces_is_said_to_bounce(action):
    def said(bounces: bool) -> list[str]:
        return [c for seed in range(20) for c in write_captions(scene(action, seed), bounces, strikes=0)]

    assert not any("bounc" in caption for caption in said(False))
    assert any("bounc" in caption for caption in said(True))


def test_strikes_are_counted():
    for strikes, words in ((1, "once"), (2, "twice"), (3, "3 times")):
        captions = [c for seed in range(20) for c in write_captions(scene("struck", seed), True, strikes)]
        told = [caption for caption in captions if any(w in caption for w in ("once", "twice", "times"))]
        assert told
        assert all(words in caption for caption in told)


def test_two_of_one_kind_are_told_apart():
    for caption in write_captions(scene("collide", 1, second="glass"), False, 0):
        assert "another small ball of glass" in caption or "another little ball of glass" in caption
