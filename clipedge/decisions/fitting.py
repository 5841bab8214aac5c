"""Fit a bank's decision rule on a few labelled pictures, and keep only what helps on others.

Half of each class is fitted on, the other half held out. Temperature, with the floor that pictures of nothing known
allow to fit, and thresholds are judged one after the other; what is not better on the held-out half is left out of the
bank. The rule that is kept is the one that was judged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clipedge.classify import decision_logits
from clipedge.decisions.roc import Roc, roc
from clipedge.decisions.rule import DecisionLogits, DecisionRule, accepted, decision_probabilities, margins
from clipedge.decisions.temperature import (
    Bin,
    calibration_error,
    fit_floor,
    fit_temperature,
    informative,
    log_loss,
    reliability,
)
from clipedge.decisions.thresholds import Quality, fit_thresholds, measure, plain_rule
from clipedge.errors import UsageError
from clipedge.evaluation.intervals import wilson_interval
from clipedge.prompts.bank import PromptBank

__all__ = ["Fit", "check_fit", "fit_rule"]

FEWEST_KNOWN = 2  # pictures of labels in each half


@dataclass(frozen=True)
class Fit:
    """What a fit did to the ``held_out`` pictures, after it had seen ``fitted_on`` others.

    ``log_loss``, ``calibration_error`` and the bars of ``reliability`` are (before, after) temperature and floor; the
    loss is infinite where unknown pictures have no probability. ``floor`` is None where none was fitted or kept.
    ``before`` is the rule without a fit, ``plain`` the plain maximum-probability rule with one threshold fitted on the
    same pictures (None for several labels to a picture), ``after`` the fitted rule, also where it was not kept; then
    ``thresholds_refused`` says why. ``roc`` is how the fitted rule tells known pictures from unknown ones as all its
    thresholds move together (None without unknown ones), ``plain_roc`` how the plain rule does.
    """

    fitted_on: int
    held_out: int
    temperature: float
    floor: float | None
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
    plain = decision_logits(image_embeds, replace(bank, rule=None), multi_label)
    unfitted = DecisionRule(1.0, (), multi_label, variant)
    found = _calibrate(plain, truths, fitted, held, multi_label)
    warm = replace(unfitted, temperature=found.temperature, floor=found.floor) if found.helps else unfitted
    logits = plain.with_floor(warm.floor)
    here, there = truths[fitted], truths[held]
    rule = replace(warm, thresholds=fit_thresholds(logits.rows(fitted), here, warm, recall))
    before = accepted(plain.rows(held), unfitted)
    after = accepted(logits.rows(held), rule)
    refused = _refusal(before, after, there, recall, _nameable(logits.rows(held), there, multi_label))
    kept = warm if refused else rule
    fit = Fit(
        fitted_on=len(here),
        held_out=len(there),
        temperature=found.temperature,
        floor=found.floor,
        temperature_kept=found.helps,
        log_loss=found.losses,
        calibration_error=found.errors,
        reliability=found.bars,
        recall=recall,
        thresholds_refused=refused,
        before=measure(before, there),
        plain=None if multi_label else _plain_quality(plain, truths, fitted, held, recall),
        after=measure(after, there),
        roc=roc(margins(logits.rows(held), rule), there >= 0),
        plain_roc=None if multi_label else roc(margins(plain.rows(held).without_negatives(), unfitted), there >= 0),
    )
    return replace(bank, rule=kept if found.helps or not refused else None), fit


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


class _Calibration(NamedTuple):
    """A temperature with a floor or without, and what is (before, after) it on the held-out half."""

    temperature: float
    floor: float | None
    losses: tuple[float, float]
    bars: tuple[tuple[Bin, ...], tuple[Bin, ...]]

    @property
    def errors(self) -> tuple[float, float]:
        before, after = self.bars
        return calibration_error(before), calibration_error(after)

    @property
    def helps(self) -> bool:
        return self.losses[1] < self.losses[0] and self.errors[1] <= self.errors[0]


def _calibrate(
    plain: DecisionLogits,
    truths: npt.NDArray[np.int64],
    fitted: npt.NDArray[np.intp],
    held: npt.NDArray[np.intp],
    multi_label: bool,
) -> _Calibration:
    """With a floor where there are unknown pictures; without one where that does not help, as with very few of them."""
    here = truths[fitted]
    if (here < 0).any():
        floor = fit_floor(plain.rows(fitted), here, multi_label)
        found = _calibration(plain, floor, truths, fitted, held, multi_label)
        if found.helps:
            return found
    return _calibration(plain, None, truths, fitted, held, multi_label)


def _calibration(
    plain: DecisionLogits,
    floor: float | None,
    truths: npt.NDArray[np.int64],
    fitted: npt.NDArray[np.intp],
    held: npt.NDArray[np.intp],
    multi_label: bool,
) -> _Calibration:
    logits = plain.with_floor(floor)
    usable = informative(logits, truths, multi_label)
    fitted, held = fitted[usable[fitted]], held[usable[held]]
    temperature = fit_temperature(logits.rows(fitted), truths[fitted], multi_label)
    there = truths[held]
    sides = ((plain.rows(held), 1.0), (logits.rows(held), temperature))
    before, after = (log_loss(rows, there, degree, multi_label) for rows, degree in sides)
    bars, new_bars = (reliability(rows, there, degree, multi_label) for rows, degree in sides)
    return _Calibration(temperature, floor, (before, after), (bars, new_bars))


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
