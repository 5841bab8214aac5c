"""Boxes: connected pieces against a flood fill, and where boxes of known maps lie in the picture."""

from __future__ import annotations

import numpy as np
import pytest

from clipedge.errors import UsageError
from clipedge.heatmaps.boxes import Box, connected_pieces, heatmap_boxes
from clipedge.heatmaps.maps import Heatmap

SQUARE = (40.0, 0.0, 280.0, 240.0)


def flood(mask: np.ndarray) -> set[frozenset[tuple[int, int]]]:
    left, pieces = set(zip(*map(np.ndarray.tolist, np.nonzero(mask)), strict=True)), set()
    while left:
        piece, front = set(), {left.pop()}
        while front:
            y, x = front.pop()
            piece.add((y, x))
            near = {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)} & left
            left -= near
            front |= near
        pieces.add(frozenset(piece))
    return pieces


@pytest.mark.parametrize("share", [0.0, 0.3, 0.55, 0.7, 1.0])
def test_pieces_are_those_of_a_flood_fill(share: float) -> None:
    rng = np.random.default_rng(5)
    for shape in ((1, 1), (1, 9), (17, 23)):
        mask = rng.random(shape) < share
        numbers = connected_pieces(mask)
        assert ((numbers > 0) == mask).all()
        found = {
            frozenset(zip(*map(np.ndarray.tolist, np.nonzero(numbers == number)), strict=True))
            for number in np.unique(numbers[mask])
        }
        assert found == flood(mask)


def grid_with(*patches: tuple[int, int, float]) -> np.ndarray:
    grid = np.full((8, 8), -0.1, np.float32)
    for row, column, value in patches:
        grid[row, column] = value
    return grid


def test_each_piece_has_a_box_the_highest_first() -> None:
    boxes = heatmap_boxes(Heatmap("cat", grid_with((1, 1, 0.3), (6, 5, 0.4), (6, 6, 0.4)), (320, 240), SQUARE))
    assert [round(box.score, 2) for box in boxes] == [0.4, 0.3]
    wide, small = boxes
    # A patch is 30 pixels, and the map falls to its half about half a patch beyond the patch's centre.
    assert abs(small.left - 70) <= 8 and abs(small.right - 100) <= 8
    assert abs(small.top - 30) <= 8 and abs(small.bottom - 60) <= 8
    assert abs(wide.left - 190) <= 8 and abs(wide.right - 250) <= 8
    assert abs(wide.top - 180) <= 8 and abs(wide.bottom - 210) <= 8


def test_a_higher_share_gives_smaller_boxes() -> None:
    heatmap = Heatmap("cat", grid_with((3, 3, 0.4), (3, 4, 0.3), (4, 3, 0.2)), (320, 240), SQUARE)
    areas = [
        next((box.right - box.left) * (box.bottom - box.top) for box in heatmap_boxes(heatmap, share))
        for share in (0.2, 0.5, 0.8, 1.0)
    ]
    assert areas == sorted(areas, reverse=True) and areas[0] > areas[-1] > 0


def test_boxes_end_at_the_pictures_borders() -> None:
    heatmap = Heatmap("cat", np.ones((8, 8), np.float32), (100, 60), (-20.0, -40.0, 120.0, 100.0))
    assert heatmap_boxes(heatmap) == (Box(0, 0, 100, 60, 1.0),)
    outside = Heatmap("cat", grid_with((0, 0, 1.0)), (100, 60), (-40.0, -40.0, 120.0, 120.0))
    assert heatmap_boxes(outside) == ()


def test_a_map_that_is_nowhere_above_zero_has_no_boxes() -> None:
    assert heatmap_boxes(Heatmap("cat", np.full((8, 8), -0.2, np.float32), (320, 240), SQUARE)) == ()


@pytest.mark.parametrize("share", [0, -0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="above 0 and at most 1"):
        heatmap_boxes(Heatmap("cat", grid_with((0, 0, 1.0)), (320, 240), SQUARE), share)
