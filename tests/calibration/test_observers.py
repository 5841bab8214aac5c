"""Ranges taken from values, against numpy and against quantizing the values themselves."""

from __future__ import annotations

import numpy as np
import pytest

from clipedge.calibration.observers import (
    OBSERVERS,
    Range,
    entropy_range,
    minmax_range,
    mse_range,
    percentile_range,
)


def squared_error(values: np.ndarray, low: float, high: float) -> float:
    """Mean squared error of asymmetric 8-bit quantization, computed on the values themselves."""
    step = (high - low) / 255
    zero_point = np.round(-low / step)
    return float(np.mean((values - (np.clip(np.round(values / step) + zero_point, 0, 255) - zero_point) * step) ** 2))


def test_minmax_is_exact_and_contains_zero() -> None:
    assert minmax_range(np.float32([[0.5, 3.75], [2.25, 1.0]])) == Range(0.0, 3.75)
    assert minmax_range(np.float32([-2.5, -0.5])) == Range(-2.5, 0.0)


def test_percentile_cuts_outliers_where_numpy_does() -> None:
    values = np.random.default_rng(1).normal(size=100_000)
    values[:5] = 1000.0
    found = percentile_range(values, percent=99.0)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(values, [0.5, 99.5])))


@pytest.mark.parametrize("outlier", [0.0, 60.0, 300.0])
def test_mse_range_beats_minmax_on_the_values_and_comes_near_the_best(outlier: float) -> None:
    values = np.random.default_rng(2).normal(size=50_000)
    values[0] = outlier
    found = mse_range(values)
    error = squared_error(values, found.low, found.high)
    grid = [(-low, high) for low in np.linspace(1, 6, 26) for high in [*np.linspace(1, 6, 26), 20, 60, 150, 300]]
    best = min(squared_error(values, low, high) for low, high in grid)
    assert error <= 1.1 * best
    assert error <= squared_error(values, values.min(), values.max()) * 1.001


def test_entropy_cuts_a_thin_tail_and_nothing_else() -> None:
    whole = entropy_range(np.random.default_rng(4).uniform(-1, 2, 50_000))
    assert (whole.low, whole.high) == pytest.approx((-1, 2), abs=0.01)
    tailed = entropy_range(np.concatenate([np.random.default_rng(4).normal(size=50_000), np.full(5, 100.0)]))
    assert 3 < tailed.high < 6 and -5 < tailed.low < -3


@pytest.mark.parametrize("name", OBSERVERS)
def test_every_observer_keeps_to_what_was_seen(name: str) -> None:
    values = np.random.default_rng(3).normal(2, 1, (40, 50)).astype(np.float32)
    whole = minmax_range(values)
    found, symmetric = OBSERVERS[name](values, False), OBSERVERS[name](values, True)
    assert whole.low <= found.low <= 0 <= found.high <= whole.high
    assert -symmetric.low == symmetric.high <= max(-whole.low, whole.high)
    assert OBSERVERS[name](values[::-1], False) == found, "the order of the values says nothing"


@pytest.mark.parametrize("name", OBSERVERS)
@pytest.mark.parametrize("sign", [1, -1])
def test_values_on_one_side_of_zero_spend_no_step_on_the_other(name: str, sign: int) -> None:
    found = OBSERVERS[name](sign * np.random.default_rng(5).uniform(1, 2, 5000).astype(np.float32), False)
    assert (found.low if sign > 0 else found.high) == 0


@pytest.mark.parametrize("name", OBSERVERS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_constant_zero_gives_an_empty_range(name: str, symmetric: bool) -> None:
    assert OBSERVERS[name](np.zeros(10, np.float32), symmetric) == Range(0, 0)
