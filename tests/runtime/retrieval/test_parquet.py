"""An index as Parquet, read by pyarrow: every live entry once, with the vectors that the index holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from numpy.typing import NDArray

from clipedge.errors import BundleError, UsageError
from clipedge.retrieval import entrysnapshot as snapshot_module
from clipedge.retrieval import parquet as parquet_module
from clipedge.retrieval.index import Index
from clipedge.retrieval.parquet import write_parquet

SPACE, DIM = "a" * 64, 12


def unit(count: int, seed: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(count, DIM))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """25 entries, of which 5 were removed and one was replaced."""
    index = Index.create(tmp_path / "index", SPACE, DIM)
    index.add([f"k{place}" for place in range(25)], unit(25, 0), [{"place": place} for place in range(25)])
    index.remove([f"k{place}" for place in range(5)])
    index.add(["k20"], unit(1, 1), [{"ünï": ["\udce9", None, 1.5]}])
    return index


def expected() -> dict[str, tuple[dict[str, Any], NDArray[np.float32]]]:
    vectors = unit(25, 0).astype(np.float16).astype(np.float32)
    entries = {f"k{place}": ({"place": place}, vectors[place]) for place in range(5, 25)}
    entries["k20"] = ({"ünï": ["\udce9", None, 1.5]}, unit(1, 1)[0].astype(np.float16).astype(np.float32))
    return entries


def test_every_entry_is_there_once_with_its_vector(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "index.parquet"
    assert write_parquet(index, path) == 20
    table = pyarrow.parquet.read_table(path)
    assert table.schema.names == ["key", "metadata", "vector"]
    assert table.schema.field("vector").type == pyarrow.list_(pyarrow.float32(), DIM)
    assert table.schema.metadata[b"clipedge.space_id"] == SPACE.encode()
    rows = table.to_pylist()
    assert [row["key"] for row in rows] == list(index)
    found = {row["key"]: row for row in rows}
    assert set(found) == set(expected())
    for key, (metadata, vector) in expected().items():
        assert json.loads(found[key]["metadata"]) == metadata
        np.testing.assert_array_equal(np.array(found[key]["vector"], np.float32), vector)
    assert [other.name for other in path.parent.iterdir()] == ["index.parquet"]


def test_it_is_written_group_by_group(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_module, "GROUP_ROWS", 7)
    done: list[tuple[int, int]] = []
    write_parquet(index, tmp_path / "index.parquet", lambda now, total: done.append((now, total)))
    assert done == [(7, 20), (14, 20), (20, 20)]
    file = pyarrow.parquet.ParquetFile(tmp_path / "index.parquet")
    assert [file.metadata.row_group(place).num_rows for place in range(3)] == [7, 7, 6]
    assert file.read()["key"].to_pylist() == list(index)


def test_a_name_that_is_no_utf8_is_escaped(index: Index, tmp_path: Path) -> None:
    index.add(["caf\udce9/ü.png"], unit(1, 2))
    write_parquet(index, tmp_path / "index.parquet")
    assert pyarrow.parquet.read_table(tmp_path / "index.parquet")["key"].to_pylist()[-1] == "caf\\udce9/ü.png"


def test_an_empty_index_is_an_empty_file(tmp_path: Path) -> None:
    with Index.create(tmp_path / "index", SPACE, DIM) as index:
        assert write_parquet(index, tmp_path / "index.parquet") == 0
    assert pyarrow.parquet.read_table(tmp_path / "index.parquet").num_rows == 0


def test_a_failure_leaves_the_file_that_was_there(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "LOG_BYTES", 1)
    monkeypatch.setattr(parquet_module, "GROUP_ROWS", 7)
    index.close()
    (table,) = index.folder.glob("*.table")
    table.write_bytes(table.read_bytes().replace(b'["k24",', b'["k25",'))
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "index.parquet"
    path.write_bytes(b"earlier")
    with pytest.raises(BundleError, match="row 24 has another checksum"):
        write_parquet(Index.open(index.folder, SPACE), path)
    assert path.read_bytes() == b"earlier"
    assert len(list(path.parent.iterdir())) == 1


def test_a_folder_is_no_file(index: Index, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        write_parquet(index, tmp_path)


def test_without_pyarrow_the_error_names_the_extra(index: Index, tmp_path: Path) -> None:
    index.close()
    script = f"""
import sys
sys.modules["pyarrow"] = None
import clipedge.retrieval.parquet
index = clipedge.Index.open({str(index.folder)!r}, {SPACE!r})
clipedge.retrieval.parquet.write_parquet(index, {str(tmp_path / "index.parquet")!r})
"""
    outcome = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "MissingDependencyError: Parquet files need the pyarrow library" in outcome.stderr
    assert "clipedge[parquet]" in outcome.stderr
