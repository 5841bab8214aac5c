"""Between the model before and the tuned one: weights (1 - alpha) w_before + alpha w_tuned.

On the straight line between the two lie models that keep much of what was learned, and often forget much less: WiSE-FT
(Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", arXiv 2109.01903).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

from clipedge.export.finetuning.exams import Exam, examine, top1
from clipedge.export.finetuning.towers import Towers
from clipedge.export.training.scores import Score

__all__ = ["ALPHAS", "HALF", "Point", "between", "choose_alpha", "walk"]

ALPHAS = tuple(tenth / 10 for tenth in range(11))
HALF = 0.5  # where nothing else decides: what the paper takes then
NOTHING = 1e-9  # in points, less than one answer of any set


@dataclass(frozen=True)
class Point:
    """The scores at an ``alpha``: on the pictures' own domain, and on the original set, None where there is none."""

    alpha: float
    domain: Score
    original: Score | None


def between(
    before: Mapping[str, torch.Tensor], tuned: Mapping[str, torch.Tensor], alpha: float
) -> dict[str, torch.Tensor]:
    """The weights at ``alpha``; at 0 and 1 those of the two ends, bit for bit."""
    return {name: torch.lerp(weight, tuned[name], alpha) for name, weight in before.items()}


def walk(
    towers: Towers,
    before: Mapping[str, torch.Tensor],
    tuned: Mapping[str, torch.Tensor],
    domain: Exam,
    original: Exam | None,
    named: float | None,
) -> tuple[Point, ...]:
    """Examine the models at all ``ALPHAS`` and at the one that is ``named``, in rising order. Changes ``towers``."""
    alphas = sorted({*ALPHAS, *([] if named is None else [named])})
    points = []
    for alpha in tqdm(alphas, "interpolating", unit="model", disable=None, leave=False):
        towers.assign(between(before, tuned, alpha))
        points.append(Point(alpha, examine(towers, domain), None if original is None else examine(towers, original)))
    return tuple(points)


def choose_alpha(points: Sequence[Point], named: float | None, max_forgetting: float) -> float:
    """The one that is named; else the largest that loses at most ``max_forgetting`` points on the original set, where
    there is one; else a half."""
    if named is not None:
        return named
    before = points[0].original
    if before is None:
        return HALF
    kept = [
        point.alpha
        for point in points
        if point.original and 100 * (top1(before) - top1(point.original)) <= max_forgetting + NOTHING
    ]
    return max(kept)  # at 0 nothing is lost
