"""What `make bench-quantization-aware` makes of a model's answers in float32, in INT8, and finished."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from quantization_aware import FINISHED, FLOAT, PLAIN, judge, recovered


def rights(exact: float, plain: float, finished: float, count: int = 1000) -> dict[str, np.ndarray]:
    shares = {FLOAT: exact, PLAIN: plain, FINISHED: finished}
    return {form: np.arange(count) < share * count for form, share in shares.items()}


def test_the_share_of_what_was_lost_that_came_back() -> None:
    share, (low, high) = recovered(rights(0.9, 0.8, 0.87))
    assert share == pytest.approx(0.7)
    # Of 100 lost scenes 70 came back: a binomial proportion of 100 has nearly this interval.
    assert (low, high) == pytest.approx((0.61, 0.79), abs=0.02)


@pytest.mark.parametrize(("finished", "met"), [(0.89, True), (0.85, True), (0.84, False), (0.78, False)])
def test_half_of_it_has_to_come_back(finished: float, met: bool) -> None:
    (verdict,) = judge({"student": rights(0.9, 0.8, finished)})
    assert verdict["met"] is met
    assert "10.00 points" in verdict["text"]


def test_small_losses_are_no_case() -> None:
    found = {"student": rights(0.9, 0.89, 0.8), "twin": rights(0.9, 0.5, 0.9)}
    assert [item["text"].split(":")[0] for item in judge(found)] == ["twin"]
    (verdict,) = judge({"student": rights(0.9, 0.89, 0.8)})
    assert verdict["met"] is False and verdict["found"] == "none"
