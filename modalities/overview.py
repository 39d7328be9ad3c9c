"""A clip as one picture: frames, waveform, mel spectrogram and every sensor above one time axis.

Events are vertical lines through all panels. Drawn with matplotlib's object-oriented interface: no window, no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from textwrap import shorten, wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from .clip import Clip, ClipError, Track, comment

WIDTH, DPI = 16.0, 100  # inches, so 1600 pixels
LEFT, RIGHT = 1.45, 1.25  # margins in inches: the panel's name and scale, the legend
INK, SOFT, LINE, EVENT = "#1f2933", "#7b8794", "#cbd2d9", "#d64550"
COLOURS = ("#2f6fb0", "#e08a1e", "#3a9d6e", "#8a5fb5", "#b5485d", "#4d5b6a")
TITLES = {"video": "Video", "audio": "Audio", "mel": "Mel spectrogram"}
HEIGHTS = {"audio": 1.25, "mel": 2.35}  # inches; a sensor's panel takes 1.45
FONT = "DejaVu Sans"  # comes with matplotlib
SIZE, SMALL = 11, 10  # points


def overview(clip: Clip, path: str | Path, events: Sequence[float] | None = None, title: str | None = None) -> None:
    """Draws `clip` into a PNG, 1600 pixels wide; its metadata goes into the text chunk `Comment`.

    Args:
        clip: any tracks, at least one.
        path: the PNG to write.
        events: times in seconds of the vertical lines; None takes the clip's own.
        title: a heading; None takes the prompt from the metadata.

    Raises:
        ClipError: a clip without tracks.
    """
    if not clip.tracks:
        raise ClipError(f"{path}: the clip has no tracks to draw")
    figure = draw(clip, clip.events if events is None else events, title)
    FigureCanvasAgg(figure)
    text, fast = {"Comment": comment(clip)}, {"compress_level": 3}  # 0.2 s less than level 6, 15 % more bytes
    figure.savefig(path, format="png", dpi=DPI, metadata=text, pil_kwargs=fast)


def draw(clip: Clip, events: Sequence[float] = (), title: str | None = None) -> Figure:
    """The figure that `overview` saves."""
    begin = min(0.0, *(t.start for t in clip.tracks.values()))
    span = (begin, clip.duration)
    width = WIDTH - LEFT - RIGHT
    heights = _heights(clip, width)
    heading = _heading(title or str(clip.metadata.get("prompt", "")))
    top, gap, bottom = 0.35 + 0.3 * len(heading), 0.16, 0.75
    total = top + bottom + sum(heights.values()) + gap * (len(heights) - 1)
    figure = Figure(figsize=(WIDTH, total), facecolor="white")
    for row, line in enumerate(heading):
        figure.text(
            LEFT / WIDTH, 1 - (0.22 + 0.3 * row) / total, line, size=16, weight="bold", va="top", color=INK, family=FONT
        )
    y, axes = total - top, {}
    for name, height in heights.items():
        y -= height
        axes[name] = figure.add_axes((LEFT / WIDTH, y / total, width / WIDTH, height / total))
        y -= gap
    for name, ax in axes.items():
        _panel(ax, name, clip, span, width / heights[name])
        _frame(ax, name, span, last=name == list(axes)[-1], events=events)
    if len(events):
        lowest = list(axes.values())[-1]
        lowest.text(1.012, -0.02, "┆ event", color=EVENT, transform=lowest.transAxes, va="top", size=SMALL)
    return figure


def _heading(text: str) -> list[str]:
    """Lines of the title; a letter that the font lacks becomes a box."""
    known = get_font(findfont(FONT)).get_charmap()
    text = "".join(c if ord(c) in known else "□" for c in shorten(text, 200, placeholder=" …"))
    return wrap(text, 100)


def _heights(clip: Clip, width: float) -> dict[str, float]:
    heights = {"video": width / 16} if clip.video is not None else {}
    heights |= HEIGHTS if clip.audio is not None else {}
    sensors = [name for name in clip.tracks if name in clip.sensor]
    return heights | {name: 1.45 if len(sensors) <= 4 else max(0.7, 6 / len(sensors)) for name in sensors}


def _panel(ax: Axes, name: str, clip: Clip, span: tuple[float, float], aspect: float) -> None:
    if name == "video" and clip.video is not None:
        _strip(ax, clip.video, span, aspect)
    elif name == "audio" and clip.audio is not None:
        _waveform(ax, clip.audio)
    elif name == "mel" and clip.audio is not None:
        _mel(ax, clip.audio)
    else:
        _lines(ax, clip.sensor[name])


def _frame(ax: Axes, name: str, span: tuple[float, float], last: bool, events: Sequence[float]) -> None:
    """What all panels share: the time axis, the name at the left, the events."""
    ax.set_xlim(span)
    ax.set_ylabel("")
    ax.text(
        -0.062, 0.5, TITLES.get(name, name.replace("_", " ").capitalize()).replace(" ", "\n"),
        transform=ax.transAxes, rotation=90, ha="center", va="center", weight="bold", linespacing=1.25, size=SIZE,
        color=INK,
    )  # fmt: skip
    ax.tick_params(length=3, labelbottom=last, bottom=last, labelsize=SIZE, labelcolor=SOFT, color=LINE)
    for spine in ax.spines.values():
        spine.set_edgecolor(LINE)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    if name == "video":
        for spine in ax.spines.values():
            spine.set_visible(False)
        ax.set_yticks([])
    if last:
        ax.set_xlabel("time (s)", size=SIZE, color=INK)
    for time in events:
        colour = "white" if name == "mel" else EVENT
        ax.axvline(time, color=colour, linewidth=1.1, linestyle=(0, (4, 3)), alpha=0.9, zorder=5)


def _strip(ax: Axes, track: Track, span: tuple[float, float], aspect: float) -> None:
    """Frames side by side without distortion; each shows the middle of the time that it covers."""
    _, height, width, _ = track.values.shape
    tiles = max(1, round(aspect * height / width))
    edges = np.linspace(*span, tiles + 1)
    for left, right in pairwise(edges):
        position = ((left + right) / 2 - track.start) * track.rate
        if not -0.5 <= position <= track.samples:
            continue
        image = track.values[min(track.samples - 1, max(0, int(np.floor(position + 0.5))))]
        pad = (right - left) * 0.015
        ax.imshow(image, extent=(left + pad, right - pad, 0, 1), aspect="auto", interpolation="lanczos", zorder=1)
    ax.set_ylim(0, 1)


def _waveform(ax: Axes, track: Track, columns: int = 2600) -> None:
    """The envelope, least and greatest per column; channels are averaged."""
    mono = track.values.mean(0)
    step = max(1, len(mono) // columns)
    n = len(mono) // step
    blocks = mono[: n * step].reshape(n, step)
    times = track.start + (np.arange(n) * step + (step - 1) / 2) / track.rate
    ax.fill_between(times, blocks.min(1), blocks.max(1), color=COLOURS[0], linewidth=0.6, step="mid")
    peak = float(np.abs(mono).max())
    limit = max(0.05, 1.08 * peak) if np.isfinite(peak) else 1.0
    ax.set_ylim(-limit, limit)
    ax.axhline(0, color=LINE, linewidth=0.6, zorder=0)


def _mel(ax: Axes, track: Track, bands: int = 128, floor: float = -80.0) -> None:
    """Power in Slaney mel bands, dB below the loudest; the axis tells the frequency in Hz."""
    import torch
    from torchaudio.transforms import MelSpectrogram

    rate = round(track.rate)
    fft = 2 ** round(np.log2(max(64, rate * 0.064)))  # 64 ms, at 16 kHz 1024 samples
    hop = max(1, round(max(rate * 0.005, track.samples / 2000)))
    mel = MelSpectrogram(
        rate, fft, hop_length=hop, win_length=fft // 2, n_mels=bands, norm="slaney", mel_scale="slaney",
        pad_mode="constant",
    )  # fmt: skip
    power = mel(torch.from_numpy(track.values.mean(0, dtype=np.float32))).numpy()  # [bands, columns]
    loudest = max(float(power.max()), 1e-10)
    level = 10 * np.log10(np.maximum(power / loudest, 10 ** (floor / 10)))
    half = hop / rate / 2
    extent = (track.start - half, track.start + (power.shape[1] - 1) * hop / rate + half, 0, bands)
    image = ax.imshow(
        level, origin="lower", extent=extent, aspect="auto", cmap="magma", vmin=floor, vmax=0, interpolation="bilinear"
    )
    ticks = [f for f in (250, 500, 1000, 2000, 4000, 8000, 16000) if f <= rate / 2]
    ax.set_yticks([_slaney(f) / _slaney(rate / 2) * bands for f in ticks])
    ax.set_yticklabels([f"{f // 1000} kHz" if f >= 1000 else f"{f} Hz" for f in ticks])
    figure = ax.get_figure()
    assert isinstance(figure, Figure)
    box = ax.get_position()
    bar = figure.add_axes((box.x1 + 0.012, box.y0 + 0.06 * box.height, 0.007, 0.82 * box.height))
    figure.colorbar(image, cax=bar, ticks=[floor, floor / 2, 0])
    bar.tick_params(length=2, labelsize=SMALL, labelcolor=SOFT, color=LINE)
    bar.set_title("dB", size=SMALL, loc="left", pad=5, color=SOFT)


def _slaney(hertz: float) -> float:
    """Hz → Slaney's mel: linear up to 1000 Hz, logarithmic above."""
    return 3 * hertz / 200 if hertz < 1000 else 15 + 27 * float(np.log(hertz / 1000) / np.log(6.4))


def _lines(ax: Axes, track: Track) -> None:
    """Channels as lines with a legend and units; what was not measured is a gap."""
    times = track.times()
    for c, row in enumerate(track.values):
        shown = row if track.mask is None else np.where(track.mask[c], row, np.nan)
        label = track.names[c] if track.names else str(c)
        ax.plot(times, shown, color=COLOURS[c % len(COLOURS)], linewidth=1.4, label=label, solid_joinstyle="round")
    ax.grid(axis="y", color="#e4e7eb", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.margins(y=0.1)
    units = sorted(set(filter(None, track.units)))
    ax.legend(
        loc="upper left", bbox_to_anchor=(1.004, 1.06), frameon=False, handlelength=1.1, labelspacing=0.3,
        title=", ".join(units) or None, alignment="left", ncols=1 if len(track.values) <= 4 else 2, fontsize=SMALL,
        title_fontsize=SIZE, labelcolor=INK,
    )  # fmt: skip
