"""A training's curves as pictures of their own: the loss of every step, and what else is drawn as lines."""

from __future__ import annotations

import math
from pathlib import Path

from clipedge.drawing.plots import COLOURS, Axis, Series, line_chart
from clipedge.export.training.state import Progress
from clipedge.whole import write_whole

__all__ = ["axis", "write_chart", "write_loss"]

POINTS = 200  # of the loss's line, each the mean of its share of the steps
TICKS = 4


def write_loss(folder: Path, progress: Progress) -> None:
    """Write ``loss.svg``: the loss of every step."""
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
