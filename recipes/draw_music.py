"""Draw music as mel spectrograms with the beats of the tempo that was asked for, and write the sounds beside.

    python -m counterpoint.recipes.draw_music music docs/music.png "a slow piece for solo cello in D minor, 66 bpm" …

The grid of beats has the tempo of the prompt (`66 bpm`, `tempo=66`), not of the sound; only its first beat is fitted,
to where the onsets are strongest. Sound that keeps the tempo has its onsets on the lines from the first to the last.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from counterpoint.diffusion.pipeline import CounterpointPipeline
from counterpoint.evaluation.music_rhythm import FRAMES, onset_envelope
from counterpoint.modalities.audio import SoundGrid, mel_spectrogram
from counterpoint.modalities.clip import Clip, ClipError
from counterpoint.modalities.music_terms import asked_tempo


def beat_grid(audio: np.ndarray, rate: int, tempo: float) -> np.ndarray:
    """Times in seconds of all beats at `tempo` in a sound `[N]`, the first where the onsets are strongest."""
    envelope = onset_envelope(audio, rate)  # [F], 100 frames a second
    period = 60 * FRAMES / tempo
    grids = [np.arange(first, len(envelope) - 1, period) for first in range(max(1, round(period)))]
    best = max(grids, key=lambda grid: float(envelope[grid.round().astype(int)].mean()))
    return best / FRAMES


def draw(clips: Sequence[Clip], path: Path) -> None:
    """One panel a clip, 80 dB deep; the title is its prompt.

    Raises:
        ClipError: a clip without sound.
    """
    figure = Figure(figsize=(14, 2.6 * len(clips)), layout="constrained")
    for row, clip in enumerate(clips):
        if clip.audio is None:
            raise ClipError(f"{path}: clip {row} has no sound")
        prompt, rate = str(clip.metadata.get("prompt", "")), int(clip.audio.rate)
        sound, axes = clip.audio.values[0], figure.add_subplot(len(clips), 1, row + 1)
        grid = SoundGrid(rate)
        whole = torch.from_numpy(sound[: len(sound) // grid.hop * grid.hop])[None, None]  # [1, 1, N]
        levels = mel_spectrogram(whole, grid)[0].numpy() * 20 / np.log(10)  # [128, F] in dB
        extent = (0.0, len(sound) / rate, 0.0, len(levels))
        peak = float(levels.max())
        axes.imshow(levels, origin="lower", aspect="auto", cmap="magma", vmin=peak - 80, vmax=peak, extent=extent)
        tempo = asked_tempo(prompt)
        for beat in () if tempo is None else beat_grid(sound, rate, tempo):
            axes.axvline(beat, color="white", linewidth=0.8, linestyle=(0, (4, 4)), alpha=0.8)
        axes.set_title(f"{prompt} (seed {clip.metadata.get('seed', '?')})", loc="left", size=11)
        axes.set_yticks([])
        axes.set_ylabel("mel bands")
    figure.axes[-1].set_xlabel("seconds; dashed: the beats of the tempo in the prompt")
    figure.savefig(path, dpi=64)


def main(arguments: Sequence[str]) -> list[Path]:
    """MODEL PICTURE PROMPT…: the picture, and a `.wav` of each prompt beside it."""
    if len(arguments) < 3:
        raise ClipError("draw_music: give MODEL PICTURE PROMPT…")
    model, picture, prompts = arguments[0], Path(arguments[1]), list(arguments[2:])
    clips = CounterpointPipeline.from_pretrained(model)(prompts, seed=0, tracks=["audio"])
    draw(clips, picture)
    sounds = [picture.with_name(f"{picture.stem}-{i}.wav") for i in range(len(clips))]
    for clip, path in zip(clips, sounds, strict=True):
        clip.save(path, overwrite=True)
    return [picture, *sounds]


if __name__ == "__main__":
    for written in main(sys.argv[1:]):
        print(written)
