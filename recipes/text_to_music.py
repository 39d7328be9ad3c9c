"""Train text-to-music: the joint recipe with sound alone, 10.24 s = 64 slots of 4 tokens.

    counterpoint train text_to_music preset=small data=DATA codecs=runs/codecs/codecs run=runs/music

The same network, grid of noise levels, training loop and run folder as `recipes/joint.py`; settings are that recipe's.
Continuing, filling a gap, varying and looping are choices of the grid (a prefix, a segment, all slots lightly, both
ends known), which training draws more often here than for the joint model.

What DATA must hold (`counterpoint data music DATA`): `audio.npy` float16 `[N, 163840]` at 16 kHz, `sensors.json` with
the tracks, and `clips.json`, whose entries have `captions`, of which one is drawn at each step. With `--rate 24000`,
`[N, 245760]`, and codecs trained on these data, the same commands make a model of 24 kHz: tokens and network are alike.

Ends are endings: a share of the windows (a tenth to a fifth) holds the end of a piece, as it rings out, followed by
silence up to the window's end. A caption of such a window may say so, and where (`with an ending`, `8 seconds long`,
`ends=8.2`); a caption of a window that is cut out of the middle may say that it does not end (`without an ending`,
`ends=no`), which is what `--loop` asks for. A shorter piece is a window whose music ends early: sample all 64 slots
and cut at the length that was asked for. The network needs nothing else for that: no duration embedding.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from counterpoint.diffusion.noise_levels import GridMixture
from counterpoint.diffusion.training import LossSettings, OptimizerSettings
from counterpoint.recipes import joint
from counterpoint.recipes.audio_codec import check_rate
from counterpoint.recipes.joint import ModelSettings, Settings, codecs_folder, parameters

SECONDS = 10.24
PROMPTS = (
    "a slow sad piece for solo cello in D minor, 66 bpm",
    "a fast reel for violin and guitar with drums in G major, 120 bpm",
    "a chorale for organ in C major, 80 bpm",
    "tempo=100 key=A instrument=flute meter=3/4",
)

FEATURES = ("states", "words", "numbers")  # a tempo and a tonic are words, and what stands around them matters less

GUIDANCE = 3.0  # of 2, 3, 4 and 6 on 32 prompts: the loudness of real renderings; tempo and key suffer from more
OBEY = 40.0  # of 20, 30 and 50 on 16 prompts: tempo and key right as often as in real renderings, instruments kept

# One modality: nothing to draw apart or to isolate; prefixes, gaps and loops instead of known rows.
LOSS = LossSettings(
    mixture=GridMixture(shared=0.7, per_modality=0.0, per_segment=0.1, clean_rows=0.0, clean_segment=0.2, location=0.3),
    weights={"audio": 1.0},
    motion=0.0,
    drop_modality=0.0,
    isolate=0.0,
)


def _music(preset: Settings, **changes: Any) -> Settings:
    said = {"text_length": 64, "text_features": FEATURES, "prompts": PROMPTS}
    return replace(
        preset,
        codecs="music",
        loss=LOSS,
        seconds=SECONDS,
        whole=True,
        guidance=GUIDANCE,
        isolation=1.0,
        parallel=1.0,
        obey=OBEY,
        **said,
        **changes,
    )


def tiny() -> Settings:
    """For tests: 0.1 million parameters, seconds."""
    return _music(joint.tiny())


def small() -> Settings:
    """What ships: 256 wide, 6 deep."""
    optimizer = OptimizerSettings(lr=2e-2, adamw_lr=2e-3, warmup=100, cooldown=0.5)
    model = ModelSettings(width=256, depth=6, heads=4, text_modulation=True)
    return _music(joint.small(), model=model, optimizer=optimizer)


def base() -> Settings:
    """A day on one GPU: 768 wide, 12 deep."""
    return _music(joint.base())


def train(settings: Settings, data: Path, run: Path) -> Path:
    """Trains or goes on training, as `joint.train`; a ClipError where the codecs are of another rate than the data."""
    check_rate(codecs_folder(settings.codecs) / "audio_codec", data)
    return joint.train(settings, data, run)


PRESETS = {"tiny": tiny, "small": small, "base": base}

__all__ = ["PRESETS", "Settings", "base", "parameters", "small", "tiny", "train"]
