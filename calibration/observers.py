"""Range observers: from the values that a tensor took on to the range to quantize it with.

Each takes the values (any shape, float32) and returns a ``Range``. ``symmetric`` asks for one with equal ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["OBSERVERS", "Range", "entropy_range", "minmax_range", "mse_range", "percentile_range"]

Values = npt.NDArray[np.floating[Any]]

BINS = 2048  # even: zero is an edge between two bins
LEVELS = 256
SHARES = np.linspace(0.02, 1.0, 50)  # of the extreme value: where a range may end


@dataclass(frozen=True)
class Range:
    """A closed interval that contains zero, so that zero is exact after quantization."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class _Histogram:
    """Bins that are not empty: their middles and counts; and the extremes of the values, zero among them."""

    centres: npt.NDArray[np.float64]
    counts: npt.NDArray[np.float64]
    low: float
    high: float


def minmax_range(values: Values, symmetric: bool = False) -> Range:
    """Everything that was seen."""
    return _range(min(float(values.min()), 0.0), max(float(values.max()), 0.0), symmetric)


def percentile_range(values: Values, symmetric: bool = False, percent: float = 99.99) -> Range:
    """The middle ``percent`` of what was seen, the rest cut equally from both ends."""
    tail = (100 - percent) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return _range(min(float(low), 0.0), max(float(high), 0.0), symmetric)


def mse_range(values: Values, symmetric: bool = False) -> Range:
    """The range with the least mean squared error of quantizing what was seen to ``LEVELS`` steps.

    Each end is searched from the extreme value inwards, one after the other, twice: clipping a few outliers buys a
    finer step for all the rest (Banner et al. 2019, "Post training 4-bit quantization", arXiv 1810.05723).
    """
    return _search(values, symmetric, _squared_error)


def entropy_range(values: Values, symmetric: bool = False) -> Range:
    """The range that loses the least information: least Kullback-Leibler divergence of what is left of the values'
    distribution, clipped and quantized to ``LEVELS`` steps, from what it was (Migacz 2017, "8-bit inference with
    TensorRT", GTC)."""
    return _search(values, symmetric, _divergence)


# The candidates of a calibration. How far a range may cut differs by tensor, so the percentiles are several.
OBSERVERS: Mapping[str, Callable[[Values, bool], Range]] = {
    "minmax": minmax_range,
    "mse": mse_range,
    "entropy": entropy_range,
    "99.99 %": percentile_range,
    "99.9 %": lambda values, symmetric: percentile_range(values, symmetric, 99.9),
    "99 %": lambda values, symmetric: percentile_range(values, symmetric, 99.0),
}


def _range(low: float, high: float, symmetric: bool) -> Range:
    bound = max(-low, high)
    return Range(-bound, bound) if symmetric else Range(low, high)


def _search(values: Values, symmetric: bool, loss: Callable[[_Histogram, float, float], float]) -> Range:
    seen = _histogram(values)
    low, high = seen.low, seen.high
    if symmetric:
        bound = max(-low, high)
        best = min((bound * share for share in SHARES), key=lambda b: loss(seen, -b, b))
        return Range(-best, best)
    for _ in range(2):
        high = min((seen.high * share for share in SHARES), key=lambda h: loss(seen, low, h))
        low = min((seen.low * share for share in SHARES), key=lambda v: loss(seen, v, high))
    return Range(low, high)


def _histogram(values: Values) -> _Histogram:
    whole = minmax_range(values)
    limit = max(-whole.low, whole.high) or 1.0
    counts = np.histogram(values, bins=BINS, range=(-limit, limit))[0]
    used = np.flatnonzero(counts)
    centres = np.asarray(-limit + 2 * limit / BINS * (used + 0.5), np.float64)
    return _Histogram(centres, counts[used].astype(np.float64), whole.low, whole.high)


def _levels(seen: _Histogram, low: float, high: float) -> npt.NDArray[np.float64]:
    """The step, from 0 to LEVELS - 1, that each bin falls to."""
    step = (high - low) / (LEVELS - 1) or 1.0
    return np.asarray(np.clip(np.round(seen.centres / step) + np.round(-low / step), 0, LEVELS - 1))


def _squared_error(seen: _Histogram, low: float, high: float) -> float:
    step = (high - low) / (LEVELS - 1) or 1.0
    restored = (_levels(seen, low, high) - np.round(-low / step)) * step
    return float((seen.counts * (seen.centres - restored) ** 2).sum())


def _divergence(seen: _Histogram, low: float, high: float) -> float:
    """Of the clipped distribution, whose outermost bins hold what was cut off, from the quantized one, which spreads
    what a step holds evenly over the step's bins. The latter knows nothing of what was cut off."""
    inside = (seen.centres >= low) & (seen.centres <= high)
    if not inside.any():
        return float("inf")
    kept = seen.counts[inside]
    clipped = kept.copy()
    clipped[0] += seen.counts[~inside & (seen.centres < 0)].sum()
    clipped[-1] += seen.counts[~inside & (seen.centres > 0)].sum()
    levels = _levels(seen, low, high)[inside].astype(np.int64)
    bins_of_level = np.bincount(levels, minlength=LEVELS)
    spread = np.bincount(levels, weights=kept, minlength=LEVELS)[levels] / bins_of_level[levels]
    p, q = clipped / clipped.sum(), spread / spread.sum()
    return float((p * np.log(p / q)).sum())
