"""clipedge prompts BUNDLE --labels a,b --output FILE | --name NAME"""

from __future__ import annotations

import argparse
from pathlib import Path

from clipedge.cli import print_json
from clipedge.cli.options import add_engine_options, add_label_options, labels_from, lines_of, open_clip
from clipedge.errors import UsageError
from clipedge.model import Clip
from clipedge.prompts import PromptBank
from clipedge.templates import TEMPLATE_SETS, template_set
from clipedge.text import DEFAULT_TEMPLATES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle")
    add_label_options(parser)
    parser.add_argument("--templates", metavar="SET", help=f"a built-in set: {', '.join(TEMPLATE_SETS)}")
    parser.add_argument(
        "--synonyms",
        metavar="FILE",
        help='lines "label: text, text": the texts that stand for a label in place of its name',
    )
    parser.add_argument("--negatives", metavar="C,D|FILE", help='what "none of these" looks like, as --labels')
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--output", metavar="FILE", help="the bank's file")
    place.add_argument("--name", help="keep the bank in the bundle under this name")
    add_engine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    labels = labels_from(arguments.labels)
    if labels is None:
        raise UsageError("--labels is missing: write --labels cat,dog or name a file with one a line")
    clip = open_clip(arguments, arguments.bundle)
    path = _place(clip, arguments)
    bank = clip.prompt_bank(
        labels,
        _templates(arguments),
        synonyms=_synonyms(arguments.synonyms),
        negatives=labels_from(arguments.negatives, "--negatives") or (),
    )
    bank.save(path)
    if arguments.json:
        print_json({"bank": str(path), **_facts(bank)})
    else:
        print(f"{path}: {len(bank.labels)} labels, {len(bank.negatives)} negatives, {len(bank.templates)} templates")
    return 0


def _templates(arguments: argparse.Namespace) -> tuple[str, ...]:
    if arguments.template and arguments.templates:
        raise UsageError("--template and --templates are two ways to say the same: give one")
    if arguments.templates:
        return template_set(arguments.templates)
    return tuple(arguments.template or DEFAULT_TEMPLATES)


def _synonyms(option: str | None) -> dict[str, list[str]]:
    if option is None:
        return {}
    path = Path(option)
    if not path.is_file():
        raise UsageError(f'--synonyms {option}: there is no such file; it has lines such as "sofa: sofa, couch"')
    synonyms: dict[str, list[str]] = {}
    for line in lines_of(path, 'synonyms are lines such as "sofa: sofa, couch"'):
        label, colon, texts = line.partition(":")
        found = [text.strip() for text in texts.split(",") if text.strip()]
        if not colon or not found or label.strip() in synonyms:
            raise UsageError(
                f'{path}: expected lines such as "sofa: sofa, couch", one a label, found {line!r:.60}: correct it'
            )
        synonyms[label.strip()] = found
    return synonyms


def _place(clip: Clip, arguments: argparse.Namespace) -> Path:
    if arguments.output is not None:
        path = Path(arguments.output)
        if path.is_dir() or not path.name:
            raise UsageError(f"--output {arguments.output!r} is a folder; name the bank's file")
        return path
    name: str = arguments.name
    if not name or name.startswith(".") or "/" in name or "\\" in name or "\0" in name:
        raise UsageError(f"--name {name!r} is no bank's name; give one without slashes that does not begin with a dot")
    return clip.bundle.bank_path(name)


def _facts(bank: PromptBank) -> dict[str, object]:
    return {
        "labels": bank.labels,
        "negatives": bank.negatives,
        "templates": bank.templates,
        "synonyms": dict(bank.synonyms),
        "space_id": bank.space_id,
    }
