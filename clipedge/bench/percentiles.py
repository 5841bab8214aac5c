"""Percentiles of latencies: reported where the sample supports them, each with a 95 % confidence interval.

How many queries a percentile takes is MLPerf's rule ("early stopping", MLPerf Inference rules, appendix; LoadGen's
early_stopping.cc): so many that, were the percentile p really higher than the second highest latency, a sample like
this would come about once in a hundred times, p**n + n (1 - p) p**(n - 1) <= 0.01. That is 64 queries for the 90th and
662 for the 99th percentile.

Intervals are between order statistics, whose ranks follow from the binomial distribution whatever that of the latencies
is (David and Nagaraja 2003, Order Statistics, 7.1). They take the queries for independent. Latencies of a busy or
throttled machine are not: then the intervals are too narrow, and tell less than a second run does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from clipedge.bench.timing import Times

__all__ = ["PERCENTS", "Percentile", "needed_queries", "percentiles"]

PERCENTS = (50, 90, 99)
RISK = 0.01  # of MLPerf's rule
TAIL = 0.025  # at either side of an interval


@dataclass(frozen=True)
class Percentile:
    """``ms`` is interpolated between the two nearest latencies; ``interval`` holds the true one in 95 of 100 runs."""

    percent: int
    ms: float
    interval: tuple[float, float]


def percentiles(times: Times) -> tuple[Percentile, ...]:
    """Those of ``PERCENTS`` that so many latencies (N,), in seconds, support."""
    ordered = np.sort(1000 * times)
    found = []
    for percent in PERCENTS:
        if len(times) >= needed_queries(percent):
            low, high = _ranks(len(times), percent / 100)
            interval = (float(ordered[low - 1]), float(ordered[high - 1]))
            found.append(Percentile(percent, float(np.percentile(ordered, percent)), interval))
    return tuple(found)


def needed_queries(percent: int) -> int:
    """The smallest sample in which the second highest latency bounds the percentile, at 99 % confidence."""
    share, count = percent / 100, 2
    while share**count + count * (1 - share) * share ** (count - 1) > RISK:
        count += 1
    return count


def _ranks(count: int, share: float) -> tuple[int, int]:
    """Ranks (from 1) of the order statistics that enclose the quantile, in a sample of the size that it needs.

    The number of latencies at or below the quantile is binomial: that it is below the lower rank, or not below the
    upper one, has a probability of at most ``TAIL`` each.
    """
    below = np.concatenate([[0.0], _cumulative_binomial(count, share)])  # below[r] = P(fewer than r)
    low = int(np.searchsorted(below, TAIL, side="right")) - 1
    high = int(np.searchsorted(below, 1 - TAIL))
    return low, high


def _cumulative_binomial(count: int, share: float) -> Times:
    """P(at most k) for k = 0 to ``count``; logarithms keep large counts from underflow."""
    k = np.arange(1, count + 1)
    steps = np.log((count - k + 1) / k) + math.log(share / (1 - share))
    logs = np.concatenate([[0.0], np.cumsum(steps)]) + count * math.log1p(-share)
    return np.asarray(np.minimum(np.cumsum(np.exp(logs)), 1.0))
