"""What the tests share: the command line run in this process, and a tiny model with random weights."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `counterpoint …`: exit code, stdout, stderr."""
    from counterpoint.cli.main import main

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return call


@pytest.fixture
def refuse(run: Run) -> Callable[..., str]:
    """Run a command that must fail as a person's mistake: exit code 2, one line on stderr, which comes back."""

    def call(*arguments: object) -> str:
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("counterpoint: error: ")
        assert err.count("\n") == 1
        return err.removeprefix("counterpoint: error: ").rstrip("\n")

    return call


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole model: random weights, 2 layers, all tracks."""
    import numpy as np
    import torch

    from counterpoint.diffusion.pipeline import CounterpointPipeline
    from counterpoint.modalities.audio import AudioCodec
    from counterpoint.modalities.codecs import Codecs
    from counterpoint.modalities.sensor import SensorPatches
    from counterpoint.modalities.text import TextEncoder
    from counterpoint.modalities.video import VideoCodec
    from counterpoint.modalities.vocoder import Vocoder
    from counterpoint.recipes.joint import build_transformer, tiny

    torch.manual_seed(0)
    draws = np.random.default_rng(0)
    names = {"accelerometer": ("x", "y", "z"), "gyroscope": ("x", "y", "z"), "force": ("z",)}
    values = {name: draws.normal(size=(4, len(c), 256)).astype("float32") for name, c in names.items()}
    units = {"accelerometer": "m/s²", "gyroscope": "rad/s", "force": "N"}
    codecs = Codecs(
        VideoCodec.create((8, 16, 32), channels=16),
        AudioCodec(hidden_channels=32),
        Vocoder(width=16, hidden=32, layers=1, nnls_steps=2),
        SensorPatches.fit({name: list(c) for name, c in names.items()}, units, values),
    )
    encoder = TextEncoder()
    network = build_transformer(tiny(), codecs, encoder.channels)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    CounterpointPipeline(network, codecs, encoder, {"steps": 2}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def falling_discs() -> Callable[[int], Any]:
    """`falling_discs(frames)`: a bright disc that falls before a dark wall, uint8 [6, frames, 64, 64, 3]."""
    import numpy as np

    def make(frames: int) -> Any:
        y, x = np.mgrid[:64, :64]
        clips = np.full((6, frames, 64, 64, 3), 40, np.uint8)
        for n, f in np.ndindex(6, frames):
            clips[n, f][(x - 10 - 8 * n) ** 2 + (y - 8 - 48 * f / frames) ** 2 < 36] = (220, 120, 40 * n)
        return clips

    return make


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch on one thread, for runs that have to come out the same twice."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
