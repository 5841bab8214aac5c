"""Approximate search of large indexes: an inverted file (Sivic and Zisserman 2003) over short codes, re-ranked exactly.

The rows lie in lists of about ROWS_PER_LIST, each around a centroid found by k-means. A query is compared with the
centroids, then with the codes of lists, and the true scores of the best of these come from the float16 vectors.
Centroids and codes are taken along the vectors' principal axes, the first of which hold most of what tells them apart.

A list's reach is the best inner product with the query that is to be expected in it: its centroid's, and so much more
as its rows are spread. Lists are looked at from the farthest reach down, until it falls below the last of the k best
found. So a picture among its like is compared with few codes, and a text, which is about equally far from very many
pictures, with more: FIRST_CODES are always compared, and MOST_CODES at most. benchmarks/results/retrieval.md has what
share of the true ten that finds.

The lists cover a prefix of the rows and never change: newer rows are searched exactly, dead ones are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clipedge.retrieval.clustering import k_means, nearest_centroids, principal_axes
from clipedge.retrieval.listfile import Lists, write_lists
from clipedge.retrieval.nearest import Found, Ranking, as_float32, merged, nearest, rescored
from clipedge.retrieval.segments import Vectors

__all__ = ["AUTOMATIC_ROWS", "build_lists", "nearest_by_lists"]

AUTOMATIC_ROWS = 32_768  # exact search takes tens of milliseconds from here on
CODE_AXES, CENTROID_AXES = 128, 64
ROWS_PER_LIST, MOST_LISTS = 64, 16_384
SAMPLE_FOR_AXES, SAMPLE_PER_LIST = 32_768, 16  # rows that tell axes and centroids
FIRST_CODES, MOST_CODES = 4096, 65_536
REACH = 0.35  # of a list's spread times the query's length
PROPOSED, PROPOSED_PER_HIT = 64, 6  # rows ranked exactly, at least
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

    count = min(-(-len(rows) // ROWS_PER_LIST), MOST_LISTS)
    sample = points(_some(rows, SAMPLE_PER_LIST * count, generator))
    centroids = k_means(np.ascontiguousarray(sample[:, :CENTROID_AXES]), count, generator)
    step = max(float(np.abs(sample).max()) / 127, np.finfo(np.float32).tiny)
    codes, list_of, squares = np.empty((len(rows), axes.shape[1]), np.int8), np.empty(len(rows), np.int64), []
    for start in range(0, len(rows), 16 * BLOCK_ROWS):
        piece = slice(start, start + 16 * BLOCK_ROWS)
        block = points(rows[piece])
        list_of[piece] = nearest_centroids(block[:, :CENTROID_AXES], centroids, generator)
        squares.append(_squared_distances(block, centroids[list_of[piece]]))
        codes[piece] = np.clip(np.rint(block / step), -127, 127)
        progress(min(piece.stop, len(rows)), len(rows))
    sizes = np.bincount(list_of, minlength=count)
    spreads = np.sqrt(np.bincount(list_of, np.concatenate(squares), count) / np.maximum(sizes, 1))
    order = np.argsort(list_of, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)])
    write_lists(path, Lists(axes, centroids / step, spreads / step, starts, rows[order], codes[order]))


def nearest_by_lists(
    lists: Lists,
    covered: int,
    vectors: Vectors,
    live: npt.NDArray[np.bool_],
    queries: Floats,
    k: int,
) -> list[Ranking]:
    """As ``nearest``, but of the first ``covered`` rows only those are ranked that the lists propose."""
    fresh = nearest(_after(vectors.maps, covered), live[covered:], queries, k)
    results = []
    for query, delta in zip(queries, fresh, strict=True):
        rows = _proposed(lists, live, query, k)
        newest: Found = (delta[0].astype(np.float64), delta[1] + covered)
        best = merged(newest, rescored(vectors.take(rows), query, rows), k)
        results.append((best[0].astype(np.float32), best[1]))
    return results


def _proposed(lists: Lists, live: npt.NDArray[np.bool_], query: Floats, k: int) -> Rows:
    """Live rows that may be among the ``k`` best.

    A query may lie where all entries were removed, so more lists are looked at until they have enough live ones.
    """
    wanted, point = max(PROPOSED, PROPOSED_PER_HIT * k), query @ lists.axes
    reaches = lists.centroids @ point[: lists.centroids.shape[1]]
    reaches += REACH * np.float32(np.linalg.norm(point)) * lists.spreads
    order = np.argsort(-reaches)
    ends = np.cumsum((lists.starts[1:] - lists.starts[:-1])[order])
    used = int(np.searchsorted(ends, FIRST_CODES)) + 1
    places, scores = _compared(lists, live, point, order[:used])
    while used < len(order):
        floor = np.partition(scores, -k)[-k] if len(scores) >= k else -np.inf
        limit = np.searchsorted(ends, MOST_CODES) if len(scores) >= wanted else 4 * used
        more = min(int(np.searchsorted(-reaches[order], -floor)), int(limit))
        if more <= used:
            break
        found = _compared(lists, live, point, order[used:more])
        places, scores, used = np.append(places, found[0]), np.append(scores, found[1]), more
        if len(scores) >= wanted:
            break
    if len(places) > wanted:
        places = places[np.argpartition(scores, -wanted)[-wanted:]]
    return np.sort(lists.rows[places])


def _compared(
    lists: Lists, live: npt.NDArray[np.bool_], point: Floats, numbers: Rows
) -> tuple[Rows, Floats]:
    """Where the live rows of some lists lie, and the products of their codes with a query's ``point``."""
    starts = lists.starts[numbers]
    lengths = lists.starts[numbers + 1] - starts
    ends = np.cumsum(lengths)
    places = np.arange(ends[-1]) + np.repeat(starts - ends + lengths, lengths)
    places = places[live[lists.rows[places]]]
    return places, np.take(lists.codes, places, axis=0).astype(np.float32) @ point


def _squared_distances(points: Floats, centroids: Floats) -> Floats:
    """(N,) of (N, d) points from (N, e) centroids that have none of the last d - e numbers."""
    rest = points.copy()
    rest[:, : centroids.shape[1]] -= centroids
    return np.asarray((rest * rest).sum(axis=1), np.float32)


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
