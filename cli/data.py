"""`counterpoint data physics OUT`: training clips from the physics world, as arrays."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

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
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed makes the same clips.")] = 0,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes; 0 is this one alone.")] = 2,
) -> None:
    """Bodies that fall, roll and collide: video, sound, sensors, contact times and captions."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(17, "is there already; name a new folder", str(out))
    from rich.console import Console
    from rich.progress import track

    from counterpoint.data.arrays import write_arrays
    from counterpoint.data.physics import generate

    made: Iterable[Any] = generate(clips, split=split, seed=seed, workers=workers)
    console = Console(stderr=True)
    write_arrays(out, track(made, str(out), clips, console=console, disable=not console.is_terminal), clips)
    print(out)
