"""ROC curves against comparing every known score with every unknown one."""

from __future__ import annotations

import numpy as np
import pytest

from clipedge.decisions.roc import roc


@pytest.mark.parametrize("levels", [3, 1000])
def test_the_area_is_how_often_known_is_above_unknown(levels: int) -> None:
    rng = np.random.default_rng(0)
    known = rng.random(400) < 0.6
    scores = rng.integers(0, levels, 400) / levels + 0.3 * known * (rng.random(400) < 0.5)
    curve = roc(scores, known)
    assert curve is not None
    pairs = scores[known][:, None] - scores[~known]
    assert curve.area == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert len(curve.points) <= 101
    assert (curve.points[0], curve.points[-1]) == ((0, 0), (1, 1))
    assert (np.diff(curve.points, axis=0) >= 0).all()


def test_points_are_the_shares_at_each_threshold() -> None:
    curve = roc(np.array([0.9, 0.8, 0.8, 0.1]), np.array([True, False, True, True]))
    assert curve is not None
    np.testing.assert_allclose(curve.points, [(0, 0), (0, 1 / 3), (1, 2 / 3), (1, 1)])
    assert curve.area == pytest.approx((1 / 3 + 2 / 3) / 2)


def test_without_known_or_unknown_there_is_no_curve() -> None:
    assert roc(np.array([0.1, 0.2]), np.array([True, True])) is None
    assert roc(np.array([0.1, 0.2]), np.array([False, False])) is None
