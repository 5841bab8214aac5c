"""Fit a bank's decision rule on a few labelled pictures, and keep only what helps on others.

Half of each class is fitted on, the other half held out. Temperature and thresholds are judged one after the other;
what is not better on the held-out half is left out of the bank. The rule that is kept is the one that was judged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from clipedge.classify import decision_logits
from clipedge.decisions import DecisionLogits, DecisionRule, accepted, decision_probabilities
from clipedge.errors import UsageError
from clipedge.intervals import wilson_interval
from clipedge.prompts import PromptBank
from clipedge.roc import Roc, roc
from clipedge.temperature import Bin, calibration_error, fit_temperature, informative, log_loss, reliability
from clipedge.thresholds import Quality, fit_thresholds, measure, plain_rule

__all__ = ["Fit", "check_fit", "fit_rule"]

FEWEST_KNOWN = 2  # pictures of labels in each half


@dataclass(frozen=True)
class Fit:
    """What a fit did to the ``held_out`` pictures, after it had seen ``fitted_on`` others.

    ``log_loss``, ``calibration_error`` and the bars of ``reliability`` are (before, after) the temperature.
    ``before`` is the rule without a fit, ``plain`` the plain maximum-probability rule with one threshold fitted on the
    same pictures (None for several labels to a picture), ``after`` the fitted rule, also where it was not kept; then
    ``thresholds_refused`` says why. ``roc`` is how the best label's probability tells known pictures from unknown
    ones (None without unknown ones), ``plain_roc`` the same without negatives.
    """

    fitted_on: int
    held_out: int
    temperature: float
    temperature_kept: bool
    log_loss: tuple[float, float]
    calibration_error: tuple[float, float]
    reliability: tuple[tuple[Bin, ...], tuple[Bin, ...]]
    recall: float | None
    thresholds_refused: str
    before: Quality
    plain: Quality | None
    after: Quality
    roc: Roc | None
    plain_roc: Roc | None


def fit_rule(
    bank: PromptBank,
    image_embeds: npt.NDArray[np.float32],
    truths: npt.NDArray[np.int64],
    *,
    variant: str,
    multi_label: bool = False,
    recall: float | None = None,
) -> tuple[PromptBank, Fit]:
    """The bank with what helped of a fitted rule (or none), and the report.

    ``image_embeds`` (N, D) are pictures of the bank's labels ``truths`` (N,), -1 for pictures of nothing known.
    ``recall`` is the share of its right answers that a label has to keep; None fits for the best F1. ``variant`` is
    the image tower's, for the record.

    Raises UsageError for fewer than two pictures of labels in a half, and as ``check_fit`` does.
    """
    check_fit(bank, multi_label, recall)
    fitted, held = _halves(truths)
    logits = decision_logits(image_embeds, bank, multi_label)
    unfitted = DecisionRule(1.0, (), multi_label, variant)
    temperature, losses, bars = _temperature(logits, truths, fitted, held, multi_label)
    errors = (calibration_error(bars[0]), calibration_error(bars[1]))
    helps = losses[1] < losses[0] and errors[1] <= errors[0]
    warm = replace(unfitted, temperature=temperature if helps else 1.0)
    here, there = truths[fitted], truths[held]
    rule = replace(warm, thresholds=fit_thresholds(logits.rows(fitted), here, warm, recall))
    before = accepted(logits.rows(held), unfitted)
    after = accepted(logits.rows(held), rule)
    refused = _refusal(before, after, there, recall, _nameable(logits.rows(held), there, multi_label))
    kept = warm if refused else rule
    fit = Fit(
        fitted_on=len(here),
        held_out=len(there),
        temperature=temperature,
        temperature_kept=helps,
        log_loss=losses,
        calibration_error=errors,
        reliability=bars,
        recall=recall,
        thresholds_refused=refused,
        before=measure(before, there),
        plain=None if multi_label else _plain_quality(logits, truths, fitted, held, recall),
        after=measure(after, there),
        roc=_roc(logits.rows(held), there, warm),
        plain_roc=None if multi_label else _roc(logits.rows(held).without_negatives(), there, unfitted),
    )
    return replace(bank, rule=kept if helps or not refused else None), fit


def check_fit(bank: PromptBank, multi_label: bool, recall: float | None) -> None:
    """What is known before a picture is read.

    Raises UsageError for a recall that is no share, and for labels that stand alone in a bank that has nothing to
    compare them with.
    """
    if recall is not None and not 0 < recall <= 1:
        raise UsageError(f"a recall is a share above 0 and up to 1, found {recall}")
    nothing = np.empty((0, bank.label_embeds.shape[1]), np.float32)
    decision_probabilities(decision_logits(nothing, bank, multi_label), DecisionRule(1.0, (), multi_label, ""))


def _halves(truths: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Places of the pictures to fit on and of those held out: half of each class, the odd one for the fit.

    Raises UsageError where a half would have too few pictures of labels.
    """
    rng = np.random.default_rng(0)
    fitted: list[npt.NDArray[np.intp]] = []
    held: list[npt.NDArray[np.intp]] = []
    for label in np.unique(truths):
        places = rng.permutation(np.flatnonzero(truths == label))
        middle = (len(places) + 1) // 2
        fitted.append(places[:middle])
        held.append(places[middle:])
    known = [int(sum((truths[places] >= 0).sum() for places in half)) for half in (fitted, held)]
    if min(known) < FEWEST_KNOWN:
        raise UsageError(
            f"a fit needs {FEWEST_KNOWN} pictures of labels for each half, and 2 or more of a label to hold one out; "
            f"found {sum(known)} in all: add some"
        )
    return np.concatenate(fitted), np.concatenate(held)


def _temperature(
    logits: DecisionLogits,
    truths: npt.NDArray[np.int64],
    fitted: npt.NDArray[np.intp],
    held: npt.NDArray[np.intp],
    multi_label: bool,
) -> tuple[float, tuple[float, float], tuple[tuple[Bin, ...], tuple[Bin, ...]]]:
    """The temperature, and on the held-out half (before, after) it the log loss and the reliability."""
    usable = informative(logits, truths, multi_label)
    fitted, held = fitted[usable[fitted]], held[usable[held]]
    temperature = fit_temperature(logits.rows(fitted), truths[fitted], multi_label)
    rows, there = logits.rows(held), truths[held]
    losses = (log_loss(rows, there, 1.0, multi_label), log_loss(rows, there, temperature, multi_label))
    bars = (reliability(rows, there, 1.0, multi_label), reliability(rows, there, temperature, multi_label))
    return temperature, losses, bars


def _nameable(logits: DecisionLogits, truths: npt.NDArray[np.int64], multi_label: bool) -> int:
    """How many pictures would get their own label if no answer were held back."""
    return int((truths >= 0).sum() if multi_label else (logits.labels.argmax(axis=1) == truths).sum())


def _refusal(
    before: npt.NDArray[np.bool_],
    after: npt.NDArray[np.bool_],
    truths: npt.NDArray[np.int64],
    recall: float | None,
    nameable: int,
) -> str:
    """Why fitted thresholds are not kept, or ""."""
    old, new = measure(before, truths), measure(after, truths)
    if recall is None:
        return "" if new.f1 > old.f1 else f"F1 on the held-out half is {new.f1:.3f}, without them {old.f1:.3f}"
    hits = round(new.right * new.known)
    if nameable and wilson_interval(hits, nameable)[1] < recall:
        return f"{hits} of {nameable} right answers are kept on the held-out half, less than the {recall:.0%} asked for"
    if new.right <= old.right and new.wrong >= old.wrong:
        return "on the held-out half no more answers are right and no fewer wrong than without them"
    return ""


def _roc(logits: DecisionLogits, truths: npt.NDArray[np.int64], rule: DecisionRule) -> Roc | None:
    return roc(decision_probabilities(logits, rule).max(axis=1), truths >= 0)


def _plain_quality(
    logits: DecisionLogits,
    truths: npt.NDArray[np.int64],
    fitted: npt.NDArray[np.intp],
    held: npt.NDArray[np.intp],
    recall: float | None,
) -> Quality:
    plain = logits.without_negatives()
    rule = plain_rule(plain.rows(fitted), truths[fitted], recall)
    return measure(accepted(plain.rows(held), rule), truths[held])
