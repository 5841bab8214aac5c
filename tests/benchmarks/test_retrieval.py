"""The retrieval benchmark: vectors as its page says, a truth that is the truth, verdicts that follow its figures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import retrieval_data
from retrieval import judge, medians
from retrieval_data import KINDS, draw, make_collection, make_data, mean_cosine
from retrieval_worker import recall


def test_the_truth_is_that_of_brute_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval_data, "BLOCK", 700)
    make_data(tmp_path, 2000, 6)
    vectors = np.load(tmp_path / "vectors.npy")
    assert vectors.shape == (2000, 512)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for kind in KINDS:
        queries, truth = np.load(tmp_path / f"{kind}.npy"), np.load(tmp_path / f"{kind}-truth.npy")
        best = np.argsort(-(queries.astype(np.float64) @ vectors.T.astype(np.float64)), axis=1)[:, :10]
        assert [{*row} for row in truth.tolist()] == [{*row} for row in best.tolist()]
    assert mean_cosine(tmp_path) == pytest.approx(0.70, abs=0.02)


def test_pictures_lie_near_the_vectors_and_texts_far_from_all() -> None:
    collection = make_collection(2000)
    vectors = draw(collection, 2000, 0)
    pictures, texts = draw(collection, 20, 7) @ vectors.T, draw(collection, 20, 7, texts=True) @ vectors.T
    assert texts.max() < 0.5 < np.median(pictures.max(axis=1)) < pictures.max() < 0.99
    assert 0 < texts.mean() < 0.2 < pictures.mean()


def test_recall_is_the_share_of_the_true_ten() -> None:
    truth = np.arange(20).reshape(2, 10)
    assert recall([list(range(10)), list(range(10, 20))], truth) == 1
    assert recall([[*range(5), *range(50, 55)], list(range(30, 40))], truth) == 0.25


def test_medians_go_into_what_is_nested() -> None:
    assert medians([{"a": 1, "b": {"c": 9}}, {"a": 3, "b": {"c": 7}}, {"a": 2, "b": {"c": 8}}]) == {
        "a": 2,
        "b": {"c": 8},
    }


def figures(**changes: float) -> dict[str, Any]:
    kinds = {kind: {"recall": 0.99, "median_ms": 0.5} for kind in KINDS}
    return {**kinds, "resident_mb": 690.0, "first_answer_s": 0.1, **changes}


def test_verdicts_follow_the_figures_and_leave_out_what_was_not_run() -> None:
    good = {"vectors": 1_000_000, "engines": {"clipedge-lists": figures()}}
    assert [item["met"] for item in judge([good])] == [True] * 6
    large = {"vectors": 1_000_000, "engines": {"clipedge-lists": figures(resident_mb=701, first_answer_s=0.31)}}
    assert [item["met"] for item in judge([large])] == [True] * 4 + [False] * 2
    slow = {"vectors": 10_000, "engines": {"clipedge-exact": figures(pictures={"recall": 1, "median_ms": 2.0})}}
    assert [item["met"] for item in judge([slow])] == [False, True]
    assert judge([{"vectors": 500, "engines": {}}]) == []
