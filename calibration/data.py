"""Calibration and proof pictures: the user's own or rendered scenes; always two sets without overlap."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import PIL.Image

from clipedge.calibration import scenes
from clipedge.calibration.pairs import PAIR_SUFFIXES, read_pairs
from clipedge.calibration.tars import TarPicture, read_tar
from clipedge.errors import ImageError, UsageError
from clipedge.folders import read_folder
from clipedge.images.pixels import ImageInput, open_rgb, preprocess
from clipedge.manifest import Preprocessing
from clipedge.parallel import cores, parallel_map

__all__ = [
    "SCENES",
    "PictureItem",
    "Pictures",
    "choose",
    "open_item",
    "pixel_batches",
    "read_pictures",
    "scene_pictures",
    "split_pictures",
]

SCENES = "scenes"  # what a user writes in place of a folder

# Every PROOF_SHARE-th picture of the user's is kept from the calibration and used for the proof.
PROOF_SHARE = 3
MIN_PICTURES = 8

PictureItem: TypeAlias = "ImageInput | TarPicture"


@dataclass(frozen=True)
class Pictures:
    """Pictures, and what they show where that is known. What lies on disk stays there until it is its turn.

    ``labels`` holds for each picture an index into ``class_names``, or is None. ``captions`` holds for each picture
    its captions, of which some may have none, or is None.
    """

    source: str
    items: Sequence[PictureItem]
    labels: npt.NDArray[np.int64] | None = None
    class_names: tuple[str, ...] = ()
    captions: Sequence[tuple[str, ...]] | None = None

    def __len__(self) -> int:
        return len(self.items)


def scene_pictures(split: str, count: int, size: int) -> Pictures:
    """``count`` labelled scenes of a split, rendered ``size`` x ``size``."""
    pictures, labels = scenes.labelled_pictures(split, count, size=size)
    return Pictures(f"{SCENES} ({split})", list(pictures), labels, scenes.CLASS_NAMES)


def read_pictures(source: str | os.PathLike[str], captions: bool = False) -> Pictures:
    """The pictures of a folder, a list (.txt), a list with captions (.csv, .tsv, .jsonl) or a webdataset tar (.tar, or
    a folder of such).

    - Folder: all pictures under it. Its sub-folders, if all pictures lie in such, are the classes.
    - List: UTF-8, one path a line, relative to the list's folder; after a tab, the picture's class. Empty lines and
      lines that begin with "#" are passed over.
    - List with captions: see ``pairs.py``.
    - Tar: see ``tars.py``. Classes that are numbers are named by ``--labels``, in that order, or by the number. Its
      captions are read if ``captions`` are asked for.

    Raises UsageError for what does not exist, cannot be read, holds no picture, or has classes for some pictures only.
    """
    path = Path(source)
    if not path.exists():
        raise UsageError(f"there is no folder of pictures at {path}, no list of them (.txt) and no webdataset (.tar)")
    if path.is_file() and path.suffix.lower() == ".txt":
        return _list_pictures(path)
    if path.is_file() and path.suffix.lower() in PAIR_SUFFIXES:
        pairs = read_pairs(path)
        return Pictures(str(path), list(pairs), captions=list(pairs.values()))
    if path.is_file() and {".tar", ".tgz"} & {suffix.lower() for suffix in path.suffixes}:
        return _tar_pictures(path, [path], captions)
    if path.is_file():
        raise UsageError(
            f"{path} is neither a folder of pictures, nor a list of them (.txt, .csv, .tsv, .jsonl), nor a webdataset "
            "(.tar)"
        )
    try:
        found = read_folder(path)
    except UsageError:
        if tars := sorted(path.glob("*.tar")):
            return _tar_pictures(path, tars, captions)
        raise
    return Pictures(str(found.folder), found.paths, found.labels, found.class_names)


def _list_pictures(path: Path) -> Pictures:
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: a list of pictures is UTF-8 text, and byte {error.start} is none") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    classes: dict[Path, str | None] = {}
    for number, line in enumerate(lines, start=1):
        name, _, label = line.strip().partition("\t")
        if not name or name.startswith("#"):
            continue
        item = path.parent / name.strip()
        if item in classes:
            raise UsageError(
                f"{path}, line {number}: {name} is in the list already; name each picture once, or one that "
                "calibrated could also prove"
            )
        classes[item] = label.strip() or None
    if not classes:
        raise UsageError(f"{path} names no picture: write one path a line, relative to the list's folder")
    return _with_classes(str(path), list(classes), list(classes.values()))


def _tar_pictures(source: Path, tars: Sequence[Path], captions: bool) -> Pictures:
    samples = [sample for tar in tars for sample in read_tar(tar, captions)]
    if not samples:
        raise UsageError(
            f"{source} holds no pictures: a webdataset's are called KEY.jpg, KEY.png and so on, their classes KEY.cls"
        )
    found = _with_classes(str(source), [sample.picture for sample in samples], [sample.label for sample in samples])
    if all(sample.caption is None for sample in samples):
        return found
    return replace(found, captions=[() if sample.caption is None else (sample.caption,) for sample in samples])


def _with_classes(source: str, items: Sequence[Path | TarPicture], classes: Sequence[str | None]) -> Pictures:
    """Pictures with the classes that their source names, if it names all."""
    named = [name for name in classes if name is not None]
    if not named:
        return Pictures(source, items)
    if len(named) < len(items):
        raise UsageError(
            f"{source}: {len(named)} pictures have a class and {len(items) - len(named)} have none, the first of them "
            f"{items[classes.index(None)]}; give a class to each picture, or to none"
        )
    # Numbers in their own order: somebody may count on it.
    class_names = tuple(sorted(set(named), key=lambda name: (int(name) if name.isdecimal() else math.inf, name)))
    places = {name: place for place, name in enumerate(class_names)}
    return Pictures(source, items, np.array([places[name] for name in named], np.int64), class_names)


def split_pictures(pictures: Pictures) -> tuple[Pictures, Pictures]:
    """Divide one set into calibration and proof pictures, two to one; both see every part of it.

    Every third picture proves. Raises UsageError for fewer than ``MIN_PICTURES`` pictures.
    """
    if len(pictures) < MIN_PICTURES:
        raise UsageError(
            f"{pictures.source} holds {len(pictures)} pictures; calibration and proof need at least {MIN_PICTURES}, "
            "better some hundreds of the kind that the camera will see"
        )
    is_proof = np.arange(len(pictures)) % PROOF_SHARE == PROOF_SHARE - 1
    return choose(pictures, np.flatnonzero(~is_proof)), choose(pictures, np.flatnonzero(is_proof))


def choose(pictures: Pictures, rows: npt.NDArray[np.integer]) -> Pictures:
    """The pictures of these rows, in this order."""
    return replace(
        pictures,
        items=[pictures.items[row] for row in rows],
        labels=None if pictures.labels is None else pictures.labels[rows],
        captions=None if pictures.captions is None else [pictures.captions[row] for row in rows],
    )


def pixel_batches(
    pictures: Pictures, preprocessing: Preprocessing, unreadable: list[str], batch: int = 8
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]]:
    """Stream the pictures as the image tower takes them: (indices (n,), pixels (n, H, W, 3) uint8), n <= ``batch``.

    A picture that cannot be read is left out, and a line that names it is appended to ``unreadable``. ``batch``
    pictures are read at a time, on one thread per core. Raises ImageError if none can be read.
    """

    def read(item: PictureItem) -> npt.NDArray[np.uint8] | ImageError:
        try:
            return _pixels(item, preprocessing)
        except ImageError as error:
            return error

    indices: list[int] = []
    pixels: list[npt.NDArray[np.uint8]] = []
    found = 0
    for start in range(0, len(pictures), batch):
        results = parallel_map(read, pictures.items[start : start + batch], cores())
        for index, result in enumerate(results, start):
            if isinstance(result, ImageError):
                unreadable.append(str(result))
                continue
            pixels.append(result)
            indices.append(index)
            found += 1
            if len(indices) == batch:
                yield np.array(indices), np.concatenate(pixels)
                indices, pixels = [], []
    if indices:
        yield np.array(indices), np.concatenate(pixels)
    if not found:
        raise ImageError(f"none of the {len(pictures)} pictures of {pictures.source} can be read: {unreadable[0]}")


def open_item(item: PictureItem) -> PIL.Image.Image:
    """One picture, upright, in mode RGB. Raises ImageError that names it."""
    with _named(item):
        return open_rgb(item.read() if isinstance(item, TarPicture) else item)


def _pixels(item: PictureItem, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """(1, H, W, 3) uint8. Raises ImageError that names the picture."""
    with _named(item):
        return preprocess([item.read() if isinstance(item, TarPicture) else item], preprocessing, threads=1)


@contextmanager
def _named(item: PictureItem) -> Iterator[None]:
    """The bytes of a tar's member have no name of their own."""
    try:
        yield
    except ImageError as error:
        message = str(error)
        if not isinstance(item, TarPicture) or not message.startswith("the image"):
            raise
        raise ImageError(f"{item}{message.removeprefix('the image')}") from None
