"""Intervals against published tables, against their definition, and by how often they hold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clipedge.evaluation.intervals import (
    Accuracy,
    accuracy,
    paired_difference,
    unpaired_difference,
    wilson_interval,
)


def counted(hits: int, trials: int) -> Accuracy:
    return accuracy(np.arange(trials) < hits)


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3 (score without continuity correction).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_equals_the_published_table(hits: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(hits, trials) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("hits", "trials"), [(0, 1), (1, 1), (3, 7), (50, 100), (1996, 2000), (2000, 2000)])
def test_wilson_bounds_are_where_the_score_test_just_rejects(hits: int, trials: int) -> None:
    """The definition: a bound p has |share - p| = 1.96 sqrt(p (1 - p) / n)."""
    share = hits / trials
    for bound in wilson_interval(hits, trials):
        assert abs(share - bound) == pytest.approx(1.96 * math.sqrt(max(bound * (1 - bound), 0) / trials), abs=1e-9)
        assert 0 <= bound <= 1


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), 873-890, table II, method 10.
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 20), 0.6791, 1.0),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_the_difference_of_groups_equals_the_published_table(
    first: tuple[int, int], second: tuple[int, int], low: float, high: float
) -> None:
    found = unpaired_difference(counted(*first), counted(*second))
    assert found.interval == pytest.approx((low, high), abs=1.5e-4)
    assert found.beyond_noise


def test_a_pair_picked_out_of_many_has_a_wider_interval() -> None:
    first, second = counted(90, 100), counted(79, 100)
    alone, picked = unpaired_difference(first, second), unpaired_difference(first, second, comparisons=15)
    assert alone.value == picked.value
    assert picked.interval[0] < alone.interval[0] and alone.interval[1] < picked.interval[1]
    assert (alone.beyond_noise, picked.beyond_noise) == (True, False)


def test_equal_answers_differ_by_nothing_but_are_not_beyond_doubt() -> None:
    right = np.arange(40) < 30
    found = paired_difference(right, right)
    assert found.value == 0
    assert not found.beyond_noise
    assert found.interval[0] < 0 < found.interval[1]  # 40 pictures do not show that two models are the same
    assert found.interval == pytest.approx(tuple(-bound for bound in found.interval[::-1]))


def test_all_right_and_all_wrong_have_no_correlation_and_an_interval_all_the_same() -> None:
    yes, no = np.ones(20, np.bool_), np.zeros(20, np.bool_)
    assert paired_difference(yes, no).interval == unpaired_difference(counted(20, 20), counted(0, 20)).interval
    assert paired_difference(yes, yes).interval[0] < 0


def test_paired_intervals_hold_as_often_as_they_say() -> None:
    """Two models with accuracies of 90 % and 87 % that are mostly right on the same pictures, 4,000 times."""
    rng = np.random.default_rng(7)
    kinds = rng.choice(4, size=(4000, 150), p=[0.85, 0.05, 0.02, 0.08])  # both, only the first, only the second, none
    found = [paired_difference(row <= 1, (row == 0) | (row == 2)).interval for row in kinds]
    held = np.mean([low <= 0.03 <= high for low, high in found])
    assert 0.94 <= held <= 0.985
    narrower = [
        unpaired_difference(accuracy(row <= 1), accuracy((row == 0) | (row == 2))).interval for row in kinds[:9]
    ]
    assert all(high - low < right - left for (low, high), (left, right) in zip(found, narrower, strict=False))


def test_a_paired_difference_asks_for_as_much_as_the_sign_test() -> None:
    """Four answers gained and none lost could be chance (0.06), five are hardly (0.03)."""
    before = np.arange(20) < 10
    assert not paired_difference(np.arange(20) < 14, before).beyond_noise
    assert paired_difference(np.arange(20) < 15, before).beyond_noise


def test_few_pictures_never_go_beyond_all() -> None:
    low, high = paired_difference(np.ones(2, np.bool_), np.zeros(2, np.bool_)).interval
    assert -1 <= low < high <= 1
