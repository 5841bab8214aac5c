"""Axes of what vectors vary along."""

from __future__ import annotations

import numpy as np
import pytest

from clipedge.retrieval.clustering import principal_axes


@pytest.mark.parametrize("count", [200, 5])  # fewer than numbers: along many directions nothing varies
def test_the_first_axis_is_the_means_and_the_others_hold_most_of_the_rest(count: int) -> None:
    generator = np.random.default_rng(0)
    mean = generator.normal(size=16)
    sample = np.asarray(mean + generator.normal(size=(count, 16)) / np.arange(1, 17), np.float32)
    found, axes = principal_axes(sample, 8)
    np.testing.assert_allclose(found, sample.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(axes.T @ axes, np.eye(8), atol=1e-5)
    direction = found / np.linalg.norm(found)
    assert abs(direction @ axes[:, 0]) > 0.9999
    rest = sample - found
    rest = rest - np.outer(rest @ direction, direction)
    most = np.linalg.eigvalsh(rest.T @ rest)[:-8:-1]  # the largest sums of squares that any seven axes can hold
    np.testing.assert_allclose(np.square(rest @ axes[:, 1:]).sum(axis=0), most, rtol=1e-3, atol=1e-4)


def test_without_a_mean_the_axes_are_the_samples() -> None:
    half = np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32)
    mean, axes = principal_axes(np.concatenate([half, -half]), 6)
    np.testing.assert_allclose(mean, 0, atol=1e-6)
    np.testing.assert_allclose(axes.T @ axes, np.eye(6), atol=1e-5)
