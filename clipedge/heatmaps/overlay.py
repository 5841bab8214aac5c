"""A picture with a heatmap and its boxes over it, and a line of text below."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from clipedge.heatmaps.boxes import Box
from clipedge.heatmaps.maps import Heatmap

__all__ = ["draw_heatmap"]

# From the lowest to the highest value: dark blue, violet, orange, light yellow.
COLORS = ((20, 11, 82), (156, 23, 158), (237, 121, 83), (240, 249, 33))
OPACITY = 0.55
OUTSIDE = 0.35  # brightness of what the model does not see
MIN_SIDE = 192  # pixels: smaller pictures are drawn larger, so that the text has room
TEXT = 28  # pixels below the picture


def draw_heatmap(picture: PIL.Image.Image, heatmap: Heatmap, boxes: Iterable[Box], caption: str) -> PIL.Image.Image:
    """Lay ``heatmap`` over the RGB ``picture`` that it was made of, from its lowest to its highest value."""
    canvas = _blended(picture, heatmap.pixels())
    factor = max(1, -(-MIN_SIDE // min(canvas.size)))
    canvas = canvas.resize((factor * canvas.width, factor * canvas.height), PIL.Image.Resampling.NEAREST)
    draw = PIL.ImageDraw.Draw(canvas)
    line = max(2, min(canvas.size) // 150)
    for box in boxes:
        left, top, right, bottom = (factor * side for side in (box.left, box.top, box.right, box.bottom))
        draw.rectangle((left, top, right - 1, bottom - 1), outline="black", width=2 * line)
        draw.rectangle((left, top, right - 1, bottom - 1), outline="white", width=line)
    sheet = PIL.Image.new("RGB", (canvas.width, canvas.height + TEXT), "white")
    sheet.paste(canvas)
    font = PIL.ImageFont.load_default(15)
    PIL.ImageDraw.Draw(sheet).text((6, canvas.height + 4), caption, fill="black", font=font)
    return sheet


def _blended(picture: PIL.Image.Image, values: npt.NDArray[np.float32]) -> PIL.Image.Image:
    """The picture in grey under the colours of the values (H, W); in its own colours and dark where these are NaN."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    steps = np.nan_to_num((values - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
    colors = PIL.Image.fromarray(_table()[steps])
    seen = PIL.Image.blend(picture.convert("L").convert("RGB"), colors, OPACITY)
    dark = picture.point([int(OUTSIDE * value) for value in range(256)] * 3)
    return PIL.Image.composite(seen, dark, PIL.Image.fromarray(np.isfinite(values).astype(np.uint8) * 255))


def _table() -> npt.NDArray[np.uint8]:
    """256 colours (256, 3) from the first of ``COLORS`` to the last."""
    places = np.linspace(0, 255, len(COLORS))
    return np.stack([np.interp(np.arange(256), places, channel) for channel in zip(*COLORS, strict=True)], 1).astype(
        np.uint8
    )
