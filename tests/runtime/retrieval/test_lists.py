"""The lists of a large index find what exact search does, with entries added and removed since they were made."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clipedge.errors import BundleError, UsageError
from clipedge.retrieval import index as index_module
from clipedge.retrieval import lists as lists_module
from clipedge.retrieval.index import Index
from clipedge.retrieval.listfile import open_lists

SPACE, DIM = "a" * 64, 32


def clustered(count: int, seed: int, dim: int = DIM) -> NDArray[np.float32]:
    """Unit vectors in 20 clusters around a common direction, as a model's embeddings are."""
    spread = 1 / np.sqrt(np.arange(1, dim + 1))  # as principal components have it
    centres = np.random.default_rng(1).normal(size=(20, dim)) * spread + 1
    generator = np.random.default_rng(seed)
    vectors = centres[generator.integers(0, 20, count)] + 0.5 * spread * generator.normal(size=(count, dim))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """Of 2000 entries in 125 lists, 10 of which a query looks at first."""
    monkeypatch.setattr(index_module, "SEGMENT_ROWS", 700)
    monkeypatch.setattr(lists_module, "ROWS_PER_LIST", 16)
    monkeypatch.setattr(lists_module, "FIRST_LISTS", 10)
    index = Index.create(tmp_path / "index", SPACE, DIM)
    index.add([f"k{place}" for place in range(2000)], clustered(2000, 2))
    return index


def recall(index: Index, k: int = 10) -> float:
    """Share of the exact answers that the lists find; those that they find have the exact scores."""
    queries = clustered(50, 3, index.manifest.dim)
    hits = 0
    for exact, found in zip(index.search(queries, k, exact=True), index.search(queries, k), strict=True):
        scores = {hit.key: hit.score for hit in exact}
        common = [hit for hit in found if hit.key in scores]
        assert all(hit.score == scores[hit.key] for hit in common)
        assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
        assert len(found) == len(exact)
        hits += len(common)
    return hits / (50 * k)


def test_the_lists_find_nearly_all_and_score_exactly(index: Index) -> None:
    index.build_lists()
    assert recall(index) > 0.98
    reader = Index.open(index.folder, SPACE)
    assert reader.manifest.listed_rows == 2000
    assert recall(reader) > 0.98


def test_what_a_query_compares_decides_what_it_finds(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a fault in what is compared could hide behind all being compared."""
    index.build_lists()
    recalls = []
    for first, most in ((1, 1), (1, 1000), (1000, 1000)):
        monkeypatch.setattr(lists_module, "FIRST_LISTS", first)
        monkeypatch.setattr(lists_module, "MOST_LISTS", most)
        recalls.append(recall(index))
    assert recalls[0] + 0.1 < recalls[1] <= recalls[2] == 1


def test_what_codes_leave_out_is_made_up_for_by_looking_at_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cluster all are about equally near, but for what codes leave out."""
    with Index.create(tmp_path, SPACE, 512) as index:
        index.add([f"k{place}" for place in range(3000)], clustered(3000, 2, 512))
        index.build_lists()
        lists = open_lists(*lists_of(index), 512)
        assert lists.coarse.shape == (3000, lists_module.COARSE_AXES)
        assert lists.fine.shape == (3000, lists_module.CODE_AXES - lists_module.COARSE_AXES)
        for constant, less, k in (("REFINED", 1, 1), ("MARGIN", 0, 10)):
            assert recall(index, k) > 0.97
            with monkeypatch.context() as patch:
                patch.setattr(lists_module, constant, less)
                assert recall(index, k) < 0.95


@pytest.mark.parametrize("count", [1, 2, 3, 17])
def test_a_few_entries_are_all_found(tmp_path: Path, count: int) -> None:
    with Index.create(tmp_path, SPACE, DIM) as index:
        index.add([f"k{place}" for place in range(count)], clustered(count, 2))
        index.build_lists()
        for k in (1, 30):
            assert index.search(clustered(5, 3), k) == index.search(clustered(5, 3), k, exact=True)


def test_equal_vectors_come_in_the_order_of_their_addition(tmp_path: Path) -> None:
    with Index.create(tmp_path, SPACE, DIM) as index:
        index.add([f"k{place}" for place in range(40)], np.repeat(clustered(1, 2), 40, axis=0))
        index.build_lists()
        assert [hit.key for hit in index.search(clustered(1, 2), 40)[0]] == [f"k{place}" for place in range(40)]


def test_newer_entries_are_found_and_dead_ones_are_not(index: Index) -> None:
    index.build_lists()
    query = clustered(1, 4)
    best = [hit.key for hit in index.search(query, 5)[0]]
    index.remove(best[:2])
    index.add(["new", best[2]], np.concatenate([query, -query]))
    found = [hit.key for hit in index.search(query, 3)[0]]
    assert found == ["new", *best[3:5]]
    assert index.unlisted == 2
    assert recall(Index.open(index.folder, SPACE)) > 0.98


def test_many_dead_entries_leave_enough_to_rank(index: Index) -> None:
    index.build_lists()
    nearest = [hit.key for hit in index.search(clustered(1, 5), 900, exact=True)[0]]
    index.remove(nearest)
    assert index.manifest.listed_rows == 2000
    assert recall(index) > 0.95
    assert len(index.search(clustered(1, 5), 70)[0]) == 70


def test_compaction_makes_the_lists_again(index: Index) -> None:
    index.build_lists()
    index.remove([f"k{place}" for place in range(300)])
    index.compact()
    assert index.manifest.listed_rows == 1700
    assert len(list(index.folder.glob("*lists*"))) == 1
    assert recall(index) > 0.98


def test_newer_lists_take_the_place_of_older_ones(index: Index) -> None:
    index.build_lists()
    reader = Index.open(index.folder, SPACE)
    reader.search(clustered(1, 6), 1)
    index.add(["new"], clustered(1, 7))
    index.build_lists()
    assert [path.name for path in index.folder.glob("*lists*")] == ["lists-1-2001.ivf"]
    assert recall(reader) > 0.98
    assert index.search(clustered(1, 7), 1)[0][0].key == "new"


def test_lists_that_cover_all_are_kept_and_the_same_vectors_give_the_same(index: Index) -> None:
    index.build_lists()
    path, _ = lists_of(index)
    before, data = path.stat().st_mtime_ns, path.read_bytes()
    index.build_lists()
    assert path.stat().st_mtime_ns == before
    path.unlink()
    index.build_lists()
    assert path.read_bytes() == data


def test_an_empty_index_needs_no_lists(tmp_path: Path) -> None:
    with Index.create(tmp_path, SPACE, DIM) as index, pytest.raises(UsageError, match="empty"):
        index.build_lists()


@pytest.mark.parametrize("version", [1, 2])
def test_an_index_with_a_graph_is_searched_exactly_until_it_has_lists(index: Index, version: int) -> None:
    """Versions 1 and 2 had a graph of the usearch library in the place of lists."""
    path = index.folder / "index.json"
    index.close()
    fields = json.loads(path.read_text())
    del fields["listed_rows"]
    if version == 1:
        del fields["table_end"]
    path.write_text(json.dumps({**fields, "version": version, "graph_rows": 2000, "graph_bytes": 4}))
    (index.folder / "graph-1-2000.usearch").write_bytes(b"old!")
    reader = Index.open(index.folder, SPACE)
    assert reader.unlisted == len(reader) == 2000
    assert reader.search(clustered(3, 3), 5) == reader.search(clustered(3, 3), 5, exact=True)
    with Index.open(index.folder, SPACE, writable=True) as writer:
        writer.build_lists()
        assert recall(writer) > 0.98
    assert not list(index.folder.glob("graph*"))
    assert json.loads(path.read_text())["version"] == 3


def lists_of(index: Index) -> tuple[Path, int]:
    """The file, and how many rows it covers."""
    return index.manifest.lists_path(index.folder), index.manifest.listed_rows


@pytest.mark.parametrize("size", [None, 0, 20, 100, -1])
def test_a_file_that_was_cut_off_is_refused_and_exact_search_goes_on(index: Index, size: int | None) -> None:
    index.build_lists()
    path, _ = lists_of(index)
    if size is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:size])
    reader = Index.open(index.folder, SPACE)
    with pytest.raises(BundleError, match=r"(cannot be read|is damaged) .*build the lists again \(clipedge index\)"):
        reader.search(clustered(1, 8), 1)
    assert len(reader.search(clustered(1, 8), 3, exact=True)[0]) == 3
    index.build_lists()
    assert recall(index) > 0.98


def test_any_altered_byte_is_refused_but_those_of_codes_which_change_no_score(index: Index) -> None:
    index.build_lists()
    path, covered = lists_of(index)
    data = path.read_bytes()
    codes = len(data) - 2000 * DIM
    for place in np.random.default_rng(3).integers(0, codes, 60).tolist():
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        with pytest.raises(BundleError, match="is damaged"):
            open_lists(path, covered, DIM)
    path.write_bytes(data[:codes] + np.random.default_rng(4).bytes(2000 * DIM))
    recall(Index.open(index.folder, SPACE))  # which compares the scores of what is found


def with_right_checksums(data: bytes) -> bytes:
    """What whoever makes such a file to do harm would write."""
    magic, *numbers = struct.unpack_from("<8s6Q", data)
    header = struct.pack("<8s6QI", magic, *numbers, zlib.crc32(data[64 : len(data) - numbers[1] * numbers[5]]))
    return header + struct.pack("<I", zlib.crc32(header)) + data[64:]


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("rows", np.int64(2000), "names rows from .* to 2000, of 2000"),
        ("rows", np.int64(-1), "names rows from -1"),
        ("starts", np.int64(1), "one after the other"),
        ("starts", np.int64(-5), "one after the other"),
        ("axes", np.float32(np.nan), "not finite"),
        ("centroids", np.float32(np.inf), "not finite"),
    ],
)
def test_values_that_lead_elsewhere_are_refused(index: Index, part: str, value: np.generic, message: str) -> None:
    index.build_lists()
    path, covered = lists_of(index)
    lists, data = open_lists(path, covered, DIM), path.read_bytes()
    before = (getattr(lists, part)).tobytes()
    place = data.index(before)
    data = data[:place] + value.tobytes() + data[place + len(value.tobytes()) :]
    path.write_bytes(with_right_checksums(data))
    with pytest.raises(BundleError, match=message):
        Index.open(index.folder, SPACE).search(clustered(1, 8), 1)


@pytest.mark.parametrize(
    "numbers",
    [
        (0, 1, 1, 1, 1, 1),
        (DIM, 0, 0, 0, 1, 1),
        (DIM, 4, 5, 4, 1, 1),
        (DIM, 4, 4, 5, 1, 1),
        (DIM, 1 << 62, 1, 1, 1, 1),
        (DIM, 1, 1, 1, 1, 1 << 63),
        (9, 1, 1, 1, 1, 1),
    ],
)
def test_headers_that_claim_what_is_not_there_take_no_memory(index: Index, numbers: tuple[int, ...]) -> None:
    index.build_lists()
    path, covered = lists_of(index)
    header = struct.pack("<8s6QI", path.read_bytes()[:8], *numbers, 0)
    path.write_bytes(header + struct.pack("<I", zlib.crc32(header)) + bytes(1000))
    with pytest.raises(BundleError, match="is damaged"):
        open_lists(path, covered, DIM)


def test_lists_of_another_index_are_refused(index: Index, tmp_path: Path) -> None:
    index.build_lists()
    with Index.create(tmp_path / "smaller", SPACE, DIM) as smaller:
        smaller.add([f"k{place}" for place in range(100)], clustered(100, 2))
        shutil.copy(lists_of(index)[0], smaller.folder)
        replace(smaller.manifest, listed_rows=2000).save(smaller.folder)
        with pytest.raises(BundleError, match=r"names rows from 0 to 1999, of 100"):
            Index.open(smaller.folder, SPACE).search(clustered(1, 8), 1)
