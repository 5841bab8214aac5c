"""What a fine-tuning came to: for a program, for a terminal, and for the model card."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from clipedge.export.finetuning.exams import top1
from clipedge.export.finetuning.interpolation import Point
from clipedge.export.training.scores import Score
from clipedge.export.training.state import Scored

__all__ = ["Finetuned", "result_lines", "story"]


@dataclass(frozen=True)
class Finetuned:
    """``classes`` is None for pairs, ``lora`` the rank, None where all weights were trained. ``best`` is the validation
    whose weights are the tuned ones, at ``points[-1]``; those at ``alpha`` were saved. ``original`` says how the
    original set is scored, None without one. ``unreadable`` has a line for each picture that was left out, ``bundle``
    is where the model was exported to, if it was."""

    model: str
    space_id: str
    lora: int | None
    trained_parameters: int
    pictures: int
    texts: int
    classes: int | None
    domain: str
    domain_pictures: int
    original: str | None
    original_pictures: int
    max_forgetting: float
    steps: int
    best: Scored
    points: tuple[Point, ...]
    alpha: float
    unreadable: tuple[str, ...]
    bundle: str | None = None

    @property
    def before(self) -> Point:
        return self.points[0]

    @property
    def tuned(self) -> Point:
        return self.points[-1]

    @property
    def after(self) -> Point:
        return next(point for point in self.points if point.alpha == self.alpha)

    def to_dict(self) -> dict[str, Any]:
        ends = {"before": self.before, "tuned": self.tuned, "after": self.after}
        return {**dataclasses.asdict(self), **{name: dataclasses.asdict(point) for name, point in ends.items()}}


def result_lines(found: Finetuned) -> list[str]:
    """As a table for a terminal."""
    lines = [f"{found.model}, fine-tuned", *_fact_lines(found)]
    if found.unreadable:
        lines.append(f"  {len(found.unreadable)} not readable, left out:")
    return [*lines, *(f"    {line}" for line in found.unreadable)]


def _fact_lines(found: Finetuned) -> list[str]:
    said = f"{found.texts} captions" if found.classes is None else f"{found.classes} classes, {found.texts} prompts"
    how = "all weights" if found.lora is None else f"updates of rank {found.lora}"
    lines = [
        f"  trained on    {found.pictures} pictures, {said}, {found.steps} steps",
        f"  trained       {found.trained_parameters:,} numbers: {how}; the tuned weights are those of step "
        f"{found.best.step}",
        f"  interpolated  alpha {found.alpha:g} of 0 (before) to 1 (tuned)",
        "",
        f"  {'top-1 (%)':42}{'before':>9}{'tuned':>9}{'written':>9}",
        _score_line(
            f"new pictures ({found.domain}; {found.domain_pictures})",
            *(point.domain for point in (found.before, found.tuned, found.after)),
        ),
    ]
    before, tuned, after = found.before.original, found.tuned.original, found.after.original
    if before and tuned and after:
        lines.append(_score_line(f"original set ({found.original}; {found.original_pictures})", before, tuned, after))
    return lines


def _score_line(name: str, *scores: Score) -> str:
    return f"  {name:42}" + "".join(f"{100 * top1(score):9.1f}" for score in scores)


def story(found: Finetuned) -> str:
    """The text of the model card."""
    facts = "\n".join(_fact_lines(found))
    return (
        f"# {found.model}, fine-tuned\n\n"
        f"Both towers of {found.model}, trained on with `clipedge finetune`; the weights lie between those of that\n"
        "model and the tuned ones, so that less is forgotten. It was made from that model and inherits its licence.\n\n"
        f"```\n{facts}\n```\n\n"
        "`finetune.json` has the settings; `loss.svg`, `validation.svg` and `interpolation.svg` are the curves.\n"
        "Export it:\n\n```sh\nclipedge export . --output bundle --calibration-data photos/\n```\n"
    )
