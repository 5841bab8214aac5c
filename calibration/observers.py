"""Range observers: what values a tensor took, in bounded memory, and the range to quantize it with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Histogram", "Range", "minmax_range", "mse_range", "percentile_range"]

BINS = 4096  # even: zero is always an edge between two bins


@dataclass(frozen=True)
class Range:
    """A closed interval that contains zero, so that zero is exact after quantization."""

    low: float
    high: float


class Histogram:
    """A streaming histogram over [-limit, limit].

    The limit doubles when a larger value arrives, and neighbouring bins merge, so any number of samples takes the
    same memory and no sample is seen twice. Zero always lies on a bin's edge. ``low`` and ``high`` are exact.
    """

    def __init__(self) -> None:
        self.counts: npt.NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.limit = 0.0
        self.low = 0.0
        self.high = 0.0

    def update(self, values: npt.NDArray[np.floating[Any]]) -> None:
        """Count an array of any shape. Raises ValueError if it has NaN or infinities."""
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            raise ValueError("NaN or infinite activations")
        self.low, self.high = min(self.low, low), max(self.high, high)
        largest = max(-low, high)
        if self.limit == 0.0:
            if largest == 0.0:
                return  # nothing but zeros, which every range contains
            self.limit = float(2.0 ** np.ceil(np.log2(largest)))
        while largest > self.limit:
            self._double()
        self.counts += np.histogram(values, bins=BINS, range=(-self.limit, self.limit))[0]

    def centres(self) -> npt.NDArray[np.float64]:
        """The middle of every bin, (BINS,)."""
        width = 2 * self.limit / BINS
        return np.asarray(-self.limit + width * (np.arange(BINS) + 0.5))

    def _double(self) -> None:
        merged = self.counts.reshape(-1, 2).sum(axis=1)
        self.counts = np.zeros(BINS, np.int64)
        self.counts[BINS // 4 : 3 * BINS // 4] = merged
        self.limit *= 2


def minmax_range(histogram: Histogram) -> Range:
    """Everything that was seen."""
    return Range(histogram.low, histogram.high)


def percentile_range(histogram: Histogram, percent: float = 99.99) -> Range:
    """The middle ``percent`` of what was seen, the rest cut equally from both ends."""
    total = histogram.counts.sum()
    if not total:
        return minmax_range(histogram)
    share = np.cumsum(histogram.counts) / total
    tail = (1 - percent / 100) / 2
    centres = histogram.centres()
    low = centres[np.searchsorted(share, tail)]
    high = centres[min(int(np.searchsorted(share, 1 - tail)), BINS - 1)]
    return Range(max(min(low, 0.0), histogram.low), min(max(high, 0.0), histogram.high))


def mse_range(histogram: Histogram, levels: int = 256, symmetric: bool = False) -> Range:
    """The range with the least mean squared error of quantizing what was seen to ``levels`` steps.

    Each end is searched from the extreme value inwards, one after the other, twice: clipping a few outliers buys a
    finer step for all the rest (Banner et al. 2019, "Post training 4-bit quantization"). ``symmetric`` searches one
    bound for both ends.
    """
    shares = np.linspace(0.05, 1.0, 96)
    if symmetric:
        bound = max(-histogram.low, histogram.high)
        best = min((bound * share for share in shares), key=lambda b: _squared_error(histogram, -b, b, levels))
        return Range(-best, best)
    low, high = histogram.low, histogram.high
    for _ in range(2):
        high = min(
            (histogram.high * share for share in shares), key=lambda h: _squared_error(histogram, low, h, levels)
        )
        low = min((histogram.low * share for share in shares), key=lambda v: _squared_error(histogram, v, high, levels))
    return Range(low, high)


def _squared_error(histogram: Histogram, low: float, high: float, levels: int) -> float:
    used = np.flatnonzero(histogram.counts)
    step = (high - low) / (levels - 1)
    if step == 0 or not used.size:
        return float("inf") if used.size else 0.0
    values, counts = histogram.centres()[used], histogram.counts[used]
    zero_point = np.round(-low / step)
    restored = (np.clip(np.round(values / step) + zero_point, 0, levels - 1) - zero_point) * step
    return float((counts * (values - restored) ** 2).sum())
