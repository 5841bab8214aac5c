"""Thresholds per label from a few examples, and what they do to the answers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from clipedge.decisions.rule import DecisionLogits, DecisionRule, accepted, decision_probabilities, log_odds

__all__ = ["Quality", "fit_thresholds", "measure", "plain_rule"]

Truths = npt.NDArray[np.int64]
FEWEST = 8  # examples for and against a label before it gets a threshold of its own


@dataclass(frozen=True)
class Quality:
    """What a rule does with labelled pictures, ``known`` of which show a label and ``unknown`` none.

    ``right`` is the share of the known ones that get their own label, ``wrong`` the share of all that get another,
    ``unknown_answered`` the share of the unknown ones that get any (None without such pictures). ``f1`` is the
    harmonic mean of ``right`` and of the share of given answers that are right.
    """

    known: int
    unknown: int
    right: float
    wrong: float
    unknown_answered: float | None
    f1: float


def measure(chosen: npt.NDArray[np.bool_], truths: Truths) -> Quality:
    """Compare answers (N, L) with ``truths`` (N,): indices of labels, or -1 for none of them. At least one is known."""
    is_truth = np.arange(chosen.shape[1]) == truths[:, None]
    known = truths >= 0
    hits = int((chosen & is_truth).sum())
    return Quality(
        known=int(known.sum()),
        unknown=int((~known).sum()),
        right=hits / int(known.sum()),
        wrong=float((chosen & ~is_truth).any(axis=1).mean()),
        unknown_answered=None if known.all() else float(chosen[~known].any(axis=1).mean()),
        f1=2 * hits / (int(chosen.sum()) + int(known.sum())),
    )


def fit_thresholds(
    logits: DecisionLogits, truths: Truths, rule: DecisionRule, recall: float | None
) -> tuple[float, ...]:
    """One threshold for each label: of the best F1, or the highest that keeps the share ``recall`` of right answers.

    The share is one of new pictures, on average over fits; of the examples themselves a little more is kept.
    ``rule`` gives temperature and kind. A label with fewer than 8 examples for it (or, for F1, against it) takes the
    threshold of all labels together.
    """
    probabilities = decision_probabilities(logits, rule)
    is_truth = np.arange(probabilities.shape[1]) == truths[:, None]
    candidate = np.ones_like(is_truth) if rule.multi_label else _best(logits)
    positives = is_truth.sum(axis=0)
    common = _threshold(probabilities[candidate], is_truth[candidate], int(positives.sum()), recall)
    thresholds = []
    for label, total in enumerate(positives):
        rows = candidate[:, label]
        scores, right = probabilities[rows, label], is_truth[rows, label]
        enough = right.sum() >= FEWEST and (recall is not None or (~right).sum() >= FEWEST)
        thresholds.append(_threshold(scores, right, int(total), recall) if enough else common)
    return tuple(thresholds)


def plain_rule(logits: DecisionLogits, truths: Truths, recall: float | None) -> DecisionRule:
    """The plain maximum-probability rule to compare with: one threshold for all, no temperature.

    To be fitted and used on logits ``without_negatives``.
    """
    unfitted = DecisionRule(1.0, (), False, "")
    candidate = _best(logits)
    is_truth = np.arange(candidate.shape[1]) == truths[:, None]
    scores = decision_probabilities(logits, unfitted)[candidate]
    threshold = _threshold(scores, is_truth[candidate], int((truths >= 0).sum()), recall)
    return replace(unfitted, thresholds=(threshold,) * candidate.shape[1])


def _best(logits: DecisionLogits) -> npt.NDArray[np.bool_]:
    """(N, L): each picture's best label, the only one that it may get."""
    return accepted(logits.without_negatives(), DecisionRule(1.0, (), False, ""))


def _threshold(
    scores: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], positives: int, recall: float | None
) -> float:
    """Where to cut candidates; ``positives`` counts also the examples that are no candidates. 0 takes all."""
    if not right.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    ranked = log_odds(scores[order])
    hits = np.cumsum(right[order])
    possible = np.append(ranked[:-1] > ranked[1:], True)  # equal scores are cut off together
    if recall is None:
        f1 = np.where(possible, 2 * hits / (np.arange(1, len(hits) + 1) + positives), -1)
        last = len(f1) - 1 - int(f1[::-1].argmax())  # of equally good cuts the one that answers most
    else:
        # One example more than their own share: then it holds for new pictures (split conformal, Vovk et al. 2005).
        needed = min(math.ceil(recall * (int(hits[-1]) + 1) - 1e-9), int(hits[-1]))
        last = int((possible & (hits >= needed)).argmax())
    if last == len(ranked) - 1:
        return 0.0
    return float(1 / (1 + math.exp(-(ranked[last] + ranked[last + 1]) / 2)))
