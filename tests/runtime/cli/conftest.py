"""The command line, called in this process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clipedge.cli import main

sys.path.insert(0, str(Path(__file__).parent))  # for the files here that are no tests

from calling import Cli, Outcome


@pytest.fixture
def clipedge(capfd: pytest.CaptureFixture[str]) -> Cli:
    def call(*arguments: str | Path) -> Outcome:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as error:  # argparse
            code = int(error.code or 0)
        return Outcome(code, *capfd.readouterr())

    return call
