"""Thresholds against trying them all, and the quality of answers counted by hand."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from clipedge.decisions.rule import DecisionLogits, DecisionRule, accepted, decision_probabilities
from clipedge.decisions.thresholds import Quality, fit_thresholds, measure, plain_rule

SINGLE, MULTI = DecisionRule(1.0, (), False, ""), DecisionRule(1.0, (), True, "")


def scenes(count: int, labels: int = 3, seed: int = 0) -> tuple[DecisionLogits, npt.NDArray[np.int64]]:
    """Logits in which the truth is 3 ahead, and one picture in three shows nothing known (a weak negative)."""
    rng = np.random.default_rng(seed)
    truths = rng.integers(-labels // 2, labels, count)
    truths = np.maximum(truths, -1).astype(np.int64)
    logits = 1.5 * rng.standard_normal((count, labels + 1))
    logits[np.arange(count), truths] += 3  # -1 is the last column, the negative
    logits[:, -1] -= 2
    return DecisionLogits(logits[:, :-1], logits[:, -1:]), truths


def f1_of(
    probability: npt.NDArray[np.float64], candidate: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]
) -> float:
    """The best F1 of any threshold."""
    best = 0.0
    for threshold in (0.0, *probability):
        given = candidate & (probability >= threshold)
        best = max(best, 2 * (given & truth).sum() / (given.sum() + truth.sum()))
    return best


@pytest.mark.parametrize("rule", [SINGLE, MULTI], ids=["one label", "several"])
def test_each_labels_threshold_has_the_best_f1_of_all(rule: DecisionRule) -> None:
    logits, truths = scenes(300)
    probabilities = decision_probabilities(logits, rule)
    thresholds = fit_thresholds(logits, truths, rule, None)
    best = logits.labels.argmax(axis=1)
    assert len(set(thresholds)) == 3
    for label, threshold in enumerate(thresholds):
        candidate = np.ones(300, np.bool_) if rule.multi_label else best == label
        given = candidate & (probabilities[:, label] >= threshold)
        found = 2 * (given & (truths == label)).sum() / (given.sum() + (truths == label).sum())
        assert found == pytest.approx(f1_of(probabilities[:, label], candidate, truths == label))


@pytest.mark.parametrize("recall", [0.5, 0.9, 0.95, 1.0])
def test_a_recall_is_kept_and_no_more_is_let_through_than_it_needs(recall: float) -> None:
    logits, truths = scenes(400)
    probabilities = decision_probabilities(logits, SINGLE)
    best = logits.labels.argmax(axis=1)
    for label, threshold in enumerate(fit_thresholds(logits, truths, SINGLE, recall)):
        right = probabilities[(best == label) & (truths == label), label]
        assert (right >= threshold).sum() == min(math.ceil(recall * (len(right) + 1)), len(right))


def test_a_recall_holds_for_new_pictures_on_average() -> None:
    kept = []
    for seed in range(60):
        logits, truths = scenes(120, seed=seed)
        rule = DecisionRule(1.0, fit_thresholds(logits, truths, SINGLE, 0.9), False, "")
        new, new_truths = scenes(400, seed=1000 + seed)
        nameable = new.labels.argmax(axis=1) == new_truths
        kept.append(accepted(new, rule)[nameable].any(axis=1).mean())
    assert 0.9 <= np.mean(kept) < 0.94


def test_a_label_with_few_examples_takes_the_threshold_of_all_together() -> None:
    logits, truths = scenes(300)
    few = np.flatnonzero(truths == 2)[5:]
    keep = np.setdiff1d(np.arange(300), few)
    logits, truths = logits.rows(keep), truths[keep]
    own_0, own_1, common = fit_thresholds(logits, truths, SINGLE, None)
    best, probability = logits.labels.argmax(axis=1), decision_probabilities(logits, SINGLE).max(axis=1)
    found = 2 * ((probability >= common) & (best == truths)).sum()
    found /= (probability >= common).sum() + (truths >= 0).sum()
    candidates = [
        2 * ((probability >= t) & (best == truths)).sum() / ((probability >= t).sum() + (truths >= 0).sum())
        for t in probability
    ]
    assert found == pytest.approx(max(candidates))
    assert common not in (own_0, own_1)


def test_labels_without_a_right_answer_hold_nothing_back() -> None:
    logits = DecisionLogits(np.array([[1.0, 0], [1, 0]]), np.empty((2, 0)))
    assert fit_thresholds(logits, np.array([1, 1]), SINGLE, None) == (0.0, 0.0)


def test_equal_probabilities_are_cut_off_together() -> None:
    logits = DecisionLogits(np.tile([1.0, 0], (20, 1)), np.empty((20, 0)))
    assert fit_thresholds(logits, np.repeat([0, -1], 10), SINGLE, 0.5) == (0.0, 0.0)


def test_the_plain_rule_has_one_threshold_and_no_negatives() -> None:
    logits, truths = scenes(300)
    plain = logits.without_negatives()
    rule = plain_rule(plain, truths, 0.9)
    assert len(set(rule.thresholds)) == 1
    kept = measure(accepted(plain, rule), truths).right
    everything = float((plain.labels.argmax(axis=1) == truths)[truths >= 0].mean())
    assert 0.9 * everything <= kept <= 0.9 * everything + 0.015


def test_quality_is_counted_by_hand() -> None:
    chosen = np.array([[1, 0], [0, 1], [0, 0], [1, 0], [0, 0]], np.bool_)
    truths = np.array([0, 0, 1, -1, -1])
    assert measure(chosen, truths) == Quality(
        known=3, unknown=2, right=pytest.approx(1 / 3), wrong=2 / 5, unknown_answered=0.5, f1=2 / 6
    )
    assert measure(chosen[:3], truths[:3]).unknown_answered is None
    several = measure(np.ones((2, 2), np.bool_), np.array([0, 1]))
    assert (several.right, several.wrong, several.f1) == (1.0, 1.0, pytest.approx(2 / 3))
