"""Temperatures that are known because the labels were drawn from them, and calibration errors counted by hand."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from clipedge.decisions.rule import DecisionLogits, DecisionRule, decision_probabilities
from clipedge.decisions.temperature import (
    calibration_error,
    fit_floor,
    fit_temperature,
    informative,
    log_loss,
    reliability,
)


def drawn(temperature: float, count: int, multi_label: bool) -> tuple[DecisionLogits, npt.NDArray[np.int64]]:
    """Logits, and truths drawn from the probabilities that they have at a temperature; 4 labels, 2 negatives."""
    rng = np.random.default_rng(5)
    logits = DecisionLogits(4 * rng.standard_normal((count, 4)), 4 * rng.standard_normal((count, 2)))
    if multi_label:  # one label is looked at: the others are not drawn
        logits = DecisionLogits(logits.labels[:, :1], logits.nothing)
    probabilities = decision_probabilities(logits, DecisionRule(temperature, (), multi_label, ""))
    steps = np.cumsum(probabilities, axis=1)
    truths = (rng.random((count, 1)) > steps).sum(axis=1)
    return logits, np.where(truths == logits.labels.shape[1], -1, truths).astype(np.int64)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_truths_were_drawn_with_is_found(temperature: float, multi_label: bool) -> None:
    logits, truths = drawn(temperature, 6_000, multi_label)
    found = fit_temperature(logits, truths, multi_label)
    assert found == pytest.approx(temperature, rel=0.1)
    grid = np.exp(np.linspace(math.log(0.05), math.log(20), 50))
    assert log_loss(logits, truths, found, multi_label) <= min(log_loss(logits, truths, t, multi_label) for t in grid)
    assert calibration_error(reliability(logits, truths, found, multi_label)) < 0.03
    if temperature != 1:
        assert calibration_error(reliability(logits, truths, 1.0, multi_label)) > 0.04


@pytest.mark.parametrize(("multi_label", "negatives"), [(False, 0), (False, 2), (True, 0)])
def test_the_floor_that_truths_were_drawn_with_is_found(multi_label: bool, negatives: int) -> None:
    rng = np.random.default_rng(6)
    bare = DecisionLogits(4 * rng.standard_normal((1500, 1 if multi_label else 4)), np.empty((1500, 0)))
    bare = DecisionLogits(bare.labels, 3 * rng.standard_normal((1500, negatives)))
    probabilities = decision_probabilities(bare.with_floor(2.5), DecisionRule(2.0, (), multi_label, ""))
    places = (rng.random((1500, 1)) > np.cumsum(probabilities, axis=1)).sum(axis=1)
    truths = np.where(places == bare.labels.shape[1], -1, places).astype(np.int64)
    found = fit_floor(bare, truths, multi_label)
    assert found == pytest.approx(2.5, abs=0.8)
    assert fit_temperature(bare.with_floor(found), truths, multi_label) == pytest.approx(2, rel=0.15)


def test_log_loss_is_the_formula() -> None:
    logits = DecisionLogits(np.array([[2.0, 0], [1, 3]]), np.array([[1.0, 0], [0, 0]]))
    first = math.exp(2) / (math.exp(2) + 1 + math.e + 1)
    second = 2 / (math.e + math.exp(3) + 2)  # nothing known: both negatives together
    expected = -(math.log(first) + math.log(second)) / 2
    assert log_loss(logits, np.array([0, -1]), 1.0, False) == pytest.approx(expected)
    alone = [[math.exp(2) / (math.exp(2) + math.e + 1), 1 / (1 + math.e + 1)], [math.e / (math.e + 2), 0.0]]
    alone[1][1] = math.exp(3) / (math.exp(3) + 2)
    losses = (alone[0][0], 1 - alone[0][1], 1 - alone[1][0], 1 - alone[1][1])
    expected = -sum(map(math.log, losses)) / 4
    assert log_loss(logits, np.array([0, -1]), 1.0, True) == pytest.approx(expected)


def test_calibration_error_is_counted_by_hand() -> None:
    # Two labels; the best has probability 0.7, 0.7, 0.7 (in one bin: one of three right) and 0.9 (right).
    best = np.array([0.7, 0.7, 0.7, 0.9])
    logits = DecisionLogits(np.stack([np.log(best), np.log(1 - best)], axis=1), np.empty((4, 0)))
    truths = np.array([0, 1, 1, 0])
    bars = reliability(logits, truths, 1.0, False)
    np.testing.assert_allclose(bars, [(0.7, 1 / 3, 3), (0.9, 1, 1)])
    expected = 3 / 4 * abs(0.7 - 1 / 3) + 1 / 4 * abs(0.9 - 1)
    assert calibration_error(reliability(logits, truths, 1.0, False)) == pytest.approx(expected)


def test_certain_and_right_has_no_calibration_error() -> None:
    logits = DecisionLogits(np.array([[1000.0, 0], [0, 1000]]), np.empty((2, 0)))
    assert calibration_error(reliability(logits, np.array([0, 1]), 1.0, False)) == 0
    assert calibration_error(reliability(logits, np.array([1, 0]), 1.0, False)) == 1


def test_without_negatives_what_is_no_label_has_no_probability() -> None:
    truths = np.array([0, -1, 1])
    assert informative(DecisionLogits(np.zeros((3, 2)), np.empty((3, 0))), truths, False).tolist() == [1, 0, 1]
    assert informative(DecisionLogits(np.zeros((3, 2)), np.zeros((3, 1))), truths, False).all()
