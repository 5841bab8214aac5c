"""Temperature scaling (Guo et al. 2017, "On Calibration of Modern Neural Networks"), and the error that it mends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clipedge.decisions.rule import TEMPERATURES, DecisionLogits, DecisionRule, decision_probabilities, log_sum

__all__ = ["Bin", "calibration_error", "fit_floor", "fit_temperature", "informative", "log_loss", "reliability"]

BINS = 15  # as in the paper
STEPS = 60  # of the golden section: the interval shrinks by 3e-13
COARSE = 20  # where one search is within another: by 7e-5


class Bin(NamedTuple):
    """One bar of a reliability diagram: mean confidence, accuracy, and how many."""

    confidence: float
    accuracy: float
    size: int


def fit_temperature(logits: DecisionLogits, truths: npt.NDArray[np.int64], multi_label: bool) -> float:
    """The temperature of the least log loss; ``truths`` (N,) are indices of labels, or -1 for none of them.

    The loss is convex in 1 / T, so it has one minimum, which a golden-section search over log T finds.
    """
    return _temperature(logits, truths, multi_label, STEPS)


def fit_floor(logits: DecisionLogits, truths: npt.NDArray[np.int64], multi_label: bool) -> float:
    """The floor of the least log loss, at its own best temperature; some of the pictures are of none of the labels.

    Without negatives the loss is convex in 1 / T and floor / T, so that the best loss for each floor has one minimum.
    """
    best = logits.labels.max(axis=1)
    spread = float(best.max() - best.min()) + 1

    def loss(floor: float) -> float:
        with_floor = logits.with_floor(floor)
        return log_loss(with_floor, truths, _temperature(with_floor, truths, multi_label, COARSE), multi_label)

    return _minimum(loss, float(best.min()) - spread, float(best.max()) + spread, COARSE)


def _temperature(logits: DecisionLogits, truths: npt.NDArray[np.int64], multi_label: bool, steps: int) -> float:
    low, high = map(math.log, TEMPERATURES)
    return math.exp(_minimum(lambda value: log_loss(logits, truths, math.exp(value), multi_label), low, high, steps))


def _minimum(function: Callable[[float], float], low: float, high: float, steps: int) -> float:
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(steps):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2


def informative(logits: DecisionLogits, truths: npt.NDArray[np.int64], multi_label: bool) -> npt.NDArray[np.bool_]:
    """(N,): the pictures whose truth has a probability. That of none of the labels has none without negatives."""
    if multi_label or logits.nothing.shape[1]:
        return np.ones(len(truths), np.bool_)
    return np.asarray(truths >= 0)


def log_loss(logits: DecisionLogits, truths: npt.NDArray[np.int64], temperature: float, multi_label: bool) -> float:
    """Mean negative log likelihood, over pictures or (``multi_label``) over pictures and labels."""
    labels, nothing = logits.labels / temperature, logits.nothing / temperature
    is_truth = np.arange(labels.shape[1]) == truths[:, None]
    if multi_label:
        ahead = labels - log_sum(nothing)
        return float(np.logaddexp(0, np.where(is_truth, -ahead, ahead)).mean())
    everything = log_sum(np.concatenate([labels, nothing], axis=1))[:, 0]
    known = truths >= 0
    right = np.where(known, labels[np.arange(len(truths)), truths], log_sum(nothing)[:, 0])
    return float((everything - right).mean())


def reliability(
    logits: DecisionLogits, truths: npt.NDArray[np.int64], temperature: float, multi_label: bool
) -> tuple[Bin, ...]:
    """How often is right what is said with a confidence, in 15 bins of equal width; empty ones are left out.

    Confidence is the best label's probability, and accuracy how often that label is right; with ``multi_label`` that
    of every label, and how often the label is there.
    """
    rule = DecisionRule(temperature, (), multi_label, "")
    probabilities = decision_probabilities(logits, rule)
    is_truth = np.arange(probabilities.shape[1]) == truths[:, None]
    best = probabilities.argmax(axis=1)[:, None]
    confidence, right = (
        (probabilities, is_truth)
        if multi_label
        else (np.take_along_axis(values, best, axis=1) for values in (probabilities, is_truth))
    )
    places = np.minimum((confidence * BINS).astype(np.int64), BINS - 1).ravel()
    counts, confidences, rights = (
        np.bincount(places, weights, minlength=BINS) for weights in (None, confidence.ravel(), right.ravel())
    )
    return tuple(
        Bin(float(confidences[i] / counts[i]), float(rights[i] / counts[i]), int(counts[i]))
        for i in np.flatnonzero(counts)
    )


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: how far confidence is from accuracy, on average over all that was said."""
    return sum(bar.size * abs(bar.confidence - bar.accuracy) for bar in bins) / sum(bar.size for bar in bins)
