"""The wheel: everything of the package is in it, nothing else, and it runs from there."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = [name.removeprefix("counterpoint.") for name in PROJECT["tool"]["setuptools"]["packages"]]
KINDS = (".py", ".typed", ".json", ".md", ".safetensors", ".txt")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel that CI built, or one built here from a copy of the tree."""
    if "COUNTERPOINT_WHEEL" in os.environ:
        return Path(os.environ["COUNTERPOINT_WHEEL"])
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", out, tree], check=True)
    [built] = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_wheel_is_complete(unpacked):
    inside = {path.relative_to(unpacked / "counterpoint").as_posix() for path in unpacked.glob("counterpoint/**/*.*")}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in KINDS and "__pycache__" not in path.parts
    }
    missing = sorted(wanted - inside)
    assert missing == []
    assert "weights/py.typed" in inside
    assert {path.name for path in unpacked.iterdir()} == {"counterpoint", f"counterpoint-{version()}.dist-info"}
    assert not (unpacked / "counterpoint" / "__init__.py").exists()


def version() -> str:
    return PROJECT["project"]["version"]


def test_entry_point_names_something(unpacked):
    lines = (unpacked / f"counterpoint-{version()}.dist-info" / "entry_points.txt").read_text().split()
    assert lines == ["[console_scripts]", "counterpoint", "=", "counterpoint.cli.main:main"]


def run_in(unpacked: Path, code: str) -> str:
    """Run code in a new interpreter that finds the unpacked wheel first."""
    code = f"import sys; sys.path.insert(0, {str(unpacked)!r})\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=unpacked, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_runs_from_the_wheel(unpacked):
    told = run_in(
        unpacked,
        "import counterpoint.cli.main as m\nprint(m.__file__)\n"
        "try:\n    m.main(['--help'])\nexcept SystemExit as ended:\n    assert ended.code == 0",
    )
    assert told.splitlines()[0] == str(unpacked / "counterpoint" / "cli" / "main.py")
    assert "text-to-video" in told


def test_every_module_imports_from_the_wheel_and_does_nothing(unpacked):
    """Nothing happens at import: no folder is made, no default of torch is changed."""
    before = sorted(path.name for path in unpacked.iterdir())
    told = run_in(
        unpacked,
        "import torch, importlib, pathlib\n"
        "state = lambda: (torch.get_default_dtype(), torch.get_num_threads(), torch.initial_seed(),"
        " torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled())\n"
        "before = state()\n"
        "for path in sorted(pathlib.Path('counterpoint').rglob('*.py')):\n"
        "    name = '.'.join(path.with_suffix('').parts).removesuffix('.__init__')\n"
        f"    assert importlib.import_module(name).__file__.startswith({str(unpacked)!r}), name\n"
        "print(state() == before)",
    )
    assert told.splitlines()[-1] == "True"
    assert sorted(path.name for path in unpacked.iterdir()) == before


@pytest.mark.skipif("COUNTERPOINT_WHEEL" not in os.environ, reason="CI sets it: there the tests run the wheel")
def test_ci_tests_the_installed_wheel():
    import counterpoint.cli.main

    assert not Path(counterpoint.cli.main.__file__).is_relative_to(ROOT / "cli")
