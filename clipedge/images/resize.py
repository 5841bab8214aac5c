"""A decoded picture -> the tower's size: resized and cropped, exactly as Pillow does it or nearly so and faster.

Pillow resizes in two passes, first along the rows and then along the columns, with 8 bits a channel between them
(``src/libImaging/Resample.c``; since Pillow 13 in the other order where the height shrinks by more than twice as many
pixels as the width: such pictures are left to Pillow). Each output pixel of a pass depends on its own row, or column,
only, so the exact result does not change when

- the first pass takes strips of rows, each in its own thread, and only the rows that the second pass will read;
- the second pass takes only the columns that the crop keeps, in strips as well.

Not so with Pillow's ``box``: it is a float32, the filter's weights shift with its rounding, and pixels change by
one. The fast mode takes that, and lets Pillow average whole pixels first (``reducing_gap``).
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple, TypeAlias

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from clipedge.manifest import Preprocessing
from clipedge.parallel import parallel_map

__all__ = ["Fit", "Pixels", "as_picture", "draft_size", "fit_exactly", "fit_fast", "plan", "size_of"]

# A PIL image in mode RGB, or a C-contiguous uint8 (H, W, 3) array.
Pixels: TypeAlias = "PIL.Image.Image | NDArray[np.uint8]"

_FILTERS = {
    "nearest": PIL.Image.Resampling.NEAREST,
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "bicubic": PIL.Image.Resampling.BICUBIC,
    "lanczos": PIL.Image.Resampling.LANCZOS,
}
_SUPPORT = {"bilinear": 1, "bicubic": 2, "lanczos": 3}  # pixels on each side, where nothing is scaled down

# Below this many source pixels for a thread, waking it costs more than it saves (measured: 320 x 240 lost, 640 x
# 480 won).
_STRIP_PIXELS = 1 << 17

# In fast mode the model's own filter still scales down at least this much, after the decoder's and the averaging's
# whole factors. At 1 the error is twice as large; at 2 a JPEG of 1280 x 720 for 224 pixels is not helped at all.
_FILTER_SHARE = 1.5


class Fit(NamedTuple):
    """The size that a picture is resized to, and what is then cut out of it; that may reach beyond the picture."""

    width: int
    height: int
    left: int
    top: int
    right: int
    bottom: int


def plan(size: tuple[int, int], preprocessing: Preprocessing) -> Fit:
    """Where a picture of ``size`` (width, height) goes; the rules are those of ``images.preprocess``."""
    width, height = preprocessing.width, preprocessing.height
    if preprocessing.resize == "squash":
        return Fit(width, height, 0, 0, width, height)
    resized_width, resized_height = _resized_size(size, preprocessing.shortest_edge)
    half_even = preprocessing.crop_offset == "half-even"
    left, top = (
        round(surplus / 2) if half_even else surplus // 2
        for surplus in (resized_width - width, resized_height - height)
    )
    return Fit(resized_width, resized_height, left, top, left + width, top + height)


def _resized_size(size: tuple[int, int], shortest_edge: int) -> tuple[int, int]:
    width, height = size
    # This order of operations, in floating point, truncated: any other moves some sizes by one pixel.
    if width <= height:
        return shortest_edge, int(shortest_edge * height / width)
    return int(shortest_edge * width / height), shortest_edge


def size_of(pixels: Pixels) -> tuple[int, int]:
    """(width, height)."""
    return (pixels.shape[1], pixels.shape[0]) if isinstance(pixels, np.ndarray) else pixels.size


def as_picture(pixels: Pixels) -> PIL.Image.Image:
    """The pixels as Pillow takes them: four bytes each, so an array is copied."""
    return PIL.Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels


def fit_exactly(pixels: Pixels, fit: Fit, interpolation: str, threads: int) -> PIL.Image.Image:
    """``as_picture(pixels).resize((fit.width, fit.height)).crop(...)`` bit for bit, on at most ``threads`` threads."""
    width, height = size_of(pixels)
    resampling = _FILTERS[interpolation]
    if interpolation == "nearest" or _columns_may_come_first(width, height, fit):
        return (
            as_picture(pixels)
            .resize((fit.width, fit.height), resampling)
            .crop((fit.left, fit.top, fit.right, fit.bottom))
        )
    left, top, right, bottom = _inside(fit)
    first, end = _rows_read(height, fit.height, top, bottom, _SUPPORT[interpolation])
    threads = min(threads, max(1, width * (end - first) // _STRIP_PIXELS))
    # The rows that nothing reads stay black, so that the second pass has its coordinates.
    rows = PIL.Image.new("RGB", (right - left, height))
    result = PIL.Image.new("RGB", (fit.right - fit.left, fit.bottom - fit.top))

    def along_rows(strip: tuple[int, int]) -> None:
        above, below = strip
        rows.paste(_some_rows(pixels, above, below).resize((fit.width, below - above), resampling), (-left, above))

    def along_columns(strip: tuple[int, int]) -> None:
        start, stop = strip
        part = rows if stop - start == rows.width else rows.crop((start, 0, stop, rows.height))
        # Pillow pastes what falls within and leaves the rest black.
        result.paste(part.resize((stop - start, fit.height), resampling), (left - fit.left + start, -fit.top))

    parallel_map(along_rows, _strips(first, end, threads), threads)
    parallel_map(along_columns, _strips(0, rows.width, threads), threads)
    return result


def fit_fast(pixels: Pixels, area: tuple[float, float, float, float], fit: Fit, interpolation: str) -> PIL.Image.Image:
    """Nearly what ``fit_exactly`` gives: only what the crop keeps is computed, large pictures are averaged first.

    ``area`` (left, top, right, bottom) is where the picture lies in the pixels.
    """
    picture = as_picture(pixels)
    left, top, right, bottom = _inside(fit)
    across, down = (area[2] - area[0]) / fit.width, (area[3] - area[1]) / fit.height
    box = (area[0] + left * across, area[1] + top * down, area[0] + right * across, area[1] + bottom * down)
    resized = picture.resize((right - left, bottom - top), _FILTERS[interpolation], box, _FILTER_SHARE)
    if resized.size == (fit.right - fit.left, fit.bottom - fit.top):
        return resized
    return resized.crop((fit.left - left, fit.top - top, fit.right - left, fit.bottom - top))


def draft_size(fit: Fit) -> tuple[int, int]:
    """The (width, height) that a decoder may scale a picture down to in fast mode, but not below."""
    return math.ceil(fit.width * _FILTER_SHARE), math.ceil(fit.height * _FILTER_SHARE)


def _some_rows(pixels: Pixels, above: int, below: int) -> PIL.Image.Image:
    if isinstance(pixels, np.ndarray):
        return PIL.Image.fromarray(pixels[above:below])
    return pixels if below - above == pixels.height else pixels.crop((0, above, pixels.width, below))


def _columns_may_come_first(width: int, height: int, fit: Fit) -> bool:
    """Whether some release of Pillow resizes along the columns first; the order moves pixels by one."""
    return height - fit.height > max(0, 2 * (width - fit.width))


def _inside(fit: Fit) -> tuple[int, int, int, int]:
    """The part of the crop that lies in the resized picture: left, top, right, bottom."""
    return max(fit.left, 0), max(fit.top, 0), min(fit.right, fit.width), min(fit.bottom, fit.height)


def _rows_read(source: int, resized: int, top: int, bottom: int, support: int) -> tuple[int, int]:
    """The source rows [first, end) that the resized rows [top, bottom) depend on, or a few more."""
    scale = source / resized
    reach = support * max(scale, 1) + 1  # 1: whichever way Pillow rounds
    return max(0, math.floor(top * scale - reach)), min(source, math.ceil(bottom * scale + reach))


def _strips(start: int, end: int, count: int) -> list[tuple[int, int]]:
    """``count`` parts of nearly one size, fewer where they would be empty."""
    count = min(count, end - start)
    edges = [start + (end - start) * i // count for i in range(count + 1)]
    return list(itertools.pairwise(edges))
