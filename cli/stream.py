"""Sound without an end, piece by piece: to a file, through a pipe, or to a player; and the prompt that may change."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from counterpoint.recipes.settings import SettingsError

if TYPE_CHECKING:
    import numpy as np

    from counterpoint.modalities.clip import Clip

UNKNOWN = 0xFFFFFFFF  # a size in a WAV header that nobody knows yet: readers go on to the end
PLAYERS = {  # what plays a WAV from its standard input
    "ffplay": ("-nodisp", "-autoexit", "-loglevel", "error", "-i", "-"),
    "aplay": ("-q",),
    "paplay": ("--raw", "--format=s16le", "--rate={rate}", "--channels={channels}"),  # the samples alone
}


def wav_header(rate: int, channels: int, size: int | None = None, after: int = 0) -> bytes:
    """The 44 bytes before 16-bit samples.

    Args:
        rate: samples a second.
        channels: of the sound.
        size: bytes of samples that follow; None is unknown.
        after: bytes that follow the samples.
    """
    total = UNKNOWN if size is None else min(36 + size + after, UNKNOWN)
    size = UNKNOWN if size is None else min(size, UNKNOWN)
    form = (16, 1, channels, rate, 2 * channels * rate, 2 * channels, 16)
    return struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", total, b"WAVE", b"fmt ", *form, b"data", size)


def comment_chunk(text: str) -> bytes:
    """A text as the chunk of a WAV that readers know as its comment."""
    said = text.encode() + b"\0"
    said += bytes(len(said) % 2)
    return struct.pack("<4sI4s4sI", b"LIST", 12 + len(said), b"INFO", b"ICMT", len(said)) + said


def to_pcm(values: np.ndarray) -> bytes:
    """Sound `[channels, n]` in [-1, 1] as 16-bit samples, the channels in turn."""
    import numpy as np

    return np.clip(np.round(values.T * 32768.0), -32768, 32767).astype("<i2").tobytes()


class Sink(Protocol):
    """Where a stream goes."""

    def write(self, values: np.ndarray, rate: int) -> None:
        """The next piece, `[channels, n]`; BrokenPipeError when nobody listens any more."""
        ...

    def close(self, complete: bool, facts: Mapping[str, Any]) -> None:
        """After the last piece, whether it was meant to be the last or not."""
        ...


class PipeSink:
    """A WAV of unknown length into an open stream."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.begun = stream, False

    def write(self, values: np.ndarray, rate: int) -> None:
        """Flushed at once."""
        self.stream.write((b"" if self.begun else wav_header(rate, len(values))) + to_pcm(values))
        self.stream.flush()
        self.begun = True

    def close(self, complete: bool, facts: Mapping[str, Any]) -> None:
        """The stream stays open: it is not ours."""


class FileSink:
    """A WAV file that is whole after every piece; it is made when the first one comes."""

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, 0
        self.file: BinaryIO | None = None
        self.form = (0, 0)

    def write(self, values: np.ndarray, rate: int) -> None:
        """The samples, then the header that knows of them."""
        if self.file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file, self.form = self.path.open("wb"), (rate, len(values))
            self.file.write(wav_header(*self.form, 0))
        data = to_pcm(values)
        self.file.seek(44 + self.size)
        self.file.write(data)
        self.size += len(data)
        self._header(self.file)

    def close(self, complete: bool, facts: Mapping[str, Any]) -> None:
        """What made the sound goes into the file's comment."""
        if self.file is not None:
            with self.file as file:
                chunk = comment_chunk(json.dumps(facts))
                file.seek(44 + self.size)
                file.write(chunk)
                self._header(file, len(chunk))

    def _header(self, file: BinaryIO, after: int = 0) -> None:
        file.seek(0)
        file.write(wav_header(*self.form, self.size, after))
        file.flush()


class PlayerSink:
    """The standard input of a player, which is started with the first piece."""

    def __init__(self, player: str) -> None:
        self.player = player
        self.process: subprocess.Popen[bytes] | None = None

    def write(self, values: np.ndarray, rate: int) -> None:
        """Waits while the player has enough."""
        arguments = PLAYERS[Path(self.player).name]
        data = to_pcm(values)
        if self.process is None:
            filled = [part.format(rate=rate, channels=len(values)) for part in arguments]
            self.process = subprocess.Popen([self.player, *filled], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            data = (b"" if "--raw" in arguments else wav_header(rate, len(values))) + data
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def close(self, complete: bool, facts: Mapping[str, Any]) -> None:
        """Lets it play to the end, or stops it; SettingsError if it could not play."""
        if self.process is None:
            return
        if not complete:
            self.process.terminate()
        self.process.communicate()
        if complete and self.process.wait():
            name = Path(self.player).name
            raise SettingsError(f"{name} stopped with code {self.process.returncode}; name a file with -o FILE.wav")


def choose_sink(output: Path | None, overwrite: bool) -> Sink:
    """A file where one is named, else the pipe that stdout is, else a player.

    Raises:
        SettingsError: a file of another kind, or no player on this machine.
        FileExistsError: a file that is there, and `overwrite` is False.
    """
    if output is not None:
        if output.suffix.lower() != ".wav" or output.is_dir():
            raise SettingsError(f"{output}: --stream writes a file of kind .wav; name one")
        if output.exists() and not overwrite:
            raise FileExistsError(17, "is there already; give --overwrite, or another -o", str(output))
        return FileSink(output)
    if not sys.stdout.isatty():
        return PipeSink(sys.stdout.buffer)
    found = next(filter(None, map(shutil.which, PLAYERS)), None)
    if found is None:
        raise SettingsError(f"--stream: no player here ({', '.join(PLAYERS)}); pipe it, or give -o FILE.wav")
    return PlayerSink(found)


def play(
    pieces: Iterable[Clip], sink: Sink, seconds: float | None = None, told: Mapping[str, Any] | None = None
) -> None:
    """Hands the sound of pieces on, as soon as each is made.

    Args:
        pieces: clips that follow one another.
        sink: where they go; closed at the end, however it comes. It may stop listening.
        seconds: when to end; None is never.
        told: facts for the file's comment, beside the metadata of the pieces.
    """
    done, complete, facts = 0, False, {}
    try:
        for piece in pieces:
            if piece.audio is None:
                raise SettingsError("--stream: this model makes no sound")
            rate = round(piece.audio.rate)
            total = math.inf if seconds is None else round(seconds * rate)
            values = piece.audio.values[:, : min(total - done, piece.audio.samples)]  # [channels, n]
            facts = _facts(facts, piece, done / rate)
            sink.write(values, rate)
            done += values.shape[1]
            facts |= {**(told or {}), "seconds": done / rate}
            if done >= total:
                break
        complete = True
    except BrokenPipeError:
        complete = True
        if isinstance(sink, PipeSink):
            _forget_stdout()
    finally:
        sink.close(complete, facts)


def _facts(facts: dict[str, Any], piece: Clip, start: float) -> dict[str, Any]:
    """The first piece's metadata; where the prompt changes, all prompts as `[second, prompt]`."""
    prompt = piece.metadata.get("prompt", "")
    if not facts:
        return {**piece.metadata, "prompts": [[0.0, prompt]]}
    if facts["prompts"][-1][1] != prompt:
        facts["prompts"].append([round(start, 3), prompt])
    return facts


def _forget_stdout() -> None:
    """What is left in the buffer of a closed pipe goes nowhere, so that nothing is said of it at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


class LivePrompt:
    """The first line of a file, read again whenever it is asked for.

    Args:
        path: empty lines and lines that begin with `#` are left out.
        say: told of a new prompt, and once when the file can't be read any more; the last prompt then stays.

    Raises:
        FileNotFoundError: no such file.
        SettingsError: no prompt in it, or one with options.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self.path, self.say, self.told = path, say, False
        self.prompt = self._read()

    def __call__(self) -> str:
        """The prompt now."""
        try:
            prompt = self._read()
        except (OSError, ValueError) as error:
            if not self.told:
                reason = str(error) if isinstance(error, SettingsError) else f"{self.path}: can't be read any more"
                self.say(f"{reason}; the last prompt stays")
            self.told = True
            return self.prompt
        if prompt != self.prompt:
            self.say(f"from now on: {prompt}")
        self.prompt = prompt
        return prompt

    def _read(self) -> str:
        lines = map(str.strip, self.path.read_text(encoding="utf-8").splitlines())
        line = next((line for line in lines if line and not line.startswith("#")), None)
        if line is None:
            raise SettingsError(f"{self.path}: no prompt in it; write one line")
        if re.search(r"(^|\s)--[a-z]", line):
            raise SettingsError(f"{self.path}: with --stream a prompt has no options of its own: {line}")
        return line
