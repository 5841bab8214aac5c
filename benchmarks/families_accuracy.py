"""What INT8 costs families other than CLIP's ViT: a ResNet and a SigLIP, trained on rendered scenes.

    python benchmarks/families_accuracy.py [--scenes 10000] [--work DIR]

Both are trained here, briefly (small_resnet.py, small_siglip.py, train_small.py), and saved as the libraries that they
come from would save them: an OpenCLIP folder and a Hugging Face folder. The export makes one bundle of each, float32
and INT8, of which both towers run on ONNX Runtime as on a device. The accuracies are zero-shot top-1 over 120 classes
on the same scenes of the split "test", so the drop is paired. Trained models are kept in ``--work`` and are not trained
again. Writes results/families_accuracy.md and .json beside this file and prints the former; exits 1 if a drop is over
one point, or if a model knows too little for a drop to mean anything.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from int8_accuracy import CALIBRATION_FOLDER
from layout import BUILD
from machine import describe_machine
from pairs import SIZE, Pair, Row, Side, Target, cells, document_of, drop_of, measure
from publish import publish, target_lines
from small_resnet import small_resnet
from small_siglip import small_siglip
from train_small import Trainee, Training, train
from transformers.utils import logging

import clipedge
from clipedge.calibration.scenes import CLASS_NAMES, TEMPLATES, write_folder
from clipedge.export import export
from clipedge.export.demo.pool import draw_pool
from clipedge.export.demo.train import Recipe
from clipedge.model import Clip

MAX_DROP = 1.0
MIN_ACCURACY = 60.0  # percent; chance is less than one
SCENES = 20_000  # that are trained on, in several passes
TOKENIZER_SCENES = 1000  # whose captions have every word


@dataclass(frozen=True)
class Family:
    """``make`` takes captions and returns a model to train."""

    name: str
    layout: str
    make: Callable[[Iterable[str]], Trainee]
    recipe: Recipe


FAMILIES = (
    Family("ResNet", "OpenCLIP folder", small_resnet, Recipe(steps=600, warmup=60, report_every=100)),
    Family("SigLIP", "Hugging Face folder", small_siglip, Recipe(steps=400, batch_size=64, warmup=40, report_every=50)),
)


def trained_models(work: Path) -> dict[str, Training]:
    """Train what ``work`` does not have yet: for each family a checkpoint folder, and NAME.json beside it."""
    missing = [family for family in FAMILIES if not _training_file(work, family).exists()]
    if missing:
        work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            pool = draw_pool(Path(scratch) / "pictures.npy", SCENES, SIZE)
            captions = [text for texts in pool.captions[:TOKENIZER_SCENES] for text in texts]
            for family in missing:
                print(f"training a {family.name}", flush=True)
                torch.manual_seed(family.recipe.seed)
                trainee = family.make(captions)
                training = train(trainee, pool, family.recipe)
                trainee.save(work / family.name)
                _training_file(work, family).write_text(json.dumps(asdict(training)) + "\n", encoding="utf-8")
    return {family.name: Training(**json.loads(_training_file(work, family).read_bytes())) for family in FAMILIES}


def _training_file(work: Path, family: Family) -> Path:
    return work / f"{family.name}.json"


def exported_pairs(work: Path, scratch: Path) -> list[Pair]:
    """Each family's float32 and INT8 variants of one bundle, as a device loads them."""
    pictures = scratch / "calibration"
    write_folder(pictures, "calibration", CALIBRATION_FOLDER, width=SIZE, height=SIZE, by_label=True)
    pairs = []
    for family in FAMILIES:
        bundle = scratch / family.name
        report = export(
            work / family.name,
            bundle,
            precision=("int8", "fp32"),
            calibration_data=pictures,
            labels=CLASS_NAMES,
            templates=TEMPLATES,
        )
        source, exported = (
            _side(clipedge.load(bundle, backend="onnxruntime", variant=variant)) for variant in ("fp32", "int8.x86")
        )
        in_float = sum(layer.in_float for layer in report.layers)
        pairs.append(Pair(family.name, family.layout, source, exported, in_float, len(report.layers)))
    return pairs


def _side(clip: Clip) -> Side:
    return Side(clip.image_engine, clip.prompt_bank(CLASS_NAMES, TEMPLATES).label_embeds)


def judge(rows: list[Row]) -> list[Target]:
    """The acceptance, and that it says something."""
    targets = []
    for row in rows:
        text = f"{row.model}: drops at most {MAX_DROP:g} point"
        targets.append(Target(text, drop_of(row, " points"), row.drop_points <= MAX_DROP))
        text = f"{row.model}: knows the scenes (at least {MIN_ACCURACY:g} %)"
        targets.append(Target(text, f"{row.source_accuracy:.2f} %", row.source_accuracy >= MIN_ACCURACY))
    return targets


def markdown(
    rows: list[Row], trainings: dict[str, Training], targets: list[Target], count: int, machine: dict[str, Any]
) -> str:
    """The table, how the models were trained, and what of the acceptance is met."""
    lines = [
        "# What INT8 costs a ResNet and a SigLIP",
        "",
        f"{count:,} rendered scenes, {SIZE} x {SIZE}, {len(CLASS_NAMES)} classes, zero-shot top-1: float32 against",
        "INT8 (target x86), all towers on ONNX Runtime. The drop is paired, with its 95 % interval.",
        f"{machine['cpu']}, VNNI: {'yes' if machine['vnni'] else 'no'}; {machine['date']}.",
        "",
        "| model | fp32, % | INT8, % | drop, points | same answer, % | median centred cosine | 1st percentile "
        "| layers in float |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        *(f"| {row.model} {cells(row)}" for row in rows),
        "",
        *target_lines(map(asdict, targets)),
        "",
        "| model | read from | parameters | trained on | steps | minutes |",
        "|---|---|---:|---:|---:|---:|",
        *(_training_cells(row, trainings[row.model]) for row in rows),
        "",
        "Minutes are by the clock; other work on the machine lengthens them. The SigLIP's image blocks begin as those",
        "of the demonstration checkpoint, everything else at random.",
    ]
    return "\n".join(lines) + "\n"


def _training_cells(row: Row, training: Training) -> str:
    return (
        f"| {row.model} | {row.method} | {training.parameters:,} | {training.scenes:,} scenes "
        f"| {training.steps} of {training.batch_size} | {training.minutes:.0f} |"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=10_000, help="how many (default 10000)")
    parser.add_argument("--work", type=Path, default=BUILD / "families", help="where trained models are kept")
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # transformers' bars would break up ours
    trainings = trained_models(args.work)
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(exported_pairs(args.work, Path(scratch)), args.scenes)
    targets, machine = judge(rows), describe_machine()
    page = markdown(rows, trainings, targets, args.scenes, machine)
    document = document_of(rows, targets, args.scenes, machine)
    document["trainings"] = {name: asdict(training) for name, training in trainings.items()}
    publish("families_accuracy", document, page)
    sys.exit(0 if all(item.met for item in targets) else 1)


if __name__ == "__main__":
    main()
