"""Fits on embeddings whose truth is known: what helps is kept, what does not is refused, and nothing is peeked at."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest

from clipedge.classify import decision_logits
from clipedge.decisions.fitting import fit_rule
from clipedge.decisions.rule import DecisionRule, accepted
from clipedge.errors import UsageError
from clipedge.prompts.bank import PromptBank

Floats = npt.NDArray[np.float32]
Truths = npt.NDArray[np.int64]
DIM, LABELS = 24, 4


def unit(rows: npt.NDArray[np.float64]) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


CENTRES = unit(np.random.default_rng(1).standard_normal((LABELS + 4, DIM)))


def bank(negatives: int = 1, scale: float = 30.0, activation: Literal["softmax", "sigmoid"] = "softmax") -> PromptBank:
    return PromptBank(
        CENTRES[:LABELS],
        tuple(f"label {i}" for i in range(LABELS)),
        ("{}",),
        scale,
        -10.0 if activation == "sigmoid" else 0.0,
        activation,
        "space",
        negatives=tuple(f"negative {i}" for i in range(negatives)),
        negative_embeds=CENTRES[LABELS : LABELS + negatives] if negatives else None,
    )


def pictures(count: int, noise: float, seed: int = 0) -> tuple[Floats, Truths]:
    """Noisy pictures of the labels and, a third of them, of four kinds of things that are no label."""
    rng = np.random.default_rng(seed)
    kinds = np.where(rng.random(count) < 1 / 3, rng.integers(LABELS, LABELS + 4, count), rng.integers(0, LABELS, count))
    embeds = unit(CENTRES[kinds] + noise * rng.standard_normal((count, DIM)))
    return embeds, np.where(kinds < LABELS, kinds, -1).astype(np.int64)


def test_a_fit_helps_where_a_bank_is_too_sure_and_knows_one_negative_of_four() -> None:
    embeds, truths = pictures(600, 0.25)
    fitted, fit = fit_rule(bank(), embeds, truths, variant="int8.x86")
    assert fit.temperature_kept
    assert fit.calibration_error[1] < 0.9 * fit.calibration_error[0]
    assert fit.log_loss[1] < fit.log_loss[0]
    assert fit.thresholds_refused == ""
    assert fit.after.f1 > fit.before.f1 + 0.05
    assert fit.plain is not None
    assert fit.after.f1 > fit.plain.f1
    assert fit.roc is not None
    assert fit.plain_roc is not None
    assert fit.roc.area > fit.plain_roc.area
    assert [sum(bar.size for bar in bars) for bars in fit.reliability] == [fit.held_out] * 2
    assert fit.after.unknown_answered is not None
    assert fit.before.unknown_answered is not None
    assert fit.after.unknown_answered < fit.before.unknown_answered / 2
    assert fitted.rule == DecisionRule(fit.temperature, fitted.rule.thresholds, False, "int8.x86", fit.floor)  # type: ignore[union-attr]
    assert len(fitted.rule.thresholds) == LABELS  # type: ignore[union-attr]
    assert (fit.fitted_on + fit.held_out, fit.after.known + fit.after.unknown) == (600, fit.held_out)


def test_a_floor_holds_back_what_no_text_is_near_to() -> None:
    """Things of four kinds that are no label, in a bank without a word for them."""
    embeds, truths = pictures(800, 0.2)
    fitted, fit = fit_rule(bank(0), embeds, truths, variant="fp32", recall=0.95)
    assert fitted.rule is not None
    assert fit.temperature_kept and fitted.rule.floor == fit.floor
    assert fit.log_loss[0] == np.inf  # without a floor nothing speaks for the unknown ones
    assert fit.plain is not None and fit.after.unknown_answered is not None
    assert fit.plain.unknown_answered is not None
    assert fit.after.unknown_answered < fit.plain.unknown_answered / 2
    assert fit.after.right > fit.plain.right - 0.03


def test_a_recall_that_is_asked_for_is_kept_on_pictures_not_seen() -> None:
    embeds, truths = pictures(1200, 0.25)
    fitted, fit = fit_rule(bank(), embeds, truths, variant="fp32", recall=0.95)
    assert fit.thresholds_refused == ""
    new, new_truths = pictures(1200, 0.25, seed=9)
    assert fitted.rule is not None
    logits = decision_logits(new, fitted)
    nameable = logits.labels.argmax(axis=1) == new_truths
    kept = accepted(logits, fitted.rule)[nameable].any(axis=1).mean()
    assert kept == pytest.approx(0.95, abs=0.03)


def test_what_does_not_help_is_not_kept_and_says_why() -> None:
    """Labels that say nothing about the pictures, in a bank that knows it: any fit is a fit to chance."""
    embeds, truths = pictures(200, 0.25)
    refused = 0
    for seed in range(8):
        shuffled = np.random.default_rng(seed).permutation(truths)
        fitted, fit = fit_rule(bank(negatives=4), embeds, shuffled, variant="fp32")
        kept = fitted.rule.thresholds if fitted.rule else ()
        assert bool(kept) == (fit.after.f1 > fit.before.f1)
        assert bool(kept) != bool(fit.thresholds_refused)
        refused += not kept
    assert refused


def test_a_perfect_bank_is_left_as_it_is() -> None:
    embeds, truths = pictures(200, 0.01)
    original = bank(negatives=4, scale=1000)
    fitted, fit = fit_rule(original, embeds, truths, variant="fp32")
    assert fit.before.f1 == fit.after.f1 == 1
    assert fit.thresholds_refused == "F1 on the held-out half is 1.000, without them 1.000"
    assert fitted.rule is None or fitted.rule.thresholds == ()


def test_the_held_out_half_is_not_looked_at() -> None:
    """Changing pictures one at a time: those of the fitted half move the fit, those of the other half never do."""
    embeds, truths = pictures(40, 0.25)
    _, fit = fit_rule(bank(), embeds, truths, variant="fp32")
    moved = 0
    for place in range(40):
        changed = embeds.copy()
        changed[place] = -changed[place]
        moved += fit_rule(bank(), changed, truths, variant="fp32")[1].temperature != fit.temperature
    assert moved == fit.fitted_on


def test_several_labels_are_fitted_each_on_its_own() -> None:
    embeds, truths = pictures(600, 0.25)
    fitted, fit = fit_rule(bank(), embeds, truths, variant="fp32", multi_label=True)
    assert fitted.rule is not None
    assert fitted.rule.multi_label
    assert fit.plain is None
    assert fit.after.f1 > fit.before.f1


def test_a_sigmoid_model_needs_no_negatives_for_several_labels() -> None:
    embeds, truths = pictures(600, 0.25)
    fitted, fit = fit_rule(bank(0, activation="sigmoid"), embeds, truths, variant="fp32", multi_label=True)
    assert fit.after.f1 > 0.8
    assert fitted.negatives == ()


def test_without_pictures_of_nothing_known_there_is_still_a_fit() -> None:
    embeds, truths = pictures(300, 0.4)
    known = truths >= 0
    _, fit = fit_rule(bank(0), embeds[known], truths[known], variant="fp32")
    assert fit.before.unknown_answered is None
    assert fit.before.unknown == 0
    assert fit.floor is None
    assert fit.temperature > 1


@pytest.mark.parametrize("recall", [0.0, -1.0, 1.01, float("nan")])
def test_a_recall_that_is_no_share_is_refused(recall: float) -> None:
    with pytest.raises(UsageError, match="a recall is a share above 0"):
        fit_rule(bank(), *pictures(40, 0.25), variant="fp32", recall=recall)


@pytest.mark.parametrize("truths", [[], [-1, -1, -1, -1], [0, 0, -1], [0, 1, 2, 3], [0, 0, 0]])
def test_too_few_pictures_are_refused(truths: list[int]) -> None:
    embeds = pictures(len(truths), 0.25)[0] if truths else np.empty((0, DIM), np.float32)
    with pytest.raises(UsageError, match="a fit needs 2 pictures of labels for each half"):
        fit_rule(bank(), embeds, np.array(truths, np.int64), variant="fp32")


def test_labels_on_their_own_against_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="make the bank with negatives"):
        fit_rule(bank(0), *pictures(40, 0.25), variant="fp32", multi_label=True)
