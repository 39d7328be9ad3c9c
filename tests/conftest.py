"""What the tests share: the command line run in this process, and the root of the tree."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def root() -> Path:
    """The root of the tree, which is the package `counterpoint`."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `counterpoint …`: exit code, stdout, stderr."""
    from counterpoint.cli.main import main

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return call
