"""Approximate search of large indexes: an inverted file (Sivic and Zisserman 2003) over short codes, re-ranked exactly.

The rows lie in lists of about ROWS_PER_LIST, each around a centroid found by k-means. A query is compared with the
centroids, then with the coarse codes of lists, with the fine codes of the best of these, and with the float16 vectors
of the few that may still be among the k best. Centroids and codes are taken along the mean and the principal axes of
the vectors, of which the first hold most of what tells them apart, so each step leaves little to the next.

How far the rows of a list are spread, and how that divides among the axes, tells the standard deviation of their
products with a query. A list's reach lies REACH of them above its centroid's product. Lists are looked at from the
farthest reach down, until it falls below the last of the k best found: a query among its like is compared with few
codes, one that is about equally far from many with more.

The constants are chosen for a recall@10 of 0.98 for pictures among a million, in the least time, on other queries than
benchmarks/retrieval.py asks. Texts lie elsewhere than pictures, so their nearest are spread over more lists: of these
they find fewer. benchmarks/results/retrieval.md has the figures, beside a graph's; exact search finds all.

The lists cover a prefix of the rows and never change: newer rows are searched exactly, dead ones are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clipedge.retrieval.clustering import k_means, nearest_centroids, principal_axes
from clipedge.retrieval.listfile import Lists, write_lists
from clipedge.retrieval.nearest import Found, Ranking, as_float32, merged, nearest, rescored, within_rounding
from clipedge.retrieval.segments import Vectors

__all__ = ["AUTOMATIC_ROWS", "build_lists", "nearest_by_lists"]

AUTOMATIC_ROWS = 32_768  # exact search takes tens of milliseconds from here on
CODE_AXES, CENTROID_AXES, COARSE_AXES = 256, 64, 64
ROWS_PER_LIST, LISTS = 64, 16_384  # at most
SAMPLE_FOR_AXES, SAMPLE_PER_LIST = 32_768, 16  # rows that tell axes and centroids
FIRST_LISTS, MOST_LISTS = 32, 1024  # looked at for a query
REACH = 2.8  # standard deviations of the products with a list's rows
REFINED = 640  # rows compared along all axes
MARGIN = 3.0  # standard deviations of what codes leave out of a product
BLOCK_ROWS = 16_384
SEED = 0  # the same vectors give the same lists

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
TINY = np.finfo(np.float32).tiny


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

    def blocks(some: Rows) -> Iterator[tuple[slice, Floats, Floats]]:
        """Where a block lies in ``some``, its rows' differences from the mean, and these along the axes."""
        for start in range(0, len(some), BLOCK_ROWS):
            piece = slice(start, min(start + BLOCK_ROWS, len(some)))
            differences: Floats = as_float32(vectors.take(some[piece])) - mean
            points: Floats = differences @ axes
            yield piece, differences, points

    count = min(-(-len(rows) // ROWS_PER_LIST), LISTS)
    sample = np.concatenate([points for _, _, points in blocks(_some(rows, SAMPLE_PER_LIST * count, generator))])
    centroids = k_means(np.ascontiguousarray(sample[:, :CENTROID_AXES]), count, generator)
    steps = np.maximum(np.abs(sample).max(axis=0) / 127, TINY)
    codes, list_of = np.empty((len(rows), len(steps)), np.int8), np.empty(len(rows), np.int64)
    along, around, beside = np.zeros(len(steps)), np.zeros(count), 0.0  # squared lengths: by axis, by list, of the rest
    for piece, differences, points in blocks(rows):
        codes[piece] = np.clip(np.rint(points / steps), -127, 127)
        list_of[piece] = nearest_centroids(points[:, :CENTROID_AXES], centroids, generator)
        beside += max(float(np.vdot(differences, differences) - np.vdot(points, points)), 0)
        points[:, :CENTROID_AXES] -= centroids[list_of[piece]]
        squares = points * points
        along += squares.sum(axis=0)
        around += np.bincount(list_of[piece], squares.sum(axis=1), count)
        progress(piece.stop, len(rows))
    sizes, order = np.bincount(list_of, minlength=count), np.argsort(list_of, kind="stable")
    lists = Lists(
        axes=axes,
        steps=steps,
        shares=along / max(along.sum(), TINY),
        residual=np.array([(beside / len(rows)) ** 0.5]),
        centroids=centroids,
        spreads=np.sqrt(around / np.maximum(sizes, 1)),
        starts=np.concatenate([[0], np.cumsum(sizes)]),
        rows=rows[order],
        coarse=codes[order, :COARSE_AXES],
        fine=codes[order, COARSE_AXES:],
    )
    write_lists(path, lists)


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
        point = query @ lists.axes
        places, scores = _refined(lists, point, *_compared(lists, None if all_live else live, point, k, MOST_LISTS), k)
        promising = places[_may_be_best(lists, point, scores, k)]
        best = merged(newest, _ranked(vectors, query, lists.rows[promising], k), k)
        results.append((best[0].astype(np.float32), best[1]))
    return results


def _compared(
    lists: Lists, live: npt.NDArray[np.bool_] | None, point: Floats, k: int, most: int
) -> tuple[Rows, Floats]:
    """Places of (live) rows in the lists that may hold the ``k`` best, and their products along the coarse axes."""
    reaches = lists.centroids @ point[: lists.centroids.shape[1]]
    reaches += REACH * np.sqrt(lists.shares @ (point * point)) * lists.spreads
    numbers = np.argpartition(reaches, -most)[-most:] if most < len(reaches) else np.arange(len(reaches))
    numbers = numbers[np.argsort(-reaches[numbers])]
    reaches = reaches[numbers]
    coarse = point[: lists.coarse.shape[1]] * lists.steps[: lists.coarse.shape[1]]
    found, scores, best = [], [], np.full(k, -np.inf, np.float32)
    start, end = 0, min(FIRST_LISTS, len(numbers))
    while start < end:
        places = _places(lists, numbers[start:end])
        if live is not None:
            places = places[live[lists.rows[places]]]
        products = np.take(lists.coarse, places, axis=0).astype(np.float32) @ coarse
        found.append(places)
        scores.append(products)
        best = np.partition(np.append(best, products), -k)[-k:]
        start, end = end, min(2 * end, int(np.count_nonzero(reaches > best[0])))
    if best[0] == -np.inf and most < len(lists.spreads):  # a query may lie where most entries were removed
        return _compared(lists, live, point, k, len(lists.spreads))
    return np.concatenate(found), np.concatenate(scores)


def _places(lists: Lists, numbers: Rows) -> Rows:
    """Where the rows of some lists lie."""
    starts = lists.starts[numbers]
    lengths = lists.starts[numbers + 1] - starts
    ends = np.cumsum(lengths)
    places: Rows = np.arange(ends[-1]) + np.repeat(starts - ends + lengths, lengths)
    return places


def _refined(lists: Lists, point: Floats, places: Rows, scores: Floats, k: int) -> tuple[Rows, Floats]:
    """The most promising of some rows, with their products along all axes."""
    count, few = max(REFINED, 4 * k), lists.coarse.shape[1]
    if len(places) > count:
        best = np.argpartition(scores, -count)[-count:]
        places, scores = places[best], scores[best]
    return places, scores + np.take(lists.fine, places, axis=0).astype(np.float32) @ (point[few:] * lists.steps[few:])


def _may_be_best(lists: Lists, point: Floats, scores: Floats, k: int) -> npt.NDArray[np.bool_]:
    """Which may be among the ``k`` best by their vectors: rounding and the directions beside all axes blur scores."""
    if len(scores) <= k:
        return np.ones(len(scores), np.bool_)
    beside = max(1 - float(point @ point), 0) / max(len(lists.axes) - len(point), 1)
    rounded = float(np.sum((point * lists.steps) ** 2)) / 12
    blur = (float(lists.residual[0]) ** 2 * beside + rounded) ** 0.5
    return np.asarray(scores >= np.partition(scores, -k)[-k] - MARGIN * blur)


def _ranked(vectors: Vectors, query: Floats, rows: Rows, k: int) -> Found:
    """The ``k`` best of ``rows`` by their vectors."""
    read = as_float32(vectors.take(rows))
    best = within_rounding(read @ query, k, len(query))
    return rescored(read[best], query, rows[best])


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
