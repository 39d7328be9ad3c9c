"""The command `counterpoint`: what a person types. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

from counterpoint.cli import data, evaluate, generate, likelihood, models, sensors, text_to_music, train

app = typer.Typer(
    name="counterpoint",
    help="Audio, video and sensor signals that keep time with one another, generated from a sentence.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.command("generate")(generate.generate)
app.command("text-to-video")(generate.text_to_video)
app.command("text-to-music")(text_to_music.text_to_music)
app.command("sensors")(sensors.sensors)
app.command("models")(models.models)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("likelihood")(likelihood.likelihood)
app.add_typer(data.app, name="data")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"counterpoint {version('counterpoint')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 a mistake of the caller's (one line on stderr), 130 Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    command = typer.main.get_command(app)
    try:
        code = command.main(arguments or ["--help"], prog_name="counterpoint", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        print(f"counterpoint: error: {_one_line(error)}", file=sys.stderr)
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


def _one_line(error: Exception) -> str:
    """What a person reads; an error that is no mistake of the caller's is raised again, with its traceback."""
    if hasattr(error, "format_message"):  # a usage error of the command line's own
        text = error.format_message()  # pyright: ignore[reportAttributeAccessIssue]
    elif isinstance(error, OSError) and error.filename is not None:
        reason = error.strerror or "can't be used"
        text = f"{error.filename}: {reason[:1].lower()}{reason[1:]}"
    elif isinstance(error, OSError) or (isinstance(error, ValueError) and _is_ours(error)):
        text = str(error)
    else:
        raise error
    return " ".join(text.split())


def _is_ours(error: Exception) -> bool:
    """Whether the package raised it, rather than a library that the package calls."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return frames[-1].f_globals.get("__name__", "").startswith("counterpoint.")
