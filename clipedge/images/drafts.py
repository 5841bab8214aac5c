"""The fast mode's first step: a JPEG decoded at a half, a quarter or an eighth of its size."""

from __future__ import annotations

from typing import NamedTuple

import PIL.Image

from clipedge.images.resize import Pixels, draft_size, plan, size_of
from clipedge.manifest import Preprocessing

__all__ = ["Source", "shrink", "whole"]

# EXIF orientations that put the picture on its side, and its right or lower edge at the left or at the top.
_ON_ITS_SIDE = (5, 6, 7, 8)
_FROM_THE_RIGHT = (2, 3, 6, 7)
_FROM_BELOW = (3, 4, 7, 8)


class Source(NamedTuple):
    """Decoded, upright pixels; ``size`` is the picture's own (width, height).

    ``box`` is where the picture lies in the pixels (left, top, right, bottom): a decoder that scales down rounds the
    size up, and the last column or row is then partly beyond the picture.
    """

    pixels: Pixels
    size: tuple[int, int]
    box: tuple[float, float, float, float]


def whole(pixels: Pixels) -> Source:
    """Pixels that are the picture at its own size."""
    size = size_of(pixels)
    return Source(pixels, size, (0, 0, *size))


class Draft(NamedTuple):
    """What is known before a picture is decoded: its upright size, and then that of its pixels and the box in them."""

    size: tuple[int, int]
    pixels: tuple[int, int]
    box: tuple[float, float, float, float]

    def source(self, pixels: PIL.Image.Image) -> Source:
        """The decoded and upright picture."""
        # A damaged EXIF block may have kept it from being turned.
        return Source(pixels, self.size, self.box) if pixels.size == self.pixels else whole(pixels)


def shrink(picture: PIL.Image.Image, orientation: object, preprocessing: Preprocessing) -> Draft:
    """Have a JPEG decoded at the smallest size that is good enough; other formats' decoders cannot, and ignore it."""
    on_its_side = orientation in _ON_ITS_SIDE
    width, height = picture.size[::-1] if on_its_side else picture.size
    needed = draft_size(plan((width, height), preprocessing))
    picture.draft(None, needed[::-1] if on_its_side else needed)
    drafted = picture.size[::-1] if on_its_side else picture.size
    scale = round(max(width / drafted[0], height / drafted[1]))  # 1, 2, 4 or 8; nearest, because the size is rounded
    right, bottom = width / scale, height / scale
    left = drafted[0] - right if orientation in _FROM_THE_RIGHT else 0
    top = drafted[1] - bottom if orientation in _FROM_BELOW else 0
    return Draft((width, height), drafted, (left, top, left + right, top + bottom))
