"""Saved indexes in libclipedge against the Python runtime's exact search."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from native import BUNDLE, SPACE, USAGE, NativeError, NativeModel
from numpy.typing import NDArray

import clipedge
import clipedge.retrieval.index
from clipedge.retrieval.index import Index

DIM = 128


def unit(count: int, seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def make_index(folder: Path, space_id: str, monkeypatch: pytest.MonkeyPatch) -> Index:
    """Several segments, replaced and removed entries, equal vectors, and a key that is no UTF-8."""
    monkeypatch.setattr(clipedge.retrieval.index, "SEGMENT_ROWS", 300)
    index = Index.create(folder, space_id, DIM)
    rows = unit(1000)
    rows[500:520] = rows[0]
    keys = [f"bild-{number} ü.jpg" for number in range(999)] + [os.fsdecode(b"\xff\xe9.jpg")]
    index.add(keys, rows, [{"n": number, "ä": [1.5, None, "\u20ac"]} for number in range(1000)])
    index.add(keys[10:30], unit(20, 1))
    index.remove(keys[40:80])
    index.close()
    return index


def test_hits_are_those_of_python(
    native_fp32: NativeModel, clip_fp32: clipedge.Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = make_index(tmp_path / "index", clip_fp32.manifest.space_id, monkeypatch)
    native = native_fp32.index(tmp_path / "index")
    assert len(native) == len(index) == 960
    queries = np.concatenate([unit(20, 2), unit(1000)[[0, 999]]])
    for query, expected in zip(queries, index.search(queries, 30, exact=True), strict=True):
        found = native.search(3 * query, 30)
        assert [key for key, _, _ in found] == [os.fsencode(hit.key) for hit in expected]
        np.testing.assert_allclose([score for _, score, _ in found], [hit.score for hit in expected], atol=2e-7)
        assert [json.loads(metadata) for _, _, metadata in found] == [hit.metadata for hit in expected]
    assert len(native.search(queries[0], 5000)) == 960


def test_an_index_of_another_model_is_refused(native_fp32: NativeModel, tmp_path: Path) -> None:
    Index.create(tmp_path / "index", "f" * 64, DIM).close()
    with pytest.raises(NativeError, match="another model") as error:
        native_fp32.index(tmp_path / "index")
    assert error.value.status == SPACE
    with pytest.raises(NativeError, match="there is no index") as error:
        native_fp32.index(tmp_path)
    assert error.value.status == USAGE


def test_a_killed_writer_loses_its_last_record_only(
    native_fp32: NativeModel, clip_fp32: clipedge.Clip, tmp_path: Path
) -> None:
    index = Index.create(tmp_path / "index", clip_fp32.manifest.space_id, DIM)
    index.add(["a", "b"], unit(2))
    index.add(["c"], unit(1, 5))
    index.close()
    log = tmp_path / "index" / "entries-1.log"
    whole = log.read_bytes()
    for cut in (whole[:-1], whole[:-40], whole + bytes(7), whole + bytes(200)):
        log.write_bytes(cut)
        assert len(native_fp32.index(tmp_path / "index")) == (2 if len(cut) < len(whole) else 3)


def record(payload: bytes) -> bytes:
    lengths = struct.pack("<II", len(payload), zlib.crc32(payload))
    return lengths + struct.pack("<I", zlib.crc32(lengths)) + payload


@pytest.mark.parametrize(
    "log",
    [
        b"\1" * 12,
        record(b"{}") + record(b"{}"),
        record(b""),
        record(b'{"first_row":1,"keys":["a"],"metadata":[{}],"removed":[]}'),
        record(b'{"first_row":0,"keys":["a"],"metadata":[],"removed":[]}'),
        record(b'{"first_row":0,"keys":["a","a"],"metadata":[{},{}],"removed":[]}'),
        record(b'{"first_row":0,"keys":["a"],"metadata":[7],"removed":[]}'),
        record(b'{"first_row":0,"keys":["a"],"metadata":[{}],"removed":[]}'),  # without its vector
    ],
    ids=range(8),
)
def test_a_damaged_index_is_refused(
    native_fp32: NativeModel, clip_fp32: clipedge.Clip, tmp_path: Path, log: bytes
) -> None:
    Index.create(tmp_path / "index", clip_fp32.manifest.space_id, DIM).close()
    (tmp_path / "index" / "entries-1.log").write_bytes(log)
    with pytest.raises(NativeError, match=r"entries-1\.log|vectors-1-0\.f16") as error:
        native_fp32.index(tmp_path / "index")
    assert error.value.status == BUNDLE


def test_vectors_that_are_not_finite_are_refused(
    native_fp32: NativeModel, clip_fp32: clipedge.Clip, tmp_path: Path
) -> None:
    index = Index.create(tmp_path / "index", clip_fp32.manifest.space_id, DIM)
    index.add(["a", "b"], unit(2))
    index.close()
    vectors = tmp_path / "index" / "vectors-1-0.f16"
    native = native_fp32.index(tmp_path / "index")
    for query in (np.zeros(DIM, np.float32), np.full(DIM, np.nan, np.float32)):
        with pytest.raises(NativeError, match="finite and not zero"):
            native.search(query, 1)
    vectors.write_bytes(b"\x00\x7c" * DIM * 2)
    with pytest.raises(NativeError, match="not finite") as error:
        native_fp32.index(tmp_path / "index").search(unit(1)[0], 1)
    assert error.value.status == BUNDLE
