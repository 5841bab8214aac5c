"""clipedge classify BUNDLE IMAGE... --labels a,b"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from clipedge.backends import engine_facts
from clipedge.cli import fail, print_json
from clipedge.cli.options import (
    add_engine_options,
    add_label_options,
    add_picture_options,
    open_clip,
    prompt_bank,
    save_sheet,
)
from clipedge.errors import ImageError
from clipedge.images import open_rgb
from clipedge.sheet import contact_sheet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle")
    parser.add_argument("image", nargs="+")
    add_label_options(parser)
    parser.add_argument("--bank", help="name of a prompt bank in the bundle, or its file (default: the only one)")
    parser.add_argument("--sheet", metavar="FILE", help="also draw the pictures with their answers, as PNG or JPEG")
    parser.add_argument("--top", type=int, default=3, help="labels to show for each picture (default: 3)")
    add_picture_options(parser)
    add_engine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    clip = open_clip(arguments, arguments.bundle)
    classifier = clip.classifier(prompt_bank(clip, arguments))
    results: list[dict[str, Any]] = []
    code = 0
    for image in arguments.image:
        try:
            probabilities = classifier.predict_proba([image])[0]
        except ImageError as error:
            code = fail(str(error), 1)  # the other pictures are still worth an answer
            continue
        best = np.argsort(-probabilities, kind="stable")[: max(arguments.top, 1)]
        answers = [{"label": classifier.labels[i], "probability": float(probabilities[i])} for i in best]
        results.append({"image": image, "answers": answers, "engine": engine_facts(clip.image_engine)})
        if not arguments.json:
            shown = ", ".join(f"{answer['label']} {answer['probability']:.3f}" for answer in answers)
            print(f"{image}: {shown}")
    if arguments.json:
        print_json(results)
    if arguments.sheet and results:
        _draw_sheet(arguments.sheet, results)
    return code


def _draw_sheet(file: str, results: list[dict[str, Any]]) -> None:
    captions = [
        "\n".join(f"{answer['label']} {answer['probability']:.1%}" for answer in result["answers"])
        for result in results
    ]
    sheet = contact_sheet((open_rgb(result["image"]) for result in results), captions)
    save_sheet(sheet, file)
