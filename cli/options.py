"""The options that the generating commands share."""

from pathlib import Path
from typing import Annotated

import typer

Prompts = Annotated[
    list[str] | None,
    typer.Argument(metavar="PROMPT...", help="What happens in the clip; several prompts make several clips."),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE|DIR",
        help="A file for one clip (mp4 mov mkv webm, wav flac mp3, csv parquet), a folder for several. Beside a video "
        "come a CSV of the sensors and a PNG that shows the clip. (default: this folder)",
    ),
]
NegativePrompt = Annotated[
    str | None, typer.Option("--negative-prompt", metavar="TEXT", help="What the clip should keep away from.")
]
Steps = Annotated[
    int | None,
    typer.Option("--steps", min=1, help="Denoising steps: more is slower and better. (default: the model's)"),
]
Guidance = Annotated[
    str | None,
    typer.Option(
        "--guidance",
        metavar="SCALE",
        help="How closely to follow the prompt: 3, or audio=3,video=2,sensor=2. (default: the model's)",
    ),
]
Seconds = Annotated[
    float | None, typer.Option("--seconds", min=0.01, help="Length of the clip. (default: the model's)")
]
Seed = Annotated[
    str | None,
    typer.Option("--seed", metavar="N|N-M", help="The same seed makes the same clip; 0-7 makes eight. (default: 0)"),
]
Tracks = Annotated[
    str | None,
    typer.Option("--tracks", metavar="TRACK,...", help="Which of audio, video and sensor to make."),
]
PromptFile = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        metavar="FILE",
        help="A prompt a line, each with options of its own: a wooden block falls --seed 3 --guidance 2",
    ),
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME|DIR", help="A shipped model (see `models`) or a folder. (default: joint)"),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
Dtype = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", "--force", help="Write over files that are there already.")]
Source = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help="Run a generated file again: its prompt, seed, settings and model, except what other options say.",
    ),
]
