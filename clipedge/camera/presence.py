"""Probabilities over time become events. No threads and no clock here: time is that of the frames.

An answer ``p`` stands for the ``t`` seconds since the frame before it; a frame whose content did not change repeats the
last answer. The smoothed probability ``s`` follows the answers exponentially, at whatever intervals they come::

    s += (1 - exp(-t / time_constant)) (p - s)

so that what was seen ``time_constant`` seconds ago has 1 / e of its weight left, and one answer for an interval is the
same as that answer at any number of frames in it. (Eckner, "Algorithms for Unevenly Spaced Time Series: Moving Averages
and Other Rolling Operators": the exponential average with next-point interpolation.) The first answer counts whole.

A label appeared once its smoothed probability has been at ``enter`` or above for ``enter_seconds``, and left once it
has been below ``leave`` for ``leave_seconds``. Between the two thresholds nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from clipedge.decisions.rule import EVEN
from clipedge.errors import UsageError
from clipedge.prompts.bank import PromptBank

__all__ = ["Event", "EventRule", "Presence", "observe"]

Floats = npt.NDArray[np.float64]
LEAVE_SHARE = 0.7  # of ``enter``, where ``leave`` is not given
MICROSECOND = 1e-6  # differences of timestamps are not exact: 0.7 - 0.4 is less than 0.3


@dataclass(frozen=True)
class Event:
    """``timestamp`` is that of the frame that settled it, ``since`` of the one that passed the threshold.

    ``probability`` is the smoothed one at ``timestamp``.
    """

    kind: Literal["appeared", "left"]
    label: str
    timestamp: float
    since: float
    probability: float


@dataclass(frozen=True)
class EventRule:
    """When a label appeared, and when it left; ``enter`` and ``leave`` have a probability for each label.

    Raises UsageError for a probability outside [0, 1], for ``leave`` above ``enter``, for a negative or infinite time,
    and for a number of thresholds other than that of the labels.
    """

    labels: tuple[str, ...]
    enter: tuple[float, ...]
    leave: tuple[float, ...]
    enter_seconds: float = 0.3
    leave_seconds: float = 0.5
    time_constant: float = 0.5

    def __post_init__(self) -> None:
        for name, values in (("enter", self.enter), ("leave", self.leave)):
            if len(values) != len(self.labels):
                raise UsageError(f"{name}: expected {len(self.labels)} thresholds, one a label, found {len(values)}")
            for value in values:
                if not 0 <= value <= 1:
                    raise UsageError(f"{name}: expected a probability from 0 to 1, found {value!r}")
        for label, enter, leave in zip(self.labels, self.enter, self.leave, strict=True):
            if leave > enter:
                raise UsageError(
                    f"a label leaves at a lower probability than it enters at, or it would flicker: found leave "
                    f"{leave:g} above enter {enter:g} for {label!r}"
                )
        for name in ("enter_seconds", "leave_seconds", "time_constant"):
            seconds = getattr(self, name)
            if not 0 <= seconds < math.inf:
                raise UsageError(f"{name}: expected seconds, 0 or more, found {seconds!r}")

    @classmethod
    def for_bank(
        cls,
        bank: PromptBank,
        *,
        enter: float | Sequence[float] | None = None,
        leave: float | Sequence[float] | None = None,
        enter_seconds: float = enter_seconds,
        leave_seconds: float = leave_seconds,
        time_constant: float = time_constant,
    ) -> EventRule:
        """The rule for a bank's labels. A threshold is one number for all of them, or one for each.

        ``enter=None`` takes the bank's fitted thresholds, or 0.5 if it has none; ``leave=None`` is 0.7 of ``enter``.
        """
        if enter is None:
            enter = (bank.rule.thresholds if bank.rule is not None else ()) or EVEN
        enters = _each(enter, len(bank.labels))
        leaves = tuple(LEAVE_SHARE * value for value in enters) if leave is None else _each(leave, len(bank.labels))
        return cls(bank.labels, enters, leaves, enter_seconds, leave_seconds, time_constant)


def _each(value: float | Sequence[float], labels: int) -> tuple[float, ...]:
    return tuple(map(float, value)) if isinstance(value, Sequence) else (float(value),) * labels


@dataclass(frozen=True, eq=False)
class Presence:
    """What is known at ``timestamp``; every array has one number a label and is not to be changed.

    ``observed`` is the last answer, ``smoothed`` the smoothed probabilities, ``present`` which labels are there, and
    ``since`` from when on a label has been beyond the threshold that changes its ``present``, NaN for one that is not.
    """

    timestamp: float
    observed: Floats
    smoothed: Floats
    present: npt.NDArray[np.bool_]
    since: Floats


def observe(
    before: Presence | None, timestamp: float, probabilities: Floats | None, rule: EventRule
) -> tuple[Presence, tuple[Event, ...]]:
    """What is known after one more frame, and the events that it settled, in the order of the labels.

    ``before`` is what was known before it, None at the first frame. ``probabilities`` (labels,) are the answer to the
    frame, None for one that shows what the last one did. Raises UsageError for a frame that is not later than the last
    one, for an answer of another length, and for a first frame without one.
    """
    observed = before.observed if probabilities is None and before is not None else probabilities
    if observed is None or observed.shape != (len(rule.labels),):
        found = "none" if observed is None else f"an array of shape {observed.shape}"
        raise UsageError(f"expected {len(rule.labels)} probabilities, one a label, found {found}")
    if before is None:
        smoothed, present, since = observed, np.zeros(len(observed), np.bool_), np.full(len(observed), np.nan)
    else:
        check_later(timestamp, before.timestamp)
        weight = _weight(timestamp - before.timestamp, rule.time_constant)
        smoothed, present, since = before.smoothed + weight * (observed - before.smoothed), before.present, before.since
    beyond = np.where(present, smoothed < rule.leave, smoothed >= rule.enter)
    since = np.where(beyond, np.where(np.isnan(since), timestamp, since), np.nan)
    patience = np.where(present, rule.leave_seconds, rule.enter_seconds)
    settled = timestamp - since >= patience - MICROSECOND  # false for NaN
    events = tuple(
        Event(
            "left" if present[index] else "appeared",
            rule.labels[index],
            timestamp,
            float(since[index]),
            float(smoothed[index]),
        )
        for index in np.flatnonzero(settled)
    )
    return Presence(timestamp, observed, smoothed, present ^ settled, np.where(settled, np.nan, since)), events


def check_later(timestamp: float, last: float) -> None:
    """Raise UsageError unless ``timestamp`` is finite and later than ``last``."""
    if not last < timestamp < math.inf:
        raise UsageError(
            f"timestamps are seconds that grow from frame to frame, found {timestamp!r} after {last!r}; a camera whose "
            "clock was set back needs a new stream"
        )


def _weight(seconds: float, time_constant: float) -> float:
    return -math.expm1(-seconds / time_constant) if time_constant else 1.0
