"""What `make bench-distillation` makes of three students' answers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from distillation import ARMS, Row, judge


def rights(share: float, count: int = 1000) -> np.ndarray:
    return np.arange(count) < share * count


@pytest.mark.parametrize(
    ("scratch", "distilled", "inherited", "met"),
    [
        (0.90, 0.94, 0.96, [True, True, True, True]),
        (0.92, 0.94, 0.945, [False, False, True, False]),  # 5 of 1,000 may be chance
        (0.92, 0.94, 0.96, [False, True, True, True]),
        (0.80, 0.90, 0.90, [True, True, False, False]),
        (0.80, 0.90, 0.89, [True, True, False, False]),
    ],
)
def test_each_seed_is_held_against_the_acceptance(
    scratch: float, distilled: float, inherited: float, met: list[bool]
) -> None:
    found = {(arm, 0): rights(share) for arm, share in zip(ARMS, (scratch, distilled, inherited), strict=True)}
    facts = zip(ARMS, (0.2, 0.25, 0.3), (1.0, 31.0, 30.0), strict=True)
    rows = [Row(arm, 0, share, minutes, 10, "", 0.0) for arm, share, minutes in facts]
    verdicts = judge(rows, found, rights(0.98))
    assert [item["met"] for item in verdicts[-4:]] == met
    assert [item["met"] for item in verdicts[:-4]] == [True, True, True, False, False, True]
