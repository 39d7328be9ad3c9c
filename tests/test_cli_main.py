"""The flags of every command, frozen; and how the command line ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from counterpoint.cli.main import app

GENERATE = {
    "prompts", "--output", "-o", "--negative-prompt", "--steps", "--guidance", "--seconds", "--seed", "--tracks",
    "--prompts", "--from", "--model", "--device", "--dtype", "--overwrite", "--force",
    "--given", "--continue", "--fill", "--vary", "--strength", "--loop", "--guide", "--best-of",
}  # fmt: skip
FLAGS = {
    "": {"--version"},
    "generate": GENERATE,
    "text-to-video": GENERATE,
    "text-to-music": GENERATE - {"--tracks", "--given", "--best-of"} | {"--stream", "--obey"},
    "sensors": {
        "model",
        "prompt",
        "--output",
        "-o",
        "--count",
        "--length",
        "--seconds",
        "--label",
        "--static",
        "--guidance",
        "--seed",
        "--steps",
        "--complete",
        "--forecast",
        "--ahead",
        "--ensemble",
        "--quantiles",
        "--drop",
        "--against",
        "--plot",
        "--device",
        "--overwrite",
        "--force",
    },
    "models": set(),
    "train": {"recipe", "settings", "--dry-run"},
    "evaluate": {
        "model",
        "--json",
        "--prompts",
        "--seed",
        "--data",
        "--steps",
        "--guidance",
        "--guide",
        "--obey",
        "--best-of",
        "--overwrite",
        "--force",
        "--set",
        "--length",
        "--generator",
        "--windows",
        "--work",
        "--test",
    },
    "likelihood": {
        "files",
        "--track",
        "--given",
        "--method",
        "--steps",
        "--probes",
        "--levels",
        "--seed",
        "--prompt",
        "--shift-search",
        "--step",
        "--model",
        "--device",
        "--json",
        "--overwrite",
        "--force",
    },
    "data": set(),
    "data folder": {"recordings", "out"},
    "data har": {"archive", "out"},
    "data physics": {"out", "--clips", "--split", "--seed", "--workers"},
    "data scores": {"folder", "--workers"},
    "data music": {
        "out",
        "--clips",
        "--split",
        "--seconds",
        "--rate",
        "--soundfont",
        "--scores",
        "--seed",
        "--workers",
    },
}


def flags(command, name=""):
    yield name, {option for parameter in command.params for option in parameter.opts} - {"--help", "-h"}
    for child, inner in getattr(command, "commands", {}).items():
        yield from flags(inner, f"{name} {child}".strip())


def test_flags_are_frozen():
    """Whoever adds or takes away a flag changes this list too."""
    assert dict(flags(typer.main.get_command(app))) == FLAGS


def test_every_flag_explains_itself():
    def check(command):
        for parameter in command.params:
            assert parameter.help, f"{command.name}: {parameter.name}"
        for child in getattr(command, "commands", {}).values():
            assert child.help
            check(child)

    check(typer.main.get_command(app))


@pytest.mark.parametrize("name", [name for name in FLAGS if name])
def test_help(run, name):
    code, out, err = run(*name.split(), "--help")
    assert (code, err) == (0, "")
    assert "Usage: counterpoint" in out


def test_no_arguments_is_help(run):
    code, out, _ = run()
    assert code == 0
    assert "text-to-video" in out


@pytest.mark.parametrize(
    ("arguments", "culprits"),
    [
        (["generat"], ["generat", "generate"]),
        (["generate", "a ball", "--sede", "3"], ["--sede", "--seed"]),
        (["generate", "a ball", "--steps", "0"], ["--steps"]),
        (["generate", "a ball", "--steps", "many"], ["--steps", "integer"]),
        (["train"], ["RECIPE"]),
        (["evaluate", "joint", "--prompts", "1"], ["--prompts"]),
    ],
)
def test_usage_errors_are_one_line_that_names_the_culprit(refuse, arguments, culprits):
    message = refuse(*arguments)
    assert [culprit for culprit in culprits if culprit not in message] == []


def test_ctrl_c_is_130_without_a_traceback(run, monkeypatch):
    from counterpoint.cli import models

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "shipped", interrupt)
    code, out, err = run("models")
    assert (code, out) == (130, "")
    assert "Traceback" not in err


def test_an_error_of_a_library_keeps_its_traceback(monkeypatch):
    """Only what the package itself refuses is a person's mistake; a ValueError from elsewhere is a defect."""
    import json

    from counterpoint.cli import main, models

    monkeypatch.setattr(models, "shipped", lambda: json.loads("{"))
    with pytest.raises(json.JSONDecodeError):
        main.main(["models"])


def test_models_lists_what_ships(run, monkeypatch, tmp_path):
    from counterpoint.cli import models

    folder = tmp_path / "bell"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Bell\n\nRings when told to.\n")
    (folder / "scores.json").write_text('{"sync": {"audio-video": {"generated": {"f1": 0.875}}}}')
    (folder / "x.safetensors").write_bytes(bytes(3_000_000))
    monkeypatch.setattr(models, "files", lambda _: tmp_path)
    code, out, _ = run("models")
    assert code == 0
    assert [word for word in ("bell", "3 MB", "Rings when told to.", "audio-video F1 0.88") if word not in out] == []


def test_a_broken_pipe_is_quiet():
    script = Path(sys.executable).parent / "counterpoint"
    command = f'"{script}" --help | head -1 >{os.devnull}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
