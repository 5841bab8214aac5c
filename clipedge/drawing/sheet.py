"""A contact sheet: pictures with their answers underneath, to see at a glance what a classifier does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import PIL.ImageOps

__all__ = ["contact_sheet"]

CELL = 224  # pixels: a picture's place on the sheet
TEXT = 40  # pixels below it, for two lines
COLUMNS = 4
MAX_LETTERS = 32


def contact_sheet(pictures: Iterable[PIL.Image.Image], captions: Sequence[str]) -> PIL.Image.Image:
    """Lay RGB pictures out in rows, each scaled to fit and with its caption (of up to two lines) below.

    Pictures are taken one at a time. Raises ValueError unless there is one caption for each.
    """
    columns = min(COLUMNS, len(captions))
    rows = -(-len(captions) // columns)
    sheet = PIL.Image.new("RGB", (columns * CELL, rows * (CELL + TEXT)), "white")
    draw = PIL.ImageDraw.Draw(sheet)
    font = PIL.ImageFont.load_default(13)
    for place, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, top = place % columns * CELL, place // columns * (CELL + TEXT)
        sheet.paste(PIL.ImageOps.pad(picture, (CELL - 8, CELL - 8), color="white"), (left + 4, top + 4))
        lines = [line[:MAX_LETTERS] for line in caption.splitlines()[:2]]
        draw.multiline_text((left + 6, top + CELL), "\n".join(lines), fill="black", font=font)
    return sheet
