"""The file of an inverted file: rows in lists of neighbours, with a short code of each, mapped into memory.

Little-endian, part after part:

    header      magic; numbers of dimensions, axes, centroids' axes, coarse axes, lists, rows; CRC-32 of all parts but
                the codes, and of itself
    axes        (dimensions, axes) float32: orthonormal, those along which the rows vary most first
    steps       (axes,) float32: what a code of 1 stands for along each axis
    shares      (axes,) float32: how much of the squared distance of rows from their list's mean lies along each axis
    residual    (1,) float32: the root mean square length of what rows have beside all axes
    centroids   (lists, centroids' axes) float32: the mean of each list's rows along the first axes
    spreads     (lists,) float32: the root mean square distance of its rows from there
    starts      (lists + 1,) uint64: where each list begins in ``rows`` and the codes
    rows        (rows,) uint64: list after list
    coarse      (rows, coarse axes) int8: each row's codes along the first axes
    fine        (rows, axes - coarse axes) int8: along the others

Opening checks sizes, checksums and all values but the codes, each of which is as good as any: an altered one may cost
a hit, but cannot change a score.
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

MAGIC = b"CELISTS\2"
_HEADER = struct.Struct("<8s6QI")
_CHECK = struct.Struct("<I")
_PARTS = _HEADER.size + _CHECK.size  # where they begin
LARGEST = 1 << 40  # of any number in a header
ADVICE = "remove it and build the lists again (clipedge index), or search exactly (--exact, exact=True)"


@dataclass(frozen=True, eq=False)
class Lists:
    """``axes`` (D, d), ``steps`` and ``shares`` (d,), ``residual`` (1,), ``centroids`` (lists, c) and ``spreads``
    (lists,) are float32.

    ``starts`` (lists + 1,) and ``rows`` (N,) are int64. ``coarse`` (N, e) and ``fine`` (N, d - e) are int8 and lie as
    ``rows`` do: list l from ``starts[l]`` to ``starts[l + 1]``. What ``axes`` make of a query, times ``steps``, times
    a row's codes is what the row's inner product with it has beyond that of the mean row, but for what codes leave out.
    """

    axes: npt.NDArray[np.float32]
    steps: npt.NDArray[np.float32]
    shares: npt.NDArray[np.float32]
    residual: npt.NDArray[np.float32]
    centroids: npt.NDArray[np.float32]
    spreads: npt.NDArray[np.float32]
    starts: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    coarse: npt.NDArray[np.int8]
    fine: npt.NDArray[np.int8]


def write_lists(path: Path, lists: Lists) -> None:
    """Write the file of ``lists``. It appears whole or not."""
    floats = (lists.axes, lists.steps, lists.shares, lists.residual, lists.centroids, lists.spreads)
    numbers = [np.ascontiguousarray(part, "<f4") for part in floats]
    small = [*numbers, *(np.ascontiguousarray(part, "<i8") for part in (lists.starts, lists.rows))]
    sizes = (*lists.axes.shape, lists.centroids.shape[1], lists.coarse.shape[1], len(lists.centroids), len(lists.rows))
    header = _HEADER.pack(MAGIC, *sizes, _check_of(small))
    with whole_file(path) as staging, staging.open("wb") as file:
        file.write(header + _CHECK.pack(zlib.crc32(header)))
        file.writelines(part.data for part in small)
        file.writelines(np.ascontiguousarray(codes).data for codes in (lists.coarse, lists.fine) if codes.size)


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
    magic, dimensions, axes, middle, few, lists, rows, check = _HEADER.unpack(header)
    sizable = all(0 < number < LARGEST for number in (axes, middle, few, lists, rows))
    if magic != MAGIC or dimensions != dim or max(middle, few) > axes or not sizable:
        raise ValueError(f"it holds {lists} lists of {rows} rows along {axes} axes of {dimensions}; expected {dim}")
    sizes = [
        4 * dim * axes,
        4 * axes,
        4 * axes,
        4,
        4 * lists * middle,
        4 * lists,
        8 * (lists + 1),
        8 * rows,
        rows * few,
    ]
    sizes.append(rows * (axes - few))
    if _PARTS + sum(sizes) != len(data):
        raise ValueError(f"it has {len(data)} bytes, by its header {_PARTS + sum(sizes)}")
    *small, coarse, fine = np.split(data[_PARTS:], np.cumsum(sizes[:-1]))
    if _check_of(small) != check:
        raise ValueError("what it holds beside its codes has another checksum")
    numbers, (starts, members) = [part.view("<f4") for part in small[:6]], [part.view("<i8") for part in small[6:]]
    if not all(np.isfinite(part).all() for part in numbers):
        raise ValueError("a number of axes, centroids or spreads is not finite")
    if starts[0] != 0 or starts[-1] != rows or (np.diff(starts) < 0).any():
        raise ValueError("its lists do not lie one after the other")
    if members.min() < 0 or members.max() >= covered:
        raise ValueError(f"it names rows from {members.min()} to {members.max()}, of {covered}")
    return Lists(
        numbers[0].reshape(dim, axes),
        numbers[1],
        numbers[2],
        numbers[3],
        numbers[4].reshape(lists, middle),
        numbers[5],
        starts,
        members,
        coarse.view(np.int8).reshape(rows, few),
        fine.view(np.int8).reshape(rows, axes - few),
    )


def _check_of(parts: Iterable[npt.NDArray[np.generic]]) -> int:
    check = 0
    for part in parts:
        check = zlib.crc32(part.data, check)
    return check
