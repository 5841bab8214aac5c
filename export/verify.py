"""The proof: does the exported model give the source model's answers? Parity, agreement, accuracy, and the gate.

Everything here is a function of embeddings: who computed them, and in which engine, is the caller's business.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clipedge.evaluation.intervals import wilson_interval
from clipedge.selftest import centred_cosines, cosines

__all__ = [
    "COSINE_EDGES",
    "GATE",
    "AnswerChange",
    "CosineHistogram",
    "Gate",
    "Parity",
    "ZeroShot",
    "compare_answers",
    "compare_embeddings",
    "gate_failures",
]

Floats = npt.NDArray[np.floating[Any]]

# Good embeddings crowd below 1, so 1 - cosine is divided evenly on a logarithmic scale: four bins a decade from 1 to
# 1e-6, where float32 ends.
COSINE_EDGES = (-1.0, *(1 - 10 ** (-quarter / 4) for quarter in range(25)), 1.0)


@dataclass(frozen=True)
class CosineHistogram:
    """How many inputs have a cosine in each bin; ``edges`` has one number more than the bins."""

    edges: tuple[float, ...]
    raw: tuple[int, ...]
    centred: tuple[int, ...]


@dataclass(frozen=True)
class Parity:
    """Source against exported embeddings of ``samples`` inputs.

    ``centred``: after the mean source embedding was subtracted from both, since unrelated pictures already have a raw
    cosine of 0.6 and more. ``p1``: first percentile. ``neighbour_overlap``: share of inputs whose nearest other input
    is the same one in both spaces.
    """

    samples: int
    median_cosine: float
    median_centred_cosine: float
    p1_centred_cosine: float
    max_difference: float
    neighbour_overlap: float
    cosines: CosineHistogram


@dataclass(frozen=True)
class AnswerChange:
    """``count`` pictures of class ``truth`` (None where not known), of which both models say something different."""

    truth: str | None
    source: str
    exported: str
    count: int


@dataclass(frozen=True)
class ZeroShot:
    """Classification of the proof pictures by source and exported model.

    ``agreement``: share with the same top-1 label. Accuracies are None where the right answers are not known; their
    95 % intervals are Wilson's. ``drop_points`` is source minus exported accuracy in percentage points, paired by
    picture, with its 95 % interval. ``changes`` are the other answers, the most frequent first.
    """

    samples: int
    labels: int
    agreement: float
    changes: tuple[AnswerChange, ...]
    source_accuracy: float | None = None
    exported_accuracy: float | None = None
    source_interval: tuple[float, float] | None = None
    exported_interval: tuple[float, float] | None = None
    drop_points: float | None = None
    drop_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Gate:
    """What an export has to reach.

    The drop in accuracy counts from ``min_pictures`` proof pictures on: with fewer, one picture is more than a point.
    """

    median_centred_cosine: float = 0.985
    p1_centred_cosine: float = 0.95
    max_drop_points: float = 1.0
    min_pictures: int = 100


GATE = Gate()


def compare_embeddings(source: Floats, exported: Floats) -> Parity:
    """Parity of two (N, D) arrays of embeddings of the same N >= 2 inputs."""
    mean = source.mean(axis=0)
    raw, centred = cosines(source, exported), centred_cosines(source, exported, mean)
    same_neighbour = _nearest_others(source, source) == _nearest_others(exported, exported)
    return Parity(
        samples=len(source),
        median_cosine=float(np.median(raw)),
        median_centred_cosine=float(np.median(centred)),
        p1_centred_cosine=float(np.percentile(centred, 1)),
        max_difference=float(np.abs(source - exported).max()),
        neighbour_overlap=float(same_neighbour.mean()),
        cosines=CosineHistogram(COSINE_EDGES, _counts(raw), _counts(centred)),
    )


def _counts(values: Floats) -> tuple[int, ...]:
    counts, _ = np.histogram(values.clip(-1, 1), COSINE_EDGES)  # rounding may step over 1; NaN is in no bin
    return tuple(counts.tolist())


def _nearest_others(queries: Floats, points: Floats) -> npt.NDArray[np.intp]:
    similarity = queries @ points.T
    np.fill_diagonal(similarity, -np.inf)
    return np.asarray(similarity.argmax(axis=1))


def compare_answers(
    source: npt.NDArray[np.intp],
    exported: npt.NDArray[np.intp],
    truth: npt.NDArray[np.int64] | None,
    labels: Sequence[str],
) -> ZeroShot:
    """Top-1 answers (N,) of both models for N >= 2 pictures, and the right ones if known: indices into ``labels``."""
    agreement = float((source == exported).mean())
    changes = _changes(source, exported, truth, labels)
    if truth is None:
        return ZeroShot(len(source), len(labels), agreement, changes)
    source_right, exported_right = source == truth, exported == truth
    loss = 100 * (source_right.astype(float) - exported_right)
    mean = float(loss.mean())
    margin = 1.96 * float(loss.std(ddof=1)) / math.sqrt(len(loss))
    return ZeroShot(
        samples=len(source),
        labels=len(labels),
        agreement=agreement,
        changes=changes,
        source_accuracy=float(source_right.mean()),
        exported_accuracy=float(exported_right.mean()),
        source_interval=wilson_interval(int(source_right.sum()), len(source)),
        exported_interval=wilson_interval(int(exported_right.sum()), len(source)),
        drop_points=mean,
        drop_interval=(mean - margin, mean + margin),
    )


def _changes(
    source: npt.NDArray[np.intp],
    exported: npt.NDArray[np.intp],
    truth: npt.NDArray[np.int64] | None,
    labels: Sequence[str],
) -> tuple[AnswerChange, ...]:
    (changed,) = np.nonzero(source != exported)
    counts = Counter((None if truth is None else int(truth[i]), int(source[i]), int(exported[i])) for i in changed)
    return tuple(
        AnswerChange(None if right is None else labels[right], labels[before], labels[after], count)
        for (right, before, after), count in sorted(counts.items(), key=lambda item: (-item[1], item[0][1:]))
    )


def gate_failures(parities: dict[str, Parity], zero_shot: ZeroShot | None, gate: Gate = GATE) -> list[str]:
    """What stays below the gate, one line each; empty if the export passes. NaN fails."""
    measured = [
        (f"{tower} tower: {what}", value, limit)
        for tower, parity in parities.items()
        for what, value, limit in (
            ("median centred cosine", parity.median_centred_cosine, gate.median_centred_cosine),
            ("1st percentile of the centred cosine", parity.p1_centred_cosine, gate.p1_centred_cosine),
        )
    ]
    failures = [
        f"{what} is {value:.4f}, the gate asks for {limit:g} or more"
        for what, value, limit in measured
        if not value >= limit
    ]
    if zero_shot is None or zero_shot.drop_points is None or zero_shot.samples < gate.min_pictures:
        return failures
    if not zero_shot.drop_points <= gate.max_drop_points:  # `not <=`, so that NaN fails
        failures.append(
            f"zero-shot accuracy drops by {zero_shot.drop_points:.2f} points, the gate allows {gate.max_drop_points:g}"
        )
    return failures
