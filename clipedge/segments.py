"""The vectors of an index: float16 rows in append-only files of equal length, read through the page cache."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clipedge.errors import BundleError

__all__ = ["Segments", "gather", "sync_folder"]


@dataclass(frozen=True)
class Segments:
    """Where the rows lie: row r is row ``r % rows`` of the file number ``r // rows``, each (rows, dim) float16."""

    folder: Path
    generation: int
    rows: int
    dim: int

    def path(self, number: int) -> Path:
        return self.folder / f"vectors-{self.generation}-{number}.f16"

    def write(self, first_row: int, vectors: npt.NDArray[np.float16]) -> None:
        """Put (N, dim) float16 at the rows from ``first_row`` on; they are on the disk when this returns."""
        while len(vectors):
            number, place = divmod(first_row, self.rows)
            piece = vectors[: self.rows - place]
            path = self.path(number)
            is_new = not path.exists()
            path.touch()
            with path.open("r+b") as file:
                file.seek(place * self.dim * 2)
                file.write(np.ascontiguousarray(piece, "<f2").data)
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                sync_folder(self.folder)
            first_row, vectors = first_row + len(piece), vectors[len(piece) :]

    def map(self, count: int) -> list[npt.NDArray[np.float16]]:
        """The first ``count`` rows as read-only views of the files, one array for each file.

        Raises BundleError when a file is missing or shorter than its rows.
        """
        maps = []
        for number in range(-(-count // self.rows)):
            path, rows = self.path(number), min(self.rows, count - number * self.rows)
            expected = rows * self.dim * 2
            found = path.stat().st_size if path.is_file() else None
            if found is None or found < expected:
                raise BundleError(
                    f"{path} has to hold {expected} bytes for {rows} vectors, "
                    f"{'it is missing' if found is None else f'found {found}'}: "
                    "restore the index from a copy or build it again"
                )
            maps.append(np.memmap(path, np.dtype("<f2"), mode="r", shape=(rows, self.dim)))
        return list[npt.NDArray[np.float16]](maps)


def gather(
    maps: Sequence[npt.NDArray[np.float16]], rows: npt.NDArray[np.int64], segment_rows: int
) -> npt.NDArray[np.float16]:
    """The vectors of some rows, (len(rows), D), copied out of the maps."""
    vectors = np.empty((len(rows), maps[0].shape[1]), np.float16)
    numbers, places = np.divmod(rows, segment_rows)
    for number in np.unique(numbers):
        chosen = numbers == number
        vectors[chosen] = maps[number][places[chosen]]
    return vectors


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
