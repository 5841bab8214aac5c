"""What `make bench-finetune` shifts, and what it makes of answers before and after."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from finetune import DEPTH, PLAIN, TEXTURED, Row, judge, markdown, textured


def rights(share: float, count: int = 1000) -> np.ndarray:
    return np.arange(count) < share * count


@pytest.mark.parametrize(
    ("gained", "kept", "minutes", "met"),
    [
        (0.70, 0.98, 9.9, [True, True, True]),
        (0.60, 0.97, 10.0, [True, True, True]),
        (0.599, 0.969, 10.1, [False, False, False]),
        (0.9, 0.5, 1.0, [True, False, True]),
    ],
)
def test_each_row_is_held_against_the_acceptance(gained: float, kept: float, minutes: float, met: list[bool]) -> None:
    before = {TEXTURED: rights(0.5), PLAIN: rights(0.98)}
    row = Row("all weights", 1000, minutes, 100, 0.5, {})
    verdicts = judge([row], {"all weights": {TEXTURED: rights(gained), PLAIN: rights(kept)}}, before)
    assert [verdict["met"] for verdict in verdicts] == met


def test_a_screen_darkens_by_its_depth_and_is_the_numbers_own() -> None:
    grey = np.full((64, 64, 3), 200, np.uint8)
    first, again, other = textured(grey, 3), textured(grey, 3), textured(grey, 4)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first.mean() == pytest.approx(200 * (1 - DEPTH / 2), rel=0.05)
    assert first.std() > 20 and (first[:, :, 0] == first[:, :, 1]).all()


def test_the_page_has_a_line_for_each_stage() -> None:
    cells = {TEXTURED: "60.00 [1, 2]", PLAIN: "98.00 [1, 2]"}
    row = {"arm": "all weights", "trained_parameters": 1234, "minutes": 1.0, "step": 5, "alpha": 0.5}
    document = {
        "machine": {"cpu": "c", "cores": 2, "date": "d"},
        "scenes": 10, "steps": 2, "batch_size": 4, "test_scenes": 5, "before": cells, "targets": [],
        "rows": [{**row, "found": {"tuned": cells, "written": cells}}],
    }  # fmt: skip
    page = markdown(document)
    assert "| all weights | 1,234 | 1.0 | 5 | 1 | tuned |" in page and "| 0.5 | written | 60.00" in page
