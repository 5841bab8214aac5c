"""Decisions: from logits to a label, to several labels, or to "none of these".

What is none of the labels has to look like something: a bank's negatives take part in the softmax, and what they take
is missing from the labels' probabilities. A label is the answer when its probability reaches its threshold, or, before
any was fitted, when it is ahead of every negative. Words may not say what else there is: where pictures of it were at
hand, a fitted ``floor``, a logit that does not depend on the picture, stands beside the negatives. A picture near to no
label then has a small probability, even if it is much nearer to one of them than to the others.

With several labels to a picture, every label stands alone: against the negatives, and in a model trained with the
sigmoid also against a logit of 0, as in its training. A label's probability is then independent of the other labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clipedge.errors import UsageError

__all__ = [
    "TEMPERATURES",
    "DecisionLogits",
    "DecisionRule",
    "accepted",
    "decision_probabilities",
    "log_odds",
    "margins",
]

Floats = npt.NDArray[np.float64]
EVEN = 0.5  # threshold of a label that stands alone, before one was fitted
TEMPERATURES = (1e-2, 1e2)  # the range of the fit; what a file has beyond it was not fitted
MOST_FLOOR = 1e6  # as far from 0: no model's logits are


@dataclass(frozen=True)
class DecisionRule:
    """How a bank's logits become answers; ``fitting.py`` finds it, and the bank keeps it.

    Logits are divided by ``temperature``. ``thresholds`` has the probability that each label has to reach, or is ().
    ``multi_label`` says for which of the two kinds of answers it was fitted, ``variant`` with which image tower:
    ``"int8.x86"``. ``floor`` is the logit of a negative without a text, or None.
    """

    temperature: float
    thresholds: tuple[float, ...]
    multi_label: bool
    variant: str
    floor: float | None = None

    @classmethod
    def from_document(cls, document: Any, labels: int) -> DecisionRule:
        """The rule of parsed JSON for so many labels. Raises ValueError or KeyError for what cannot be right."""
        if not isinstance(document, dict):
            raise ValueError(f"decision: expected an object, found {document!r:.40}")
        temperature, thresholds = document["temperature"], document["thresholds"]
        floor = document.get("floor")
        if not _is_number(temperature) or not TEMPERATURES[0] <= temperature <= TEMPERATURES[1]:
            raise ValueError(f"temperature: expected a number from 0.01 to 100, found {temperature!r:.40}")
        if not isinstance(thresholds, list) or len(thresholds) not in (0, labels):
            raise ValueError(f"thresholds: expected none or {labels}, found {thresholds!r:.40}")
        if not all(_is_number(value) and 0 <= value <= 1 for value in thresholds):
            raise ValueError(f"thresholds: expected probabilities, found {thresholds!r:.40}")
        if type(document["multi_label"]) is not bool or not isinstance(document["variant"], str):
            raise ValueError("multi_label and variant: expected true or false, and a text")
        if floor is not None and not (_is_number(floor) and abs(floor) <= MOST_FLOOR):
            raise ValueError(f"floor: expected a logit or null, found {floor!r:.40}")
        return cls(
            float(temperature),
            tuple(map(float, thresholds)),
            bool(document["multi_label"]),
            str(document["variant"]),
            None if floor is None else float(floor),
        )


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


class DecisionLogits(NamedTuple):
    """Logits of ``labels`` (N, L) and of ``nothing`` (N, K), what is none of them; float64, K may be 0."""

    labels: Floats
    nothing: Floats

    def rows(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> DecisionLogits:
        """The logits of some of the pictures."""
        return DecisionLogits(self.labels[chosen], self.nothing[chosen])

    def without_negatives(self) -> DecisionLogits:
        return DecisionLogits(self.labels, self.nothing[:, :0])

    def with_floor(self, floor: float | None) -> DecisionLogits:
        """The logits with another one that is nothing, the same for all pictures; None adds none."""
        if floor is None:
            return self
        return DecisionLogits(self.labels, np.pad(self.nothing, ((0, 0), (0, 1)), constant_values=floor))

    def standing_alone(self) -> Floats:
        """(N, L): how far each label is ahead of all that is nothing, the log-odds at temperature 1."""
        return self.labels - log_sum(self.nothing)


def log_sum(logits: Floats) -> Floats:
    """(N, 1): log of the sum of exponentials of each row of (N, K)."""
    peak = logits.max(axis=1, keepdims=True, initial=-math.inf)
    if logits.shape[1] == 0:
        return np.asarray(peak)
    return np.asarray(peak + np.log(np.exp(logits - peak).sum(axis=1, keepdims=True)))


def decision_probabilities(logits: DecisionLogits, rule: DecisionRule) -> Floats:
    """(N, L) probabilities. Softmax with the negatives, so that a row sums to 1 with them; or each label alone.

    Raises UsageError for labels that stand alone against nothing.
    """
    labels, nothing = (part / rule.temperature for part in logits)
    if not rule.multi_label:
        return np.asarray(np.exp(labels - log_sum(np.concatenate([labels, nothing], axis=1))))
    if nothing.shape[1] == 0:
        raise UsageError(
            "every label on its own needs something that it is compared with: make the bank with negatives "
            "(only models trained with the sigmoid do without)"
        )
    ahead = DecisionLogits(labels, nothing).standing_alone()
    return np.asarray(np.exp(-np.logaddexp(0, -ahead)))


def accepted(logits: DecisionLogits, rule: DecisionRule) -> npt.NDArray[np.bool_]:
    """(N, L): which labels are the answer; without ``multi_label`` at most one for each picture."""
    probabilities = decision_probabilities(logits, rule)
    if rule.multi_label:
        return np.asarray(probabilities >= (np.array(rule.thresholds) if rule.thresholds else EVEN))
    best = np.arange(logits.labels.shape[1]) == logits.labels.argmax(axis=1)[:, None]
    if rule.thresholds:
        return np.asarray(best & (probabilities >= np.array(rule.thresholds)))
    return np.asarray(best & (logits.labels > logits.nothing.max(axis=1, initial=-math.inf, keepdims=True)))


def margins(logits: DecisionLogits, rule: DecisionRule) -> Floats:
    """(N,): how far the best label's log-odds are above those of its threshold; of several, the furthest one's."""
    ahead = log_odds(decision_probabilities(logits, rule))
    if rule.thresholds:
        ahead -= log_odds(np.array(rule.thresholds))
    best = (ahead if rule.multi_label else logits.labels).argmax(axis=1)
    return np.asarray(ahead[np.arange(len(best)), best])


def log_odds(probabilities: Floats) -> Floats:
    """log(p / (1 - p)), finite for 0 and 1 as well."""
    inside = np.clip(probabilities, 1e-12, 1 - 1e-12)
    return np.asarray(np.log(inside) - np.log1p(-inside))
