"""Is a seam heard where chunks of sound were joined? Each seam's discontinuity against the rest of the same sound.

Legend: `N` samples, `F` frames of 4 ms, `K` bins. Audio is mono, float, `[N]`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .music_sound import standing_out

SIZE, HOP, REACH = 0.016, 0.004, 0.016  # s: window, step, and how far from its time a seam is looked for


def discontinuity(audio: np.ndarray, rate: int) -> dict[str, np.ndarray]:
    """How much each frame differs from what the frames before it foretell, three ways, `{name: [F]}`.

    `flux`: rise of the log-magnitudes. `phase`: distance of the complex spectrum from the one that goes on with the
    same magnitudes and frequencies (Bello et al. 2004, https://doi.org/10.1109/LSP.2004.827951), over its magnitude.
    `step`: the largest curvature against both sides (`music_sound.standing_out`), what a cut waveform has.
    """
    size, hop = round(SIZE * rate), round(HOP * rate)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(audio.astype(np.float64), size // 2), size)[::hop]
    spectrum = np.fft.rfft(frames * np.hanning(size), axis=1)  # [F, K]
    size_, turn = np.abs(spectrum), np.exp(1j * np.angle(spectrum))
    foretold = size_[1:-1] * turn[1:-1] ** 2 * np.conj(turn[:-2])  # [F - 2, K]
    missed = np.abs(spectrum[2:] - foretold).sum(1) / (size_[2:].sum(1) + size_[1:-1].sum(1) + 1e-3)
    flux = np.diff(np.log(size_ + 1e-3), axis=0).clip(min=0).mean(1)
    out, _ = standing_out(audio, rate)
    step = np.lib.stride_tricks.sliding_window_view(np.pad(out, hop // 2), hop)[::hop].max(1)  # [F]
    return {
        "flux": np.pad(flux, (1, 0)),
        "phase": np.pad(missed, (2, 0)),
        "step": step[: len(frames)],
    }


def seams(audio: np.ndarray, rate: int, times: Sequence[float]) -> dict[str, np.ndarray]:
    """Where each seam's discontinuity ranks among those at all other times, `{name: [seams]}` in [0, 1].

    Without audible seams the ranks are spread evenly; at a click, a jump of phase or a change of sound the rank is near
    1. Besides the measures of `discontinuity` there is `any`, which joins their ranks (Fisher's method): a joint need
    not show in all of them.

    Args:
        audio: the joined sound.
        rate: samples a second.
        times: seconds at which chunks were joined.

    Raises:
        ValueError: a time outside the sound.
    """
    reach = round(REACH / HOP)
    measures = discontinuity(audio, rate)
    count = len(measures["flux"])
    centres = np.array([round(time / HOP) for time in times], int)
    if len(centres) and (centres.min() < 0 or centres.max() >= count):
        raise ValueError(f"seams: a time is outside the {len(audio) / rate:.2f} s of sound")
    away = np.ones(count, bool)  # from all seams, and from the ends, which are cuts themselves
    away[: 3 * reach] = away[count - 3 * reach :] = False
    for centre in centres:
        away[max(0, centre - 3 * reach) : centre + 3 * reach + 1] = False
    ranks = {}
    for name, values in measures.items():
        padded = np.pad(values, reach, mode="edge")
        ranks[name] = _ranks(np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).max(1), away)
    ranks["any"] = _ranks(-sum(np.log(1 - r + 1 / max(away.sum(), 1)) for r in ranks.values()), away)  # pyright: ignore
    return {name: rank[centres] for name, rank in ranks.items()}


def seam_report(ranks: Sequence[dict[str, np.ndarray]], level: float = 0.95) -> dict[str, float]:
    """Share of seams that stand out from 95 % of the other times, by each measure: .05 where nothing is heard."""
    names = ranks[0] if ranks else ()
    return {name: float((np.concatenate([r[name] for r in ranks]) > level).mean()) for name in names}


def _ranks(values: np.ndarray, away: np.ndarray) -> np.ndarray:
    """Share of the values elsewhere that each value exceeds."""
    elsewhere = np.sort(values[away])
    return np.searchsorted(elsewhere, values) / max(len(elsewhere), 1)
