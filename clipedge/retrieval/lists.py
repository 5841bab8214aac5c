"""Approximate search of large indexes: an inverted file (Sivic and Zisserman 2003) over short codes, re-ranked exactly.

The rows lie in lists of about ROWS_PER_LIST, each around a centroid found by k-means. A query is compared with the
centroids, then with the codes of lists, and the true scores of the best of these come from the float16 vectors.
Centroids and codes are taken along the vectors' principal axes, the first of which hold most of what tells them apart.

A list's reach is the best inner product with the query that is to be expected in it: its centroid's, and so much more
as its rows are spread. Lists are looked at from the farthest reach down, until it falls below the last of the k best
found: a query among its like is compared with few codes, one that is about equally far from many with more. Then those
vectors are read that may be among the best, by how far codes and vectors were apart for the first. Both are bounded.

The constants are chosen for a recall@10 of 0.98 for pictures among a million, in the least time. Texts lie elsewhere
than pictures, so their nearest are spread over more lists: of these they find fewer. benchmarks/results/retrieval.md
has the figures, beside a graph's; exact search finds all.

The lists cover a prefix of the rows and never change: newer rows are searched exactly, dead ones are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clipedge.retrieval.clustering import k_means, nearest_centroids, principal_axes
from clipedge.retrieval.listfile import Lists, write_lists
from clipedge.retrieval.nearest import Found, Ranking, as_float32, merged, nearest, rescored, within_rounding
from clipedge.retrieval.segments import Vectors

__all__ = ["AUTOMATIC_ROWS", "build_lists", "nearest_by_lists"]

AUTOMATIC_ROWS = 32_768  # exact search takes tens of milliseconds from here on
CODE_AXES, CENTROID_AXES = 128, 64
ROWS_PER_LIST, LISTS = 64, 16_384  # at most
SAMPLE_FOR_AXES, SAMPLE_PER_LIST = 32_768, 16  # rows that tell axes and centroids
FIRST_LISTS, MOST_LISTS = 96, 1024  # looked at for a query
REACH = 0.35  # of the product of a query's length and a list's spread
FIRST_READ, MOST_READ = 48, 512  # vectors read for a query
MARGIN = 2.5  # standard deviations, of what codes leave out
BLOCK_ROWS = 4096
SEED = 0  # the same vectors give the same lists

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def build_lists(
    path: Path,
    vectors: Vectors,
    live: npt.NDArray[np.bool_],
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> None:
    """Write lists of the live rows of ``vectors``, one at least. The file appears whole or not."""
    rows, generator = np.flatnonzero(live), np.random.default_rng(SEED)
    progress(0, len(rows))
    mean, axes = principal_axes(as_float32(vectors.take(_some(rows, SAMPLE_FOR_AXES, generator))), CODE_AXES)

    def points(some: Rows) -> Floats:
        blocks = range(0, len(some), BLOCK_ROWS)
        return np.concatenate([(as_float32(vectors.take(some[at : at + BLOCK_ROWS])) - mean) @ axes for at in blocks])

    count = min(-(-len(rows) // ROWS_PER_LIST), LISTS)
    sample = points(_some(rows, SAMPLE_PER_LIST * count, generator))
    centroids = k_means(np.ascontiguousarray(sample[:, :CENTROID_AXES]), count, generator)
    step = max(float(np.abs(sample).max()) / 127, np.finfo(np.float32).tiny)
    codes, list_of = np.empty((len(rows), axes.shape[1]), np.int8), np.empty(len(rows), np.int64)
    squares = np.empty(len(rows))  # of the distances from the centroids
    for start in range(0, len(rows), 16 * BLOCK_ROWS):
        piece = slice(start, start + 16 * BLOCK_ROWS)
        block = points(rows[piece])
        codes[piece] = np.clip(np.rint(block / step), -127, 127)
        list_of[piece] = nearest_centroids(block[:, :CENTROID_AXES], centroids, generator)
        block[:, :CENTROID_AXES] -= centroids[list_of[piece]]
        squares[piece] = (block * block).sum(axis=1)
        progress(min(piece.stop, len(rows)), len(rows))
    sizes = np.bincount(list_of, minlength=count)
    spreads = np.sqrt(np.bincount(list_of, squares, count) / np.maximum(sizes, 1))
    order = np.argsort(list_of, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)])
    write_lists(path, Lists(axes * step, centroids / step, spreads / step, starts, rows[order], codes[order]))


def nearest_by_lists(
    lists: Lists,
    covered: int,
    vectors: Vectors,
    live: npt.NDArray[np.bool_],
    all_live: bool,
    queries: Floats,
    k: int,
) -> list[Ranking]:
    """As ``nearest``, but of the first ``covered`` rows only those are ranked that the lists propose.

    ``all_live`` spares the asking row by row.
    """
    fresh = nearest(_after(vectors.maps, covered), live[covered:], queries, k)
    results = []
    for query, delta in zip(queries, fresh, strict=True):
        newest: Found = (delta[0].astype(np.float64), delta[1] + covered)
        places, scores = _compared(lists, None if all_live else live, query, k)
        best = merged(newest, _ranked(vectors, query, lists.rows, places, scores, k), k)
        results.append((best[0].astype(np.float32), best[1]))
    return results


def _compared(lists: Lists, live: npt.NDArray[np.bool_] | None, query: Floats, k: int) -> tuple[Rows, Floats]:
    """Places of (live) rows in the lists that may hold the ``k`` best, and what their codes say of their products.

    A query may lie where all entries were removed, so more lists are looked at until they have enough live ones.
    """
    point = query @ lists.axes
    reaches = lists.centroids @ point[: lists.centroids.shape[1]]
    reaches += REACH * np.linalg.norm(point) * lists.spreads
    places, scores = np.empty(0, np.int64), np.empty(0, np.float32)
    numbers, looked_at = _farthest(reaches, np.arange(len(reaches)), FIRST_LISTS), 0
    while len(numbers):
        found = _places(lists, numbers)
        if live is not None:
            found = found[live[lists.rows[found]]]
        products = np.take(lists.codes, found, axis=0).astype(np.float32) @ point
        places, scores = np.append(places, found), np.append(scores, products)
        reaches[numbers] = -np.inf
        looked_at += len(numbers)
        enough = len(scores) >= k
        if enough and looked_at >= MOST_LISTS:
            break
        floor = np.partition(scores, -k)[-k] if enough else np.float32(-np.inf)
        numbers = _farthest(reaches, np.flatnonzero(reaches > floor), looked_at)
    return places, scores


def _farthest(reaches: Floats, numbers: Rows, count: int) -> Rows:
    """``count`` of some lists, or all if they are fewer."""
    return numbers if len(numbers) <= count else numbers[np.argpartition(reaches[numbers], -count)[-count:]]


def _places(lists: Lists, numbers: Rows) -> Rows:
    """Where the rows of some lists lie."""
    starts = lists.starts[numbers]
    lengths = lists.starts[numbers + 1] - starts
    ends = np.cumsum(lengths)
    places: Rows = np.arange(ends[-1]) + np.repeat(starts - ends + lengths, lengths)
    return places


def _ranked(vectors: Vectors, query: Floats, rows: Rows, places: Rows, scores: Floats, k: int) -> Found:
    """The ``k`` best of the rows at ``places`` by their vectors, of which those are read whose ``scores`` promise most.

    The first read tell how far codes are from the truth; then come those that may, by that, belong to the best.
    """
    wanted = max(FIRST_READ, 2 * k)
    if len(places) <= wanted:
        return rescored(vectors.take(rows[places]), query, rows[places])
    first = np.argpartition(scores, -wanted)[-wanted:]
    read = as_float32(vectors.take(rows[places[first]]))
    products = read @ query
    errors = products - scores[first]
    floor = np.partition(products, -k)[-k] - errors.mean() - MARGIN * errors.std()
    scores[first] = -np.inf
    more = np.flatnonzero(scores > floor)
    if len(more) > MOST_READ:
        more = more[np.argpartition(scores[more], -MOST_READ)[-MOST_READ:]]
    if len(more):
        others = as_float32(vectors.take(rows[places[more]]))
        read, products = np.concatenate([read, others]), np.concatenate([products, others @ query])
    best = within_rounding(products, k, len(query))
    return rescored(read[best], query, rows[places[np.concatenate([first, more])[best]]])


def _some(rows: Rows, count: int, generator: np.random.Generator) -> Rows:
    return rows if len(rows) <= count else np.sort(generator.choice(rows, count, replace=False))


def _after(maps: Sequence[npt.NDArray[np.float16]], covered: int) -> list[npt.NDArray[np.float16]]:
    """The maps without their first ``covered`` rows."""
    pieces, start = [], 0
    for vectors in maps:
        if start + len(vectors) > covered:
            pieces.append(vectors[max(covered - start, 0) :])
        start += len(vectors)
    return pieces
