"""A distillation's curves as pictures: the loss of every step, and the validations beside the teacher's own score."""

from __future__ import annotations

from pathlib import Path

from clipedge.drawing.plots import COLOURS, Series
from clipedge.export.training.curves import axis, write_chart, write_loss
from clipedge.export.training.scores import Score
from clipedge.export.training.state import Progress

__all__ = ["write_curves"]


def write_curves(folder: Path, progress: Progress, teacher: Score) -> None:
    """Write ``loss.svg`` and ``validation.svg``; ``teacher`` is the teacher's own score, drawn beside the student's."""
    write_loss(folder, progress)
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
    texts = [(float(s.step), s.score.text_cosine) for s in progress.scores if s.score.text_cosine is not None]
    if texts:
        lines.append(Series("cosine to the teacher, of texts", texts, COLOURS[3]))
    write_chart(folder / "validation.svg", lines, axis("step", 0, progress.step), axis("share", 0.0, 1.0))
