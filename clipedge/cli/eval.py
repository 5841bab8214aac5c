"""clipedge eval BUNDLE DIR"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from clipedge.backends import engine_facts
from clipedge.cli import print_json
from clipedge.cli.options import add_engine_options, add_label_options, add_picture_options, open_clip, prompt_bank
from clipedge.evaluate import Evaluation, evaluate
from clipedge.folders import read_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle")
    parser.add_argument("directory", help="one sub-folder for each class, named for it")
    add_label_options(parser)
    parser.add_argument("--bank", help="name of a prompt bank in the bundle, or its file")
    add_picture_options(parser)
    add_engine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    pictures = read_folder(arguments.directory)
    clip = open_clip(arguments, arguments.bundle)
    if arguments.labels or arguments.bank or arguments.template or not pictures.class_names:
        classifier = clip.classifier(prompt_bank(clip, arguments))
    else:
        classifier = clip.classifier(pictures.class_names)
    total = len(pictures.paths)

    def show(done: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done} of {total} pictures", end="\n" if done == total else "", file=sys.stderr)

    evaluation = evaluate(classifier, pictures, show)
    if arguments.json:
        print_json({**asdict(evaluation), "engine": engine_facts(clip.image_engine)})
    else:
        print("\n".join(_lines(evaluation)))
    return 0


def _lines(evaluation: Evaluation) -> list[str]:
    low, high = (100 * bound for bound in evaluation.interval)
    classes = sorted(evaluation.per_class.items(), key=lambda item: item[1][0] / item[1][1])
    lines = [
        f"{evaluation.pictures} pictures, {len(classes)} classes",
        f"  top-1 accuracy  {100 * evaluation.top1:6.2f} %  (95 % interval {low:.2f} to {high:.2f})",
        f"  top-5 accuracy  {100 * evaluation.top5:6.2f} %",
    ]
    lines += [f"  weakest: {name}, {right} of {count} right" for name, (right, count) in classes[:5] if right < count]
    lines += [
        f"  taken for another: {truth} -> {answer}, {count} times" for truth, answer, count in evaluation.confusions[:5]
    ]
    lines += [f"  not readable, left out: {line}" for line in evaluation.unreadable]
    return lines
