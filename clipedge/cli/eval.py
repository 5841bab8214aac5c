"""clipedge eval BUNDLE DIR [--against OTHER] [--groups FILE] [--corruptions] [--report FILE.html]"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clipedge.backends import engine_facts
from clipedge.classify import Classifier
from clipedge.cli import print_json
from clipedge.cli.options import (
    add_bundle_argument,
    add_engine_options,
    add_label_options,
    add_picture_options,
    check_page,
    open_clip,
    prompt_bank,
)
from clipedge.drawing.page import write_page
from clipedge.errors import UsageError
from clipedge.evaluation.answers import answer_folder
from clipedge.evaluation.corruptions import CONDITIONS, CORRUPTIONS
from clipedge.evaluation.evaluate import Comparison, compare
from clipedge.evaluation.groups import GroupAudit, gap_sentence, read_groups
from clipedge.evaluation.intervals import in_percent, in_points
from clipedge.evaluation.page import eval_page
from clipedge.folders import PictureFolder, read_folder
from clipedge.model import Clip, variant_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle_argument(parser)
    parser.add_argument("directory", help="one sub-folder for each class, named for it")
    add_label_options(parser)
    parser.add_argument("--bank", help="name of a prompt bank in the bundle, or its file")
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="VARIANT|BUNDLE",
        help="compare with another variant of the bundle, such as fp32, or with another bundle; can be repeated",
    )
    parser.add_argument(
        "--groups",
        metavar="FILE",
        help="accuracy of groups of pictures: a CSV file with the column path (under DIR) and others that name groups",
    )
    parser.add_argument(
        "--corruptions",
        action="store_true",
        help=f"also with pictures made worse: {', '.join(CORRUPTIONS)}, each in three severities",
    )
    parser.add_argument("--report", metavar="FILE", help="all of it as a page with charts: FILE.html")
    add_picture_options(parser)
    add_engine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    check_page(arguments.report)
    pictures = read_folder(arguments.directory)
    columns = read_groups(arguments.groups, pictures) if arguments.groups else {}
    clips = _clips(arguments)
    total = len(pictures.paths)

    def show(done: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done} of {total} pictures", end="\n" if done == total else "", file=sys.stderr)

    classifiers = [_classifier(clip, pictures, arguments) for clip in clips]
    conditions = CONDITIONS if arguments.corruptions else ()
    answers = answer_folder(classifiers, pictures, conditions, max(map(_side, clips)), show)
    found = compare(_names(clips), answers, columns)
    if arguments.report:
        write_page(eval_page(str(pictures.folder), found), arguments.report)
    if arguments.json:
        print_json(_document(found, clips))
    else:
        print("\n".join(_lines(found)))
    return 0


def _clips(arguments: argparse.Namespace) -> list[Clip]:
    """The bundle, and what it is compared with."""
    clips = [open_clip(arguments, arguments.bundle)]
    variants = {variant_name(item) for item in clips[0].manifest.variants if item.tower == "image"}
    for other in arguments.against:
        if other not in variants and not Path(other).is_dir():
            raise UsageError(
                f"--against {other}: expected a variant of {arguments.bundle} ({', '.join(sorted(variants))}) or "
                "another bundle's folder, found neither"
            )
        bundle, variant = (arguments.bundle, other) if other in variants else (other, None)
        clips.append(open_clip(argparse.Namespace(**{**vars(arguments), "variant": variant}), bundle))
    return clips


def _names(clips: list[Clip]) -> list[str]:
    folders = [clip.bundle.folder.resolve() for clip in clips]
    names = [f"{folder.name} {clip.image_variant}" for folder, clip in zip(folders, clips, strict=True)]
    if len(set(names)) == len(names):
        return names
    names = [f"{folder} {clip.image_variant}" for folder, clip in zip(folders, clips, strict=True)]
    if len(set(names)) < len(names):
        raise UsageError(f"models are compared with others, and one is there twice: {', '.join(names)}")
    return names


def _classifier(clip: Clip, pictures: PictureFolder, arguments: argparse.Namespace) -> Classifier:
    if arguments.labels or arguments.bank or arguments.template or not pictures.class_names:
        return clip.classifier(prompt_bank(clip, arguments))
    return clip.classifier(pictures.class_names)


def _side(clip: Clip) -> int:
    """The shorter side of a picture as the model looks at it, before what is cropped away."""
    settings = clip.manifest.preprocessing
    return max(settings.height, settings.width, settings.shortest_edge)


def _document(found: Comparison, clips: list[Clip]) -> dict[str, Any]:
    parts = zip(found.models, clips, found.evaluations, found.groups, strict=True)
    models = [
        {
            "model": name,
            "engine": engine_facts(clip.image_engine),
            **asdict(evaluation),
            "groups": {column: asdict(audit) for column, audit in groups.items()},
        }
        for name, clip, evaluation, groups in parts
    ]
    corruptions = [
        {
            "corruption": item.corruption,
            "severity": item.severity,
            "accuracies": dict(zip(found.models, map(asdict, item.accuracies), strict=True)),
            "differences": dict(zip(found.models[1:], map(asdict, item.differences), strict=True)),
        }
        for item in found.corruptions
    ]
    gaps = [{**model, "difference": asdict(gap)} for model, gap in zip(models[1:], found.differences, strict=True)]
    return {**models[0], "against": gaps, "corruptions": corruptions}


def _lines(found: Comparison) -> list[str]:
    evaluation = found.evaluations[0]
    low, high = (100 * bound for bound in evaluation.interval)
    classes = sorted(evaluation.per_class.items(), key=lambda item: item[1].share)
    lines = [
        f"{evaluation.pictures} pictures, {len(classes)} classes",
        f"  top-1 accuracy  {100 * evaluation.top1:6.2f} %  (95 % interval {low:.2f} to {high:.2f})",
        f"  top-5 accuracy  {100 * evaluation.top5:6.2f} %",
    ]
    for name, item, gap in zip(found.models[1:], found.evaluations[1:], found.differences, strict=True):
        lines.append(f"  {name}: {100 * item.top1:.2f} %; {found.models[0]} minus it: {in_points(gap)} points")
    lines += [
        f"  weakest: {name}, {item.right} of {item.pictures} right" for name, item in classes[:5] if item.share < 1
    ]
    lines += [
        f"  taken for another: {truth} -> {answer}, {count} times" for truth, answer, count in evaluation.confusions[:5]
    ]
    for name, audits in zip(found.models, found.groups, strict=True):
        for column, audit in audits.items():
            lines += _group_lines(f"{name}, {column}" if len(found.models) > 1 else column, audit)
    lines += _corruption_lines(found)
    lines += [f"  not readable, left out: {line}" for line in evaluation.unreadable]
    return lines


def _group_lines(title: str, audit: GroupAudit) -> list[str]:
    lines = [f"  {title}: {gap_sentence(audit)}"]
    lines += [f"    {name:24} {in_percent(item)}, {item.pictures} pictures" for name, item in audit.groups.items()]
    return lines + ([f"    in no group: {audit.ungrouped} pictures"] if audit.ungrouped else [])


def _corruption_lines(found: Comparison) -> list[str]:
    if not found.corruptions:
        return []
    gaps = "".join(f", {found.models[0]} minus {name}" for name in found.models[1:])
    lines = [f"  worse pictures: {', '.join(found.models)} (%){gaps + ' (points)' if gaps else ''}"]
    for item in found.corruptions:
        cells = [*map(in_percent, item.accuracies), *map(in_points, item.differences)]
        lines.append(f"    {item.corruption:10}{item.severity}   {'   '.join(cells)}")
    return lines
