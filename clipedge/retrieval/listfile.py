"""The file of an inverted file: rows in lists of neighbours, with a short code of each, mapped into memory.

Little-endian, part after part:

    header      magic; numbers of dimensions, axes, centroids' axes, lists, rows; CRC-32 of all parts but ``codes``, and
                of itself
    axes        (dimensions, axes) float32: what a query is multiplied with to be compared with ``codes``
    centroids   (lists, centroids' axes) float32: the mean of each list's codes along the first axes
    spreads     (lists,) float32: the root mean square distance of its rows' codes from there
    starts      (lists + 1,) uint64: where each list begins in ``rows`` and ``codes``
    rows        (rows,) uint64: list after list
    codes       (rows, axes) int8: each row along the axes, in steps of one size

Opening checks sizes, checksums and all values but those of ``codes``, every one of which is a code: an altered one may
cost a hit, but cannot change a score.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clipedge.errors import BundleError
from clipedge.whole import whole_file

__all__ = ["ADVICE", "Lists", "open_lists", "write_lists"]

MAGIC = b"CELISTS\1"
_HEADER = struct.Struct("<8s5QI")
_CHECK = struct.Struct("<I")
_PARTS = _HEADER.size + _CHECK.size  # where they begin: a multiple of 8
LARGEST = 1 << 40  # of any number in a header
ADVICE = "remove it and build the lists again (clipedge index), or search exactly (--exact, exact=True)"


@dataclass(frozen=True, eq=False)
class Lists:
    """``axes`` (D, d), ``centroids`` (lists, e) and ``spreads`` (lists,) are float32.

    ``starts`` (lists + 1,) and ``rows`` (N,) are int64. ``codes`` (N, d) int8 lie as ``rows`` do: list l from
    ``starts[l]`` to ``starts[l + 1]``. What ``axes`` make of a query, times a row's codes, is what the row's inner
    product with it has beyond that of the mean row, but for what codes leave out.
    """

    axes: npt.NDArray[np.float32]
    centroids: npt.NDArray[np.float32]
    spreads: npt.NDArray[np.float32]
    starts: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int8]


def write_lists(path: Path, lists: Lists) -> None:
    """Write the file of ``lists``. It appears whole or not."""
    floats = (lists.axes, lists.centroids, lists.spreads)
    numbers = [np.ascontiguousarray(part, "<f4") for part in floats]
    small = [*numbers, *(np.ascontiguousarray(part, "<i8") for part in (lists.starts, lists.rows))]
    sizes = (*lists.axes.shape, lists.centroids.shape[1], len(lists.centroids), len(lists.rows))
    header = _HEADER.pack(MAGIC, *sizes, _check_of(small))
    with whole_file(path) as staging, staging.open("wb") as file:
        file.write(header + _CHECK.pack(zlib.crc32(header)))
        file.writelines(part.data for part in small)
        file.write(np.ascontiguousarray(lists.codes).data)


def open_lists(path: Path, covered: int, dim: int) -> Lists:
    """The lists at ``path``, of the first ``covered`` rows of ``dim`` numbers.

    Raises BundleError when it is missing, cut off, altered or of other vectors.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = np.asarray(np.memmap(file, np.uint8, mode="r")) if size else np.empty(0, np.uint8)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}): {ADVICE}") from None
    try:
        return _checked(data, covered, dim)
    except ValueError as error:
        raise BundleError(f"{path} is damaged ({error}): {ADVICE}") from None


def _checked(data: npt.NDArray[np.uint8], covered: int, dim: int) -> Lists:
    header = data[: _HEADER.size].tobytes()
    if len(data) < _PARTS or _CHECK.unpack_from(data.data, _HEADER.size)[0] != zlib.crc32(header):
        raise ValueError("its header is no such file's, or has another checksum")
    magic, dimensions, axes, few, lists, rows, check = _HEADER.unpack(header)
    if magic != MAGIC or dimensions != dim or few > axes or not all(0 < n < LARGEST for n in (axes, few, lists, rows)):
        raise ValueError(f"it holds {lists} lists of {rows} rows along {axes} axes of {dimensions}; expected {dim}")
    sizes = (4 * dim * axes, 4 * lists * few, 4 * lists, 8 * (lists + 1), 8 * rows, rows * axes)
    if _PARTS + sum(sizes) != len(data):
        raise ValueError(f"it has {len(data)} bytes, by its header {_PARTS + sum(sizes)}")
    *small, codes = np.split(data[_PARTS:], np.cumsum(sizes[:-1]))
    if _check_of(small) != check:
        raise ValueError("what it holds beside codes has another checksum")
    numbers, (starts, members) = [part.view("<f4") for part in small[:3]], [part.view("<i8") for part in small[3:]]
    if not all(np.isfinite(part).all() for part in numbers):
        raise ValueError("its axes, centroids or spreads are not finite")
    if starts[0] != 0 or starts[-1] != rows or (np.diff(starts) < 0).any():
        raise ValueError("its lists do not lie one after the other")
    if members.min() < 0 or members.max() >= covered:
        raise ValueError(f"it names rows from {members.min()} to {members.max()}, of {covered}")
    return Lists(
        numbers[0].reshape(dim, axes),
        numbers[1].reshape(lists, few),
        numbers[2],
        starts,
        members,
        codes.view(np.int8).reshape(rows, axes),
    )


def _check_of(parts: Iterable[npt.NDArray[np.generic]]) -> int:
    check = 0
    for part in parts:
        check = zlib.crc32(part.data, check)
    return check
