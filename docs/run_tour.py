"""`make tour`: run the commands of tour.md, check what they print, and draw its pictures again.

    python docs/run_tour.py FOLDER [--pictures]

The blocks ``sh`` and ``python`` of tour.md run in their order, in FOLDER, with the Python of this process; a block that
fails ends the run. A block ``text`` behind one is what it has to print, where "..." stands for anything, as in doctest.
With --pictures the pictures that tour.md shows are copied from FOLDER to the folder ``pictures`` beside it.
"""

from __future__ import annotations

import argparse
import doctest
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TOUR = Path(__file__).with_name("tour.md")
FENCE = re.compile(r"^```(sh|python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r"!\[[^]]*\]\(pictures/([^)]+)\)")
SIMILAR = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Step:
    """A block to run, and what it has to print, or None if that does not matter."""

    language: str
    source: str
    expected: str | None


class TourError(Exception):
    """A block failed or printed something else; the message has the block and what it printed."""


def steps(page: str) -> Iterator[Step]:
    blocks = FENCE.findall(page)
    for index, (language, source) in enumerate(blocks):
        if language != "text":
            behind = blocks[index + 1] if index + 1 < len(blocks) else ("", "")
            yield Step(language, source, behind[1] if behind[0] == "text" else None)


def run(step: Step, folder: Path) -> None:
    """Raises TourError if the block fails, or prints something else than the page says."""
    command = [sys.executable, "-c"] if step.language == "python" else ["bash", "-euo", "pipefail", "-c"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [*command, step.source],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    printed = f"{step.source}\nexit code {done.returncode}, printed:\n{done.stdout}{done.stderr}"
    if done.returncode:
        raise TourError(printed)
    if step.expected is not None and not doctest.OutputChecker().check_output(step.expected, done.stdout, SIMILAR):
        raise TourError(f"{printed}\nexpected:\n{step.expected}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="an empty or a new folder")
    parser.add_argument("--pictures", action="store_true", help="copy the pictures that the page shows beside it")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    page = TOUR.read_text(encoding="utf-8")
    for step in steps(page):
        print(step.source, flush=True)
        run(step, arguments.folder)
    for name in PICTURE.findall(page) if arguments.pictures else ():
        target = TOUR.parent / "pictures" / name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(arguments.folder / name, target)


if __name__ == "__main__":
    main()
