"""The graph of a large index finds what exact search does, with entries added and removed since it was built."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clipedge.errors import BundleError, UsageError
from clipedge.retrieval import index as index_module
from clipedge.retrieval.index import Index

SPACE, DIM = "a" * 64, 32


def clustered(count: int, seed: int) -> NDArray[np.float32]:
    """Unit vectors in 20 clusters around a common direction, as a model's embeddings are."""
    centres = np.random.default_rng(1).normal(size=(20, DIM)) + 3
    generator = np.random.default_rng(seed)
    vectors = centres[generator.integers(0, 20, count)] + 0.5 * generator.normal(size=(count, DIM))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    monkeypatch.setattr(index_module, "SEGMENT_ROWS", 700)
    index = Index.create(tmp_path / "index", SPACE, DIM)
    index.add([f"k{place}" for place in range(2000)], clustered(2000, 2))
    return index


def recall(index: Index, k: int = 10) -> float:
    """Share of the exact answers that the graph finds; those that it finds have the exact scores."""
    queries = clustered(50, 3)
    hits = 0
    for exact, found in zip(index.search(queries, k, exact=True), index.search(queries, k), strict=True):
        scores = {hit.key: hit.score for hit in exact}
        common = [hit for hit in found if hit.key in scores]
        assert all(hit.score == scores[hit.key] for hit in common)
        assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
        assert len(found) == len(exact)
        hits += len(common)
    return hits / (50 * k)


def test_the_graph_finds_nearly_all_and_scores_exactly(index: Index) -> None:
    index.build_graph()
    assert recall(index) > 0.98
    reader = Index.open(index.folder, SPACE)
    assert reader.manifest.graph_rows == 2000
    assert recall(reader) > 0.98


def test_newer_entries_are_found_and_dead_ones_are_not(index: Index) -> None:
    index.build_graph()
    query = clustered(1, 4)
    best = [hit.key for hit in index.search(query, 5)[0]]
    index.remove(best[:2])
    index.add(["new", best[2]], np.concatenate([query, -query]))
    found = [hit.key for hit in index.search(query, 3)[0]]
    assert found == ["new", *best[3:5]]
    assert recall(Index.open(index.folder, SPACE)) > 0.98


def test_many_dead_entries_leave_enough_to_rank(index: Index) -> None:
    index.build_graph()
    nearest = [hit.key for hit in index.search(clustered(1, 5), 900, exact=True)[0]]
    index.remove(nearest)
    assert index.manifest.graph_rows == 2000
    assert recall(index) > 0.95


def test_compaction_builds_the_graph_again(index: Index) -> None:
    index.build_graph()
    index.remove([f"k{place}" for place in range(300)])
    index.compact()
    assert index.manifest.graph_rows == 1700
    assert len(list(index.folder.glob("*graph*"))) == 1
    assert recall(index) > 0.98


def test_a_newer_graph_takes_the_place_of_the_older(index: Index) -> None:
    index.build_graph()
    reader = Index.open(index.folder, SPACE)
    reader.search(clustered(1, 6), 1)
    index.add(["new"], clustered(1, 7))
    index.build_graph()
    assert [path.name for path in index.folder.glob("*graph*")] == ["graph-1-2001.usearch"]
    assert recall(reader) > 0.98
    assert index.search(clustered(1, 7), 1)[0][0].key == "new"


def test_a_graph_that_covers_all_is_kept(index: Index) -> None:
    index.build_graph()
    (path,) = index.folder.glob("graph-*")
    before = path.stat().st_mtime_ns
    index.build_graph()
    assert path.stat().st_mtime_ns == before


def test_an_empty_index_needs_no_graph(tmp_path: Path) -> None:
    with Index.create(tmp_path, SPACE, DIM) as index, pytest.raises(UsageError, match="empty"):
        index.build_graph()


@pytest.mark.parametrize("size", [None, 0, 100])
def test_a_graph_that_was_cut_off_is_refused_and_exact_search_goes_on(index: Index, size: int | None) -> None:
    index.build_graph()
    (path,) = index.folder.glob("graph-*")
    if size is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:size])
    reader = Index.open(index.folder, SPACE)
    with pytest.raises(BundleError, match=r"missing|found \d+"):
        reader.search(clustered(1, 8), 1)
    assert len(reader.search(clustered(1, 8), 3, exact=True)[0]) == 3
    index.build_graph()
    assert recall(index) > 0.98


def test_a_file_of_the_right_size_that_is_no_graph_is_refused(index: Index) -> None:
    index.build_graph()
    (path,) = index.folder.glob("graph-*")
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(BundleError, match="cannot be read"):
        Index.open(index.folder, SPACE).search(clustered(1, 8), 1)


def test_a_graph_that_names_rows_the_index_lacks_is_refused(index: Index, tmp_path: Path) -> None:
    index.build_graph()
    with Index.create(tmp_path / "smaller", SPACE, DIM) as smaller:
        smaller.add([f"k{place}" for place in range(100)], clustered(100, 2))
        (path,) = index.folder.glob("graph-*")
        shutil.copy(path, smaller.folder)
        replace(smaller.manifest, graph_rows=2000, graph_bytes=path.stat().st_size).save(smaller.folder)
        with pytest.raises(BundleError, match=r"names row \d+ of 100"):
            Index.open(smaller.folder, SPACE).search(clustered(1, 8), 1)


def test_without_usearch_the_error_names_the_extra(index: Index) -> None:
    index.build_graph()
    script = f"""
import sys
sys.modules["usearch"] = None
import clipedge, numpy as np
index = clipedge.Index.open({str(index.folder)!r}, {SPACE!r})
query = np.ones((1, {DIM}), np.float32)
print(len(index.search(query, 3, exact=True)[0]))
index.search(query, 3)
"""
    outcome = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert outcome.stdout.strip() == "3"
    assert "MissingDependencyError: the graph of a large index needs the usearch library" in outcome.stderr
    assert "clipedge[index]" in outcome.stderr
