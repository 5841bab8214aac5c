"""The tour of docs/ runs from top to bottom and prints what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))

from run_tour import PICTURE, TOUR, Step, TourError, run, steps


@pytest.mark.slow
def test_the_tour(tmp_path: Path) -> None:
    page = TOUR.read_text(encoding="utf-8")
    for step in steps(page):
        run(step, tmp_path)
    pictures = PICTURE.findall(page)
    assert pictures
    for name in pictures:
        assert (tmp_path / name).is_file(), f"no step draws {name}"
        assert (TOUR.parent / "pictures" / name).is_file(), f"make tour has not drawn {name} yet"


def test_what_a_block_prints_is_compared_and_its_failure_is_one(tmp_path: Path) -> None:
    page = "```sh\necho 12 stars\n```\n```text\n... stars\n```\n\n```python\nprint(1)\n```\n"
    assert list(steps(page)) == [Step("sh", "echo 12 stars\n", "... stars\n"), Step("python", "print(1)\n", None)]
    for step in steps(page):
        run(step, tmp_path)
    with pytest.raises(TourError, match=r"(?s)13 hearts.*expected:\n\.\.\. stars"):
        run(Step("sh", "echo 13 hearts\n", "... stars\n"), tmp_path)
    with pytest.raises(TourError, match="exit code 1"):
        run(Step("sh", "false | cat\necho and goes on\n", None), tmp_path)
