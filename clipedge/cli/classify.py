"""clipedge classify BUNDLE IMAGE... --labels a,b"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from clipedge.backends import engine_facts
from clipedge.classify import Classifier
from clipedge.cli import fail, print_json
from clipedge.cli.options import (
    add_bundle_argument,
    add_engine_options,
    add_label_options,
    add_picture_options,
    open_clip,
    prompt_bank,
    save_sheet,
)
from clipedge.drawing.sheet import contact_sheet
from clipedge.errors import ImageError, UsageError
from clipedge.images.pixels import open_rgb


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle_argument(parser)
    parser.add_argument("image", nargs="+", help="a picture's file")
    add_label_options(parser)
    parser.add_argument("--bank", help="name of a prompt bank in the bundle, or its file (default: the only one)")
    parser.add_argument(
        "--decide",
        action="store_true",
        help='answer by the bank\'s negatives and thresholds: a label or "none of these"',
    )
    parser.add_argument("--sheet", metavar="FILE", help="also draw the pictures with their answers, as PNG or JPEG")
    parser.add_argument("--top", type=int, default=3, help="labels to show for each picture (default: 3)")
    add_picture_options(parser)
    add_engine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.top < 1:
        raise UsageError(f"--top is how many labels to show: expected 1 or more, found {arguments.top}")
    clip = open_clip(arguments, arguments.bundle)
    classifier = clip.classifier(prompt_bank(clip, arguments))
    results: list[dict[str, Any]] = []
    code = 0
    for image in arguments.image:
        try:
            embeds = clip.encode_image([image])
        except ImageError as error:
            code = fail(str(error), 1)  # the other pictures are still worth an answer
            continue
        seen = _having_seen(classifier, embeds)
        probabilities = (seen.decision_proba if arguments.decide else seen.predict_proba)([image])[0]
        best = np.argsort(-probabilities, kind="stable")[: arguments.top]
        answers = [{"label": classifier.labels[i], "probability": float(probabilities[i])} for i in best]
        result = {"image": image, "answers": answers, "engine": engine_facts(clip.image_engine)}
        shown = ", ".join(f"{answer['label']} {answer['probability']:.3f}" for answer in answers)
        if arguments.decide:
            result["decision"] = _decision(seen, image)
            shown = f"{' and '.join(result['decision']) or 'none of these'} ({shown})"
        results.append(result)
        if not arguments.json:
            print(f"{image}: {shown}")
    if arguments.json:
        print_json(results)
    if arguments.sheet and results:
        _draw_sheet(arguments.sheet, results)
    return code


def _having_seen(classifier: Classifier, embeds: npt.NDArray[np.float32]) -> Classifier:
    """The classifier of a picture that is embedded already, once for all that is asked about it."""
    return replace(classifier, encode_image=lambda images: embeds)


def _decision(classifier: Classifier, image: str) -> list[str]:
    """The labels that the picture gets: as many as the bank's rule was fitted for, and none for none of them."""
    rule = classifier.bank.rule
    if rule is not None and rule.multi_label:
        return list(classifier.decide_all([image])[0])
    return [label for label in classifier.decide([image]) if label is not None]


def _draw_sheet(file: str, results: list[dict[str, Any]]) -> None:
    captions = [
        "\n".join(f"{answer['label']} {answer['probability']:.1%}" for answer in result["answers"])
        for result in results
    ]
    sheet = contact_sheet((open_rgb(result["image"]) for result in results), captions)
    save_sheet(sheet, file)
