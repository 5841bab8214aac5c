"""Exact search: the k nearest of float16 vectors, whatever the order in which a matrix product adds.

A float32 product finds the candidates: everything within its rounding error of the k-th best. Only those are computed
again in float64, each row by the same summation, and ordered. So equal vectors get equal scores wherever they lie, and
the order does not depend on the processor, the threads or the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clipedge.errors import BundleError, UsageError

__all__ = ["Found", "Ranking", "as_float32", "checked_vectors", "merged", "nearest", "rescored", "within_rounding"]

BLOCK_ROWS = 1024  # rows converted to float32 at once: 2 MB at 512 numbers, which stay in the cache
BLOCK_QUERIES = 64
NOT_FINITE = "the index holds vectors that are not finite: restore it from a copy or build it again"

Ranking = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]  # what is returned: scores and rows, best first
Found = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]  # the same at work


def nearest(
    segments: Sequence[npt.NDArray[np.floating[Any]]],
    live: npt.NDArray[np.bool_],
    queries: npt.NDArray[np.float32],
    k: int,
) -> list[Ranking]:
    """For each of (Q, D) float32 unit queries the k best rows: scores float32 and rows int64, best first.

    ``segments`` are (rows, D) unit vectors in float16, or in the float32 that these convert to, one after the other.
    Float32 in column order (``order="F"``) is searched fastest: a product with one query reads it in half the time.
    ``live`` (all rows,) says which count. The score is the inner product, which of vectors rounded to float16 is their
    cosine to 2^-11 at worst. Of equal scores the lower row comes first. Fewer than k live rows: all of them. Raises
    BundleError for vectors that are not finite.
    """
    results: list[Ranking] = []
    for start in range(0, len(queries), BLOCK_QUERIES):
        some = queries[start : start + BLOCK_QUERIES]
        best = [(np.empty(0), np.empty(0, np.int64)) for _ in some]
        first_row = 0
        for segment in segments:
            step = max(len(segment), 1) if segment.dtype == np.float32 else BLOCK_ROWS
            for place in range(0, len(segment), step):
                block = segment[place : place + step]
                _search_block(block, live[first_row : first_row + len(block)], some, first_row, k, best)
                first_row += len(block)
        results += [(scores.astype(np.float32), rows) for scores, rows in best]
    return results


def _search_block(
    block: npt.NDArray[np.floating[Any]],
    live: npt.NDArray[np.bool_],
    queries: npt.NDArray[np.float32],
    first_row: int,
    k: int,
    best: list[Found],
) -> None:
    """Merge the block's rows into ``best``, the k best of each query so far."""
    vectors = as_float32(block)
    products = queries @ vectors.T
    if not np.isfinite(products).all():
        raise BundleError(NOT_FINITE)
    if not live.all():
        products[:, ~live] = -np.inf
    for place, (query, scores) in enumerate(zip(queries, products, strict=True)):
        floor = best[place][0][k - 1] if len(best[place][0]) == k else -np.inf
        rows = within_rounding(scores, k, block.shape[1], floor)
        if len(rows):
            best[place] = merged(best[place], rescored(vectors[rows], query, rows + first_row), k)


def within_rounding(scores: npt.NDArray[np.float32], k: int, dim: int, floor: float = -np.inf) -> npt.NDArray[np.int64]:
    """Where float32 inner products (N,) of unit vectors are among the ``k`` best and not below ``floor``, or may be
    but for rounding. Those of minus infinity are not."""
    if len(scores) > k:
        floor = max(floor, float(np.partition(scores, -k)[-k]))
    # Twice the bound on the error of a float32 inner product of unit vectors, in any order (Higham 2002, section 3.1).
    margin = 2.1 * dim * 2.0**-24
    return np.flatnonzero(scores >= max(floor - margin, np.finfo(np.float32).min))


def as_float32(block: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    """``block.astype(np.float32)``, four times as fast for float16, which NumPy converts number by number.

    Sign, exponent and fraction are moved to their places in a float32, which is then 2^112 times too small: the two
    formats count exponents from 15 and from 127 (IEEE 754-2019, table 3.5). Raises BundleError for what is not finite.
    """
    if block.dtype != np.float16:
        return np.asarray(block, np.float32)
    halves = np.ascontiguousarray(block).view(np.uint16)
    if ((halves & 0x7C00) == 0x7C00).any():
        raise BundleError(NOT_FINITE)
    bits = halves.view(np.int16).astype(np.int32)  # the sign fills the upper half
    bits <<= 13
    bits &= ~0x70000000  # of which the sign itself is left
    values = bits.view(np.float32)
    values *= np.float32(2.0**112)
    return values


def rescored(
    vectors: npt.NDArray[np.floating[Any]], query: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]
) -> Found:
    """Inner products in float64, each row of (N, D) summed in the same order wherever it stands."""
    return (as_float32(vectors).astype(np.float64) * query).sum(axis=1), rows


def merged(first: Found, second: Found, k: int) -> Found:
    """The ``k`` best of two findings; of equal scores the lower row first."""
    scores, rows = (np.concatenate(pair) for pair in zip(first, second, strict=True))
    order = np.lexsort((rows, -scores))[:k]
    return scores[order], rows[order]


def checked_vectors(vectors: npt.NDArray[np.float32], dim: int, name: str) -> npt.NDArray[np.float32]:
    """(N, dim) float32, finite. Raises UsageError otherwise."""
    array = np.asarray(vectors)
    if array.ndim != 2 or array.shape[1] != dim or not np.issubdtype(array.dtype, np.floating):
        raise UsageError(
            f"this index holds vectors of {dim} numbers; expected {name} as floats of shape (N, {dim}), "
            f"found {array.dtype} {list(array.shape)}"
        )
    if not np.isfinite(array).all():
        raise UsageError(f"{name} have to be finite, found NaN or infinity")
    return np.asarray(array, np.float32)
