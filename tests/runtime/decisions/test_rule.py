"""Decision probabilities against plain Python floats, and the answers that follow from them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from clipedge.decisions.rule import DecisionLogits, DecisionRule, accepted, decision_probabilities, log_odds, margins
from clipedge.errors import UsageError


def logits(labels: list[list[float]], nothing: list[list[float]] | None = None) -> DecisionLogits:
    return DecisionLogits(np.array(labels, float), np.array(nothing or [[]] * len(labels), float))


def random_logits(count: int, labels: int, nothing: int, spread: float = 5) -> DecisionLogits:
    rng = np.random.default_rng(0)
    return DecisionLogits(spread * rng.standard_normal((count, labels)), spread * rng.standard_normal((count, nothing)))


SINGLE, MULTI = DecisionRule(1.0, (), False, "fp32"), DecisionRule(1.0, (), True, "fp32")


@pytest.mark.parametrize("temperature", [0.3, 1.0, 7.0])
@pytest.mark.parametrize("nothing", [0, 3])
def test_one_label_is_a_softmax_with_the_negatives(temperature: float, nothing: int) -> None:
    given = random_logits(6, 4, nothing)
    found = decision_probabilities(given, DecisionRule(temperature, (), False, ""))
    for row, labels, negatives in zip(found, *given, strict=True):
        total = math.fsum(math.exp(z / temperature) for z in (*labels, *negatives))
        np.testing.assert_allclose(row, [math.exp(z / temperature) / total for z in labels], rtol=1e-12)
    assert (found.sum(axis=1) < 1).all() if nothing else np.allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 7.0])
def test_a_label_on_its_own_stands_against_the_negatives_only(temperature: float) -> None:
    given = random_logits(6, 4, 3)
    rule = DecisionRule(temperature, (), True, "")
    found = decision_probabilities(given, rule)
    for row, labels, negatives in zip(found, *given, strict=True):
        none = math.fsum(math.exp(z / temperature) for z in negatives)
        odds = [math.exp(z / temperature) / none for z in labels]
        np.testing.assert_allclose(row, [value / (1 + value) for value in odds], rtol=1e-12)
    alone = decision_probabilities(DecisionLogits(given.labels[:, :1], given.nothing), rule)
    np.testing.assert_array_equal(alone, found[:, :1])


@pytest.mark.parametrize("rule", [SINGLE, MULTI])
def test_extreme_logits_give_probabilities(rule: DecisionRule) -> None:
    found = decision_probabilities(logits([[1e6, -1e6], [-1e6, 1e6]], [[0], [0]]), rule)
    np.testing.assert_array_equal(found, [[1, 0], [0, 1]])


def test_labels_on_their_own_need_something_to_be_compared_with() -> None:
    with pytest.raises(UsageError, match="make the bank with negatives"):
        decision_probabilities(random_logits(2, 3, 0), MULTI)


def test_without_thresholds_the_best_label_has_to_be_ahead_of_every_negative() -> None:
    given = logits([[3, 1], [1, 3], [2, 1], [2, 2]], [[2, 0], [2, 2], [0, 5], [2, 0]])
    assert accepted(given, SINGLE).tolist() == [[True, False], [False, True], [False, False], [False, False]]
    assert accepted(logits([[3, 1]]), SINGLE).tolist() == [[True, False]]


def test_a_threshold_holds_the_best_labels_answer_back() -> None:
    given = logits([[2.0, 0], [1, 0], [0, 2], [0, 1]])  # best label's probability: 0.88, 0.73, 0.88, 0.73
    rule = DecisionRule(1.0, (0.8, 0.7), False, "")
    assert accepted(given, rule).tolist() == [[True, False], [False, False], [False, True], [False, True]]
    # The second label reaches its threshold of 0, but it is not the best: one answer at most.
    assert accepted(logits([[1.0, 0]]), DecisionRule(1.0, (0.8, 0.0), False, "")).tolist() == [[False, False]]


def test_labels_on_their_own_are_none_one_or_several() -> None:
    given = logits([[1, 1], [1, -1], [-1, -1]], [[0], [0], [0]])
    assert accepted(given, MULTI).tolist() == [[True, True], [True, False], [False, False]]
    strict = DecisionRule(1.0, (0.9, 0.5), True, "")
    assert accepted(given, strict).tolist() == [[False, True], [False, False], [False, False]]


def test_log_odds_order_what_is_close_to_one_and_are_finite() -> None:
    found = log_odds(np.array([0, 0.5, 0.9, 1 - 1e-9, 1]))
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()
    assert found[2] == pytest.approx(math.log(9))


@pytest.mark.parametrize("rule", [SINGLE, MULTI])
def test_a_floor_is_a_negative_that_every_picture_has(rule: DecisionRule) -> None:
    given = logits([[3.0, 1], [0.5, 0]], [[-1.0], [-2]])
    floored = given.with_floor(1.5)
    assert floored.nothing.tolist() == [[-1.0, 1.5], [-2, 1.5]]
    assert given.with_floor(None) is given
    assert accepted(floored, rule).tolist() == [[True, False], [False, False]]
    assert (decision_probabilities(floored, rule) < decision_probabilities(given, rule)).all()


def test_margins_say_what_is_accepted_and_by_how_much() -> None:
    given = logits([[2.0, 0], [0, 0.5]], [[0.0], [0]])
    rule = DecisionRule(1.0, (0.5, 0.9), False, "")
    odds = [2 - math.log(2), 0.5 - math.log(2)]  # of the best label against all else
    expected = [odds[0], odds[1] - math.log(9)]
    assert margins(given, rule) == pytest.approx(expected)
    assert ((margins(given, rule) >= 0) == accepted(given, rule).any(axis=1)).all()
    alone = DecisionRule(1.0, (0.5, 0.1), True, "")
    assert margins(given, alone) == pytest.approx([math.log(9), 0.5 + math.log(9)])
    assert margins(given, SINGLE) == pytest.approx(odds)


WHOLE: dict[str, Any] = {"temperature": 2, "thresholds": [0.5, 1], "multi_label": False, "variant": "int8.x86"}


def test_a_rule_is_read_from_its_document() -> None:
    assert DecisionRule.from_document(WHOLE, 2) == DecisionRule(2.0, (0.5, 1.0), False, "int8.x86")
    assert DecisionRule.from_document({**WHOLE, "thresholds": []}, 2).thresholds == ()
    assert DecisionRule.from_document({**WHOLE, "floor": 18}, 2).floor == 18.0
    assert DecisionRule.from_document({**WHOLE, "floor": None}, 2).floor is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0}, "temperature: expected a number from 0.01 to 100"),
        ({"temperature": 1e-300}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"thresholds": [0.5]}, "thresholds: expected none or 2"),
        ({"thresholds": [0.5, 1.5]}, "thresholds: expected probabilities"),
        ({"thresholds": [0.5, float("nan")]}, "thresholds: expected probabilities"),
        ({"thresholds": [0.5, None]}, "thresholds: expected probabilities"),
        ({"thresholds": {}}, "thresholds: expected none or 2"),
        ({"multi_label": 1}, "multi_label and variant"),
        ({"variant": None}, "multi_label and variant"),
        ({"floor": float("nan")}, "floor: expected a logit or null"),
        ({"floor": -1e300}, "floor"),
        ({"floor": "1"}, "floor"),
        ({"floor": True}, "floor"),
    ],
)
def test_a_rule_that_cannot_be_right_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecisionRule.from_document({**WHOLE, **changes}, 2)


@pytest.mark.parametrize("field", list(WHOLE))
def test_every_field_of_a_rule_is_required(field: str) -> None:
    with pytest.raises(KeyError, match=field):
        DecisionRule.from_document({key: value for key, value in WHOLE.items() if key != field}, 2)
    with pytest.raises(ValueError, match="expected an object"):
        DecisionRule.from_document([1], 2)
