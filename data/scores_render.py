"""A performance as sound: soundfont instruments, balanced and on the beat, in a room, behind a limiter.

Instruments are rendered by tinysoundfont at 48 kHz, because its linear interpolation would alias at 16 kHz, and
brought down by a polyphase filter. A soundfont's instruments differ by 20 dB and by up to 60 ms in how late they
speak: both are measured once for each instrument and made up for. No clip is normalized: soft stays soft.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import maximum_filter1d
from scipy.signal import fftconvolve, resample_poly

from ..modalities.clip import ClipError
from .scores_draw import DYNAMICS, ROOMS, Performance, rng_of, window
from .scores_instruments import INSTRUMENTS
from .scores_notes import Note, drum_notes, play

SYNTH_RATE = 48000
LOUDNESS = -23.0  # dB of full scale: the loudest 0.2 s of a note at velocity 80
CEILING = 0.97
DRUM_LEVEL = -27.0  # dB
LATEST = 0.08  # seconds


class SoundFont:
    """A soundfont file, opened for rendering; its instruments are measured when they are first used.

    Args:
        path: a .sf2 file.

    Raises:
        ClipError: no such file, not a soundfont, or tinysoundfont is not installed.
    """

    def __init__(self, path: Path | str) -> None:
        self.path, self.name = Path(path), Path(path).stem
        if not self.path.is_file():
            raise ClipError(f"{path}: no such soundfont")
        self._synth = _open_synth()
        try:
            self._id = self._synth.sfload(str(path))
        except Exception as error:  # SoundFontException, a plain Exception
            raise ClipError(f"{path}: not a soundfont ({error})") from None
        self._measured: dict[int, tuple[float, float]] = {}

    def render(self, notes: list[Note], program: int, seconds: float) -> np.ndarray:
        """Notes on one instrument as float32 `[seconds · 48000]`, mono; `program` -1 is the drum kit.

        A note's time is when its key goes down, to the sample.
        """
        synth, channel = self._synth, 9 if program < 0 else 0
        if program < 0:
            synth.program_select(channel, self._id, 128, 0, True)
        else:
            synth.program_select(channel, self._id, 0, program)
        events = [(round(note.onset * SYNTH_RATE), 1, note.pitch, note.velocity) for note in notes]
        events += [(round((note.onset + note.duration) * SYNTH_RATE), 0, note.pitch, 0) for note in notes]
        total = round(seconds * SYNTH_RATE)
        out, at = np.zeros((total, 2), np.float32), 0
        for time, down, pitch, velocity in sorted(events):
            time = min(max(time, 0), total)
            if time > at:
                out[at:time] = np.frombuffer(synth.generate(time - at), np.float32).reshape(-1, 2)
                at = time
            if down:
                synth.noteon(channel, pitch, velocity)
            else:
                synth.noteoff(channel, pitch)
        if total > at:
            out[at:] = np.frombuffer(synth.generate(total - at), np.float32).reshape(-1, 2)
        synth.sounds_off()
        synth.generate(SYNTH_RATE // 10)  # until the last voice is silent: the next call must not hear this one
        return out.mean(axis=1)

    def measure(self, program: int, low: int, high: int) -> tuple[float, float]:
        """Level (dB of full scale) and seconds until a note is heard, of an instrument in its range.

        The level is that of the loudest 0.2 s of notes at velocity 80; a note is heard when its envelope reaches a
        quarter of what it reaches in its first 0.3 s.
        """
        if program not in self._measured:
            pitches = [36, 38] if program < 0 else [round(low + (high - low) * share) for share in (0.3, 0.5, 0.7)]
            sounds = [self.render([Note(0.0, 0.7, pitch, 80)], program, 1.0) for pitch in pitches]
            self._measured[program] = (
                float(np.mean([_level(sound) for sound in sounds])),
                float(np.median([_latency(sound) for sound in sounds])),
            )
        return self._measured[program]


def render(performance: Performance, font: SoundFont, rate: int) -> tuple[np.ndarray, list[Note]]:
    """The sound of a performance, and the notes that are heard in it.

    Returns:
        float32 `[seconds · rate]` in [-1, 1]; notes in the clip's time, pitch as it sounds.
    """
    before = 0.5 + max(0.0, -_first_time(performance))  # rendered ahead of the clip: sound that rings into it
    seconds = before + performance.seconds
    mix, heard = np.zeros(round(seconds * SYNTH_RATE), np.float32), []
    for number, layer in enumerate(performance.layers):
        notes = play(performance, number)
        one = INSTRUMENTS[layer.instrument]
        level, late = font.measure(one.program, one.low, one.high)
        voices = len(performance.layers) * len(layer.parts)
        gain = LOUDNESS - level - 10 * np.log10(max(1, voices))
        mix += _decibels(gain) * font.render(_moved(notes, before - late), one.program, seconds)
        heard += notes
    if performance.drums:
        level, late = font.measure(-1, 36, 42)
        beats = _moved(drum_notes(performance), before - late)
        mix += _decibels(DRUM_LEVEL - level) * font.render(beats, -1, seconds)
    mix *= _decibels(DYNAMICS[performance.dynamics][1])
    sound = resample(mix, rate)
    sound = limit(reverberate(sound, rate, performance), rate)[round(before * rate) :]
    count = round(performance.seconds * rate)
    heard = [note for note in heard if -0.02 <= note.onset < performance.seconds]
    return np.pad(sound, (0, max(0, count - len(sound))))[:count].astype(np.float32), sorted(heard)


def resample(sound: np.ndarray, rate: int) -> np.ndarray:
    """From 48 kHz to `rate`."""
    divisor = int(np.gcd(SYNTH_RATE, rate))
    return resample_poly(sound, rate // divisor, SYNTH_RATE // divisor)


def reverberate(sound: np.ndarray, rate: int, performance: Performance) -> np.ndarray:
    """Add a room: noise that decays by 60 dB in the reverberation time, 10 to 25 ms after the direct sound."""
    time, share = ROOMS[performance.room]
    if share == 0:
        return sound
    rng = rng_of(performance.seed, performance.split, 4)
    time, share = time * rng.uniform(0.8, 1.25), share * rng.uniform(0.7, 1.3)
    t = np.arange(round(time * rate)) / rate
    response = rng.standard_normal(len(t)) * np.exp(-6.9 * t / time)
    response = fftconvolve(response, np.ones(3) / 3)[: len(t)]  # walls take the highs
    response *= np.sqrt(share / (1 - share) / (response**2).sum())
    delay = round(rng.uniform(0.01, 0.025) * rate)
    wet = np.pad(fftconvolve(sound, response), (delay, 0))[: len(sound)]
    return sound + wet


def limit(sound: np.ndarray, rate: int, ceiling: float = CEILING) -> np.ndarray:
    """Turn peaks above the ceiling down, smoothly over 10 ms, and leave everything else as it is."""
    reach = round(0.005 * rate)
    need = np.maximum(maximum_filter1d(np.abs(sound), 2 * reach + 1) / ceiling, 1.0)
    if need.max() <= 1:
        return sound
    smooth = np.hanning(2 * reach + 1)
    gain = fftconvolve(np.pad(1 / need, reach, mode="edge"), smooth / smooth.sum(), mode="valid")
    return np.clip(sound * gain, -ceiling, ceiling)


@lru_cache(maxsize=4)
def open_font(path: str) -> SoundFont:
    """A soundfont, opened once in a process."""
    return SoundFont(path)


def _open_synth() -> Any:
    try:
        from tinysoundfont import Synth
    except ImportError:
        raise ClipError("scores: tinysoundfont is not installed; docs/music-data.md says how") from None
    return Synth(gain=0, samplerate=SYNTH_RATE)


def _first_time(performance: Performance) -> float:
    return float(performance.time(window(performance)[0]))


def _moved(notes: list[Note], by: float) -> list[Note]:
    return [note._replace(onset=note.onset + by) for note in notes]


def _decibels(gain: float) -> float:
    return float(10 ** (gain / 20))


def _level(sound: np.ndarray) -> float:
    width = round(0.2 * SYNTH_RATE)
    energy = np.cumsum(sound.astype(np.float64) ** 2)
    power = (energy[width:] - energy[:-width]) / width
    return float(10 * np.log10(power.max() + 1e-9))


def _latency(sound: np.ndarray) -> float:
    envelope = maximum_filter1d(np.abs(sound[: round(0.3 * SYNTH_RATE)]), 2 * round(0.004 * SYNTH_RATE) + 1)
    # the filter looks 4 ms ahead as well as back
    first = int(np.argmax(envelope > 0.25 * envelope.max())) / SYNTH_RATE + 0.004
    return float(min(first if first > 0.0041 else 0.0, LATEST))
