"""The proof's numbers against plain float64 arithmetic, and what the gate lets through."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from clipedge.export.verify import (
    AnswerChange,
    CosineHistogram,
    Parity,
    ZeroShot,
    compare_answers,
    compare_embeddings,
    gate_failures,
)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def embeddings(count: int = 40, dim: int = 16, common: float = 3.0) -> np.ndarray:
    """Unit vectors with a large common part, as CLIP's are."""
    return unit(np.random.default_rng(0).normal(size=(count, dim)) + common)


def test_equal_embeddings_are_perfect() -> None:
    source = embeddings()
    parity = compare_embeddings(source, source.copy())
    assert parity.median_cosine == pytest.approx(1) and parity.p1_centred_cosine == pytest.approx(1)
    assert parity.max_difference == 0 and parity.neighbour_overlap == 1 and parity.samples == 40


def test_centring_shows_what_the_raw_cosine_hides() -> None:
    source = embeddings(common=10.0)
    shuffled = np.roll(source, 1, axis=0)  # every picture gets another picture's embedding
    parity = compare_embeddings(source, shuffled)
    assert parity.median_cosine > 0.95
    assert abs(parity.median_centred_cosine) < 0.5


def test_cosines_match_float64() -> None:
    source = embeddings()
    other = unit(source + np.random.default_rng(1).normal(0, 0.02, source.shape))
    mean = source.astype(np.float64).mean(axis=0)
    expected = []
    for a, b in zip(source.astype(np.float64) - mean, other.astype(np.float64) - mean, strict=True):
        expected.append(a @ b / np.sqrt((a @ a) * (b @ b)))
    parity = compare_embeddings(source, other)
    assert parity.median_centred_cosine == pytest.approx(np.median(expected), abs=1e-5)
    assert parity.p1_centred_cosine == pytest.approx(np.percentile(expected, 1), abs=1e-5)


def test_the_drop_is_paired() -> None:
    truth = np.arange(1000) % 10
    source, exported = truth.copy(), truth.copy()
    source[:100] = exported[:100] = 99  # both wrong on the same pictures: no drop, and no doubt about it
    exported[100:110] = 99
    result = compare_answers(source, exported, truth, [*map(str, range(100))])
    assert result.source_accuracy == pytest.approx(0.90) and result.exported_accuracy == pytest.approx(0.89)
    assert result.drop_points == pytest.approx(1.0) and result.agreement == pytest.approx(0.99)
    assert result.drop_interval is not None
    # A proportion of 1 % in 1,000: 1.96 * sqrt(0.01 * 0.99 / 999) = 0.617 points to either side.
    assert result.drop_interval == pytest.approx((1 - 0.617, 1 + 0.617), abs=0.001)


def test_without_truth_only_the_agreement_is_known() -> None:
    result = compare_answers(np.array([0, 1]), np.array([0, 2]), None, ["cat", "dog", "eel"])
    assert result.agreement == 0.5 and result.source_accuracy is None and result.drop_points is None
    assert result.changes == (AnswerChange(None, "dog", "eel", 1),)


def test_changed_answers_are_counted_by_class_and_both_answers() -> None:
    truth = np.array([0, 0, 0, 1, 1, 2])
    source = np.array([0, 0, 0, 2, 1, 0])
    exported = np.array([0, 1, 1, 1, 1, 1])
    result = compare_answers(source, exported, truth, ["cat", "dog", "eel"])
    assert result.changes == (
        AnswerChange("cat", "cat", "dog", 2),
        AnswerChange("eel", "cat", "dog", 1),
        AnswerChange("dog", "eel", "dog", 1),
    )
    assert result.source_interval is not None and result.source_interval[0] < 4 / 6 < result.source_interval[1]
    assert result.exported_interval is not None and result.exported_interval[0] < 3 / 6 < result.exported_interval[1]


def test_every_input_is_in_one_bin_of_each_histogram() -> None:
    source = embeddings(400)
    other = unit(source + np.random.default_rng(1).normal(0, 0.02, source.shape))
    other[:3] = -source[:3]
    other[3:6] = source[3:6]  # 1, or the float32 above it
    found = compare_embeddings(source, other).cosines
    assert sum(found.raw) == sum(found.centred) == 400 and len(found.raw) + 1 == len(found.edges)
    assert found.raw[0] == 3 and found.raw[-1] == 3
    exact = (source.astype(np.float64) * other).sum(axis=1)
    place = np.searchsorted(found.edges, 0.99)  # an edge: 1 - 1e-2
    assert found.edges[place] == pytest.approx(0.99)
    assert sum(found.raw[place:]) == int((exact >= 0.99).sum())


GOOD = Parity(100, 0.999, 0.99, 0.96, 0.01, 0.98, CosineHistogram((-1.0, 1.0), (100,), (100,)))
SMALL_DROP = ZeroShot(2000, 120, 0.99, (), drop_points=0.5)


def test_gate_passes_what_is_good() -> None:
    assert gate_failures({"image": GOOD, "text": GOOD}, SMALL_DROP) == []
    assert gate_failures({"image": GOOD}, None) == []


def test_a_drop_on_too_few_pictures_is_not_gated() -> None:
    one_of_thirty = dataclasses.replace(SMALL_DROP, samples=30, drop_points=3.3)
    assert gate_failures({"image": GOOD}, one_of_thirty) == []


@pytest.mark.parametrize(
    ("parity", "zero_shot", "word"),
    [
        (dataclasses.replace(GOOD, median_centred_cosine=0.98), SMALL_DROP, "median"),
        (dataclasses.replace(GOOD, p1_centred_cosine=0.94), SMALL_DROP, "percentile"),
        (dataclasses.replace(GOOD, median_centred_cosine=float("nan")), SMALL_DROP, "median"),
        (GOOD, dataclasses.replace(SMALL_DROP, drop_points=1.01), "accuracy"),
        (GOOD, dataclasses.replace(SMALL_DROP, drop_points=float("nan")), "accuracy"),
    ],
)
def test_gate_names_what_fails(parity: Parity, zero_shot: ZeroShot, word: str) -> None:
    (failure,) = gate_failures({"image": parity}, zero_shot)
    assert word in failure
