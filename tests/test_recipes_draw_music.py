"""Pictures of music: the grid of beats lies on the onsets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from counterpoint.modalities.clip import Clip, ClipError, Track
from counterpoint.recipes.draw_music import beat_grid, draw, main


def clicks(tempo: float, first: float, seconds: float = 5.12, rate: int = 16000) -> np.ndarray:
    """Short decaying tones on every beat."""
    sound, time = np.zeros(int(seconds * rate), np.float32), np.arange(1600) / rate
    for start in np.arange(first, seconds - 0.1, 60 / tempo):
        at = int(start * rate)
        sound[at : at + 1600] += (0.5 * np.exp(-time / 0.02) * np.sin(2 * np.pi * 880 * time)).astype(np.float32)
    return sound


def test_the_grid_has_the_tempo_asked_and_lies_on_the_onsets():
    grid = beat_grid(clicks(100, 0.37), 16000, 100)
    np.testing.assert_allclose(np.diff(grid), 0.6, atol=1e-9)
    assert abs(grid[0] - 0.37) < 0.04


def test_a_picture_is_drawn_of_every_clip(tmp_path: Path):
    clip = Clip(audio=Track(clicks(100, 0.37)[None], 16000.0), metadata={"prompt": "clicks, 100 bpm", "seed": 3})
    draw([clip, clip], tmp_path / "music.png")
    assert (tmp_path / "music.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ClipError, match="clip 0 has no sound"):
        draw([Clip()], tmp_path / "other.png")
    with pytest.raises(ClipError, match="give MODEL PICTURE PROMPT"):
        main(["music"])
