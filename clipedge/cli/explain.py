"""clipedge explain BUNDLE PICTURE --label L --output heatmap.png"""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import replace
from typing import Any

import numpy as np

from clipedge.backends import engine_facts
from clipedge.cli import print_json
from clipedge.cli.options import (
    add_engine_options,
    add_label_options,
    add_picture_options,
    open_clip,
    prompt_bank,
    save_sheet,
)
from clipedge.errors import UsageError
from clipedge.heatmaps.boxes import Box, heatmap_boxes
from clipedge.heatmaps.maps import Heatmap
from clipedge.heatmaps.overlay import draw_heatmap
from clipedge.images.pixels import open_rgb
from clipedge.model import Clip
from clipedge.prompts.bank import PromptBank, check_labels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", help="a bundle with a dense output: clipedge export --dense")
    parser.add_argument("image", help="a picture's file")
    parser.add_argument("--label", required=True, metavar="L", help="what to look for")
    add_label_options(parser)
    parser.add_argument(
        "--bank",
        help="name of a prompt bank in the bundle, or its file: what to tell the label from (default: the only one)",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="the picture with the map, as PNG or JPEG")
    add_picture_options(parser)
    add_engine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    clip = open_clip(arguments, arguments.bundle)
    _ = clip.dense_engine  # a bundle without a dense output is refused before anything is computed
    bank = _with_label(clip, prompt_bank(clip, arguments), arguments.label)
    picture = open_rgb(arguments.image)
    heatmap = clip.heatmap(picture, arguments.label, bank)
    boxes = heatmap_boxes(heatmap)
    probability = float(clip.classifier(bank).predict_proba([picture])[0, bank.labels.index(arguments.label)])
    drawn = draw_heatmap(picture, heatmap, boxes, f"{arguments.label} {probability:.1%}")
    save_sheet(drawn, arguments.output, "--output")
    if arguments.json:
        print_json(_document(arguments, clip, heatmap, boxes, probability))
        return 0
    x, y = heatmap.peak
    print(f"{arguments.image}: {arguments.label} {probability:.3f}, highest at {x},{y}")
    for box in boxes:
        print(f"  box {box.left},{box.top} to {box.right},{box.bottom}: {box.score:.3f}")
    print(f"written: {arguments.output}")
    return 0


def _with_label(clip: Clip, bank: PromptBank, label: str) -> PromptBank:
    """The bank with ``label`` among its labels: embedded now in the bank's templates if it was not."""
    if label in bank.labels:
        return bank
    if clip.manifest.context_length is None:
        raise UsageError(
            f"the prompt bank has no label {label!r}, and the bundle no text tower to embed it with; "
            f"it has: {', '.join(bank.labels[:5])}{' ...' if len(bank.labels) > 5 else ''}"
        )
    check_labels([*bank.labels, label, *bank.negatives])
    added = clip.prompt_bank([label], bank.templates)
    embeds = np.concatenate([bank.label_embeds, added.label_embeds])
    return replace(bank, labels=(*bank.labels, label), label_embeds=embeds, rule=None, taught=None)


def _document(
    arguments: argparse.Namespace, clip: Clip, heatmap: Heatmap, boxes: tuple[Box, ...], probability: float
) -> dict[str, Any]:
    return {
        "image": arguments.image,
        "size": heatmap.size,
        "label": heatmap.label,
        "probability": probability,
        "peak": heatmap.peak,
        "boxes": [dataclasses.asdict(box) for box in boxes],
        "map": {"region": heatmap.region, "values": heatmap.grid.astype(float).tolist()},
        "output": arguments.output,
        "engine": engine_facts(clip.dense_engine),
    }
