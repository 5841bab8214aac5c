"""Streams of model inputs, batch by batch, with a progress bar where somebody watches."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from clipedge.calibration.data import Pictures, pixel_batches
from clipedge.calibration.variety import PictureVariety
from clipedge.manifest import Preprocessing
from clipedge.text import Tokenizer, TruncatedTextWarning

__all__ = ["BATCH", "PixelStream", "TokenStream"]

BATCH = 16
NAMED = 3  # unreadable pictures that a warning names; the report names all


class PixelStream:
    """Pixel batches (n, H, W, 3) uint8 of a set of pictures; each iteration reads the same ones again.

    After a whole iteration ``indices`` are the pictures that could be read, ``unreadable`` has a line for each other
    one, and ``sha256`` is the hash of all pixels in hex: it names the set by what was seen, not by file names. The end
    warns of pictures that could not be read, and raises UsageError if the pictures show nothing or are all the same.
    """

    def __init__(self, pictures: Pictures, preprocessing: Preprocessing, title: str) -> None:
        self.pictures = pictures
        self.preprocessing = preprocessing
        self.title = title
        self.indices: list[int] = []
        self.unreadable: list[str] = []
        self._digest = hashlib.sha256()

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        self.indices, self.unreadable, self._digest = [], [], hashlib.sha256()
        variety = PictureVariety()
        with _progress(self.title, len(self.pictures), "picture") as bar:
            for indices, pixels in pixel_batches(self.pictures, self.preprocessing, self.unreadable, BATCH):
                self.indices += indices.tolist()
                self._digest.update(pixels.data)
                variety.update(pixels)
                yield pixels
                bar.update(len(pixels))
        variety.check(self.pictures.source, self.title)
        if self.unreadable:
            warnings.warn(self._unreadable_warning(), stacklevel=1)

    def _unreadable_warning(self) -> str:
        more = f"; and {len(self.unreadable) - NAMED} more" if len(self.unreadable) > NAMED else ""
        return (
            f"{self.title}: {len(self.unreadable)} of {len(self.pictures)} pictures cannot be read and are left out: "
            f"{'; '.join(self.unreadable[:NAMED])}{more}"
        )

    @property
    def description(self) -> str:
        """How many pictures of what were read."""
        return f"{len(self.indices)} pictures of {self.pictures.source}"

    @property
    def sha256(self) -> str | None:
        """None if nothing was read."""
        return self._digest.hexdigest() if self.indices else None


class TokenStream:
    """Token batches (n, context length) int64 of a list of texts; too long ones are cut without a word."""

    def __init__(self, texts: Sequence[str], tokenizer: Tokenizer, title: str) -> None:
        self.texts = texts
        self.tokenizer = tokenizer
        self.title = title

    def __iter__(self) -> Iterator[npt.NDArray[np.int64]]:
        with _progress(self.title, len(self.texts), "text") as bar:
            for start in range(0, len(self.texts), BATCH):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", TruncatedTextWarning)
                    tokens = self.tokenizer(self.texts[start : start + BATCH])
                yield tokens
                bar.update(len(tokens))


def _progress(title: str, total: int, unit: str) -> tqdm[None]:
    # disable=None: on stderr, and only if that is a terminal.
    return tqdm(desc=title, total=total, unit=unit, disable=None, leave=False)
