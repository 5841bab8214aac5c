"""Candidates for the text side of a bank, and how well they answer labelled pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clipedge.decisions.rule import DecisionLogits
from clipedge.decisions.temperature import log_loss

__all__ = ["Candidate", "LabelledEmbeds", "mean_log_loss", "normalised", "right_answers"]

Floats = npt.NDArray[np.float64]


class Candidate(NamedTuple):
    """``rows`` (R, D) float64 of length 1, of the labels and then of the negatives, and what they were made with.

    ``setting`` is the number of each template in the ensemble, or the shrinkage of a probe; None for rows left alone.
    """

    rows: Floats
    setting: tuple[int, ...] | float | None = None


@dataclass(frozen=True, eq=False)
class LabelledEmbeds:
    """Image embeddings (N, D) float64 with ``truths`` (N,): the row of the picture's label, or -1 for none of them.

    The first ``labels`` rows of a candidate are labels; ``scale`` is the model's logit scale.
    """

    embeds: Floats
    truths: npt.NDArray[np.int64]
    labels: int
    scale: float

    def at(self, places: npt.NDArray[np.intp]) -> LabelledEmbeds:
        """Some of the pictures."""
        return replace(self, embeds=self.embeds[places], truths=self.truths[places])


def right_answers(pictures: LabelledEmbeds, rows: Floats) -> npt.NDArray[np.bool_]:
    """(N,): whether a picture's nearest row is its label's, or is a negative if it shows none of the labels."""
    nearest = (pictures.embeds @ rows.T).argmax(axis=1)
    return np.asarray(np.where(nearest < pictures.labels, nearest, -1) == pictures.truths)


def mean_log_loss(pictures: LabelledEmbeds, rows: Floats) -> float:
    """Mean negative log likelihood of the truths, which of sigmoid models' labels, too, are one of many."""
    logits = pictures.scale * (pictures.embeds @ rows.T)
    together = DecisionLogits(logits[:, : pictures.labels], logits[:, pictures.labels :])
    return log_loss(together, pictures.truths, 1.0, multi_label=False)


def normalised(rows: npt.NDArray[Any]) -> Floats:
    """(R, D) float64: the rows with length 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float64)
