"""Approximate search of large indexes: a graph (HNSW, Malkov and Yashunin 2018) over int8, re-ranked exactly.

usearch builds the graph and maps its file into memory. It proposes rows by the cosine of int8 copies, each vector
scaled by its own largest number; the true scores of the proposed rows come from the float16 vectors. The graph covers a
prefix of the rows and never changes: newer rows are searched exactly, dead ones are left out of what it proposes.

What is checked of the file is its size, which takes no time. Like a program, a graph from a stranger is not to be
opened: usearch reads it without checks of its own. Build it again instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipedge.errors import BundleError, MissingDependencyError
from clipedge.parallel import cores
from clipedge.retrieval.nearest import Found, Ranking, merged, nearest, rescored
from clipedge.retrieval.segments import Vectors
from clipedge.whole import whole_file

__all__ = ["AUTOMATIC_ROWS", "build_graph", "has_graph", "has_usearch", "nearest_by_graph", "open_graph"]

AUTOMATIC_ROWS = 65_536  # exact search takes tens of milliseconds from here on
CONNECTIVITY, EXPANSION_BUILD, EXPANSION_SEARCH = 12, 128, 128
# Rows proposed for re-ranking: int8 alone orders the ten best wrongly too often, of this many it loses hardly any.
PROPOSED, PROPOSED_PER_HIT = 32, 3
BLOCK_ROWS = 4096
ADVICE = "build it again (clipedge index --graph), or search exactly (--exact, exact=True)"


def has_usearch() -> bool:
    return find_spec("usearch") is not None


def has_graph(path: Path, expected_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == expected_bytes


def build_graph(
    path: Path,
    vectors: Vectors,
    live: npt.NDArray[np.bool_],
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> int:
    """Write a graph over the live rows of ``vectors``; returns the file's bytes. It appears whole or not.

    Raises MissingDependencyError without usearch.
    """
    graph = _usearch().Index(
        ndim=vectors.maps[0].shape[1],
        metric="cos",
        dtype="i8",
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION_BUILD,
        enable_key_lookups=False,  # nobody asks for a row's vector; they would take 32 bytes a row
    )
    rows = np.flatnonzero(live)
    for start in range(0, len(rows), BLOCK_ROWS):
        some = rows[start : start + BLOCK_ROWS]
        graph.add(some.astype(np.uint64), _as_int8(vectors.take(some)), threads=cores())
        progress(start + len(some), len(rows))
    with whole_file(path) as staging:
        graph.save(os.fspath(staging))
    return path.stat().st_size


def open_graph(path: Path, expected_bytes: int, dim: int) -> Any:
    """The graph at ``path``, mapped into memory. Raises BundleError when it is missing, cut off or of other vectors."""
    if not has_graph(path, expected_bytes):
        found = f"found {path.stat().st_size}" if path.is_file() else "it is missing"
        raise BundleError(f"{path} has to hold {expected_bytes} bytes, {found}: open the index again, {ADVICE}")
    library = _usearch()  # whose absence is no damage
    try:
        graph = library.Index.restore(os.fspath(path), view=True, enable_key_lookups=False)
    except (RuntimeError, ValueError) as error:
        raise BundleError(f"{path} cannot be read ({error}): remove it, {ADVICE}") from None
    if graph is None or graph.ndim != dim:
        raise BundleError(f"{path} is no graph of vectors of {dim} numbers: remove it, {ADVICE}")
    graph.expansion_search = EXPANSION_SEARCH
    return graph


def nearest_by_graph(
    graph: Any,
    covered: int,
    vectors: Vectors,
    live: npt.NDArray[np.bool_],
    queries: npt.NDArray[np.float32],
    k: int,
) -> list[Ranking]:
    """As ``nearest``, but of the first ``covered`` rows only those are ranked that the graph proposes."""
    fresh = nearest(_after(vectors.maps, covered), live[covered:], queries, k)
    results = []
    for query, delta in zip(queries, fresh, strict=True):
        rows = _proposed(graph, covered, live, query, max(PROPOSED, PROPOSED_PER_HIT * k))
        newest: Found = (delta[0].astype(np.float64), delta[1] + covered)
        best = merged(newest, rescored(vectors.take(rows), query, rows), k)
        results.append((best[0].astype(np.float32), best[1]))
    return results


def _proposed(
    graph: Any, covered: int, live: npt.NDArray[np.bool_], query: npt.NDArray[np.float32], wanted: int
) -> npt.NDArray[np.int64]:
    """Live rows near the query: about ``wanted``, at least half of that unless there are not as many.

    A query may lie where all entries were removed, so the graph is asked for more until it has told enough live ones.
    """
    count, code, covered = wanted, _as_int8(query[None])[0], min(covered, len(live))
    while True:
        rows = np.asarray(graph.search(code, min(count, len(graph)), threads=1).keys, np.int64)
        if len(rows) and rows.max() >= covered:
            raise BundleError(f"the graph names row {rows.max()} of {covered}: remove its file, {ADVICE}")
        rows = rows[live[rows]]
        if 2 * len(rows) >= wanted or count >= len(graph):
            return rows
        count *= 4


def _after(maps: Sequence[npt.NDArray[np.float16]], covered: int) -> list[npt.NDArray[np.float16]]:
    """The maps without their first ``covered`` rows."""
    pieces, start = [], 0
    for vectors in maps:
        if start + len(vectors) > covered:
            pieces.append(vectors[max(covered - start, 0) :])
        start += len(vectors)
    return pieces


def _as_int8(vectors: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int8]:
    wide = np.asarray(vectors, np.float32)
    largest = np.maximum(np.abs(wide).max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return np.asarray(np.rint(wide / largest * 127), np.int8)


def _usearch() -> Any:
    try:
        import usearch.index
    except ImportError:
        raise MissingDependencyError(
            'the graph of a large index needs the usearch library; install it with pip install "clipedge[index]", '
            "or search exactly (exact=True, --exact)"
        ) from None
    return usearch.index
