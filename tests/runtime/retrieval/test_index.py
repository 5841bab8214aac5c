"""An index keeps what was added, replaces, removes, compacts, and refuses what belongs to another model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import clipedge
from clipedge.errors import IndexBusyError, SpaceError, UsageError
from clipedge.retrieval import index as index_module
from clipedge.retrieval.index import Index

SPACE = "a" * 64
DIM = 12


def unit(count: int, seed: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def names(count: int, prefix: str = "k") -> list[str]:
    return [f"{prefix}{place}" for place in range(count)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "photos.index"


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits so small that a few dozen vectors need several files and batches."""
    monkeypatch.setattr(index_module, "SEGMENT_ROWS", 7)
    monkeypatch.setattr(index_module, "BATCH_ROWS", 5)
    monkeypatch.setattr(index_module, "MIN_DEAD", 20)


def content(index: Index) -> dict[str, tuple[dict[str, Any], float]]:
    """Every entry with its metadata, and its cosine with a fixed query."""
    query = unit(1, 99)
    hits = index.search(query, 10_000)[0]
    assert {hit.key for hit in hits} == set(index)
    assert len(hits) == len(index)
    return {hit.key: (hit.metadata, hit.score) for hit in hits}


@pytest.mark.usefixtures("small_files")
def test_what_was_added_is_there_when_opened_again(folder: Path) -> None:
    vectors = unit(40, 0)
    metadata = [{"place": place, "ünï": ["\udce9", None, 1.5]} for place in range(40)]
    with clipedge.Index.create(folder, SPACE, DIM, "somewhere") as index:
        index.add(names(23), vectors[:23], metadata[:23])
        index.add(names(40)[23:], vectors[23:], metadata[23:])
        written = content(index)
    read = clipedge.Index.open(folder, SPACE)
    assert content(read) == written
    assert list(read) == names(40)
    assert read.metadata("k3") == metadata[3]
    assert read.manifest.bundle == "somewhere"
    for key, vector in zip(names(40), vectors, strict=True):
        (best,) = read.search(vector[None], 1)[0]
        assert best.key == key
        assert best.score == pytest.approx(1, abs=1e-3)
    assert len(list(folder.glob("vectors-1-*.f16"))) == 6


@pytest.mark.usefixtures("small_files")
def test_a_key_that_is_there_is_replaced(folder: Path) -> None:
    first, second = unit(10, 1), unit(10, 2)
    with Index.create(folder, SPACE, DIM) as index:
        index.add(names(10), first, [{"version": 1}] * 10)
        index.add(names(10)[4:6], second[4:6], [{"version": 2}] * 2)
        for opened in (index, Index.open(folder, SPACE)):
            assert len(opened) == 10
            assert [opened.metadata(key)["version"] for key in names(10)] == [1, 1, 1, 1, 2, 2, 1, 1, 1, 1]
            assert opened.search(second[4:5], 1)[0][0].key == "k4"
            assert opened.search(first[4:5], 1)[0][0].score < 0.99


@pytest.mark.usefixtures("small_files")
def test_what_is_removed_is_not_found(folder: Path) -> None:
    vectors = unit(15, 3)
    with Index.create(folder, SPACE, DIM) as index:
        index.add(names(15), vectors)
        assert index.remove(["k3", "k9", "unknown", "k3"]) == 2
        for opened in (index, Index.open(folder, SPACE)):
            assert set(content(opened)) == set(names(15)) - {"k3", "k9"}
            assert "k3" not in opened
            with pytest.raises(UsageError, match="'k3'"):
                opened.metadata("k3")
        index.add(["k3"], vectors[3:4])
        assert "k3" in content(Index.open(folder, SPACE))


@pytest.mark.usefixtures("small_files")
def test_compaction_changes_the_files_and_nothing_else(folder: Path) -> None:
    with Index.create(folder, SPACE, DIM) as index:
        index.add(names(15), unit(15, 4), [{"place": place} for place in range(15)])
        index.remove(names(15)[2:9])
        reader, before, order = Index.open(folder, SPACE), content(index), list(index)
        size = sum(path.stat().st_size for path in folder.iterdir())
        index.compact()
        assert sum(path.stat().st_size for path in folder.iterdir()) < size
        assert not list(folder.glob("*-1-*")) + list(folder.glob("entries-1.log"))
        assert content(index) == content(reader) == content(Index.open(folder, SPACE)) == before
        assert list(index) == order
        index.add(["new"], unit(1, 5))
        assert set(content(Index.open(folder, SPACE))) == {*order, "new"}


@pytest.mark.usefixtures("small_files")
def test_many_dead_entries_are_compacted_away(folder: Path) -> None:
    with Index.create(folder, SPACE, DIM) as index:
        for seed in range(8):
            index.add(names(15), unit(15, seed))
        assert index.manifest.generation > 1
        rows = sum(path.stat().st_size for path in folder.glob("*.f16")) / (2 * DIM)
        assert rows < 15 + 20 + 15
        (best,) = index.search(unit(15, 7)[3:4], 1)[0]
        assert best.key == "k3"


def test_an_index_searched_from_its_files_finds_what_one_in_memory_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Index.create(folder, SPACE, DIM) as index:
        index.add(names(50), unit(50, 6))
        cached = index.search(unit(4, 7), 9)
    monkeypatch.setattr(index_module, "CACHE_BYTES", 0)
    assert Index.open(folder, SPACE).search(unit(4, 7), 9) == cached


def test_queries_need_no_unit_length_and_may_be_of_any_float(folder: Path) -> None:
    with Index.create(folder, SPACE, DIM) as index:
        index.add(names(30), unit(30, 8))
        expected = index.search(unit(1, 9), 3)
        found = index.search(unit(1, 9).astype(np.float64) * 25, 3)
    assert [hit.key for hit in found[0]] == [hit.key for hit in expected[0]]
    assert [hit.score for hit in found[0]] == pytest.approx([hit.score for hit in expected[0]], abs=1e-6)


def test_another_models_space_is_refused(folder: Path) -> None:
    Index.create(folder, SPACE, DIM).close()
    for writable in (False, True):
        with pytest.raises(SpaceError, match=r"aaaaaaaaaaaa….*bbbbbbbbbbbb…"):
            Index.open(folder, "b" * 64, writable=writable)
    Index.open(folder, SPACE, writable=True).close()  # the refusal let go of the lock


def test_what_cannot_be_added_is_refused_and_changes_nothing(folder: Path) -> None:
    vectors = unit(2, 10)
    with Index.create(folder, SPACE, DIM) as index:
        for arguments, message in (
            ((["a", "a"], vectors), "twice"),
            ((["a", ""], vectors), "not empty"),
            ((["a", 3], vectors), "found 3"),
            ((["a"], vectors), "1 keys, but 2"),
            ((["a", "b"], vectors[:, :5]), r"\(N, 12\)"),
            ((["a", "b"], vectors * 2), "unit length"),
            ((["a", "b"], vectors * np.float32(np.nan)), "finite"),
            ((["a", "b"], vectors, [{}]), "one dict for each"),
            ((["a", "b"], vectors, [{}, {"x": object()}]), "what JSON can hold"),
            ((["a", "b"], vectors, [{}, {"x": float("nan")}]), "what JSON can hold"),
        ):
            with pytest.raises(UsageError, match=message):
                index.add(*arguments)  # type: ignore[arg-type]
        assert len(index) == len(Index.open(folder, SPACE)) == 0


def test_what_a_caller_does_to_metadata_stays_with_the_caller(folder: Path) -> None:
    with Index.create(folder, SPACE, DIM) as index:
        metadata = {"place": 1}
        index.add(["a"], unit(1, 17), [metadata])
        metadata["place"] = 2
        index.metadata("a")["place"] = 3
        index.search(unit(1, 17), 1)[0][0].metadata["place"] = 4
        index.compact()
        assert index.metadata("a") == Index.open(folder, SPACE).metadata("a") == {"place": 1}


def test_searches_that_make_no_sense_are_refused(folder: Path) -> None:
    with Index.create(folder, SPACE, DIM) as index:
        assert index.search(unit(2, 11), 5) == [[], []]
        for queries, k, message in (
            (unit(1, 1), 0, "found 0"),
            (unit(1, 1)[0], 1, r"\(N, 12\)"),
            (np.zeros((1, DIM), np.float32), 1, "no direction"),
        ):
            with pytest.raises(UsageError, match=message):
                index.search(queries, k)


def test_there_is_one_writer_at_a_time_and_any_readers(folder: Path) -> None:
    with Index.create(folder, SPACE, DIM) as index:
        index.add(["a"], unit(1, 12))
        with pytest.raises(IndexBusyError, match="another process"):
            Index.open(folder, SPACE, writable=True)
        script = f"import clipedge; clipedge.Index.open({str(folder)!r}, {SPACE!r}, writable=True)"
        outcome = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert "IndexBusyError" in outcome.stderr
        assert list(Index.open(folder, SPACE)) == ["a"]
    with Index.open(folder, SPACE, writable=True) as other:
        other.add(["b"], unit(1, 13))
    with pytest.raises(UsageError, match="writable=True"):
        index.add(["c"], unit(1, 14))


def test_a_reader_stays_at_the_moment_it_was_opened(folder: Path) -> None:
    with Index.create(folder, SPACE, DIM) as index:
        index.add(names(5), unit(5, 15))
        reader = Index.open(folder, SPACE)
        before = content(reader)
        index.add(["later"], unit(1, 16))
        index.remove(["k1"])
        index.compact()
        assert content(reader) == before
        with pytest.raises(UsageError, match="reading only"):
            reader.remove(["k2"])


def test_an_index_is_not_made_over_something_else(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match=r"letter\.txt"):
        Index.create(folder, SPACE, DIM)
    (folder / "letter.txt").unlink()
    Index.create(folder, SPACE, DIM).close()
    with pytest.raises(UsageError, match="not empty"):
        Index.create(folder, SPACE, DIM)
    with pytest.raises(UsageError, match="there is no index"):
        Index.open(folder.parent, SPACE, writable=True)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
