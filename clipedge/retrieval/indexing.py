"""A folder of pictures into an index: only what is new or changed is encoded, what has vanished is taken out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clipedge.errors import ImageError
from clipedge.folders import PictureFolder
from clipedge.retrieval.entrylog import Metadata
from clipedge.retrieval.index import Index

__all__ = ["Indexing", "index_folder"]

BATCH = 64  # pictures between two writes: what a killed run loses

Encode = Callable[[Sequence[Path]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Indexing:
    """What one run did. ``unreadable`` has a line for each picture left out; earlier entries of these are removed."""

    added: int
    replaced: int
    unchanged: int
    removed: int
    unreadable: tuple[str, ...]


def index_folder(
    index: Index,
    encode: Encode,
    pictures: PictureFolder,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Indexing:
    """Bring ``index`` up to date with a folder of pictures; ``encode`` maps N paths to (N, D) embeddings.

    Keys are absolute paths, so that several folders share an index and each run touches its own alone. A picture
    counts as unchanged while its size and time of modification are. A run that is killed is resumed by the next.
    ``progress`` is called with the pictures done and those to encode.
    """
    folder = pictures.folder.resolve()
    paths = [folder / path.relative_to(pictures.folder) for path in pictures.paths]
    stamps = {os.fspath(path): stamp for path in paths if (stamp := _stamp(path)) is not None}
    vanished = [key for key in index if Path(key).is_relative_to(folder) and key not in stamps]
    removed = index.remove(vanished)
    todo = [key for key, stamp in stamps.items() if key not in index or index.metadata(key) != stamp]
    added = replaced = 0
    unreadable: list[str] = []
    for start in range(0, len(todo), BATCH):
        keys, embeddings, faults = _encode_readable(encode, todo[start : start + BATCH])
        unreadable += faults.values()
        removed += index.remove(faults)
        known = sum(key in index for key in keys)
        index.add(keys, embeddings, [stamps[key] for key in keys])
        added, replaced = added + len(keys) - known, replaced + known
        progress(min(start + BATCH, len(todo)), len(todo))
    return Indexing(added, replaced, len(stamps) - len(todo), removed, tuple(unreadable))


def _stamp(path: Path) -> Metadata | None:
    """What changes when a picture does; None if it has just vanished."""
    try:
        found = path.stat()
    except OSError:
        return None
    return {"bytes": found.st_size, "modified_ns": found.st_mtime_ns}


def _encode_readable(encode: Encode, keys: list[str]) -> tuple[list[str], npt.NDArray[np.float32], dict[str, str]]:
    """The keys that can be read, their embeddings, and for each of the others what is wrong with it."""
    try:
        return keys, encode([Path(key) for key in keys]), {}
    except ImageError:
        pass
    pieces: dict[str, npt.NDArray[np.float32]] = {}
    faults: dict[str, str] = {}
    for key in keys:
        try:
            pieces[key] = encode([Path(key)])
        except ImageError as error:
            faults[key] = str(error)
    return list(pieces), np.concatenate([encode([]), *pieces.values()]), faults
