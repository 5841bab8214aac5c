"""Exact search against brute force in float64, and ties that do not depend on where the vectors lie."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from clipedge.errors import BundleError, UsageError
from clipedge.retrieval import nearest as nearest_module
from clipedge.retrieval.nearest import as_float32, checked_vectors, nearest


def unit(count: int, dim: int, seed: int, near: float = 0.0) -> NDArray[np.float32]:
    """Random unit vectors; ``near`` pulls them towards a common one, as a real model's embeddings are."""
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(count, dim)) + near * np.ones(dim)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def brute_force(
    vectors: NDArray[np.float16], live: NDArray[np.bool_], query: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    scores = (vectors.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
    rows = sorted(np.flatnonzero(live), key=lambda row: (-scores[row], row))[:k]
    return scores[rows], np.array(rows, np.intp)


@pytest.mark.parametrize("near", [0.0, 2.0])
@pytest.mark.parametrize("k", [1, 10, 700, 5000])
@pytest.mark.parametrize("segment_rows", [2000, 313])
def test_the_order_is_that_of_float64(monkeypatch: pytest.MonkeyPatch, near: float, k: int, segment_rows: int) -> None:
    monkeypatch.setattr(nearest_module, "BLOCK_ROWS", 257)
    vectors = unit(2000, 24, 0, near).astype(np.float16)
    live = np.random.default_rng(1).random(2000) > 0.2
    queries = unit(7, 24, 2, near)
    segments = [vectors[start : start + segment_rows] for start in range(0, 2000, segment_rows)]
    found = nearest(segments, live, queries, k)
    assert len(found) == 7
    for query, (scores, rows) in zip(queries, found, strict=True):
        expected_scores, expected_rows = brute_force(vectors, live, query, k)
        np.testing.assert_array_equal(rows, expected_rows)
        np.testing.assert_array_equal(scores, expected_scores.astype(np.float32))


def test_more_queries_than_a_block_get_the_answers_that_each_gets_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_module, "BLOCK_QUERIES", 3)
    vectors, queries = unit(300, 16, 3).astype(np.float16), unit(8, 16, 4)
    live = np.ones(300, bool)
    together = nearest([vectors], live, queries, 5)
    for place, (scores, rows) in enumerate(together):
        ((alone_scores, alone_rows),) = nearest([vectors], live, queries[place : place + 1], 5)
        np.testing.assert_array_equal(rows, alone_rows)
        np.testing.assert_array_equal(scores, alone_scores)


def test_equal_vectors_come_in_the_order_of_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_module, "BLOCK_ROWS", 61)  # so that they lie at all places of a block
    distinct = unit(5, 384, 5).astype(np.float16)
    vectors = distinct[np.arange(1000) % 5]
    ((scores, rows),) = nearest([vectors], np.ones(1000, bool), unit(1, 384, 6), 450)
    assert len(set(scores[:200].tolist())) == 1
    for start in (0, 200):
        first = rows[start : start + 200]
        np.testing.assert_array_equal(first, np.arange(first[0], 1000, 5))


@pytest.mark.parametrize("order", ["C", "F"])
def test_float16_vectors_and_their_float32_copies_give_the_same(order: Literal["C", "F"]) -> None:
    vectors, live, queries = unit(500, 32, 7).astype(np.float16), np.ones(500, bool), unit(3, 32, 8)
    copies = [vectors[:300].astype(np.float32, order=order), vectors[300:].astype(np.float32, order=order)]
    for first, second in zip(nearest([vectors], live, queries, 9), nearest(copies, live, queries, 9), strict=True):
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])


@pytest.mark.parametrize("count", [0, 5])
def test_nothing_live_is_nothing_found(count: int) -> None:
    vectors = unit(count, 8, 9).astype(np.float16)
    ((scores, rows),) = nearest([vectors], np.zeros(count, bool), unit(1, 8, 10), 3)
    assert len(scores) == len(rows) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused(value: float) -> None:
    vectors = unit(20, 8, 11).astype(np.float16)
    vectors[7, 3] = value
    with pytest.raises(BundleError, match="not finite"):
        nearest([vectors], np.ones(20, bool), unit(1, 8, 12), 3)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 9), np.float32), r"vectors of 8 numbers.*found float32 \[2, 9\]"),
        (np.zeros(8, np.float32), r"found float32 \[8\]"),
        (np.zeros((2, 8), np.uint8), "found uint8"),
        (np.full((2, 8), np.nan, np.float32), "finite"),
    ],
)
def test_arrays_that_are_no_vectors_of_the_index(array: NDArray[np.float32], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        checked_vectors(array, 8, "queries")


def test_every_half_is_converted_bit_for_bit() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)].reshape(-1, 2)
    expected = finite.astype(np.float32)
    np.testing.assert_array_equal(as_float32(finite).view(np.uint32), expected.view(np.uint32))
    for wrong in halves[~np.isfinite(halves)]:
        with pytest.raises(BundleError, match="not finite"):
            as_float32(np.array([[0.5, wrong]], np.float16))
