"""The demonstration model on worse and worse pictures, and by groups: float32 beside INT8.

    python benchmarks/robustness.py [--scenes 2400] [--bundle DIR]

What `clipedge eval BUNDLE DIR --against fp32 --corruptions --groups FILE` measures, on rendered scenes of the split
"test": 64 x 64 pixels, 120 classes, zero-shot. Both precisions answer about the very same corrupted pixels
(clipedge/evaluation/corruptions.py has the definitions), so differences are paired. Groups are a scene's background and
its object's pattern, which no class names. Without --bundle the demonstration model is exported first. Writes
results/robustness.md, .json and .html (the page of --report) beside this file, and prints the first.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from layout import RESULTS
from machine import describe_machine
from publish import demonstration_bundle, publish
from tqdm import tqdm

import clipedge
from clipedge.calibration.scenes import CLASS_NAMES, labelled_scene, write_folder
from clipedge.drawing.page import write_page
from clipedge.evaluation.answers import answer_folder
from clipedge.evaluation.corruptions import CONDITIONS
from clipedge.evaluation.evaluate import Comparison, compare
from clipedge.evaluation.groups import gap_sentence
from clipedge.evaluation.intervals import in_percent, in_points
from clipedge.evaluation.page import eval_page
from clipedge.folders import PictureFolder, read_folder

SIZE = 64  # the demonstration model's
MODELS = {"INT8": "int8.x86", "float32": "fp32"}


def measure(bundle: Path, count: int, scratch: Path) -> Comparison:
    """Both precisions on ``count`` scenes, each as it is and under every condition."""
    write_folder(scratch, "test", count, width=SIZE, height=SIZE, by_label=True)
    pictures = read_folder(scratch)
    clips = [clipedge.load(bundle, variant=variant, backend="onnxruntime") for variant in MODELS.values()]
    classifiers = [clip.classifier(CLASS_NAMES) for clip in clips]
    with tqdm(desc="scenes", total=count, unit="scene", disable=not sys.stderr.isatty()) as bar:
        answers = answer_folder(classifiers, pictures, CONDITIONS, SIZE, lambda done: bar.update(done - bar.n))
    return compare(list(MODELS), answers, scene_groups(pictures))


def scene_groups(pictures: PictureFolder) -> dict[str, tuple[str, ...]]:
    """Background and pattern of each picture's scene, whose number its file's name begins with."""
    scenes = [labelled_scene("test", int(path.name[:5]))[0] for path in pictures.paths]
    return {
        "background": tuple(scene.background.kind for scene in scenes),
        "pattern": tuple(scene.objects[0].pattern for scene in scenes),
    }


def markdown(found: Comparison, machine: dict[str, Any]) -> str:
    """The tables."""
    beyond = [item for item in found.corruptions if item.differences[0].beyond_noise]
    worst = max(found.corruptions, key=lambda item: abs(item.differences[0].value))
    lines = [
        "# Worse pictures, and groups of pictures",
        "",
        f"The demonstration model on {found.evaluations[0].pictures:,} rendered scenes of {len(CLASS_NAMES)} classes,",
        "zero-shot top-1 in percent; INT8 minus float32 in points, paired by picture; 95 % intervals.",
        "Severities and definitions: `clipedge/evaluation/corruptions.py`, after ImageNet-C.",
        f"{machine['cpu']}, {machine['date']}.",
        "",
        "| pictures | severity | INT8 | float32 | INT8 minus float32 |",
        "|---|---:|---:|---:|---:|",
        _row("as they are", "", [_overall(item) for item in found.evaluations], in_points(found.differences[0])),
        *(
            _row(item.corruption, str(item.severity), list(map(in_percent, item.accuracies)), in_points(gap))
            for item in found.corruptions
            for gap in item.differences
        ),
        "",
        f"INT8 and float32 differ beyond noise in {len(beyond)} of {len(found.corruptions)} rows of worse pictures;",
        f"the largest difference is {in_points(worst.differences[0])} points ({worst.corruption} {worst.severity}).",
        "Each row has its own interval: of 18, one is expected beyond noise by chance.",
        "",
        *_group_lines(found),
    ]
    return "\n".join(lines) + "\n"


def _overall(item: Any) -> str:
    low, high = item.interval
    return f"{100 * item.top1:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def _row(name: str, severity: str, accuracies: list[str], gap: str) -> str:
    return f"| {name} | {severity} | {' | '.join(accuracies)} | {gap} |"


def _group_lines(found: Comparison) -> list[str]:
    lines = ["| group | scenes | INT8 | float32 |", "|---|---:|---:|---:|"]
    int8, float32 = found.groups
    for column, audit in int8.items():
        lines += [
            f"| {column}: {name} | {item.pictures} | {in_percent(item)} | {in_percent(float32[column].groups[name])} |"
            for name, item in audit.groups.items()
        ]
    lines.append("")
    for column in int8:
        lines += [
            f"- {column}, INT8: {gap_sentence(int8[column])}",
            f"- {column}, float32: {gap_sentence(float32[column])}",
        ]
    return lines


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=2400, help="how many (default 2400)")
    parser.add_argument("--bundle", type=Path, help="the demonstration model in fp32 and int8 (default: export it)")
    arguments = parser.parse_args()
    with demonstration_bundle(arguments.bundle) as bundle, tempfile.TemporaryDirectory() as scratch:
        found = measure(bundle, arguments.scenes, Path(scratch) / "scenes")
    machine = describe_machine()
    page = markdown(found, machine)
    document = {"machine": machine, **asdict(found)}
    publish("robustness", document, page)
    write_page(eval_page("rendered scenes", found), RESULTS / "robustness.html")


if __name__ == "__main__":
    main()
