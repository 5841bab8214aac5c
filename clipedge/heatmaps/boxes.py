"""Boxes from a heatmap: where the map is high enough, piece by connected piece.

Method: the map, drawn five times as fine as its patches, is cut at a share of its highest value (Zhou et al. 2016,
"Learning Deep Features for Discriminative Localization", arXiv 1512.04150, section 3.2), and every piece whose pixels
hang together by their sides gets the smallest box around it. A map that is nowhere above zero, where nothing looks
more like the label than like the others, has no boxes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from clipedge.errors import UsageError
from clipedge.heatmaps.maps import Heatmap

__all__ = ["SHARE", "Box", "heatmap_boxes"]

SHARE = 0.4  # of the highest value: chosen on scenes of the split "validation" (benchmarks/pointing_game.py --share)
FINENESS = 5  # cells a patch, each way; odd, so that one of them is its centre


@dataclass(frozen=True)
class Box:
    """A box in pixels of the picture, right and bottom exclusive; ``score`` is the map's highest value in it."""

    left: int
    top: int
    right: int
    bottom: int
    score: float


def heatmap_boxes(heatmap: Heatmap, share: float = SHARE) -> tuple[Box, ...]:
    """The boxes where a map is at least ``share`` of its highest value, the highest first.

    Raises UsageError for a share that is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise UsageError(f"the share of a map's highest value is above 0 and at most 1, found {share:g}")
    rows, columns = (FINENESS * count for count in heatmap.grid.shape)
    values = replace(heatmap, size=(columns, rows), region=(0, 0, columns, rows)).pixels()
    highest = values.max()
    if not highest > 0:
        return ()
    pieces = connected_pieces(values >= share * highest)
    boxes = [_box(heatmap, pieces == number, values) for number in np.unique(pieces[pieces > 0])]
    return tuple(sorted((box for box in boxes if box is not None), key=lambda box: -box.score))


def connected_pieces(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """A number above 0 for each piece of a mask (H, W) whose pixels hang together by their sides, else 0."""
    numbers = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:  # the highest number of a piece spreads through it
        padded = np.pad(numbers, 1)
        sides = padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
        spread = np.where(mask, np.maximum.reduce([numbers, *sides]), 0)
        if np.array_equal(spread, numbers):
            return spread
        numbers = spread


def _box(heatmap: Heatmap, piece: npt.NDArray[np.bool_], values: npt.NDArray[np.float32]) -> Box | None:
    """The box of a piece, cut at the picture's borders; None where nothing of it is inside."""
    (width, height), (left, top, right, bottom) = heatmap.size, heatmap.region
    across, down = (right - left) / piece.shape[1], (bottom - top) / piece.shape[0]
    rows, columns = np.flatnonzero(piece.any(axis=1)), np.flatnonzero(piece.any(axis=0))
    box = Box(
        left=max(math.floor(left + columns[0] * across), 0),
        top=max(math.floor(top + rows[0] * down), 0),
        right=min(math.ceil(left + (columns[-1] + 1) * across), width),
        bottom=min(math.ceil(top + (rows[-1] + 1) * down), height),
        score=float(values[piece].max()),
    )
    return box if box.left < box.right and box.top < box.bottom else None
