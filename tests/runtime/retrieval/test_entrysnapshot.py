"""A table of entries spares the reading of the log and changes nothing else, whatever becomes of its file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clipedge.errors import BundleError
from clipedge.retrieval import entrylog
from clipedge.retrieval import entrysnapshot as snapshot_module
from clipedge.retrieval.entrylog import Batch
from clipedge.retrieval.index import Index

SPACE, DIM = "a" * 64, 12


def unit(count: int, seed: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(count, DIM))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def names(first: int, last: int) -> list[str]:
    return [f"k{place}" for place in range(first, last)]


def content(folder: Path) -> dict[str, tuple[dict[str, Any], float]]:
    """Every entry with its metadata, and its cosine with a fixed query."""
    index = Index.open(folder, SPACE)
    hits = index.search(unit(1, 99), 10_000)[0]
    assert [key for key in index if key not in index] == []
    assert {hit.key: hit.metadata for hit in hits} == {key: index.metadata(key) for key in index}
    return {hit.key: (hit.metadata, hit.score) for hit in hits}


@pytest.fixture(autouse=True)
def short_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "LOG_BYTES", 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An index of 40 entries, 6 of them removed and 4 replaced, with a table of them all."""
    folder = tmp_path / "index"
    with Index.create(folder, SPACE, DIM) as index:
        index.add(names(0, 40), unit(40, 0), [{"place": place} for place in range(40)])
        index.remove(names(3, 9))
        index.add(names(20, 24), unit(4, 1), [{"place": -1}] * 4)
    return folder


def table_of(folder: Path) -> Path:
    (path,) = folder.glob("*.table")
    return path


def without_table(folder: Path) -> Path:
    """A copy whose entries come from the log alone."""
    copy = shutil.copytree(folder, folder.with_name("without"), dirs_exist_ok=True)
    for path in copy.glob("*.table"):
        path.unlink()
    return copy


def test_the_table_says_what_the_log_does(folder: Path) -> None:
    assert len(content(folder)) == 34
    assert content(folder) == content(without_table(folder))
    assert list(Index.open(folder, SPACE)) == list(Index.open(without_table(folder), SPACE))


def test_only_the_log_behind_the_table_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Batch] = []
    checked = entrylog._checked
    monkeypatch.setattr(entrylog, "_checked", lambda *fields: read.append(checked(*fields)) or read[-1])
    with Index.open(folder, SPACE, writable=True) as index:
        assert read == []
        index.add(["new"], unit(1, 2))
        Index.open(folder, SPACE)
        assert [batch.keys for batch in read] == [("new",)]
    Index.open(folder, SPACE)
    assert len(read) == 1


def test_entries_are_added_replaced_and_removed_over_a_table(folder: Path) -> None:
    for step in range(4):
        with Index.open(folder, SPACE, writable=True) as index:
            index.add([f"new{step}", "k0", "k5"], unit(3, 10 + step), [{"step": step}] * 3)
            assert index.remove(["k5", f"k{30 + step}", "k4"]) == 2
            assert (len(index), "k5" in index, "k0" in index) == (34, False, True)
            assert content(folder) == content(without_table(folder))
        assert content(folder) == content(without_table(folder))
        assert content(folder)["k0"][0] == {"step": step}
        assert len(list(folder.glob("*.table"))) == 1


def test_a_short_log_needs_no_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "LOG_BYTES", 10_000)
    before = table_of(folder)
    with Index.open(folder, SPACE, writable=True) as index:
        index.add(["new"], unit(1, 2))
    assert table_of(folder) == before
    assert content(folder) == content(without_table(folder))


def test_compaction_begins_a_new_log_and_closing_writes_its_table(folder: Path) -> None:
    before = content(folder)
    with Index.open(folder, SPACE, writable=True) as index:
        index.compact()
        assert not list(folder.glob("*.table"))
        assert content(folder) == before
    assert table_of(folder).name.startswith("entries-2-")
    assert content(folder) == before


def test_a_damaged_table_is_refused_and_without_it_all_is_there(folder: Path) -> None:
    before, path = content(folder), table_of(folder)
    path.write_bytes(path.read_bytes()[:-1] + b"\7")
    for writable in (False, True):
        with pytest.raises(BundleError, match="remove this file"):
            Index.open(folder, SPACE, writable=writable)
    path.unlink()
    assert content(folder) == before
    with Index.open(folder, SPACE, writable=True) as index:
        index.add(["new"], unit(1, 2))
    assert table_of(folder)
    assert set(content(folder)) == {*before, "new"}


def test_a_row_that_is_damaged_shows_when_it_is_read(folder: Path) -> None:
    path = table_of(folder)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'["k12",', b'["k13",'))
    index = Index.open(folder, SPACE)
    assert index.metadata("k11") == {"place": 11}
    with pytest.raises(BundleError, match="row 12 has another checksum"):
        index.search(unit(40, 0)[12:13], 1)


def test_a_log_shorter_than_its_table_is_refused(folder: Path) -> None:
    (log,) = folder.glob("*.log")
    log.write_bytes(log.read_bytes()[:-1])
    with pytest.raises(BundleError, match="cut off there, its table of entries ends at byte"):
        Index.open(folder, SPACE)


def test_a_table_end_within_a_record_is_refused(folder: Path) -> None:
    manifest = json.loads((folder / "index.json").read_text())
    wrong = manifest["table_end"] - 20
    table_of(folder).rename(folder / f"entries-1-{wrong}.table")
    (folder / "index.json").write_text(json.dumps({**manifest, "table_end": wrong}))
    with pytest.raises(BundleError, match="damaged at byte"):
        Index.open(folder, SPACE)


def test_what_a_killed_snapshot_left_is_no_hindrance(folder: Path) -> None:
    before = content(folder)
    (folder / "entries-1-99999.table").write_bytes(b"whole, but not named by the manifest yet")
    (folder / ".entries-1-9999.table.staging").write_bytes(b"half")
    assert content(folder) == before
    Index.open(folder, SPACE, writable=True).close()
    assert len(list(folder.glob("*entries*"))) == 2
    assert content(folder) == before


def test_an_index_of_version_1_is_read_and_written_on(folder: Path) -> None:
    before, copy = content(folder), without_table(folder)
    manifest = json.loads((copy / "index.json").read_text())
    del manifest["table_end"], manifest["listed_rows"]
    (copy / "index.json").write_text(json.dumps({**manifest, "version": 1, "graph_rows": 0, "graph_bytes": 0}))
    assert content(copy) == before
    with Index.open(copy, SPACE, writable=True) as index:
        index.add(["new"], unit(1, 2))
    assert json.loads((copy / "index.json").read_text())["version"] == 3
    assert set(content(copy)) == {*before, "new"}
