"""The vectors of an index: float16 rows in append-only files of equal length, read through the page cache.

They are mapped into memory to be scanned. A few rows here and there are read by system calls instead: the kernel maps
64 KB around each place that is touched, and some thousand rows would count as gigabytes of this process's memory.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clipedge.errors import BundleError

__all__ = ["Segments", "Vectors", "sync_folder"]


@dataclass(frozen=True, eq=False)
class Vectors:
    """The rows of an index: ``maps`` has (rows, D) float16 for each file, all but the last of ``segment_rows``."""

    maps: Sequence[npt.NDArray[np.float16]]
    segment_rows: int
    descriptors: Sequence[int]  # of the same files, until this object goes

    def take(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        """Copies of some rows, (len(rows), D). Raises BundleError if a file was cut off meanwhile."""
        places = [divmod(row, self.segment_rows) for row in rows.tolist()]
        dim = self.maps[0].shape[1]
        if hasattr(os, "pread"):
            data = b"".join([os.pread(self.descriptors[file], 2 * dim, 2 * dim * place) for file, place in places])
        else:  # Windows
            data = b"".join([self.maps[file][place].tobytes() for file, place in places])
        if len(data) != 2 * dim * len(places):
            raise BundleError("a file of vectors was cut off: restore the index from a copy or build it again")
        return np.frombuffer(data, "<f2").reshape(-1, dim)


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

    def open(self, count: int) -> Vectors:
        """The first ``count`` rows, to be read. Raises BundleError when a file is missing or shorter than its rows."""
        maps, descriptors = [], []
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
            with path.open("rb") as file:
                maps.append(np.asarray(np.memmap(file, np.dtype("<f2"), mode="r", shape=(rows, self.dim))))
                descriptors.append(os.dup(file.fileno()))
                weakref.finalize(maps[-1], os.close, descriptors[-1])
        return Vectors(maps, self.rows, descriptors)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
