"""What a distillation came to: for a program, for a terminal, and for the student's model card."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from clipedge.export.describe import TowerFacts
from clipedge.export.training.scores import Score
from clipedge.export.training.state import Scored

__all__ = ["Distilled", "result_lines", "student_story"]


@dataclass(frozen=True)
class Distilled:
    """``scores`` are all validations, and ``best`` is the one whose weights were saved; ``steps`` were done,
    ``unreadable`` has a line for each picture that was left out. ``bundle`` is where the student was exported to, if it
    was."""

    teacher: str
    student: str
    space_id: str
    teacher_tower: TowerFacts
    student_tower: TowerFacts
    pictures: int
    captions: int
    validation_pictures: int
    steps: int
    teacher_score: Score
    scores: tuple[Scored, ...]
    best: Scored
    unreadable: tuple[str, ...]
    bundle: str | None = None

    @property
    def multiply_adds_share(self) -> float:
        return self.student_tower.multiply_adds / self.teacher_tower.multiply_adds

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "multiply_adds_share": self.multiply_adds_share}


def result_lines(found: Distilled) -> list[str]:
    """As a table for a terminal."""
    lines = [f"{found.student}, taught by {found.teacher}", *_fact_lines(found)]
    if found.unreadable:
        lines.append(f"  {len(found.unreadable)} not readable, left out:")
    return [*lines, *(f"    {line}" for line in found.unreadable)]


def _fact_lines(found: Distilled) -> list[str]:
    student, teacher = found.student_tower, found.teacher_tower
    lines = [
        f"  image tower       {student.architecture}",
        f"  parameters        {student.parameters / 1e6:.2f} M, the teacher's {teacher.parameters / 1e6:.2f} M",
        f"  multiply-adds     {student.multiply_adds / 1e6:.1f} M, {found.multiply_adds_share:.1%} of the teacher's "
        f"{teacher.multiply_adds / 1e6:.1f} M",
        f"  trained on        {found.pictures} pictures, {found.captions} captions, {found.steps} steps",
    ]
    score, own = found.best.score, found.teacher_score
    if score.accuracy is not None and own.accuracy is not None:
        lines.append(
            f"  zero-shot top-1   {score.accuracy:.1%} on {found.validation_pictures} held-out pictures, the teacher "
            f"{own.accuracy:.1%}"
        )
    return [*lines, f"  cosine to it      {score.cosine:.4f} (mean; the weights of step {found.best.step})"]


def student_story(found: Distilled) -> str:
    """The text of the student's model card."""
    facts = "\n".join(_fact_lines(found))
    return (
        f"# A student of {found.teacher}\n\n"
        f"An image tower that `clipedge distill` trained to give the embeddings of {found.teacher}; the text tower is\n"
        f"that model's own. It was made from that model and inherits its licence.\n\n```\n{facts}\n```\n\n"
        "`distill.json` has the settings, `loss.svg` and `validation.svg` the curves. Export it:\n\n"
        "```sh\nclipedge export . --output bundle --calibration-data photos/\n```\n"
    )
