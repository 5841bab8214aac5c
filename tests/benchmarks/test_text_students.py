"""What `make bench-text-students` makes of three students' answers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from text_students import ARMS, judge, row_of

from clipedge.export.describe import TowerFacts


@pytest.mark.parametrize(
    ("multiply_adds", "kept", "inherited", "new", "met"),
    [
        (50, 0.94, 0.93, 0.91, [True, True, True]),
        (51, 0.94, 0.919, 0.918, [False, False, False]),  # one of 1,000 may be chance
        (20, 0.90, 0.92, 0.93, [True, True, False]),
    ],
)
def test_the_towers_are_held_against_what_was_asked(
    multiply_adds: int, kept: float, inherited: float, new: float, met: list[bool]
) -> None:
    rights = {arm: np.arange(1000) < 1000 * share for arm, share in zip(ARMS, (kept, inherited, new), strict=True)}
    teacher, student = (TowerFacts("", 10 * count, count, None) for count in (100, multiply_adds))
    rows = [row_of(arm, teacher if arm == "kept" else student, teacher, rights, None) for arm in ARMS]
    assert [row.share for row in rows] == [1.0, multiply_adds / 100, multiply_adds / 100]
    assert rows[0].points is None and rows[2].points is not None
    assert [item["met"] for item in judge(rows, rights)] == met
