"""Do pictures show anything? Ranges measured on a blank wall say nothing about other pictures, nor does a proof."""

from __future__ import annotations

import hashlib
import warnings

import numpy as np
import numpy.typing as npt

from clipedge.errors import UsageError

__all__ = ["PictureVariety"]

# A picture whose channels stay within so many of 255 levels is one colour. A camera's noise, averaged by the resize,
# stays below; an evenly lit wall, with its shading, does not.
BLANK_LEVELS = 8


class PictureVariety:
    """Counts blank and repeated pictures in a stream of pixels; memory holds eight bytes a picture."""

    def __init__(self) -> None:
        self._pictures = 0
        self._blank = 0
        self._distinct: set[bytes] = set()

    def update(self, pixels: npt.NDArray[np.uint8]) -> None:
        """Take in a batch (n, H, W, 3)."""
        span = pixels.max(axis=(1, 2)) - pixels.min(axis=(1, 2))
        self._blank += int((span <= BLANK_LEVELS).all(axis=1).sum())
        self._distinct.update(hashlib.blake2b(picture.tobytes(), digest_size=8).digest() for picture in pixels)
        self._pictures += len(pixels)

    def check(self, source: str, purpose: str) -> None:
        """Judge the whole stream. Raises UsageError if all pictures are blank or the same, warns if most are."""
        advice = "give it pictures of the kind that the camera will see"
        if self._pictures and self._blank == self._pictures:
            raise UsageError(
                f"{purpose}: each of the {self._pictures} pictures of {source} is one colour from edge to edge, "
                f"which says nothing about others; {advice}"
            )
        if self._pictures > 1 and len(self._distinct) == 1:
            raise UsageError(
                f"{purpose}: the {self._pictures} pictures of {source} are all the same picture, which says nothing "
                f"about others; {advice}"
            )
        for count, what in (
            (self._blank, "are one colour from edge to edge"),
            (self._pictures - len(self._distinct), "repeat another one"),
        ):
            if 2 * count > self._pictures:
                warnings.warn(
                    f"{purpose}: {count} of {self._pictures} pictures of {source} {what}; {advice}", stacklevel=2
                )
