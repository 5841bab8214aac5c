"""Where vectors lie: their principal axes, and clusters of what is left of them along these (k-means, Lloyd 1982)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["k_means", "nearest_centroids", "principal_axes"]

ROUNDS = 8  # the clusters hardly change after that
BLOCK_ROWS = 4096  # points compared at once
ALL_COMPARED = 512  # centroids: a point is compared with all of so many; of more, with those of its nearest groups
GROUPS_COMPARED = 24

Points = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]


def principal_axes(sample: Points, count: int) -> tuple[Points, Points]:
    """The mean (D,) of (N, D), and orthonormal axes (D, count), ``count`` at most: the mean's, and of the rest those
    along which the sample varies most, most first.

    It may vary little along its mean. But embeddings of one tower point that way, queries too, so that what difference
    there is tells more about inner products than along any other axis.
    """
    mean = sample.mean(axis=0)
    first = mean / max(float(np.linalg.norm(mean)), np.finfo(np.float32).tiny)
    rest = sample - mean
    rest -= np.outer(rest @ first, first)
    variances = rest.T @ rest
    variances += 2 * (np.trace(variances) + 1) * np.outer(first, first)  # more than along any other
    return mean, np.ascontiguousarray(np.linalg.eigh(variances)[1][:, ::-1][:, :count])


def k_means(points: Points, count: int, generator: np.random.Generator) -> Points:
    """``count`` centroids (count, d) of (N, d) points, N not below ``count``."""
    centroids = points[generator.choice(len(points), count, replace=False)]
    for _ in range(ROUNDS):
        nearest = nearest_centroids(points, centroids, generator)
        sizes = np.bincount(nearest, minlength=count)
        filled = np.flatnonzero(sizes)
        starts = (np.cumsum(sizes) - sizes)[filled]
        sums = np.add.reduceat(points[np.argsort(nearest, kind="stable")], starts, axis=0)
        # One that lost all of its points begins again at one of them.
        centroids = points[generator.choice(len(points), count, replace=False)]
        centroids[filled] = sums / sizes[filled, None]
    return centroids


def nearest_centroids(points: Points, centroids: Points, generator: np.random.Generator) -> Numbers:
    """For each of (N, d) points the number of its nearest centroid.

    Where there are many, these are grouped, and the nearest is looked for in the groups nearest to the point.
    """
    if len(centroids) <= ALL_COMPARED:
        middles, groups = centroids[:1], [np.arange(len(centroids))]
    else:
        middles = k_means(centroids, int(len(centroids) ** 0.5), generator)
        group_of = nearest_centroids(centroids, middles, generator)
        groups = [np.flatnonzero(group_of == number) for number in range(len(middles))]
    nearest = np.empty(len(points), np.int64)
    for start in range(0, len(points), BLOCK_ROWS):
        piece = slice(start, start + BLOCK_ROWS)
        nearest[piece] = _nearest_in_groups(points[piece], centroids, middles, groups)
    return nearest


def _nearest_in_groups(points: Points, centroids: Points, middles: Points, groups: list[Numbers]) -> Numbers:
    compared = min(GROUPS_COMPARED, len(groups))
    to_middles = _closeness(points, middles)
    chosen = np.argpartition(to_middles, -compared, axis=1)[:, -compared:]
    nearest, best = np.zeros(len(points), np.int64), np.full(len(points), -np.inf, np.float32)
    for number, members in enumerate(groups):
        rows = np.flatnonzero((chosen == number).any(axis=1))
        if len(rows) and len(members):
            closeness = _closeness(points[rows], centroids[members])
            places = closeness.argmax(axis=1)
            found = closeness[np.arange(len(rows)), places]
            better = found > best[rows]
            best[rows[better]], nearest[rows[better]] = found[better], members[places[better]]
    return nearest


def _closeness(points: Points, centroids: Points) -> Points:
    """(N, count), largest where the distance is least: of its square, what depends on the centroid, halved."""
    return np.asarray(points @ centroids.T - (centroids * centroids).sum(axis=1) / 2, np.float32)
