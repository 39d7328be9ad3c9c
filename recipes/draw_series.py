"""Draw real against generated series: traces, values, spectra and autocorrelation of every channel.

    python -m counterpoint.recipes.draw_series walks.csv made.csv walks.png time=timestamp group=subject drop=note
    python -m counterpoint.recipes.draw_series real.npy made.npy series.png step=0.02

Tables are those of `counterpoint train sensors`; arrays are windows `[N, L, C]`, NaN where nothing was measured.
`time=` and `group=` are guessed where they are not told; `step=` is that of the real table's rows, in seconds. Channels
that only one of the two has are left out, and so is text. More than 12 channels make several pages, `walks-1.png` ….

Legend: `N` windows, `L` steps, `C` channels.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from counterpoint.data.series_table import Channel
from counterpoint.evaluation.spectra import Band, autocorrelations, band, on_own_clock, power_spectra, segment_length
from counterpoint.modalities.clip import ClipError
from counterpoint.modalities.overview import FONT, INK, LINE, SIZE, SMALL, SOFT
from counterpoint.recipes.draw_series_files import read_pair

REAL, MADE = "#4d5b6a", "#e08a1e"
PAGE = 12  # channels
MOST = 2000  # windows of each kind
LAGS = 128
ALPHAS = (1.0, 0.55, 0.3)  # of the traces
CLOCKS = ((3 * 86400.0, 86400.0, "d"), (3 * 3600.0, 3600.0, "h"), (180.0, 60.0, "min"), (0.0, 1.0, "s"))  # from …


def pages(channels: int, path: str | Path) -> list[Path]:
    """The files that `draw` writes."""
    path, count = Path(path), -(-channels // PAGE)
    return [path] if count == 1 else [path.with_name(f"{path.stem}-{i + 1}{path.suffix}") for i in range(count)]


def draw(
    real: np.ndarray, made: np.ndarray, channels: Sequence[Channel], step: float | None, path: str | Path
) -> list[Path]:
    """A row of panels for every channel; the files written.

    Args:
        real, made: windows `[N, L, C]` in the channels' units; NaN where nothing was measured. Of more than 2,000,
            2,000 are drawn.
        channels: names, units and rates.
        step: seconds from one step to the next; None counts steps.
        path: the picture; more than 12 channels make `path-1` and so on.

    Raises:
        ClipError: windows that don't fit the channels, or without any value.
    """
    for name, windows in (("real", real), ("generated", made)):
        if windows.ndim != 3 or windows.shape[2] != len(channels):
            raise ClipError(f"{name}: {list(windows.shape)}, expected [windows, steps, {len(channels)}]")
        if np.isnan(windows).all():
            raise ClipError(f"{name}: no values to draw")
    real, made = (own[_spread(len(own), MOST)] for own in (real, made))
    written = pages(len(channels), path)
    for number, file in enumerate(written):
        part = slice(number * PAGE, (number + 1) * PAGE)
        figure = _page(real[:, :, part], made[:, :, part], channels[part], step)
        FigureCanvasAgg(figure)
        figure.savefig(file, format="png", dpi=100)
    return written


def _spread(count: int, most: int) -> np.ndarray:
    """Indices, evenly spread, `most` of them at the most."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _page(real: np.ndarray, made: np.ndarray, channels: Sequence[Channel], step: float | None) -> Figure:
    count, top, bottom, panel, gap = len(channels), 0.85, 0.6, 1.3, 0.5  # inches
    height = top + bottom + count * panel + (count - 1) * gap
    figure = Figure(figsize=(16, height), facecolor="white")
    grid = GridSpec(
        count, 5, figure, left=0.085, right=0.985, bottom=bottom / height, top=1 - top / height, wspace=0.3,
        hspace=gap / panel, width_ratios=(1.25, 1.25, 1, 1, 1),
    )  # fmt: skip
    for x, text, colour in (
        (0.012, f"real, {len(real)} windows", REAL),
        (0.2, f"generated, {len(made)} windows", MADE),
    ):
        figure.text(x, 1 - 0.28 / height, text, color=colour, size=14, weight="bold", va="center", family=FONT)
    note = "median and 10–90 % of the windows; autocorrelation: mean and 10–90 %"
    figure.text(0.985, 1 - 0.28 / height, note, color=SOFT, size=SIZE, va="center", ha="right", family=FONT)
    clock, name = _clock(step, max(real.shape[1], made.shape[1]))
    titles = ("real", "generated", "values", "power spectral density", "autocorrelation")
    labels = f"time ({name})", f"time ({name})", "", "frequency (Hz)" if name == "s" else f"frequency (1/{name})"
    axes: list[Axes] = []
    for row, channel in enumerate(channels):
        axes = [figure.add_subplot(grid[row, column]) for column in range(5)]
        _channel(axes, real[:, :, row], made[:, :, row], channel, (step or 1.0) / clock)
        unit = f"\n({channel.unit})" if channel.unit else ""
        axes[0].text(
            -0.27, 0.5, "\n".join(wrap(channel.name, 16)) + unit, transform=axes[0].transAxes, rotation=90, ha="center",
            va="center", size=SMALL, weight="bold", color=INK, family=FONT,
        )  # fmt: skip
        axes[2].set_xlabel(channel.unit, size=SMALL, color=SOFT, labelpad=1)
        axes[3].set_ylabel(_density(channel.unit, name), size=SMALL, color=SOFT, labelpad=2)
        for ax, title in zip(axes, titles, strict=True):
            _frame(ax, title if row == 0 else "")
    for ax, text in zip(axes, (*labels, f"lag ({name})"), strict=True):  # of the last row
        if text:
            ax.set_xlabel(text, size=SIZE, color=INK)
    return figure


def _density(unit: str, clock: str) -> str:
    """The unit of a power spectral density."""
    square = f"{unit}²" if unit.isalpha() else f"({unit})²" if unit else ""
    return f"{square or '1'}/Hz" if clock == "s" else f"{square}·{clock}".removeprefix("·")


def _clock(step: float | None, steps: int) -> tuple[float, str]:
    """Seconds of the unit of time that suits windows, and its name."""
    if step is None:
        return 1.0, "steps"
    return next((seconds, name) for least, seconds, name in CLOCKS if step * steps >= least)


def _channel(axes: Sequence[Axes], real: np.ndarray, made: np.ndarray, channel: Channel, step: float) -> None:
    """Traces of both, values, spectra and autocorrelations; `step` in the unit of the axes."""
    groups = []
    for own, colour in ((real, REAL), (made, MADE)):
        own = on_own_clock(own, channel.every)
        own = own[~np.isnan(own).all(axis=1)].astype(np.float64)
        groups += [(own, colour)] if len(own) else []
    if not groups:
        axes[0].text(0.5, 0.5, "no samples", transform=axes[0].transAxes, ha="center", color=SOFT, size=SIZE)
        return
    step *= channel.every
    both = np.concatenate([own[~np.isnan(own)] for own, _ in groups])
    low, high = np.quantile(both, (0.001, 0.999))
    margin = 0.06 * (high - low) or 0.5
    low, high = low - margin, high + margin
    segment = segment_length(*(own for own, _ in groups))
    lags = max(1, min(LAGS, *(own.shape[1] // 2 for own, _ in groups)))
    for own, colour in groups:
        trace = axes[0] if colour == REAL else axes[1]
        for alpha, row in zip(ALPHAS, own[_spread(len(own), len(ALPHAS))], strict=False):
            kept = ~np.isnan(row)
            shown = row if _dense(kept) else row[kept]
            times = np.arange(len(row)) if _dense(kept) else np.flatnonzero(kept)
            trace.plot(times * step, shown, color=colour, alpha=alpha, linewidth=1.1, solid_joinstyle="round")
        style = {"histtype": "stepfilled", "alpha": 0.35, "color": colour} if colour == REAL else {"histtype": "step"}
        axes[2].hist(own[~np.isnan(own)], np.linspace(low, high, 51), density=True, **{"color": colour, **style})
        frequencies, power = power_spectra(own, step, segment)
        power = np.where(power > 0, power, np.nan)
        spread = band(power[:, 1:])
        _curve(axes[3], frequencies[1:], spread.median, spread, colour)
        spread = band(autocorrelations(own, lags))
        _curve(axes[4], np.arange(lags + 1) * step, spread.mean, spread, colour)
    for ax in axes[:2]:
        ax.set_ylim(low, high)
    axes[2].set_yticks([])
    if any(np.isfinite(line.get_ydata()).any() for line in axes[3].lines):  # pyright: ignore[reportArgumentType, reportCallIssue]
        axes[3].set_yscale("log")
    axes[3].minorticks_off()
    axes[4].axhline(0, color=LINE, linewidth=0.9, zorder=0)
    axes[4].set_ylim(-1.05, 1.05)


def _dense(kept: np.ndarray) -> bool:
    """Whether most samples have a neighbour, so that gaps can be left open."""
    return bool((kept[1:] & kept[:-1]).sum() >= 0.5 * kept.sum())


def _curve(ax: Axes, x: np.ndarray, middle: np.ndarray, ends: Band, colour: str) -> None:
    ax.fill_between(x, ends.low, ends.high, color=colour, alpha=0.22, linewidth=0)
    ax.plot(x, middle, color=colour, linewidth=1.6, marker="." if len(x) < 8 else "")


def _frame(ax: Axes, title: str) -> None:
    ax.set_title(title, size=SIZE, color=INK, loc="left", family=FONT)
    ax.tick_params(length=3, labelsize=SMALL - 1, labelcolor=SOFT, color=LINE)
    for spine in ax.spines.values():
        spine.set_edgecolor(LINE)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def main(arguments: Sequence[str]) -> list[Path]:
    """REAL GENERATED PICTURE and `time=`, `group=`, `drop=`, `step=`.

    Raises:
        ClipError: anything else, files that can't be read or have no channel in common.
    """
    files = [text for text in arguments if "=" not in text]
    told = dict(text.split("=", 1) for text in arguments if "=" in text)
    unknown = next((key for key in told if key not in ("time", "group", "drop", "step")), None)
    if len(files) != 3 or unknown:
        raise ClipError(f"draw_series: {unknown}=: unknown" if unknown else "draw_series: give REAL GENERATED PICTURE")
    try:
        step = float(told["step"]) if "step" in told else None
    except ValueError:
        raise ClipError(f"step={told['step']}: expected seconds") from None
    return draw(*read_pair(Path(files[0]), Path(files[1]), told, step), files[2])


if __name__ == "__main__":
    try:
        for path in main(sys.argv[1:]):
            print(path)
    except ClipError as error:
        sys.exit(f"draw_series: {error}")
