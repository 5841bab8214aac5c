"""The proof's numbers against plain float64 arithmetic, and what the gate lets through."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from clipedge.export.verify import Parity, ZeroShot, compare_answers, compare_embeddings, gate_failures


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
    result = compare_answers(source, exported, truth, 10)
    assert result.source_accuracy == pytest.approx(0.90) and result.exported_accuracy == pytest.approx(0.89)
    assert result.drop_points == pytest.approx(1.0) and result.agreement == pytest.approx(0.99)
    assert result.drop_interval is not None
    # A proportion of 1 % in 1,000: 1.96 * sqrt(0.01 * 0.99 / 999) = 0.617 points to either side.
    assert result.drop_interval == pytest.approx((1 - 0.617, 1 + 0.617), abs=0.001)


def test_without_truth_only_the_agreement_is_known() -> None:
    result = compare_answers(np.array([0, 1]), np.array([0, 2]), None, 3)
    assert result.agreement == 0.5 and result.source_accuracy is None and result.drop_points is None


GOOD = Parity(100, 0.999, 0.99, 0.96, 0.01, 0.98)
SMALL_DROP = ZeroShot(2000, 120, 0.99, 0.95, 0.945, 0.5, (0.1, 0.9))


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
