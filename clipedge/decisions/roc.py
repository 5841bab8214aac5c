"""The receiver operating characteristic: what is let through of the unknown for each share of the known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Roc", "roc"]

MOST_POINTS = 101


@dataclass(frozen=True)
class Roc:
    """``area`` under the curve: how often a known picture's score is above an unknown one's, ties counted half.

    ``points`` are (share of unknown, share of known) at or above a falling threshold, from (0, 0) to (1, 1); at most
    101 of them.
    """

    area: float
    points: tuple[tuple[float, float], ...]


def roc(scores: npt.NDArray[np.float64], known: npt.NDArray[np.bool_]) -> Roc | None:
    """The curve of ``scores`` (N,) of pictures that are ``known`` (N,) or not; None unless there are both."""
    if known.all() or not known.any():
        return None
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.diff(scores[order]) != 0, True)  # equal scores are one point
    shares = [np.append(0, np.cumsum(kind[order])[ends] / kind.sum()) for kind in (~known, known)]
    unknown_share, known_share = shares
    area = float((np.diff(unknown_share) * (known_share[1:] + known_share[:-1])).sum() / 2)
    shown = np.unique(np.linspace(0, len(known_share) - 1, MOST_POINTS).round().astype(np.int64))
    return Roc(area, tuple(zip(unknown_share[shown].tolist(), known_share[shown].tolist(), strict=True)))
