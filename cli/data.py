"""`counterpoint data physics|music|folder OUT`: training clips as arrays; `data har`: a public data set as a table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from counterpoint.recipes.settings import SettingsError, nearest

if TYPE_CHECKING:
    from counterpoint.modalities.clip import Clip

app = typer.Typer(help="Make training data.")


@app.callback()
def _data() -> None:
    pass


@app.command("physics")
def physics(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    clips: Annotated[int, typer.Option("--clips", min=1, help="How many clips.")] = 1000,
    split: Annotated[
        str, typer.Option("--split", help="train, test (other seeds) or unseen (combinations never in train).")
    ] = "train",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the first clip; the next has the next number.")] = 0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that share the work.")] = 2,
) -> None:
    """Bodies that fall, roll and collide: video, sound, sensors, contact times and captions."""
    _check_new(out)
    from counterpoint.data.physics import generate
    from counterpoint.data.physics_scene import SPLITS

    if split not in SPLITS:
        raise SettingsError(f"--split: unknown split '{split}'{nearest(split, SPLITS)}")
    _write(out, generate(range(seed, seed + clips), split, workers), clips)


@app.command("scores")
def scores(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="Where to keep them; default: the user's cache.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that share the work.")] = 2,
) -> None:
    """Parse the scores of `data music` once: Bach, O'Neill, Ryan (about 4 CPU-minutes; an interrupted run goes on)."""
    from counterpoint.data.scores_corpus import summary

    _parse_scores(folder, workers)
    for collection, counts in summary(folder).items():
        print(f"{collection}: " + ", ".join(f"{count} {reason}" for reason, count in counts.items()))


@app.command("music")
def music(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    clips: Annotated[int, typer.Option("--clips", min=1, help="How many clips.")] = 1000,
    split: Annotated[
        str, typer.Option("--split", help="train, test (other pieces) or unseen (and combinations never in train).")
    ] = "train",
    seconds: Annotated[float, typer.Option("--seconds", min=1, max=60, help="Length of a clip.")] = 10.24,
    rate: Annotated[int, typer.Option("--rate", help="Samples a second: 16000 or 24000.")] = 16000,
    soundfont: Annotated[
        list[Path] | None,
        typer.Option("--soundfont", help="A .sf2 file; more than one are mixed. Default: those found."),
    ] = None,
    scores: Annotated[Path | None, typer.Option("--scores", help="Folder of the parsed scores.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the first clip; the next has the next number.")] = 0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that share the work.")] = 2,
) -> None:
    """Public-domain scores on soundfont instruments, with captions, beats and notes (docs/music-data.md)."""
    _check_new(out)
    from counterpoint.data.scores import SPLITS, Music, find_soundfonts, generate

    if split not in SPLITS:
        raise SettingsError(f"--split: unknown split '{split}'{nearest(split, SPLITS)}")
    fonts = tuple(map(str, soundfont)) if soundfont else find_soundfonts()
    settings = Music(split, seconds, rate, fonts, None if scores is None else str(scores))
    _parse_scores(scores, workers)
    _write(out, generate(range(seed, seed + clips), settings, workers), clips)


@app.command("folder")
def folder(
    recordings: Annotated[
        Path, typer.Argument(metavar="RECORDINGS", help="A folder with .mp4, .wav and .csv files side by side.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
) -> None:
    """Your own recordings, cut into clips of 2.56 s at 25 fps, 64×64 pixels, 16 kHz and 100 Hz (docs/training.md)."""
    _check_new(out)
    from counterpoint.data.folder import FolderClips
    from counterpoint.modalities.clip import Clock

    clips = FolderClips(recordings, Clock())
    _write(out, clips, len(clips))


@app.command("har")
def har(
    archive: Annotated[
        Path, typer.Argument(metavar="ARCHIVE", help="The data set's .tar.xz or .zip (DOI 10.5281/zenodo.8398688).")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The .csv or .parquet to make.")],
) -> None:
    """Phone and watch worn together, five activities, as one table for `train sensors` (docs/sensors.md)."""
    _check_new(out)
    from counterpoint.data.har import convert

    rows, executions = convert(archive, out)
    print(f"{out}: {rows} rows, {executions} executions")


def _check_new(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(17, "is there already; name a new folder", str(out))


def _parse_scores(folder: Path | None, workers: int) -> None:
    """Parse what is missing of the scores under a progress bar."""
    from rich.console import Console
    from rich.progress import Progress

    from counterpoint.data.scores_corpus import parse_all

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bars: dict[str, Any] = {}

        def report(collection: str, done: int, total: int) -> None:
            if collection not in bars:
                bars[collection] = progress.add_task(f"scores: {collection}", total=total)
            progress.update(bars[collection], completed=done)

        parse_all(folder, workers, report)


def _write(out: Path, clips: Iterable[Clip], count: int) -> None:
    """Write `count` clips under a progress bar and print the folder; an interrupted run leaves nothing."""
    from rich.console import Console
    from rich.progress import track

    from counterpoint.data.arrays import write_arrays

    console = Console(stderr=True)
    try:
        write_arrays(out, track(clips, str(out), count, console=console, disable=not console.is_terminal), count)
    except BaseException:
        _remove_parts(out)
        raise
    print(out)


def _remove_parts(out: Path) -> None:
    """Take away what an interrupted run left in a folder that it began with nothing in it."""
    if (out / "clips.json").exists():
        return
    for name in ("video.npy", "audio.npy", "sensor.npy", "sensors.json", "clips.json"):
        for part in (out / name, out / f"{name}.part"):
            part.unlink(missing_ok=True)
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
