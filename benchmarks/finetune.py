"""Fine-tuning on a shifted domain: textured scenes, learned without forgetting the plain ones.

    python benchmarks/finetune.py [--steps 120] [--scenes 2400] [--work DIR]

The shift: every scene is seen through a woven screen. Two gratings at right angles, turned and spaced at random, darken
the picture by up to ``DEPTH``, and speckle of standard deviation ``SPECKLE`` multiplies it; which screen a scene gets
depends on its number alone. The demonstration model is tuned on labelled textured scenes of the split "train" (a folder
for each class; 12 of the 120 classes occur in none) with all weights and with LoRA. Textured scenes of the split
"validation" choose the step, plain ones of it how far to interpolate (`--original scenes`, at most 1 point forgotten).
What is reported is zero-shot top-1 over 120 classes on scenes of the split "test", plain and textured, that nothing was
chosen on; differences are paired by picture. "Tuned" is alpha = 1, "written" the interpolated model. With --work
everything is kept, and a run that was killed goes on. Writes results/finetune.md, .json, .svg (the interpolation of
the first row) and .png (scenes, plain and textured) beside this file, and prints the first.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from distillation import answers
from layout import RESULTS
from machine import describe_machine
from PIL import Image
from publish import publish, target_lines

from clipedge.calibration.scenes import CLASS_NAMES, TEMPLATES, labelled_pictures, labelled_scene, render
from clipedge.evaluation.intervals import Difference, accuracy, in_percent, in_points, paired_difference
from clipedge.export.checkpoints import DEMO_CHECKPOINT
from clipedge.export.finetuning import Recipe, finetune
from clipedge.export.finetuning.curves import INTERPOLATION_NAME
from clipedge.export.finetuning.pipeline import Forgetting

SIZE = 64  # the demonstration model's
DEPTH, SPECKLE = 0.5, 0.12
VALIDATION_SCENES, VALIDATION_START = 600, 10_000  # others than those of `--original scenes`
LEAST_GAIN, MOST_LOST, MOST_MINUTES = 10.0, 1.0, 10.0
FULL_RATE, LORA_RATE, RANK = 2e-4, 3e-3, 8
PLAIN, TEXTURED = "plain", "textured"
SHOWN = 10  # scenes in the picture
Pixels = npt.NDArray[np.uint8]
Rights = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Row:
    """One way to tune: its accuracies for a reader, by stage and set; ``minutes`` are the processor's."""

    arm: str
    trained_parameters: int
    minutes: float
    step: int
    alpha: float
    found: dict[str, dict[str, str]]


def textured(picture: Pixels, number: int) -> Pixels:
    """A picture (H, W, 3) seen through the screen of this number."""
    rng = np.random.default_rng([20_241, number])
    angle, period = rng.uniform(0, np.pi), rng.uniform(4, 8)
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]] * (2 * np.pi / period)
    phases = rng.uniform(0, 2 * np.pi, 2)
    along = np.sin(rows * np.sin(angle) + columns * np.cos(angle) + phases[0])
    across = np.sin(rows * np.cos(angle) - columns * np.sin(angle) + phases[1])
    screen = 1 - DEPTH * (2 + along + across) / 4
    grain = 1 + SPECKLE * rng.standard_normal(picture.shape[:2])
    return np.clip(np.rint(picture * (screen * grain)[:, :, None]), 0, 255).astype(np.uint8)


def write_textured(folder: Path, split: str, start: int, count: int) -> Path:
    """Textured scenes as PNG files, in a folder for each class."""
    for number in range(start, start + count):
        scene, label = labelled_scene(split, number)
        path = folder / CLASS_NAMES[label] / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            Image.fromarray(textured(render(scene, SIZE, SIZE).picture, number)).save(path)
    return folder


def tune(
    arm: str, recipe: Recipe, data: Path, validation: Path, work: Path, sets: dict[str, Pixels], truth: Any
) -> Any:
    """(Row, written model's right answers by set). The tuned model is written, examined, and then interpolated."""
    folder, rights = work / arm.replace(" ", "-"), {}
    started = time.process_time()
    for stage, forgetting in (("tuned", Forgetting("scenes", alpha=1.0)), ("written", Forgetting("scenes"))):
        found = finetune(
            None,
            data,
            folder,
            recipe=recipe,
            validation=validation,
            forgetting=forgetting,
            labels=CLASS_NAMES,
            templates=TEMPLATES,
        )
        rights[stage] = {name: answers(folder, pictures, truth) for name, pictures in sets.items()}
    minutes = (time.process_time() - started) / 60
    shown = {stage: {name: in_percent(accuracy(right)) for name, right in of.items()} for stage, of in rights.items()}
    return Row(arm, found.trained_parameters, minutes, found.best.step, found.alpha, shown), rights["written"]


def judge(rows: list[Row], rights: dict[str, dict[str, Rights]], before: dict[str, Rights]) -> list[dict[str, Any]]:
    """The acceptance, for each row: gain where it was tuned, loss where it was not, and its time."""
    targets: list[dict[str, Any]] = []
    for row in rows:
        gain, change = (paired_difference(rights[row.arm][name], before[name]) for name in (TEXTURED, PLAIN))
        for text, difference, met in (
            (f"at least {LEAST_GAIN:g} points gained on textured scenes", gain, _points(gain) >= LEAST_GAIN),
            (f"at most {MOST_LOST:g} point lost on plain scenes", change, _points(change) >= -MOST_LOST),
        ):
            targets.append({"text": f"{row.arm}: {text}", "found": in_points(difference), "met": met})
        text = f"{row.arm}: within {MOST_MINUTES:g} CPU minutes"
        targets.append({"text": text, "found": f"{row.minutes:.1f}", "met": row.minutes <= MOST_MINUTES})
    return targets


def _points(difference: Difference) -> float:
    return round(100 * difference.value, 9)


def markdown(document: dict[str, Any]) -> str:
    machine, before = document["machine"], document["before"]
    lines = [
        "# Fine-tuning",
        "",
        f"The demonstration model, tuned on {document['scenes']} textured scenes in {document['steps']} steps of "
        f"{document['batch_size']} pictures.",
        f"Zero-shot top-1 over 120 classes on {document['test_scenes']} unseen scenes, percent [95 % interval].",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}.",
        "",
        "| trained | numbers | CPU minutes | step | alpha | model | textured scenes | plain scenes |",
        "|---|---:|---:|---:|---:|---|---:|---:|",
        f"| | | | | 0 | before | {before[TEXTURED]} | {before[PLAIN]} |",
    ]
    for row in document["rows"]:
        facts = f"{row['trained_parameters']:,} | {row['minutes']:.1f} | {row['step']}"
        tuned, written = (row["found"][stage] for stage in ("tuned", "written"))
        lines += [
            f"| {row['arm']} | {facts} | 1 | tuned | {tuned[TEXTURED]} | {tuned[PLAIN]} |",
            f"| | | | | {row['alpha']:g} | written | {written[TEXTURED]} | {written[PLAIN]} |",
        ]
    return "\n".join([*lines, "", *target_lines(document["targets"])]) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--scenes", type=int, default=2400, help="that are trained on")
    parser.add_argument("--test-scenes", type=int, default=2000)
    parser.add_argument("--work", type=Path, help="keep everything in this folder (default: nothing)")
    arguments = parser.parse_args()
    plain, truth = labelled_pictures("test", arguments.test_scenes, size=SIZE)
    sets = {PLAIN: plain, TEXTURED: np.stack([textured(picture, row) for row, picture in enumerate(plain)])}
    shared = {"steps": arguments.steps, "batch_size": arguments.batch_size, "validate_every": 30, "ema": 0.98}
    arms = {
        "all weights": Recipe(learning_rate=FULL_RATE, **shared),
        f"LoRA, rank {RANK}": Recipe(learning_rate=LORA_RATE, lora=RANK, **shared),
    }
    with ExitStack() as stack:
        work = arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        data = write_textured(work / "train", "train", 0, arguments.scenes)
        validation = write_textured(work / "validation", "validation", VALIDATION_START, VALIDATION_SCENES)
        before = {name: answers(DEMO_CHECKPOINT, pictures, truth) for name, pictures in sets.items()}
        rows, rights = [], {}
        for arm, recipe in arms.items():
            row, rights[arm] = tune(arm, recipe, data, validation, work, sets, truth)
            rows.append(row)
        shown = np.concatenate([np.concatenate(list(of[:SHOWN]), axis=1) for of in sets.values()])
        chart = work / rows[0].arm.replace(" ", "-") / INTERPOLATION_NAME
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "finetune.svg").write_bytes(chart.read_bytes())
        Image.fromarray(shown).save(RESULTS / "finetune.png")
    document = {
        "machine": describe_machine(),
        "scenes": arguments.scenes,
        "test_scenes": arguments.test_scenes,
        "steps": arguments.steps,
        "batch_size": arguments.batch_size,
        "recipes": {arm: recipe.to_dict() for arm, recipe in arms.items()},
        "before": {name: in_percent(accuracy(right)) for name, right in before.items()},
        "rows": [asdict(row) for row in rows],
        "targets": judge(rows, rights, before),
    }
    publish("finetune", document, markdown(document))


if __name__ == "__main__":
    main()
