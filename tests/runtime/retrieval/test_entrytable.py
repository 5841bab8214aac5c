"""A table of entries says what was written into it, or that it was altered; it never says anything else."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipedge.errors import BundleError
from clipedge.retrieval import entrytable as module
from clipedge.retrieval.entrytable import EntryTable, open_table, write_table

Rows = list[tuple[str, dict[str, Any]] | None]
ROWS: Rows = [
    ("a.png", {"bytes": 3, "modified_ns": 1 << 62}),
    None,
    ("ünï/\udce9.png", {"nested": {"list": [1.5, None, "x" * 300]}}),
    ("b", {}),
    None,
]


def opened(path: Path) -> EntryTable:
    table = open_table(path)
    assert table is not None
    return table


def content(table: EntryTable) -> Rows:
    """Every row, read by its number; each key is also looked up."""
    rows: Rows = [table.entry(row) if live else None for row, live in enumerate(table.live)]
    for row, entry in enumerate(rows):
        assert entry is None or table.row(entry[0]) == row
    return rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "entries-1-9.table"
    write_table(path, ROWS)
    return path


@pytest.mark.parametrize("rows", [ROWS, [], [None], [None] * 9, [("k", {})]], ids=len)
def test_what_was_written_is_read(path: Path, rows: Rows) -> None:
    write_table(path, rows)
    assert content(opened(path)) == rows
    assert opened(path).row("unknown") is None
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_thousands_of_keys_are_each_found_in_their_row(path: Path) -> None:
    rows: Rows = [(f"folder/{place}.jpg", {"place": place}) if place % 3 else None for place in range(5000)]
    write_table(path, rows)
    assert content(opened(path)) == rows
    assert opened(path).row("folder/3.jpg") is None


def test_keys_of_equal_hashes_are_told_apart(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_hash", lambda key: len(key))
    rows: Rows = [(f"k{place}", {}) for place in range(30)]
    write_table(path, rows)
    assert content(opened(path)) == rows
    assert opened(path).row("k?") is None


def test_there_may_be_no_table(tmp_path: Path) -> None:
    assert open_table(tmp_path / "entries-1-9.table") is None


def test_any_byte_that_changes_is_noticed_or_means_nothing(path: Path) -> None:
    good, padding = path.read_bytes(), 0
    for place in range(len(good)):
        for flip in (0x01, 0x80):
            path.write_bytes(good[:place] + bytes([good[place] ^ flip]) + good[place + 1 :])
            try:
                assert content(opened(path)) == ROWS
                padding += 1
            except BundleError as error:
                assert "is damaged" in str(error)
                assert "remove this file" in str(error)
    assert padding <= 2 * (
        4 + 7 + 8
    )  # after the header, after the texts, and where the last row, a dead one, would end


@pytest.mark.parametrize("size", [0, 1, 47, 48, 100, -1])
def test_a_table_that_was_cut_off_is_refused(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(BundleError, match="bytes"):
        open_table(path)


def forged(rows: int, living: int, text_bytes: int, body: bytes, live: bytes, lookup: bytes = b"") -> bytes:
    """A table with right checksums in its header, whatever it says."""
    header = struct.pack("<8s3Q2I", module.MAGIC, rows, living, text_bytes, zlib.crc32(live), zlib.crc32(lookup))
    return header + struct.pack("<I4x", zlib.crc32(header)) + body


@pytest.mark.parametrize("count", [1 << 63, (1 << 64) - 1, 1 << 40])
def test_a_header_that_claims_to_be_huge_takes_no_memory(path: Path, count: int) -> None:
    for numbers in ((count, 0, 0), (0, count, 0), (0, 0, count), (count, count, count)):
        path.write_bytes(forged(*numbers, bytes(8), b""))
        with pytest.raises(BundleError, match="by its header"):
            open_table(path)


def one_row(text: bytes, offsets: tuple[int, int] | None = None, place: int = 0, live: int = 1) -> bytes:
    """A table of one row with right checksums, whatever its text and numbers are."""
    text = struct.pack("<I", zlib.crc32(text, 0)) + text
    first, last = offsets or (0, len(text))
    lookup = struct.pack("<QQ", module._hash("k"), place)
    body = text + bytes(-len(text) % 8) + struct.pack("<QQ", first, last) + lookup + bytes([live])
    return forged(1, 1, len(text), body, bytes([live]), lookup)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (one_row(b""), "JSONDecodeError|Expecting value"),
        (one_row(b"[" * 100_000), "recursion|Expecting"),
        (one_row(b"{}"), "expected a key and an object"),
        (one_row(b'["k"]'), "expected a key and an object"),
        (one_row(b'["k",{},{}]'), "expected a key and an object"),
        (one_row(b"[1,{}]"), "expected a key and an object"),
        (one_row(b'["k",[]]'), "expected a key and an object"),
        (one_row(b'["k",{}]', (0, 1 << 63)), "bytes 0 to 9223372036854775808 of 12"),
        (one_row(b'["k",{}]', (12, 0)), "bytes 12 to 0 of 12"),
        (one_row(b'["k",{}]', (3, 5)), "bytes 3 to 5 of 12"),
        (one_row(b'["k",{}]', (4, 12)), "another checksum"),
        (one_row(b'["k",{}]', place=1), "its keys have another checksum"),
        (one_row(b'["k",{}]', place=1 << 63), "its keys have another checksum"),
        (one_row(b'["k",{}]', live=2), "dead rows"),
        (one_row(b'["k",{}]', live=0), "dead rows"),
    ],
)
def test_right_checksums_and_wrong_content(path: Path, data: bytes, message: str) -> None:
    path.write_bytes(data)
    with pytest.raises(BundleError, match=message):
        content(opened(path))


def test_a_row_that_was_exchanged_with_another_is_noticed(path: Path) -> None:
    rows: Rows = [("first", {}), ("other", {})]
    write_table(path, rows)
    data = bytearray(path.read_bytes())
    size = len(b'["first",{}]') + 4
    data[48 : 48 + 2 * size] = data[48 + size : 48 + 2 * size] + data[48 : 48 + size]
    path.write_bytes(data)
    with pytest.raises(BundleError, match="row 0 has another checksum"):
        content(opened(path))


def test_random_bytes_never_raise_anything_else(path: Path) -> None:
    generator = np.random.default_rng(7)
    for size in generator.integers(0, 400, 100):
        path.write_bytes(generator.bytes(int(size)))
        with pytest.raises(BundleError):
            open_table(path)


def test_a_folder_in_the_place_of_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        open_table(tmp_path)
