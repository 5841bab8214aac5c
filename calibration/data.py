"""Calibration and proof pictures: a folder of the user's own, or rendered scenes; always two sets without overlap."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipedge.calibration import scenes
from clipedge.errors import ImageError, UsageError
from clipedge.folders import read_folder
from clipedge.images import ImageInput, preprocess
from clipedge.manifest import Preprocessing

__all__ = [
    "SCENES",
    "Pictures",
    "folder_pictures",
    "pixel_batches",
    "scene_pictures",
    "split_folder",
]

SCENES = "scenes"  # what a user writes in place of a folder

# Every PROOF_SHARE-th picture of a folder is kept from the calibration and used for the proof.
PROOF_SHARE = 3
MIN_PICTURES = 8


@dataclass(frozen=True)
class Pictures:
    """Pictures, and what they show where that is known.

    ``labels`` holds for each picture an index into ``class_names``, or is None.
    """

    source: str
    items: Sequence[ImageInput]
    labels: npt.NDArray[np.int64] | None = None
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)


def scene_pictures(split: str, count: int, size: int) -> Pictures:
    """``count`` labelled scenes of a split, rendered ``size`` x ``size``."""
    pictures, labels = scenes.labelled_pictures(split, count, size=size)
    return Pictures(f"{SCENES} ({split})", list(pictures), labels, scenes.CLASS_NAMES)


def folder_pictures(folder: str | os.PathLike[str]) -> Pictures:
    """All pictures under a folder; its sub-folders, if all pictures lie in such, are the classes.

    Raises UsageError for a folder that does not exist or holds no picture.
    """
    found = read_folder(folder)
    return Pictures(str(found.folder), found.paths, found.labels, found.class_names)


def split_folder(pictures: Pictures) -> tuple[Pictures, Pictures]:
    """Divide one set into calibration and proof pictures, two to one; both see every part of the folder.

    Raises UsageError for fewer than ``MIN_PICTURES`` pictures.
    """
    if len(pictures) < MIN_PICTURES:
        raise UsageError(
            f"{pictures.source} holds {len(pictures)} pictures; calibration and proof need at least {MIN_PICTURES}, "
            "better some hundreds of the kind that the camera will see"
        )
    is_proof = np.arange(len(pictures)) % PROOF_SHARE == PROOF_SHARE - 1
    return _subset(pictures, ~is_proof), _subset(pictures, is_proof)


def _subset(pictures: Pictures, chosen: npt.NDArray[np.bool_]) -> Pictures:
    items = [item for item, keep in zip(pictures.items, chosen, strict=True) if keep]
    labels = None if pictures.labels is None else pictures.labels[chosen]
    return Pictures(pictures.source, items, labels, pictures.class_names)


def pixel_batches(
    pictures: Pictures, preprocessing: Preprocessing, unreadable: list[str], batch: int = 8
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]]:
    """Stream the pictures as the image tower takes them: (indices (n,), pixels (n, H, W, 3) uint8), n <= ``batch``.

    A picture that cannot be read is left out, and a line that names it is appended to ``unreadable``. Raises
    ImageError if none can be read.
    """
    indices: list[int] = []
    pixels: list[npt.NDArray[np.uint8]] = []
    found = 0
    for index, item in enumerate(pictures.items):
        try:
            pixels.append(preprocess([item], preprocessing))
        except ImageError as error:
            unreadable.append(str(error))
            continue
        indices.append(index)
        found += 1
        if len(indices) == batch:
            yield np.array(indices), np.concatenate(pixels)
            indices, pixels = [], []
    if indices:
        yield np.array(indices), np.concatenate(pixels)
    if not found:
        raise ImageError(f"none of the {len(pictures)} pictures of {pictures.source} can be read: {unreadable[0]}")
