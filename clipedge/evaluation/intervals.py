"""95 % intervals of accuracies and of their differences, honest for few pictures and for accuracies near 0 and 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

__all__ = [
    "Accuracy",
    "Difference",
    "accuracy",
    "in_percent",
    "in_points",
    "paired_difference",
    "unpaired_difference",
    "wilson_interval",
]

Z = 1.96  # of 95 %
Rights = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Accuracy:
    """The ``share`` of ``pictures`` that were answered ``right``, with Wilson's ``interval``."""

    right: int
    pictures: int
    share: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """One accuracy minus another, as shares; ``beyond_noise`` says that the ``interval`` excludes 0."""

    value: float
    interval: tuple[float, float]
    beyond_noise: bool


def wilson_interval(hits: int, trials: int, z: float = Z) -> tuple[float, float]:
    """95 % confidence interval of a proportion (Wilson 1927); honest near 0 and 1, unlike the normal one."""
    share = hits / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    margin = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    return max(centre - margin, 0.0), min(centre + margin, 1.0)  # rounding may step over the end


def accuracy(right: Rights) -> Accuracy:
    """Of the answers (N,) that are right or not; N >= 1."""
    hits = int(right.sum())
    return Accuracy(hits, len(right), hits / len(right), wilson_interval(hits, len(right)))


def paired_difference(first: Rights, second: Rights) -> Difference:
    """Of two models' answers (N,) to the same pictures (Newcombe 1998, "... based on paired data", method 10)."""
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    agreement = float(both * neither - only_first * only_second)
    if agreement > 0:
        agreement = max(agreement - len(first) / 2, 0.0)
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    correlation = agreement / math.sqrt(margins) if margins else 0.0
    return _difference((only_first + both, len(first)), (only_second + both, len(first)), correlation, Z)


def unpaired_difference(first: Accuracy, second: Accuracy, comparisons: int = 1) -> Difference:
    """Of accuracies on different pictures (Newcombe 1998, "... independent proportions", method 10).

    For one that was picked out of so many ``comparisons`` the interval is wider, so that it holds for all of them at
    once (Bonferroni).
    """
    z = Z if comparisons == 1 else NormalDist().inv_cdf(1 - 0.025 / comparisons)
    return _difference((first.right, first.pictures), (second.right, second.pictures), 0.0, z)


def _difference(first: tuple[int, int], second: tuple[int, int], correlation: float, z: float) -> Difference:
    shares = [hits / trials for hits, trials in (first, second)]
    (low, high), (other_low, other_high) = (wilson_interval(*counts, z) for counts in (first, second))
    value = shares[0] - shares[1]
    below = _hypotenuse(shares[0] - low, other_high - shares[1], correlation)
    above = _hypotenuse(high - shares[0], shares[1] - other_low, correlation)
    interval = (value - below, value + above)
    return Difference(value, interval, not interval[0] <= 0 <= interval[1])


def _hypotenuse(first: float, second: float, correlation: float) -> float:
    return math.sqrt(max(first * first - 2 * correlation * first * second + second * second, 0.0))


def in_percent(found: Accuracy) -> str:
    """For a reader: ``97.20 [96.38, 97.84]``."""
    low, high = found.interval
    return f"{100 * found.share:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def in_points(found: Difference) -> str:
    """For a reader: ``-0.20 [-0.61, +0.21]``."""
    low, high = found.interval
    return f"{100 * found.value:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"
