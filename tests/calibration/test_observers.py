"""Histograms and the ranges taken from them, against numpy on all samples at once."""

from __future__ import annotations

import numpy as np
import pytest

from clipedge.calibration.observers import BINS, Histogram, minmax_range, mse_range, percentile_range


def filled(*arrays: np.ndarray) -> Histogram:
    histogram = Histogram()
    for array in arrays:
        histogram.update(array)
    return histogram


def quantization_error(values: np.ndarray, low: float, high: float) -> float:
    """Mean squared error of asymmetric 8-bit quantization, computed on the samples themselves."""
    step = (high - low) / 255
    zero_point = np.round(-low / step)
    return float(np.mean((values - (np.clip(np.round(values / step) + zero_point, 0, 255) - zero_point) * step) ** 2))


def test_counts_do_not_depend_on_how_the_samples_arrive() -> None:
    values = np.random.default_rng(0).standard_cauchy(20_000).astype(np.float32)
    at_once = filled(values)
    in_pieces = filled(*np.array_split(np.sort(np.abs(values)) * np.sign(values), 13))
    small_first = filled(*np.array_split(values[np.argsort(np.abs(values))], 13))
    assert small_first.limit == at_once.limit
    # A sample exactly on an edge may fall to either side when bins merge; no others may move.
    assert np.abs(np.cumsum(small_first.counts) - np.cumsum(at_once.counts)).max() <= 2
    assert in_pieces.counts.sum() == at_once.counts.sum() == values.size


def test_memory_does_not_grow_with_the_samples() -> None:
    histogram = filled(*(np.float32([10.0**k]) for k in range(-20, 20)))
    assert histogram.counts.nbytes == BINS * 8


def test_minmax_is_exact_and_contains_zero() -> None:
    values = np.float32([0.1, 3.7, 2.2])
    found = minmax_range(filled(values))
    assert (found.low, found.high) == (0.0, pytest.approx(3.7))


def test_percentile_cuts_outliers_where_numpy_does() -> None:
    values = np.random.default_rng(1).normal(size=100_000)
    values[:5] = 1000.0
    found = percentile_range(filled(values), 99.0)
    low, high = np.percentile(values, [0.5, 99.5])
    width = 2 * 1024 / BINS  # a bin, at the limit that the outliers set
    assert found.low == pytest.approx(low, abs=width)
    assert found.high == pytest.approx(high, abs=width)


@pytest.mark.parametrize("outlier", [0.0, 60.0, 300.0])
def test_mse_range_beats_minmax_on_the_samples_and_comes_near_the_best(outlier: float) -> None:
    values = np.random.default_rng(2).normal(size=50_000)
    values[0] = outlier
    found = mse_range(filled(values))
    error = quantization_error(values, found.low, found.high)
    grid = [(-low, high) for low in np.linspace(1, 6, 26) for high in [*np.linspace(1, 6, 26), 20, 60, 150, 300]]
    best = min(quantization_error(values, low, high) for low, high in grid)
    assert error <= 1.1 * best
    assert error <= quantization_error(values, values.min(), values.max()) * 1.001


def test_symmetric_range_is_symmetric() -> None:
    found = mse_range(filled(np.random.default_rng(3).normal(2, 1, 1000)), symmetric=True)
    assert found.low == -found.high


def test_constant_zero_gives_an_empty_range() -> None:
    histogram = filled(np.zeros(10, np.float32))
    for method in (minmax_range, percentile_range, mse_range):
        assert method(histogram) == minmax_range(histogram)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        filled(np.float32([1.0, bad]))
