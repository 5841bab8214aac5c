"""Which percentiles a sample supports, and that their intervals hold what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clipedge.bench.percentiles import PERCENTS, needed_queries, percentiles
from clipedge.bench.timing import MIN_RUNS


def test_mlperfs_numbers() -> None:
    """LoadGen refuses an estimate below 64 queries for the 90th and 662 for the 99th percentile."""
    assert [needed_queries(percent) for percent in PERCENTS] == [11, 64, 662]
    assert needed_queries(50) <= MIN_RUNS  # a run always has a median


@pytest.mark.parametrize("percent", PERCENTS)
def test_a_percentile_appears_with_the_query_that_it_needs(percent: int) -> None:
    count = needed_queries(percent)
    times = np.random.default_rng(0).exponential(size=count)
    assert percent in [item.percent for item in percentiles(times)]
    assert percent not in [item.percent for item in percentiles(times[:-1])]


def test_intervals_are_those_of_the_binomial_distribution() -> None:
    """Ranks by summing the distribution exactly, with fractions of whole numbers instead of logarithms."""
    for count, percent in ((11, 50), (101, 50), (64, 90), (700, 99)):
        share = (percent, 100)
        weights = [math.comb(count, k) * share[0] ** k * (share[1] - share[0]) ** (count - k) for k in range(count + 1)]
        whole = sum(weights)
        below = [sum(weights[:rank]) for rank in range(count + 1)]  # P(fewer than rank), times whole
        low = max(rank for rank in range(1, count + 1) if 1000 * below[rank] <= 25 * whole)
        high = min(rank for rank in range(1, count + 1) if 1000 * below[rank] >= 975 * whole)
        times = np.arange(1, count + 1) / 1000  # in milliseconds a latency is its own rank
        found = next(item for item in percentiles(times[::-1]) if item.percent == percent)
        assert found.interval == pytest.approx((low, high))
        assert found.interval[0] <= found.ms <= found.interval[1]


@pytest.mark.parametrize("percent", PERCENTS)
def test_intervals_hold_the_true_percentile_as_often_as_they_say(percent: int) -> None:
    """Of an exponential distribution the percentile is known: -log(1 - p)."""
    rng = np.random.default_rng(percent)
    true = -1000 * math.log(1 - percent / 100)
    runs = 400
    held = 0
    for _ in range(runs):
        found = next(item for item in percentiles(rng.exponential(size=900)) if item.percent == percent)
        held += found.interval[0] <= true <= found.interval[1]
    assert held / runs >= 0.93  # 95 %, less two and a half standard deviations of 400 runs


def test_large_samples_do_not_underflow() -> None:
    times = np.random.default_rng(1).exponential(size=200_000)
    for item in percentiles(times):
        low, high = item.interval
        true = -1000 * math.log(1 - item.percent / 100)
        assert 0.97 * true < low <= item.ms <= high < 1.03 * true
