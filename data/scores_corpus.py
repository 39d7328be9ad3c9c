"""The scores: pieces of music21's corpus, parsed once into lines of JSON.

Only Bach, O'Neill's Music of Ireland (1850 tunes) and Ryan's Mammoth Collection are read: the rights of other
collections in the corpus (Essen, Palestrina, Monteverdi, the trecento, Alexander's Ragtime) are unclear or restricted.

Each collection becomes `<collection>.jsonl`: a line per piece, as it was parsed, with `"dropped": reason` in place of
the music for what is of no use here. A run that was interrupted goes on after the last whole line; `<collection>.done`
says that nothing is missing.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..modalities.clip import ClipError
from .scores_parse import parse_piece
from .scores_piece import COLLECTIONS, Piece

FOLDERS = {"bach": "bach", "oneills": "oneills1850", "ryans": "ryansMammoth"}
SUFFIXES = (".mxl", ".xml", ".krn", ".abc")


def default_folder() -> Path:
    """Where parsed scores are kept: `counterpoint/scores` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "counterpoint" / "scores"


def sources(collection: str) -> list[tuple[str, Path, int | None]]:
    """Identity, file and number in the file (tunes in one file) of the pieces of a collection, sorted.

    Raises:
        ClipError: music21 is not installed.
    """
    folder = _corpus() / FOLDERS[collection]
    found = []
    for file in sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES):
        name = f"{collection}/{file.stem}" if file.suffix != ".krn" else f"{collection}/{file.name}"
        if collection == "oneills":
            found += [(f"{name}#{tune}", file, tune) for tune in range(len(split_tunes(file)))]
        else:
            found.append((name, file, None))
    return found


def split_tunes(file: Path) -> list[str]:
    """The tunes of an ABC file, each from its `X:` line on."""
    text = file.read_text(encoding="utf-8", errors="replace")
    return [tune for tune in re.split(r"(?m)^(?=X:)", text) if tune.startswith("X:")]


def parse_all(folder: Path | None = None, workers: int = 1, report: Callable[[str, int, int], None] | None = None):
    """Parse what is missing of the three collections.

    Args:
        folder: of the parsed scores; default `default_folder()`.
        workers: processes.
        report: called with collection, pieces parsed and pieces in all, after every piece.
    """
    folder = folder or default_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for collection in COLLECTIONS:
        if not (folder / f"{collection}.done").exists():
            _parse_collection(collection, folder / f"{collection}.jsonl", workers, report)
            (folder / f"{collection}.done").touch()


def read_scores(folder: Path | None = None) -> list[Piece]:
    """The usable pieces of the parsed collections, sorted by identity.

    Raises:
        ClipError: a collection is not parsed, or not to its end.
    """
    return sorted((Piece.from_entry(entry) for entry in _entries(folder) if "dropped" not in entry), key=lambda p: p.id)


def summary(folder: Path | None = None) -> dict[str, dict[str, int]]:
    """How many pieces of each collection are used, and why the others are not."""
    counts: dict[str, Counter[str]] = {collection: Counter() for collection in COLLECTIONS}
    for entry in _entries(folder):
        counts[entry["id"].split("/")[0]][entry.get("dropped", "used")] += 1
    return {collection: dict(counter.most_common()) for collection, counter in counts.items()}


def _entries(folder: Path | None) -> Iterator[dict[str, Any]]:
    folder = folder or default_folder()
    for collection in COLLECTIONS:
        path = folder / f"{collection}.jsonl"
        if not (folder / f"{collection}.done").exists():
            raise ClipError(f"{path}: not parsed to its end; run: counterpoint data scores")
        with path.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def _parse_collection(collection: str, path: Path, workers: int, report: Callable[[str, int, int], None] | None):
    wanted = sources(collection)
    done = _whole_lines(path)
    missing = [source for source in wanted if source[0] not in done]
    with path.open("a", encoding="utf-8") as file:
        for number, line in enumerate(_lines(missing, collection, workers), start=len(done) + 1):
            file.write(line + "\n")
            file.flush()
            if report is not None:
                report(collection, number, len(wanted))


def _whole_lines(path: Path) -> set[str]:
    """Identities of the pieces in a file; what an interrupted run left of a last line is cut off."""
    if not path.exists():
        return set()
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        path.write_bytes(whole)
    return {json.loads(line)["id"] for line in whole.splitlines()}


def _lines(missing: list[tuple[str, Path, int | None]], collection: str, workers: int) -> Iterator[str]:
    make = partial(_line, collection=collection)
    if workers <= 1 or len(missing) < 20:
        yield from map(make, missing)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(make, missing, chunksize=8)


def _line(source: tuple[str, Path, int | None], collection: str) -> str:
    """A piece as a line; any error of the parser drops the piece and is kept as the reason."""
    name, file, tune = source
    try:
        text = None if file.suffix != ".abc" else split_tunes(file)[tune or 0]
        return parse_piece(name, collection, file, text).to_line()
    except ClipError as error:
        reason = str(error)
    except Exception as error:  # files of many hands: music21 raises dozens of types
        reason = f"unreadable ({type(error).__name__})"
    return json.dumps({"id": name, "dropped": reason})


def _corpus() -> Path:
    try:
        import music21
    except ImportError:
        raise ClipError('scores: music21 is not installed; run: pip install "counterpoint[music]"') from None
    return Path(str(music21.__file__)).parent / "corpus"
