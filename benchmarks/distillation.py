"""Distillation on scenes: the same small student from scratch, distilled, and inherited, with equal steps.

    python benchmarks/distillation.py [--steps 1500] [--scenes 20000] [--seeds 1] [--work DIR]

The teacher is the demonstration model, and every student has the same shape, of less than a quarter of the
multiply-adds of the teacher's image tower. "Scratch" has random weights and learns by CLIP's contrastive loss alone,
against the teacher's text tower, which all students keep; "distilled" has the same random weights and learns by the
default losses; "inherited" learns by them from weights that were cut out of the teacher. Batches, views, learning rates
and steps are the same. Accuracies are zero-shot top-1 over 120 classes on the same scenes of the split "test", which
neither trained nor validated, so that differences are paired. The teacher's embeddings are computed once, before any
clock runs. With --work everything is kept, and a run that was interrupted goes on. Writes results/distillation.md,
.json and .svg, in which the validations of the first seed are drawn, beside this file, and prints the first.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from layout import RESULTS
from machine import describe_machine
from publish import publish, target_lines

from clipedge.calibration.scenes import CLASS_NAMES, TEMPLATES, labelled_pictures
from clipedge.drawing.plots import COLOURS, Series
from clipedge.evaluation.intervals import Difference, accuracy, in_percent, in_points, paired_difference
from clipedge.export.checkpoints import DEMO_CHECKPOINT, load_checkpoint
from clipedge.export.describe import model_facts
from clipedge.export.distillation import PAIRS, Recipe, Weights, distill
from clipedge.export.distillation.spec import parse_spec
from clipedge.export.distillation.students import make_student
from clipedge.export.source_texts import SourceTexts
from clipedge.export.towers import build_image_tower
from clipedge.export.training.curves import axis, write_chart
from clipedge.whole import write_whole

SIZES = "layers=4,width=64,heads=4,mlp=128"
NEW, INHERITED = f"vit:{SIZES},patch=8", f"inherit:{SIZES}"
TEACHER, SCRATCH, DISTILLED, KEPT = "teacher", "scratch", "distilled", "inherited"
ARMS = {SCRATCH: (NEW, Weights(infonce=1.0)), DISTILLED: (NEW, PAIRS), KEPT: (INHERITED, PAIRS)}
# What else a quarter of the multiply-adds buys; not trained here.
SHAPES = (
    "vit:layers=3,width=64,heads=2,patch=8",
    "vit:layers=3,width=72,heads=4,mlp=192,patch=8",
    "vit:layers=2,width=96,heads=4,mlp=256,patch=8",
    "vit:layers=3,width=128,heads=4,patch=16",
    "resnet:blocks=1-1-1-1,width=12",
)
# Losses beside each other, on short runs of the inherited student.
TRIALS = {
    "cosine": Weights(cosine=8),
    "cosine, affinity": Weights(cosine=8, affinity=1),
    "cosine, affinity, interactive": Weights(cosine=8, affinity=1, interactive=1),
    "cosine, relational": Weights(cosine=8, relational=1),
}
TRIAL_STEPS = 200
MOST_SHARE, MOST_MINUTES, LEAST_GAIN, MOST_LOST = 0.25, 30.0, 3.0, 5.0
VALIDATE_EVERY = 150
Rights = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Row:
    """One student of one seed; ``minutes`` are those of the training and of all that stands around it, ``scores`` the
    zero-shot top-1 of the validations as (step, share)."""

    arm: str
    seed: int
    share: float
    minutes: float
    step: int
    found: str
    top1: float
    scores: tuple[tuple[int, float], ...] = ()


def answers(model: Path, pictures: npt.NDArray[np.uint8], truth: npt.NDArray[np.int64]) -> Rights:
    """Which pictures a checkpoint's towers classify rightly, with the scenes' templates."""
    checkpoint = load_checkpoint(model)
    texts = SourceTexts(checkpoint).encode([template.format(name) for name in CLASS_NAMES for template in TEMPLATES])
    labels = texts.reshape(len(CLASS_NAMES), len(TEMPLATES), -1).mean(axis=1)
    tower = build_image_tower(checkpoint)
    with torch.inference_mode():
        parts = np.array_split(pictures, -(-len(pictures) // 100))
        images = np.concatenate([tower(torch.from_numpy(part)).numpy() for part in parts])
    labels /= np.linalg.norm(labels, axis=1, keepdims=True)
    right: Rights = (images @ labels.T).argmax(axis=1) == truth
    return right


@contextmanager
def clock(path: Path) -> Iterator[None]:
    """Add up in a file how long it takes, also where it is interrupted and gone on with in another call."""
    before, started = float(path.read_text()) if path.is_file() else 0.0, time.monotonic()
    try:
        yield
    finally:
        write_whole(path, str(before + time.monotonic() - started).encode())


def train_all(
    recipe: Recipe, scenes: int, seeds: int, work: Path, pictures: npt.NDArray[np.uint8], truth: npt.NDArray[np.int64]
) -> tuple[list[Row], dict[tuple[str, int], Rights]]:
    """Train every arm with every seed, and examine it."""
    rows, rights = [], {}
    data, cache = f"scenes:{scenes}", work / "teacher"
    # Asks the teacher, so that no arm pays for the others.
    distill(None, NEW, data, work / "first", recipe=replace(recipe, steps=1), cache=cache)
    for seed in range(seeds):
        for arm, (student, weights) in ARMS.items():
            folder = work / f"{arm}-{seed}"
            settings = replace(recipe, seed=seed, weights=weights)
            times = folder.with_suffix(".seconds")
            ended = (folder / "model.safetensors").is_file()  # its time is known
            with nullcontext() if ended else clock(times):
                found = distill(None, student, data, folder, recipe=settings, cache=cache)
            minutes = float(times.read_text()) / 60
            right = rights[arm, seed] = answers(folder, pictures, truth)
            share, step = found.multiply_adds_share, found.best.step
            scores = tuple((item.step, item.score.accuracy) for item in found.scores if item.score.accuracy is not None)
            top1 = 100 * float(right.mean())
            rows.append(Row(arm, seed, share, minutes, step, in_percent(accuracy(right)), top1, scores))
    return rows, rights


def compare_losses(recipe: Recipe, scenes: int, work: Path) -> list[dict[str, Any]]:
    """What each of ``TRIALS`` comes to on the validation scenes."""
    found = []
    for number, (name, weights) in enumerate(TRIALS.items()):
        settings = replace(recipe, steps=TRIAL_STEPS, validate_every=TRIAL_STEPS, weights=weights)
        folder = work / f"trial-{number}"
        best = distill(None, INHERITED, f"scenes:{scenes}", folder, recipe=settings, cache=work / "teacher").best.score
        found.append({"losses": name, "weights": asdict(weights), "accuracy": best.accuracy, "cosine": best.cosine})
    return found


def shapes() -> list[dict[str, Any]]:
    """The students' sizes beside the teacher's, in millions."""
    teacher = load_checkpoint(DEMO_CHECKPOINT)
    towers = {"the teacher": model_facts(teacher).image}
    for spec in (NEW, *SHAPES):
        towers[spec] = model_facts(make_student(teacher, parse_spec(spec), 0, [])).image
    whole = towers["the teacher"].multiply_adds
    return [
        {"spec": spec, "multiply_adds": t.multiply_adds, "share": t.multiply_adds / whole, "parameters": t.parameters}
        for spec, t in towers.items()
    ]


def draw(path: Path, rows: list[Row], teacher: float) -> None:
    """The validations of the first seed; ``teacher`` is its share of right answers on the test scenes."""
    lines = [
        Series(row.arm, row.scores, COLOURS[number]) for number, row in enumerate(row for row in rows if row.seed == 0)
    ]
    last = max(step for line in lines for step, _ in line.points)
    lines.append(Series("teacher, on the test scenes", [(0, teacher), (last, teacher)], "#777777", dashed=True))
    write_chart(path, lines, axis("step", 0, last), axis("zero-shot top-1", 0.0, 1.0))


def judge(rows: list[Row], rights: dict[tuple[str, int], Rights], teacher: Rights) -> list[dict[str, Any]]:
    """The acceptance, for each seed."""
    targets: list[dict[str, Any]] = []
    for row in rows:
        name = f"{row.arm}, seed {row.seed}"
        text = f"{name}: at most a quarter of the teacher's multiply-adds"
        targets.append({"text": text, "found": f"{row.share:.1%}", "met": row.share <= MOST_SHARE})
        text = f"{name}: within {MOST_MINUTES:g} minutes"
        targets.append({"text": text, "found": f"{row.minutes:.1f}", "met": row.minutes <= MOST_MINUTES})
    for seed in sorted({row.seed for row in rows}):
        scratch, distilled, inherited = (rights[arm, seed] for arm in ARMS)
        gain, best = paired_difference(distilled, scratch), paired_difference(inherited, scratch)
        lost, kept = paired_difference(inherited, teacher), paired_difference(inherited, distilled)
        for text, difference, met in (
            (f"distilled {LEAST_GAIN:g} points above scratch", gain, 100 * gain.value >= LEAST_GAIN),
            (f"inherited {LEAST_GAIN:g} points above scratch", best, 100 * best.value >= LEAST_GAIN),
            (f"inherited at most {MOST_LOST:g} points below the teacher", lost, 100 * lost.value >= -MOST_LOST),
            ("inherited above distilled", kept, _is_above(kept)),
        ):
            targets.append({"text": f"seed {seed}: {text}", "found": in_points(difference), "met": met})
    return targets


def _is_above(difference: Difference) -> bool:
    return difference.value > 0 and difference.beyond_noise


def markdown(document: dict[str, Any]) -> str:
    machine, recipe = document["machine"], document["recipe"]
    lines = [
        "# Distillation",
        "",
        f"Teacher: the demonstration model. {document['scenes']} scenes, {recipe['steps']} steps of "
        f"{recipe['batch_size']} pictures,",
        f"learning rate {recipe['learning_rate']:g}. Zero-shot top-1 over 120 classes on {document['test_scenes']} "
        "unseen scenes, percent",
        f"[95 % interval]. The teacher: {document['teacher']}. {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['date']}.",
        "",
        "| student | seed | multiply-adds | minutes | best step | top-1 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['arm']} | {row['seed']} | {row['share']:.1%} | {row['minutes']:.1f} | {row['step']} | {row['found']} |"
        for row in document["rows"]
    ]
    lines += ["", f"| losses, {TRIAL_STEPS} steps of the inherited student | top-1 | cosine |", "|---|---:|---:|"]
    lines += [f"| {row['losses']} | {row['accuracy']:.1%} | {row['cosine']:.3f} |" for row in document["losses"]]
    lines += ["", "| image tower | multiply-adds (M) | of the teacher's | parameters (M) |", "|---|---:|---:|---:|"]
    lines += [
        f"| `{shape['spec']}` | {shape['multiply_adds'] / 1e6:.1f} | {shape['share']:.1%} | "
        f"{shape['parameters'] / 1e6:.2f} |"
        for shape in document["shapes"]
    ]
    return "\n".join([*lines, "", *target_lines(document["targets"])]) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--scenes", type=int, default=20_000, help="that are trained on")
    parser.add_argument("--test-scenes", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--work", type=Path, help="keep everything in this folder (default: nothing)")
    arguments = parser.parse_args()
    recipe = Recipe(steps=arguments.steps, batch_size=arguments.batch_size, validate_every=VALIDATE_EVERY)
    pictures, truth = labelled_pictures("test", arguments.test_scenes, size=64)
    with ExitStack() as stack:
        work = arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        teacher = answers(DEMO_CHECKPOINT, pictures, truth)
        rows, rights = train_all(recipe, arguments.scenes, arguments.seeds, work, pictures, truth)
        losses = compare_losses(recipe, arguments.scenes, work)
        draw(RESULTS / "distillation.svg", rows, float(teacher.mean()))
    document = {
        "machine": describe_machine(),
        "recipe": recipe.to_dict(),
        "scenes": arguments.scenes,
        "test_scenes": arguments.test_scenes,
        "teacher": in_percent(accuracy(teacher)),
        "rows": [asdict(row) for row in rows],
        "losses": losses,
        "shapes": shapes(),
        "targets": judge(rows, rights, teacher),
    }
    publish("distillation", document, markdown(document))


if __name__ == "__main__":
    main()
