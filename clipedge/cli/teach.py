"""clipedge teach BUNDLE --bank NAME --label L PICTURES..."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from clipedge.cli import print_json
from clipedge.cli.options import add_bundle_argument, add_engine_options, add_picture_options, open_clip, prompt_bank
from clipedge.errors import UsageError
from clipedge.model import Clip
from clipedge.prompts.bank import PromptBank


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle_argument(parser)
    parser.add_argument("--bank", help="name of a prompt bank in the bundle, or its file (default: the only one)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--label",
        nargs="+",  # a positional list would have to stand directly after the bundle: argparse matches it there, empty
        metavar=("L", "PICTURE"),
        help="a label, and 1 to 16 pictures of it (with neither this nor --forget: list what was taught)",
    )
    what.add_argument("--forget", metavar="L", help="take a taught label out again")
    parser.add_argument("--output", metavar="FILE", help="write the bank there (default: in place of the one read)")
    parser.set_defaults(labels=None, template=None)  # of prompt_bank(): a bank is what is taught, and no new one
    add_picture_options(parser)
    add_engine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    clip = open_clip(arguments, arguments.bundle)
    classifier = clip.classifier(prompt_bank(clip, arguments))
    file = None
    if arguments.label is not None:
        classifier = classifier.teach(arguments.label[0], arguments.label[1:])
    elif arguments.forget is not None:
        classifier = classifier.forget(arguments.forget)
    if arguments.label is not None or arguments.forget is not None:
        file = Path(arguments.output) if arguments.output else _source(clip, arguments.bank)
        classifier.bank.save(file)
    taught = _taught(classifier.bank)
    if arguments.json:
        print_json({"bank": None if file is None else str(file), "labels": classifier.labels, "taught": taught})
        return 0
    for one in taught:
        beside = "beside its text" if one["text"] else "without text"
        print(f"{one['label']}: {one['examples']} picture(s), {beside}")
    if not taught:
        print("no label was taught by examples")
    if file is not None:
        print(f"written: {file}")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.label is not None and len(arguments.label) < 2:
        raise UsageError(f"--label {arguments.label[0]} needs 1 to 16 pictures of it behind the label")
    if arguments.output and arguments.label is None and arguments.forget is None:
        raise UsageError("--output needs --label L or --forget L: a list of what was taught changes no bank")


def _source(clip: Clip, bank: str | None) -> Path:
    """The file that ``prompt_bank`` read."""
    if bank is None:
        return clip.bundle.bank_path(clip.bundle.bank_names()[0])
    return Path(bank) if Path(bank).is_file() else clip.bundle.bank_path(bank)


def _taught(bank: PromptBank) -> list[dict[str, Any]]:
    classes = bank.taught.classes if bank.taught else ()
    return [{"label": one.label, "examples": len(one.examples), "text": one.text_row is not None} for one in classes]
