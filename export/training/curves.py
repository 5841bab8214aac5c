"""A training's curves as pictures: the loss of every step, and how the validations went."""

from __future__ import annotations

import math
from pathlib import Path

from clipedge.drawing.plots import COLOURS, Axis, Series, line_chart
from clipedge.export.training.state import Progress
from clipedge.whole import write_whole

__all__ = ["axis", "write_chart", "write_curves"]

POINTS = 200  # of the loss's line, each the mean of its share of the steps
TICKS = 4


def write_curves(folder: Path, progress: Progress, names: tuple[str, str, str], other: float | None) -> None:
    """Write ``loss.svg``, the loss of every step, and ``validation.svg``.

    ``names`` are those of the share of right answers, of the ``other`` model's share, which is drawn beside it (both
    are left out where there is none), and of the cosine to that model.
    """
    _write_loss(folder, progress)
    steps = float(progress.step)
    lines = [Series(names[2], [(float(each.step), each.score.cosine) for each in progress.scores], COLOURS[1])]
    if other is not None:
        right = [(float(s.step), s.score.accuracy) for s in progress.scores if s.score.accuracy is not None]
        beside = Series(names[1], [(0.0, other), (steps, other)], COLOURS[2], dashed=True)
        lines = [Series(names[0], right, COLOURS[0]), beside, *lines]
    write_chart(folder / "validation.svg", lines, axis("step", 0, steps), axis("share", 0.0, 1.0))


def _write_loss(folder: Path, progress: Progress) -> None:
    losses = _thinned(progress.losses)
    low, high = min(loss for _, loss in losses), max(loss for _, loss in losses)
    lines = [Series("loss", losses, COLOURS[0])]
    write_chart(folder / "loss.svg", lines, axis("step", 0, progress.step), axis("loss", min(low, 0.0), high))


def _thinned(losses: list[float]) -> list[tuple[float, float]]:
    stride = -(-len(losses) // POINTS)
    parts = [(start, losses[start : start + stride]) for start in range(0, len(losses), stride)]
    return [(start + (len(part) + 1) / 2, math.fsum(part) / len(part)) for start, part in parts]


def axis(name: str, low: float, high: float) -> Axis:
    """An axis with its ends and what lies between them as ticks."""
    high = high if high > low else low + 1
    places = [low + (high - low) * number / TICKS for number in range(TICKS + 1)]
    return Axis(name, low, high, tuple((place, f"{place:.4g}") for place in places))


def write_chart(path: Path, lines: list[Series], x: Axis, y: Axis) -> None:
    """Write a line chart as an SVG file of its own."""
    # A file of its own needs what a page's SVG does not.
    svg = line_chart(lines, x, y).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    write_whole(path, svg.encode())
