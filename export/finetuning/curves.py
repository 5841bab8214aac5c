"""A fine-tuning's curves as pictures: loss, validations, and what lies between the model before and the tuned one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clipedge.drawing.plots import COLOURS, Series
from clipedge.export.finetuning.exams import top1
from clipedge.export.finetuning.interpolation import Point
from clipedge.export.training.curves import axis, write_chart, write_curves
from clipedge.export.training.state import Progress

__all__ = ["INTERPOLATION_NAME", "write_all"]

INTERPOLATION_NAME = "interpolation.svg"


def write_all(folder: Path, progress: Progress, points: Sequence[Point], alpha: float) -> None:
    """Write ``loss.svg``, ``validation.svg`` and ``interpolation.svg``."""
    write_curves(folder, progress, ("top-1", "top-1 before", "cosine to before"), top1(points[0].domain))
    lines = [Series("top-1 on the new pictures", [(each.alpha, top1(each.domain)) for each in points], COLOURS[0])]
    originals = [(each.alpha, top1(each.original)) for each in points if each.original]
    if originals:
        lines.append(Series("top-1 on the original set", originals, COLOURS[1]))
    lines.append(Series(f"chosen: {alpha:g}", [(alpha, 0.0), (alpha, 1.0)], COLOURS[2], dashed=True))
    ends = axis("alpha: 0 is the model before, 1 the tuned one", 0.0, 1.0), axis("share", 0.0, 1.0)
    write_chart(folder / INTERPOLATION_NAME, lines, *ends)
