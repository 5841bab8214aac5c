"""Students with text towers of their own on scenes: the teacher's kept, cut down, and a new one, with equal steps.

    python benchmarks/text_students.py [--steps 500] [--scenes 5000] [--work DIR]

The teacher is the demonstration model. The image tower of every student is the same cut of the teacher's; its text
tower is the teacher's own ("kept"), a cut of that ("inherited"), or one of the same smaller shape with new weights
("new"). Captions, batches, views, losses, learning rates and steps are the same. Accuracies are zero-shot top-1 over
120 classes by the student's own text tower, on the same scenes of the split "test", which neither trained nor
validated, so that differences are paired; 12 of the classes occur in no training caption. The teacher's embeddings are
computed once. Few steps: what is compared are text towers, not how far a student comes. With --work everything is kept,
and a run that was interrupted goes on. Writes results/text_students.md and .json beside this file, and prints the
former.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from distillation import answers
from machine import describe_machine
from publish import publish, target_lines

from clipedge.calibration.scenes import labelled_pictures
from clipedge.evaluation.intervals import accuracy, in_percent, in_points, paired_difference
from clipedge.export.checkpoints import DEMO_CHECKPOINT, load_checkpoint
from clipedge.export.describe import TowerFacts, model_facts
from clipedge.export.distillation import Recipe, distill

IMAGE = "inherit:layers=4,width=64,heads=4,mlp=128"
SIZES = "layers=1,width=48,heads=2,mlp=128"
KEPT, INHERITED, NEW = "kept", "inherited", "new"
ARMS = {KEPT: None, INHERITED: f"inherit:{SIZES}", NEW: f"text:{SIZES}"}
MOST_SHARE, MOST_LOST = 0.5, 2.0
Rights = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Row:
    """One student. Sizes are its text tower's, ``share`` that of the teacher's multiply-adds; ``text_cosine`` is to the
    teacher on the validation's prompts, and ``points`` are against the student that kept its teacher's text tower."""

    arm: str
    spec: str | None
    multiply_adds: int
    share: float
    parameters: int
    top1: str
    points: str | None
    text_cosine: float | None


def row_of(arm: str, tower: TowerFacts, teacher: TowerFacts, rights: dict[str, Rights], text_cosine: Any) -> Row:
    points = None if arm == KEPT else in_points(paired_difference(rights[arm], rights[KEPT]))
    share = tower.multiply_adds / teacher.multiply_adds
    top1 = in_percent(accuracy(rights[arm]))
    return Row(arm, ARMS[arm], tower.multiply_adds, share, tower.parameters, top1, points, text_cosine)


def train_all(
    recipe: Recipe, scenes: int, work: Path, pictures: npt.NDArray[np.uint8], truth: npt.NDArray[np.int64]
) -> tuple[list[Row], dict[str, Rights]]:
    """Train every student, and examine it."""
    rows, rights = [], {}
    teacher = model_facts(load_checkpoint(DEMO_CHECKPOINT)).text
    for arm, spec in ARMS.items():
        found = distill(
            None, IMAGE, f"scenes:{scenes}", work / arm, text_student=spec, recipe=recipe, cache=work / "teacher"
        )
        rights[arm] = answers(work / arm, pictures, truth)
        tower = teacher if found.text is None else found.text.student_tower
        rows.append(row_of(arm, tower, teacher, rights, found.best.score.text_cosine))
    return rows, rights


def judge(rows: list[Row], rights: dict[str, Rights]) -> list[dict[str, Any]]:
    lost, gained = (paired_difference(rights[INHERITED], rights[arm]) for arm in (KEPT, NEW))
    share = next(row.share for row in rows if row.arm == INHERITED)
    return [
        {"text": "at most half of the multiply-adds", "found": f"{share:.1%}", "met": share <= MOST_SHARE},
        {
            "text": f"inherited at most {MOST_LOST:g} points below kept",
            "found": in_points(lost),
            "met": 100 * lost.value >= -MOST_LOST,
        },
        {"text": "inherited above new", "found": in_points(gained), "met": gained.value > 0 and gained.beyond_noise},
    ]


def markdown(document: dict[str, Any]) -> str:
    machine, recipe = document["machine"], document["recipe"]
    lines = [
        "# Text towers of students",
        "",
        f"Teacher: the demonstration model, {document['teacher']}. Image tower of all students: `{IMAGE}`.",
        f"{document['scenes']} scenes with their captions, {recipe['steps']} steps of {recipe['batch_size']}, seed "
        f"{recipe['seed']}.",
        f"Zero-shot top-1 over 120 classes on {document['test_scenes']} unseen scenes, percent [95 % interval], by the",
        "student's own text tower; points against the student that kept its teacher's, paired.",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}.",
        "",
        "| text tower | multiply-adds (M) | of the teacher's | parameters (M) | top-1 | points | cosine of texts |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in document["rows"]:
        name = row["arm"] if row["spec"] is None else f"{row['arm']}: `{row['spec']}`"
        cosine = "" if row["text_cosine"] is None else f"{row['text_cosine']:.3f}"
        lines.append(
            f"| {name} | {row['multiply_adds'] / 1e6:.2f} | {row['share']:.1%} | {row['parameters'] / 1e6:.3f} | "
            f"{row['top1']} | {row['points'] or ''} | {cosine} |"
        )
    return "\n".join([*lines, "", *target_lines(document["targets"])]) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--scenes", type=int, default=5000, help="that are trained on")
    parser.add_argument("--test-scenes", type=int, default=2000)
    parser.add_argument("--work", type=Path, help="keep everything in this folder (default: nothing)")
    arguments = parser.parse_args()
    recipe = Recipe(steps=arguments.steps, batch_size=arguments.batch_size, validate_every=max(1, arguments.steps // 5))
    pictures, truth = labelled_pictures("test", arguments.test_scenes, size=64)
    with ExitStack() as stack:
        work = arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        teacher = answers(DEMO_CHECKPOINT, pictures, truth)
        rows, rights = train_all(recipe, arguments.scenes, work, pictures, truth)
    document = {
        "machine": describe_machine(),
        "recipe": recipe.to_dict(),
        "scenes": arguments.scenes,
        "test_scenes": arguments.test_scenes,
        "teacher": in_percent(accuracy(teacher)),
        "rows": [asdict(row) for row in rows],
        "targets": judge(rows, rights),
    }
    publish("text_students", document, markdown(document))


if __name__ == "__main__":
    main()
