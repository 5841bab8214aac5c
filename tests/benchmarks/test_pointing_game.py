"""The pointing game counts hits, misses and overlaps as one would by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from pointing_game import BANKS, Row, judge, overlap, share, verdicts

from clipedge.calibration.scenes import Rendered
from clipedge.heatmaps.boxes import Box
from clipedge.heatmaps.maps import Heatmap


def two_objects() -> Rendered:
    """The left object fills the left half but for its border, the right one the right half."""
    masks = np.zeros((2, 80, 80), bool)
    masks[0, 10:70, 5:35] = masks[1, 10:70, 45:75] = True
    boxes = np.array([[5, 10, 35, 70], [45, 10, 75, 70]])
    return Rendered(np.zeros((80, 80, 3), np.uint8), (), boxes, masks)


def test_a_map_hits_its_object_or_the_other_one() -> None:
    grid = np.zeros((8, 8), np.float32)
    grid[1:7, 1:3] = 0.8
    grid[3, 1] = 1
    heatmap = Heatmap("left", grid, (80, 80), (0, 0, 80, 80))
    assert judge(heatmap, two_objects(), 0, 0.4) == (True, False, True)
    assert judge(heatmap, two_objects(), 1, 0.4) == (False, True, False)


def test_overlap_is_that_of_the_pixels() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        corners = np.sort(rng.integers(0, 20, (2, 2, 2)), axis=1)  # box, low and high, x and y
        corners[:, 1] += 1
        drawn = np.zeros((2, 21, 21), bool)
        for mask, ((left, top), (right, bottom)) in zip(drawn, corners, strict=True):
            mask[top:bottom, left:right] = True
        expected = drawn.all(axis=0).sum() / drawn.any(axis=0).sum()
        assert overlap(Box(*corners[0].ravel().tolist(), score=1.0), corners[1].ravel()) == pytest.approx(expected)


def test_chance_is_the_masks_share_of_what_is_seen() -> None:
    assert share(two_objects().masks[0], (0, 0, 80, 80)) == pytest.approx(60 * 30 / 6400)


def test_both_halves_of_the_acceptance_count() -> None:
    rows = [Row("fp32", BANKS[0], (accuracy, 0, 100), 0, 0) for accuracy in (69.9, 71.0)]
    assert [target["met"] for target in verdicts(10.0, rows)] == [False, True]
    assert [target["met"] for target in verdicts(50.0, rows)] == [False, False]
    assert verdicts(10.0, [Row("fp32", BANKS[1], (99, 0, 100), 0, 0)]) == []
