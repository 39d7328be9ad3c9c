"""The house: which folder imports which, what the package holds, how long a file may get."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAY_IMPORT = {  # besides itself
    "modalities": set(),
    "backbones": {"modalities"},
    "guidance": {"modalities", "backbones"},
    "diffusion": {"modalities", "backbones", "guidance"},
    "data": {"modalities"},
    "evaluation": {"modalities"},
    "recipes": {"modalities", "backbones", "guidance", "diffusion", "data", "evaluation"},
    "cli": {"modalities", "backbones", "guidance", "diffusion", "data", "evaluation", "recipes"},
    "weights": set(),
}
ABSOLUTE = ("recipes", "cli")  # folders that write `from counterpoint.x import y`
MODULES = sorted(path for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py"))
TEXTS = (".py", ".md", ".toml", ".json", ".yml", ".yaml", ".cfg", ".txt")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Level (0 absolute, 1 `.x`, 2 `..x`) and dotted name of every import of a module, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is None:
            yield from ((node.level, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""


def folder_imported(path: Path, level: int, name: str) -> str | None:
    """The folder of ours that an import reaches, or None for the outside."""
    parts = name.split(".")
    if level:
        here = path.relative_to(ROOT).parent.parts
        return (here[: len(here) - level + 1] + tuple(parts))[0]
    return parts[1] if parts[0] == "counterpoint" and len(parts) > 1 else None


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_back_to_the_left(path):
    folder = path.relative_to(ROOT).parts[0]
    for level, name in imports(path):
        reached = folder_imported(path, level, name)
        assert reached in MAY_IMPORT[folder] | {folder, None}, f"{name_of(path)} imports {reached}/ ({name})"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_are_relative_in_the_library_and_absolute_in_recipes_and_cli(path):
    folder = path.relative_to(ROOT).parts[0]
    for level, name in imports(path):
        if folder in ABSOLUTE:
            assert level == 0, f"{name_of(path)}: from {'.' * level}{name}"
        else:
            assert name.split(".")[0] != "counterpoint", f"{name_of(path)}: {name}"


def test_the_direction_check_finds_a_planted_error():
    planted = ROOT / "modalities" / "planted.py"
    assert folder_imported(planted, 2, "diffusion.process") == "diffusion"
    assert folder_imported(planted, 1, "clip") == "modalities"
    assert folder_imported(planted, 0, "counterpoint.cli.main") == "cli"
    assert folder_imported(planted, 0, "torch") is None


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_optional_kernels_are_never_imported_at_the_top(path):
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None) or ""]
        assert not any(name.split(".")[0] in ("xformers", "flash_attn") for name in names)


def test_package_list_is_complete():
    folders = {path.parent.relative_to(ROOT).as_posix() for path in MODULES}
    stray = {path.parent.name for path in ROOT.glob("*/*.py")} - {"tests", "benchmarks", "docs", "build"} - folders
    assert not stray, f"folders with modules that no rule knows: {stray}"
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    assert listed == {f"counterpoint.{folder.replace('/', '.')}" for folder in folders}
    for folder in folders:
        assert (ROOT / folder / "__init__.py").is_file()
        assert (ROOT / folder / "py.typed").is_file()
    assert not (ROOT / "__init__.py").exists()


def test_every_test_names_its_folder():
    folders = {*MAY_IMPORT, "house", "benchmarks"}
    stray = [p.name for p in (ROOT / "tests").glob("test_*.py") if p.stem.split("_")[1] not in folders]
    assert stray == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_stay_short(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 350, f"{name_of(path)} has {lines} lines; split it"


def tracked() -> list[Path]:
    """What belongs to the tree: what git knows or would add; without git, the folders of the package."""
    found = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    names = found.stdout.splitlines() if found.returncode == 0 else [name_of(path) for path in MODULES]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def test_nothing_names_a_place_on_one_machine():
    place = re.compile(r"/(?:root|home|work|Users)/\w")
    named = [
        f"{name_of(path)}:{number}"
        for path in tracked()
        if path.suffix in TEXTS and path.stat().st_size < 1_000_000
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if place.search(line)
    ]
    assert named == []


def test_no_pickles_in_the_tree():
    assert [name_of(p) for p in tracked() if p.suffix in (".pt", ".pth", ".ckpt", ".pkl", ".bin", ".pickle")] == []


def test_changelog_knows_the_version():
    assert f"## [{PROJECT['project']['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_version_is_the_installed_one():
    told = subprocess.run([console_script(), "--version"], capture_output=True, text=True, check=True).stdout
    assert told.strip() == f"counterpoint {importlib.metadata.version('counterpoint')}"


def console_script() -> str:
    return str(Path(sys.executable).parent / "counterpoint")


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom counterpoint.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as ended:\n    assert ended.code == 0\n"
        "print('heavy:', sorted({'torch', 'numpy', 'diffusers', 'lightning', 'av', 'matplotlib'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-1] == "heavy: []"
    assert "generate" in told


def test_help_is_quick():
    """0.2 s on one core; the bound leaves room for a busy machine."""

    def once() -> float:
        start = time.perf_counter()
        subprocess.run([console_script(), "--help"], capture_output=True, check=True)
        return time.perf_counter() - start

    assert min(once() for _ in range(4)) < float(os.environ.get("COUNTERPOINT_HELP_SECONDS", "1.5"))
