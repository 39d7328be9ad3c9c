"""The options that the generating commands share."""

from pathlib import Path
from typing import Annotated

import typer

Prompts = Annotated[
    list[str] | None,
    typer.Argument(metavar="PROMPT...", help="What happens in the clip; several prompts make several clips."),
]
MusicPrompts = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PROMPT...",
        help="What is played, e.g. a slow sad piece for solo cello in D minor, 66 bpm; several make several clips.",
    ),
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
MusicOutput = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE|DIR",
        help="A file for one clip (wav flac mp3), a folder for several. (default: this folder)",
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
    float | None,
    typer.Option("--seconds", min=0.01, help="Length of the clip. (default: that of what is given, or the model's)"),
]
Seed = Annotated[
    str | None,
    typer.Option("--seed", metavar="N|N-M", help="The same seed makes the same clip; 0-7 makes eight. (default: 0)"),
]
BestOf = Annotated[
    int | None,
    typer.Option(
        "--best-of",
        metavar="N",
        min=1,
        help="Make N clips for each that is wanted, and keep the one whose tracks keep time best. (default: 1)",
    ),
]
Tracks = Annotated[
    str | None,
    typer.Option("--tracks", metavar="TRACK,...", help="Which of audio, video and sensor to make."),
]
Given = Annotated[
    list[str] | None,
    typer.Option(
        "--given",
        metavar="[TRACK=]FILE",
        help="What the clip has already, e.g. video=in.mp4 or sensor=log.csv; a file alone gives all its tracks. The "
        "rest is made to fit. What a sensor did not measure (NaN) is filled in. May be given several times.",
    ),
]
Continue = Annotated[
    list[Path] | None,
    typer.Option(
        "--continue", metavar="FILE", help="Go on where this clip ends, up to --seconds; a CSV may be added to a video."
    ),
]
MusicContinue = Annotated[
    Path | None,
    typer.Option("--continue", metavar="FILE", help="Go on where this music ends, up to --seconds (the whole length)."),
]
Fill = Annotated[
    str | None,
    typer.Option("--fill", metavar="FROM-TO", help="Make this stretch of the --given clip anew, e.g. 0.8-1.6."),
]
MusicFill = Annotated[
    tuple[Path, str] | None,
    typer.Option("--fill", metavar="FILE FROM-TO", help="Make a stretch of this music anew, e.g. in.wav 4.0-7.5."),
]
Vary = Annotated[
    list[Path] | None,
    typer.Option("--vary", metavar="FILE", help="Make another clip like this one; a CSV may be added to a video."),
]
MusicVary = Annotated[
    Path | None,
    typer.Option("--vary", metavar="FILE", help="Make other music like this; --strength says how far from it."),
]
MusicPromptFile = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        metavar="FILE",
        help="A prompt a line, each with options of its own: a reel for two violins --seed 3 --seconds 8; with "
        "--stream one prompt, which is read again while it plays.",
    ),
]
MusicGuidance = Annotated[
    str | None,
    typer.Option("--guidance", metavar="SCALE", help="How closely to follow it, e.g. 3. (default: the model's)"),
]
Obey = Annotated[
    float | None,
    typer.Option(
        "--obey",
        min=0.0,
        metavar="SCALE",
        help="How strongly tempo, key and ending of the prompt lead the music; 0 leaves them to the network. "
        "(default: the model's)",
    ),
]
MusicGuide = Annotated[
    list[str] | None,
    typer.Option(
        "--guide",
        metavar="KIND...",
        help="Lead the music further, e.g. loudness=swell.wav or classifier-free:3:interval=0.2-0.8. May be given "
        "several times.",
    ),
]
Strength = Annotated[
    float | None,
    typer.Option(
        "--strength",
        metavar="SHARE",
        help="How much of the --vary clip is changed: above 0, up to 1, of which nothing is kept. (default: 0.5)",
    ),
]
Stream = Annotated[
    bool,
    typer.Option(
        "--stream",
        help="Endless music: into -o FILE.wav, a pipe or a player, until --seconds or Ctrl-C.",
    ),
]
Loop = Annotated[bool, typer.Option("--loop", help="The end leads back into the beginning.")]
Guide = Annotated[
    list[str] | None,
    typer.Option(
        "--guide",
        metavar="KIND...",
        help="Lead the clip further, e.g. isolation:1.5 or events=0.5,1.4. May be given several times.",
    ),
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
MusicModel = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME|DIR", help="A shipped model (see `models`) or a folder. (default: music)"),
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
