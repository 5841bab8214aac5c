"""The proof: does the exported model give the source model's answers? Parity, agreement, accuracy, and the gate.

Everything here is a function of embeddings: who computed them, and in which engine, is the caller's business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clipedge.selftest import centred_cosines, cosines

__all__ = ["GATE", "Gate", "Parity", "ZeroShot", "compare_answers", "compare_embeddings", "gate_failures"]

Floats = npt.NDArray[np.floating[Any]]


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


@dataclass(frozen=True)
class ZeroShot:
    """Classification of the proof pictures by source and exported model.

    ``agreement``: share with the same top-1 label. Accuracies are None where the right answers are not known.
    ``drop_points`` is source minus exported accuracy in percentage points, paired by picture, with its 95 % interval.
    """

    samples: int
    labels: int
    agreement: float
    source_accuracy: float | None
    exported_accuracy: float | None
    drop_points: float | None
    drop_interval: tuple[float, float] | None


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
    centred = centred_cosines(source, exported, mean)
    same_neighbour = _nearest_others(source, source) == _nearest_others(exported, exported)
    return Parity(
        samples=len(source),
        median_cosine=float(np.median(cosines(source, exported))),
        median_centred_cosine=float(np.median(centred)),
        p1_centred_cosine=float(np.percentile(centred, 1)),
        max_difference=float(np.abs(source - exported).max()),
        neighbour_overlap=float(same_neighbour.mean()),
    )


def _nearest_others(queries: Floats, points: Floats) -> npt.NDArray[np.intp]:
    similarity = queries @ points.T
    np.fill_diagonal(similarity, -np.inf)
    return np.asarray(similarity.argmax(axis=1))


def compare_answers(
    source: npt.NDArray[np.intp],
    exported: npt.NDArray[np.intp],
    truth: npt.NDArray[np.int64] | None,
    labels: int,
) -> ZeroShot:
    """Top-1 answers (N,) of both models for N >= 2 pictures, and the right ones where they are known."""
    agreement = float((source == exported).mean())
    if truth is None:
        return ZeroShot(len(source), labels, agreement, None, None, None, None)
    source_right, exported_right = source == truth, exported == truth
    loss = 100 * (source_right.astype(float) - exported_right)
    mean = float(loss.mean())
    margin = 1.96 * float(loss.std(ddof=1)) / math.sqrt(len(loss))
    return ZeroShot(
        samples=len(source),
        labels=labels,
        agreement=agreement,
        source_accuracy=float(source_right.mean()),
        exported_accuracy=float(exported_right.mean()),
        drop_points=mean,
        drop_interval=(mean - margin, mean + margin),
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
