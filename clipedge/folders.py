"""Folders of pictures, with classes as sub-folders."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clipedge.errors import UsageError

__all__ = ["PICTURE_SUFFIXES", "PictureFolder", "read_folder"]

PICTURE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, eq=False)
class PictureFolder:
    """The pictures under a folder, in sorted order.

    ``labels`` (N,) are indices into ``class_names`` if every picture lies in a sub-folder, which then names its class
    ("traffic_light" reads "traffic light"); otherwise None.
    """

    folder: Path
    paths: tuple[Path, ...]
    labels: npt.NDArray[np.int64] | None
    class_names: tuple[str, ...]


def read_folder(folder: str | os.PathLike[str]) -> PictureFolder:
    """List the pictures under a folder by their suffix; what is hidden (".name") is left out.

    Raises UsageError if the folder does not exist or holds none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"there is no folder of pictures at {folder}" + (": it is a file" if folder.exists() else ""))
    paths = tuple(sorted(path for path in folder.rglob("*") if _is_picture(path, folder)))
    if not paths:
        raise UsageError(
            f"{folder} holds no pictures ({' '.join(sorted(PICTURE_SUFFIXES))}): put some there or name another folder"
        )
    if any(path.parent == folder for path in paths):
        return PictureFolder(folder, paths, None, ())
    names = [path.relative_to(folder).parts[0].replace("_", " ") for path in paths]
    class_names = tuple(sorted(set(names)))
    places = {name: place for place, name in enumerate(class_names)}
    return PictureFolder(folder, paths, np.array([places[name] for name in names], np.int64), class_names)


def _is_picture(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in PICTURE_SUFFIXES and not hidden and path.is_file()
