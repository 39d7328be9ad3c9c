"""`counterpoint data physics OUT`: training clips from the physics world, as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from counterpoint.recipes.settings import SettingsError, nearest

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
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(17, "is there already; name a new folder", str(out))
    from rich.console import Console
    from rich.progress import track

    from counterpoint.data.arrays import write_arrays
    from counterpoint.data.physics import generate
    from counterpoint.data.physics_scene import SPLITS

    if split not in SPLITS:
        raise SettingsError(f"--split: unknown split '{split}'{nearest(split, SPLITS)}")
    console = Console(stderr=True)
    made = generate(range(seed, seed + clips), split, workers)
    try:
        write_arrays(out, track(made, str(out), clips, console=console, disable=not console.is_terminal), clips)
    except BaseException:
        _remove_parts(out)
        raise
    print(out)


def _remove_parts(folder: Path) -> None:
    """Take away what an interrupted run left."""
    for part in folder.glob("*.part"):
        part.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
