"""A training's curves as pictures: the loss of every step, and how the validations went."""

from __future__ import annotations

import math
from pathlib import Path

from clipedge.drawing.plots import COLOURS, Axis, Series, line_chart
from clipedge.export.distillation.state import Progress
from clipedge.export.distillation.validation import Score
from clipedge.whole import write_whole

__all__ = ["axis", "write_chart", "write_curves"]

POINTS = 200  # of the loss's line, each the mean of its share of the steps
TICKS = 4


def write_curves(folder: Path, progress: Progress, teacher: Score) -> None:
    """Write ``loss.svg`` and ``validation.svg``; ``teacher`` is the teacher's own score, drawn beside the student's."""
    steps = axis("step", 0, progress.step)
    losses = _thinned(progress.losses)
    low, high = min(loss for _, loss in losses), max(loss for _, loss in losses)
    write_chart(folder / "loss.svg", [Series("loss", losses, COLOURS[0])], steps, axis("loss", min(low, 0.0), high))
    ends = (0.0, float(progress.step))
    lines = [Series("cosine to the teacher", [(s.step, s.score.cosine) for s in progress.scores], COLOURS[1])]
    if teacher.accuracy is not None:
        accuracies = [(float(s.step), s.score.accuracy) for s in progress.scores if s.score.accuracy is not None]
        lines = [
            Series("zero-shot top-1", accuracies, COLOURS[0]),
            Series(
                "zero-shot top-1 of the teacher", [(end, teacher.accuracy) for end in ends], COLOURS[2], dashed=True
            ),
            *lines,
        ]
    write_chart(folder / "validation.svg", lines, steps, axis("share", 0.0, 1.0))


def _thinned(losses: list[float]) -> list[tuple[float, float]]:
    stride = -(-len(losses) // POINTS)
    parts = [(start, losses[start : start + stride]) for start in range(0, len(losses), stride)]
    return [(start + (len(part) + 1) / 2, math.fsum(part) / len(part)) for start, part in parts]


def axis(name: str, low: float, high: float) -> Axis:
    """With ticks at equal distances, both ends among them."""
    high = high if high > low else low + 1
    places = [low + (high - low) * number / TICKS for number in range(TICKS + 1)]
    return Axis(name, low, high, tuple((place, f"{place:.4g}") for place in places))


def write_chart(path: Path, lines: list[Series], x: Axis, y: Axis) -> None:
    """Write lines as an SVG file of its own."""
    # Which needs what a page's SVG does not.
    svg = line_chart(lines, x, y).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    write_whole(path, svg.encode())
