"""Probabilities against an independent implementation: plain Python floats, the textbook formulas, no numpy."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest

from clipedge.classify import Classifier, probabilities
from clipedge.decisions.rule import DecisionRule
from clipedge.errors import UsageError
from clipedge.images.pixels import Images
from clipedge.prompts.bank import PromptBank

Floats = npt.NDArray[np.float32]


def unit_rows(count: int, dim: int, seed: int) -> Floats:
    rows = np.random.default_rng(seed).standard_normal((count, dim))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def bank(
    label_embeds: Floats, activation: Literal["softmax", "sigmoid"], scale: float = 100.0, bias: float = 0.0
) -> PromptBank:
    labels = tuple(f"label {i}" for i in range(len(label_embeds)))
    return PromptBank(label_embeds, labels, ("{}",), scale, bias, activation, "space")


def exact_logits(image: Floats, prompts: PromptBank) -> list[float]:
    dots = (math.fsum(float(x) * float(y) for x, y in zip(image, row, strict=True)) for row in prompts.label_embeds)
    return [prompts.logit_scale * dot + prompts.logit_bias for dot in dots]


def exact_softmax(logits: list[float]) -> list[float]:
    weights = [math.exp(logit - max(logits)) for logit in logits]
    return [weight / math.fsum(weights) for weight in weights]


def exact_sigmoid(logits: list[float]) -> list[float]:
    return [1 / (1 + math.exp(-logit)) if logit > -700 else 0.0 for logit in logits]


# CLIP's largest scale, SigLIP's scale and bias, and what only a test would use.
@pytest.mark.parametrize(
    ("scale", "bias"), [(100.0, 0.0), (117.3, -12.9), (1.0, 0.0), (1e4, 0.0), (5e4, -3e4), (0, -90)]
)
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_probabilities_equal_the_formula(activation: Literal["softmax", "sigmoid"], scale: float, bias: float) -> None:
    prompts = bank(unit_rows(7, 48, seed=1), activation, scale, bias)
    # The label rows themselves, and their opposites, are the extreme cosines 1 and -1.
    images = np.concatenate([unit_rows(5, 48, seed=2), prompts.label_embeds[:2], -prompts.label_embeds[:2]])
    exact = exact_softmax if activation == "softmax" else exact_sigmoid
    expected = np.array([exact(exact_logits(image, prompts)) for image in images])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no overflow, no division by zero
        found = probabilities(images, prompts)
    assert found.dtype == np.float32
    # Small probabilities count too: relative, down to where float32 ends. A logit carries float32 errors of the cosine.
    np.testing.assert_allclose(found, expected, rtol=2e-6 + 1e-6 * scale, atol=1e-37)


def test_softmax_rows_sum_to_one_even_at_extreme_scales() -> None:
    for scale in (0.0, 1.0, 1e6, 1e30):
        found = probabilities(unit_rows(20, 16, seed=3), bank(unit_rows(9, 16, seed=4), "softmax", scale))
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_softmax_does_not_see_the_bias_and_sigmoid_does_not_see_the_other_labels() -> None:
    images, labels = unit_rows(6, 16, seed=5), unit_rows(4, 16, seed=6)
    with_bias = probabilities(images, bank(labels, "softmax", 20, bias=-10))
    np.testing.assert_allclose(with_bias, probabilities(images, bank(labels, "softmax", 20)), rtol=1e-5)
    alone = probabilities(images, bank(labels[:1], "sigmoid", 20, bias=-10))
    together = probabilities(images, bank(labels, "sigmoid", 20, bias=-10))
    np.testing.assert_allclose(alone[:, 0], together[:, 0], rtol=1e-5)


def test_a_small_sigmoid_probability_is_not_rounded_to_zero() -> None:
    embeds = np.eye(2, dtype=np.float32)
    (row,) = probabilities(embeds[:1], bank(embeds, "sigmoid", 10, bias=-30))
    np.testing.assert_allclose(row, [2.0611536e-9, 9.3576230e-14], rtol=1e-5)


class LookUp:
    """An encoder whose pictures are numbers: rows of a table."""

    def __init__(self, table: Floats) -> None:
        self.table = table

    def __call__(self, images: Images) -> Floats:
        return self.table[np.asarray(images, np.intp)]


def test_predict_is_the_label_of_the_highest_probability() -> None:
    labels = unit_rows(5, 16, seed=7)
    classifier = Classifier(LookUp(labels), bank(labels, "softmax"))
    order = [3, 0, 4, 4, 1, 2]
    assert classifier.predict(order).tolist() == [f"label {i}" for i in order]  # type: ignore[arg-type]
    assert classifier.predict_proba(order).argmax(axis=1).tolist() == order  # type: ignore[arg-type]


def test_no_pictures_give_no_answers() -> None:
    labels = unit_rows(5, 16, seed=8)
    classifier = Classifier(LookUp(labels), bank(labels, "softmax"))
    assert classifier.predict([]).shape == (0,)
    assert classifier.predict_proba([]).shape == (0, 5)


# ---- decisions -----------------------------------------------------------------------------------------------


def deciding(
    rule: DecisionRule | None, negatives: int = 2, activation: Literal["softmax", "sigmoid"] = "softmax"
) -> Classifier:
    """Pictures 0 to 4 are the labels themselves, 5 and 6 the negatives, 7 is half label 0 and half label 1."""
    rows = np.eye(8, dtype=np.float32)[:7]
    table = np.concatenate([rows, (rows[:1] + rows[1:2]) / np.float32(math.sqrt(2))])
    prompts = dataclasses.replace(
        bank(rows[:5], activation, 10, -5 if activation == "sigmoid" else 0),
        negatives=("a", "b")[:negatives],
        negative_embeds=rows[5 : 5 + negatives] if negatives else None,
        rule=rule,
    )
    return Classifier(LookUp(table), prompts)


EVERY: Images = list(range(8))  # type: ignore[assignment]


def test_what_looks_like_a_negative_is_none_of_the_labels() -> None:
    classifier = deciding(None)
    assert classifier.decide(EVERY)[:7] == [*(f"label {i}" for i in range(5)), None, None]
    assert classifier.decide([]) == []


def test_predict_is_the_same_with_negatives_and_rule() -> None:
    plain = deciding(None, negatives=0)
    for classifier in (deciding(None), deciding(DecisionRule(3, (0.9,) * 5, False, ""))):
        np.testing.assert_array_equal(classifier.predict_proba(EVERY), plain.predict_proba(EVERY))
        assert classifier.predict(EVERY).tolist() == plain.predict(EVERY).tolist()


def test_thresholds_hold_back_also_without_negatives() -> None:
    sure = math.exp(10) / (math.exp(10) + 4)
    classifier = deciding(DecisionRule(1, (0, 0, 0, 0, (1 + sure) / 2), False, ""), negatives=0)
    assert classifier.decide(EVERY)[:5] == ["label 0", "label 1", "label 2", "label 3", None]


def test_the_temperature_is_in_the_probabilities_that_decide() -> None:
    found = deciding(DecisionRule(5, (), False, "")).decision_proba(EVERY)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0, 0], math.exp(2) / (math.exp(2) + 6), rtol=1e-6)
    np.testing.assert_allclose(found[5].sum(), 5 / (math.exp(2) + 6), rtol=1e-6)


def test_a_floor_holds_back_what_is_near_to_nothing() -> None:
    found = deciding(DecisionRule(1, (), False, "", floor=5.0), negatives=0).decide(EVERY)
    assert found[:7] == [*(f"label {i}" for i in range(5)), None, None]
    assert deciding(DecisionRule(1, (), False, "", floor=11.0), negatives=0).decide(EVERY)[:7] == [None] * 7


def test_several_labels_may_be_there() -> None:
    for classifier in (deciding(None), deciding(DecisionRule(1, (0.9,) * 5, True, ""))):
        answers = classifier.decide_all(EVERY)
        assert answers[7] == ("label 0", "label 1")
        assert answers[2] == ("label 2",)
        assert answers[5] == ()


def test_a_sigmoid_model_decides_on_its_own_without_negatives() -> None:
    classifier = deciding(None, negatives=0, activation="sigmoid")
    assert classifier.decide_all(EVERY)[4:] == [("label 4",), (), (), ("label 0", "label 1")]
    rule = DecisionRule(1, (), True, "")
    alone = deciding(rule, negatives=0, activation="sigmoid")
    np.testing.assert_allclose(alone.decision_proba(EVERY), alone.predict_proba(EVERY), rtol=1e-6)


def test_a_decision_that_the_bank_was_not_made_for_is_refused() -> None:
    with pytest.raises(UsageError, match="neither negatives nor thresholds"):
        deciding(None, negatives=0).decide(EVERY)
    with pytest.raises(UsageError, match="make the bank with negatives"):
        deciding(None, negatives=0).decide_all(EVERY)
    with pytest.raises(UsageError, match="fitted for several labels to a picture: call decide_all"):
        deciding(DecisionRule(1, (), True, "")).decide(EVERY)
    with pytest.raises(UsageError, match="fitted for one label to a picture: call decide,"):
        deciding(DecisionRule(1, (), False, "")).decide_all(EVERY)
