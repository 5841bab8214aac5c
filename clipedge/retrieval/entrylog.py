"""The append log of an index: one checked record for each batch, so that a killed writer loses its last batch at most.

A record is a header of three little-endian uint32 (the payload's length, the payload's CRC-32, the CRC-32 of those
eight bytes) and a JSON payload. A writer that is killed leaves a first part of its last record: that is cut off. Any
other fault means that the file was altered or its disk is failing, and is refused: to cut there would drop entries that
were safe.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipedge.errors import BundleError, UsageError

__all__ = ["Batch", "Metadata", "append_batch", "pack_batch", "read_batches"]

Metadata = dict[str, Any]

_LENGTHS = struct.Struct("<II")
_CHECK = struct.Struct("<I")
_HEADER_BYTES = _LENGTHS.size + _CHECK.size
MAX_PAYLOAD_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Batch:
    """What one record changes: ``removed`` keys go, then ``keys`` get the rows from ``first_row`` on.

    A key that is there already moves to its new row. ``metadata`` has one JSON object for each key.
    """

    first_row: int
    keys: tuple[str, ...]
    metadata: tuple[Metadata, ...]
    removed: tuple[str, ...]


def pack_batch(batch: Batch) -> bytes:
    """The record of a batch. Raises UsageError when the metadata is no JSON or too large for a record."""
    fields = {
        "first_row": batch.first_row,
        "keys": batch.keys,
        "metadata": batch.metadata,
        "removed": batch.removed,
    }
    try:
        # Escaped beyond ASCII: a file's name may hold bytes that are no UTF-8, which Python has as lone surrogates.
        payload = json.dumps(fields, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"metadata has to be what JSON can hold: {error}") from None
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise UsageError(
            f"{len(batch.keys)} keys with their metadata take {len(payload)} bytes, a record holds "
            f"{MAX_PAYLOAD_BYTES}: keep large metadata elsewhere, under the key"
        )
    lengths = _LENGTHS.pack(len(payload), zlib.crc32(payload))
    return lengths + _CHECK.pack(zlib.crc32(lengths)) + payload


def append_batch(path: Path, end: int, record: bytes) -> int:
    """Write a record at byte ``end``, over what a killed writer may have left there. Returns the new end.

    The record is on the disk when this returns.
    """
    with path.open("r+b") as file:
        file.truncate(end)
        file.seek(end)
        file.write(record)
        file.flush()
        os.fsync(file.fileno())
    return end + len(record)


def read_batches(path: Path, start: int = 0, rows: int = 0) -> tuple[list[Batch], int]:
    """Every whole batch of a log from byte ``start`` on, before which it has ``rows``; and where the next one goes.

    Raises BundleError when it cannot be read, or for a fault that a killed writer cannot have left.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(start)
            data = file.read()
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read ({error.strerror}): restore the index from a copy or build it again"
        ) from None
    if size < start:
        raise _damaged(path, size, f"it was cut off there, its table of entries ends at byte {start}")
    batches: list[Batch] = []
    position = 0
    while (payload := _payload(data, position, path, start)) is not None:
        try:
            batch = _checked(json.loads(payload), rows)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise _damaged(path, start + position, f"{type(error).__name__}: {error}") from None
        batches.append(batch)
        rows += len(batch.keys)
        position += _HEADER_BYTES + len(payload)
    return batches, start + position


def _payload(data: bytes, position: int, path: Path, start: int) -> bytes | None:
    """The payload of the record at ``position``; None at the log's end, or where a record was cut off.

    ``data`` is the log from its byte ``start`` on.
    """
    header = data[position : position + _HEADER_BYTES]
    if len(header) < _HEADER_BYTES:
        return None
    length, check = _LENGTHS.unpack_from(header)
    if zlib.crc32(header[: _LENGTHS.size]) != _CHECK.unpack_from(header, _LENGTHS.size)[0]:
        if not any(data[position:]):  # zeros: the power went while the file grew
            return None
        raise _damaged(path, start + position, "the header of a record has another checksum")
    if length > MAX_PAYLOAD_BYTES:
        raise _damaged(path, start + position, f"a record of {length} bytes, none has more than {MAX_PAYLOAD_BYTES}")
    first = position + _HEADER_BYTES
    payload = data[first : first + length]
    if zlib.crc32(payload) == check and len(payload) == length:
        return payload
    if first + length >= len(data):
        return None
    raise _damaged(path, start + position, "a record has another checksum")


def _damaged(path: Path, position: int, reason: str) -> BundleError:
    return BundleError(
        f"{path} is damaged at byte {position} ({reason}): restore the index from a copy or build it again"
    )


def _checked(fields: Any, rows: int) -> Batch:
    if not isinstance(fields, dict) or set(fields) != {"first_row", "keys", "metadata", "removed"}:
        raise ValueError(f"a record with other fields: {fields!r:.60}")
    if type(fields["first_row"]) is not int or fields["first_row"] != rows:
        raise ValueError(f"expected a record that begins at row {rows}, found {fields['first_row']!r:.40}")
    keys, metadata, removed = fields["keys"], fields["metadata"], fields["removed"]
    for names in (keys, removed):
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"expected a list of texts, found {names!r:.60}")
        if len(set(names)) != len(names):
            raise ValueError("a key twice in one record")
    if not isinstance(metadata, list) or not all(isinstance(item, dict) for item in metadata):
        raise ValueError(f"expected metadata as a list of objects, found {metadata!r:.60}")
    if len(metadata) != len(keys):
        raise ValueError(f"{len(keys)} keys, but metadata for {len(metadata)}")
    return Batch(rows, tuple(keys), tuple(metadata), tuple(removed))
