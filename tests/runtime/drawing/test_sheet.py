"""The contact sheet shows every picture where its caption says."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest

from clipedge.drawing.sheet import CELL, TEXT, contact_sheet


def test_pictures_stand_in_reading_order_above_their_captions() -> None:
    colors = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (9, 9, 9), (250, 250, 0)]
    pictures = [PIL.Image.new("RGB", (30 + i, 50), color) for i, color in enumerate(colors)]
    sheet = np.asarray(contact_sheet(pictures, [f"label {i}\nsecond" for i in range(5)]))
    assert sheet.shape == (2 * (CELL + TEXT), 4 * CELL, 3)
    for place, color in enumerate(colors):
        top, left = place // 4 * (CELL + TEXT), place % 4 * CELL
        assert tuple(sheet[top + CELL // 2, left + CELL // 2]) == color
        assert sheet[top + CELL : top + CELL + TEXT, left : left + CELL].min() < 128  # something is written there
    assert sheet[CELL + TEXT :, CELL:].min() == 255  # nothing in the places left over


def test_every_picture_needs_a_caption() -> None:
    with pytest.raises(ValueError):
        contact_sheet([PIL.Image.new("RGB", (3, 3))] * 2, ["one"])
