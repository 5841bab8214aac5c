"""The entries of an index as a table that is mapped into memory: a million of them are opened as fast as a few.

A table is what a log's records up to some byte add up to (``entrysnapshot.py``). Little-endian, part after part:

    header      magic; numbers of rows, live rows, bytes of texts; CRC-32 of ``live``, of ``hashes`` with ``places``, of
                itself
    texts       for each live row the CRC-32 of its number and text, and the text: ["key",{metadata}] as ASCII JSON
    padding     to a multiple of 8 bytes
    offsets     (rows + 1,) uint64: where each row's text begins in ``texts``; a dead row has none
    hashes      (live rows,) uint64, ascending: of the live keys
    places      (live rows,) uint64: the rows of these
    live        (rows,) uint8: 1 or 0

Opening checks size, header and ``live``; a row is checked when it is read, ``hashes`` and ``places`` at the first key.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from array import array
from collections.abc import Iterable
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipedge.errors import BundleError
from clipedge.retrieval.entrylog import Metadata
from clipedge.whole import whole_file

__all__ = ["EntryTable", "open_table", "write_table"]

MAGIC = b"CETABLE\1"
_HEADER = struct.Struct("<8s3Q2I")  # its checksum follows, and four zeros
_CHECK = struct.Struct("<I")
_TEXTS = _HEADER.size + _CHECK.size + 4  # where they begin


class EntryTable:
    """Keys and metadata by row, and rows by key, of those entries that lived when it was written."""

    def __init__(self, path: Path, data: npt.NDArray[np.uint8]) -> None:
        """``data`` is the whole file. Raises BundleError unless size, header and ``live`` are right."""
        self.path = path
        if len(data) < _TEXTS:
            raise self._damaged(f"it has {len(data)} bytes, its header {_TEXTS}")
        header = data[: _HEADER.size].tobytes()
        magic, rows, living, text_bytes, live_check, self._lookup_check = _HEADER.unpack(header)
        if magic != MAGIC or _CHECK.unpack_from(data.data, _HEADER.size)[0] != zlib.crc32(header):
            raise self._damaged("its header is no table's, or has another checksum")
        sizes = (_TEXTS, text_bytes + -text_bytes % 8, 8 * (rows + 1), 8 * living, 8 * living, rows)
        if sum(sizes) != len(data):
            raise self._damaged(f"it has {len(data)} bytes, by its header {sum(sizes)}")
        _, texts, offsets, hashes, places, live = np.split(data, np.cumsum(sizes[:-1]))
        if zlib.crc32(live.data) != live_check or live.max(initial=0) > 1 or live.sum(dtype=np.int64) != living:
            raise self._damaged("what it says of dead rows has another checksum")
        self.live: npt.NDArray[np.bool_] = live.view(np.bool_)
        self._texts, self._offsets = texts[:text_bytes], offsets.view("<u8")
        self._hashes, self._places = hashes.view("<u8"), places.view("<u8")

    def entry(self, row: int) -> tuple[str, Metadata]:
        """Key and metadata of a row that lived. Raises BundleError if they were altered."""
        start, end = self._offsets[row : row + 2].tolist()
        if not start + _CHECK.size <= end <= len(self._texts):
            raise self._damaged(f"row {row} is said to lie at bytes {start} to {end} of {len(self._texts)}")
        data = self._texts[start:end].tobytes()
        text = data[_CHECK.size :]
        if _check_of(row, text) != data[: _CHECK.size]:
            raise self._damaged(f"row {row} has another checksum")
        try:
            return _checked(json.loads(text.decode("ascii")))  # of bytes it would guess the encoding first
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"row {row}: {error}") from None

    def row(self, key: str) -> int | None:
        """The row of a key that lived when the table was written."""
        hashes, places = self._lookup
        wanted = _hash(key)
        place = int(np.searchsorted(hashes, np.uint64(wanted)))
        while place < len(hashes) and int(hashes[place]) == wanted:
            row = int(places[place])
            if self.entry(row)[0] == key:
                return row
            place += 1
        return None

    @cached_property
    def _lookup(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """Hashes and places, once they were checked."""
        check = zlib.crc32(self._places.data, zlib.crc32(self._hashes.data))
        if check != self._lookup_check or self._places.max(initial=0) >= max(len(self.live), 1):
            raise self._damaged("its keys have another checksum")
        return self._hashes, self._places

    def _damaged(self, reason: str) -> BundleError:
        return BundleError(
            f"{self.path} is damaged ({reason}): remove this file, and its entries will be read from the log beside it"
        )


def open_table(path: Path) -> EntryTable | None:
    """The table at ``path``, mapped into memory; None if there is none. Raises BundleError for any other file."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = np.asarray(np.memmap(file, np.uint8, mode="r")) if size else np.empty(0, np.uint8)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}): remove it; the log holds the same") from None
    return EntryTable(path, data)


def write_table(path: Path, entries: Iterable[tuple[str, Metadata] | None]) -> None:
    """Write the table of rows: each its key and metadata, or None for a dead one. It appears whole or not."""
    offsets, hashes, places = array("Q", [0]), array("Q"), array("Q")
    with whole_file(path) as staging, staging.open("wb") as file:
        file.write(bytes(_TEXTS))
        for row, entry in enumerate(entries):
            size = 0
            if entry is not None:
                text = json.dumps(entry, separators=(",", ":"), allow_nan=False).encode("ascii")
                size = file.write(_check_of(row, text) + text)
                hashes.append(_hash(entry[0]))
                places.append(row)
            offsets.append(offsets[-1] + size)
        live = np.zeros(len(offsets) - 1, np.uint8)
        live[places] = 1
        order = np.argsort(np.array(hashes, np.uint64))
        lookup = [np.array(column, "<u8")[order].tobytes() for column in (hashes, places)]
        file.write(bytes(-offsets[-1] % 8))
        file.write(np.array(offsets, "<u8").tobytes())
        file.writelines([*lookup, live.tobytes()])
        checks = (zlib.crc32(live.data), zlib.crc32(lookup[1], zlib.crc32(lookup[0])))
        header = _HEADER.pack(MAGIC, len(live), len(places), offsets[-1], *checks)
        file.seek(0)
        file.write(header + _CHECK.pack(zlib.crc32(header)))


def _hash(key: str) -> int:
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _check_of(row: int, text: bytes) -> bytes:
    return _CHECK.pack(zlib.crc32(text, row & 0xFFFFFFFF))


def _checked(entry: Any) -> tuple[str, Metadata]:
    if not isinstance(entry, list) or list(map(type, entry)) != [str, dict]:
        raise ValueError(f"expected a key and an object, found {entry!r:.60}")
    return entry[0], entry[1]
