"""Indexes that were damaged or made to do harm: a clear error, nothing believed, no memory taken."""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipedge.errors import BundleError, ClipEdgeError
from clipedge.retrieval.index import Index

SPACE, DIM = "a" * 64, 8


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "index"
    with Index.create(folder, SPACE, DIM) as index:
        for place in range(3):
            index.add([f"k{place}"], np.eye(DIM, dtype=np.float32)[place : place + 1], [{"place": place}])
    return folder


@pytest.fixture
def index(good: Path, tmp_path: Path) -> Path:
    return shutil.copytree(good, tmp_path / "index")


def refused(folder: Path, message: str) -> None:
    """Neither reader nor writer opens it, and the writer leaves it as it was."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for writable in (False, True):
        with pytest.raises(BundleError, match=message):
            Index.open(folder, SPACE, writable=writable)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def change_manifest(folder: Path, **changes: Any) -> None:
    path = folder / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def record(payload: bytes, length: int | None = None) -> bytes:
    """A record with right checksums, whatever is in it."""
    lengths = struct.pack("<II", len(payload) if length is None else length, zlib.crc32(payload))
    return lengths + struct.pack("<I", zlib.crc32(lengths)) + payload


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "zip"}, "no index of clipedge"),
        ({"version": 4}, "it has version 4, this clipedge reads 1 to 3"),
        ({"dim": 0}, "dim: expected a whole number from 1 to 65536, found 0"),
        ({"dim": 1 << 40}, "dim: expected"),
        ({"dim": True}, "dim: expected"),
        ({"dim": 8.0}, "dim: expected"),
        ({"segment_rows": 0}, "segment_rows: expected"),
        ({"segment_rows": -1}, "segment_rows: expected"),
        ({"generation": "../../etc/1"}, "generation: expected"),
        ({"table_end": -1}, "table_end: expected"),
        ({"generation": 2}, r"entries-2\.log cannot be read"),
        ({"dim": 9}, "has to hold 54 bytes for 3 vectors, found 48"),
        ({"segment_rows": 1}, "has to hold|missing"),
        ({"space_id": None}, "expected texts"),
        ({"bundle": ["x"]}, "expected texts"),
        ({"extra": 1}, "expected the fields"),
    ],
)
def test_a_manifest_that_is_wrong(index: Path, changes: dict[str, Any], message: str) -> None:
    change_manifest(index, **changes)
    refused(index, message)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 60_000, b" " * 70_000], ids=lambda data: data[:5]
)
def test_a_manifest_that_is_none(index: Path, data: bytes) -> None:
    (index / "index.json").write_bytes(data)
    refused(index, "damaged|larger than any manifest")


@pytest.mark.parametrize("size", [0, 1, 47])
def test_a_segment_that_was_cut_off(index: Path, size: int) -> None:
    path = index / "vectors-1-0.f16"
    path.write_bytes(path.read_bytes()[:size])
    refused(index, f"has to hold 48 bytes for 3 vectors, found {size}")


def test_a_segment_that_is_gone(index: Path) -> None:
    (index / "vectors-1-0.f16").unlink()
    refused(index, "it is missing")


def test_vectors_that_became_nan_are_not_ranked(index: Path) -> None:
    path = index / "vectors-1-0.f16"
    path.write_bytes(b"\xff\xff" * 4 + path.read_bytes()[8:])
    with pytest.raises(BundleError, match="not finite"):
        Index.open(index, SPACE).search(np.eye(DIM, dtype=np.float32)[:1], 2)


def test_any_bit_that_flips_before_the_last_record_is_noticed_and_nothing_cut_off(index: Path) -> None:
    path = index / "entries-1.log"
    log = path.read_bytes()
    last = log.rindex(b'{"first_row":2') - 12
    for place in range(last):
        path.write_bytes(log[:place] + bytes([log[place] ^ 0x04]) + log[place + 1 :])
        with pytest.raises(BundleError, match="is damaged at byte"):
            Index.open(index, SPACE)
    refused(index, "is damaged at byte")


VALID: dict[str, Any] = {"first_row": 3, "keys": [], "metadata": [], "removed": []}


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "JSONDecodeError"),
        (b"[" * 100_000, "RecursionError|JSONDecodeError"),
        (b"[]", "other fields"),
        ({**VALID, "extra": 1}, "other fields"),
        ({**VALID, "first_row": 2}, "begins at row 3, found 2"),
        ({**VALID, "first_row": 1 << 70}, "begins at row 3"),
        ({**VALID, "first_row": True}, "begins at row 3"),
        ({**VALID, "keys": "abc", "metadata": [{}, {}, {}]}, "list of texts"),
        ({**VALID, "keys": [1], "metadata": [{}]}, "list of texts"),
        ({**VALID, "removed": [None]}, "list of texts"),
        ({**VALID, "keys": ["a", "a"], "metadata": [{}, {}]}, "a key twice"),
        ({**VALID, "keys": ["a"]}, "metadata for 0"),
        ({**VALID, "keys": ["a"], "metadata": [1]}, "list of objects"),
        ({**VALID, "keys": [f"x{n}" for n in range(10_000)], "metadata": [{}] * 10_000}, "has to hold"),
    ],
)
def test_a_record_with_right_checksums_and_wrong_content(index: Path, payload: Any, message: str) -> None:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    with (index / "entries-1.log").open("ab") as file:
        file.write(record(data))
    refused(index, message)


def test_a_record_that_claims_to_be_huge(index: Path) -> None:
    with (index / "entries-1.log").open("ab") as file:
        file.write(record(b"{}", length=0xFFFFFFFF))
    refused(index, "a record of 4294967295 bytes")


@pytest.mark.parametrize("name", ["index.json", "entries-1.log", "vectors-1-0.f16"])
def test_a_folder_in_the_place_of_a_file(index: Path, name: str) -> None:
    (index / name).unlink()
    (index / name).mkdir()
    with pytest.raises(ClipEdgeError):
        Index.open(index, SPACE)


def test_random_bytes_for_any_file_never_raise_anything_else(index: Path) -> None:
    generator = np.random.default_rng(3)
    for name in ("index.json", "entries-1.log"):
        original = (index / name).read_bytes()
        for size in generator.integers(0, 300, 60):
            (index / name).write_bytes(generator.bytes(int(size)))
            with contextlib.suppress(ClipEdgeError):
                Index.open(index, SPACE)
        (index / name).write_bytes(original)
    assert len(Index.open(index, SPACE)) == 3
