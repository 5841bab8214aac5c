"""The drawn heatmap: colours where the map is high, dark where the model does not look, boxes where they are."""

from __future__ import annotations

import numpy as np
import PIL.Image

from clipedge.heatmaps.boxes import Box
from clipedge.heatmaps.maps import Heatmap
from clipedge.heatmaps.overlay import TEXT, draw_heatmap

GRID = np.zeros((8, 8), np.float32)
GRID[2, 5] = 1.0


def drawn(size: tuple[int, int], *boxes: Box) -> np.ndarray:
    picture = PIL.Image.new("RGB", size, (100, 100, 100))
    offset = (size[0] - size[1]) / 2
    heatmap = Heatmap("cat", GRID, size, (offset, 0, offset + size[1], size[1]))
    return np.asarray(draw_heatmap(picture, heatmap, boxes, "cat 93.0%"), np.int64)


def test_the_highest_place_is_yellow_and_what_is_outside_dark() -> None:
    sheet = drawn((400, 320))
    assert sheet.shape == (320 + TEXT, 400, 3)
    red, green, blue = sheet[100, 40 + 220]  # the centre of the patch
    assert min(red, green) > 150 and blue < 80
    red, green, blue = sheet[300, 60]  # inside, low
    assert blue > red
    assert (sheet[:320, :39] == 35).all() and (sheet[:320, 361:] == 35).all()
    assert sheet[320:].min() < 128 and sheet[320:].max() == 255  # the caption on white


def test_small_pictures_are_drawn_larger_with_their_boxes() -> None:
    sheet = drawn((64, 64), Box(16, 8, 48, 40, 1.0))
    assert sheet.shape == (192 + TEXT, 192, 3)
    assert (sheet[24, 48:144] == 255).all() and (sheet[119, 48:144] == 255).all()
    assert (sheet[24:120, 48] == 255).all() and (sheet[24:120, 143] == 255).all()


def test_a_flat_map_is_drawn_too() -> None:
    flat = Heatmap("cat", np.full((2, 2), 0.5, np.float32), (300, 300), (0, 0, 300, 300))
    sheet = np.asarray(draw_heatmap(PIL.Image.new("RGB", (300, 300)), flat, (), ""))
    assert len(np.unique(sheet[:300].reshape(-1, 3), axis=0)) == 1
