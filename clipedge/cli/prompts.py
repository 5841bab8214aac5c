"""clipedge prompts BUNDLE --labels a,b | --bank NAME --output FILE | --name NAME [--tune DIR] [--fit DIR]"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clipedge.cli import print_json
from clipedge.cli.options import (
    add_bundle_argument,
    add_engine_options,
    add_label_options,
    add_picture_options,
    check_page,
    labels_from,
    lines_of,
    open_clip,
    prompt_bank,
)
from clipedge.cli.prompt_lines import fit_lines, tuning_lines
from clipedge.decisions.fitting import Fit, check_fit, fit_rule
from clipedge.decisions.page import fit_page
from clipedge.drawing.page import write_page
from clipedge.errors import UsageError
from clipedge.folders import PictureFolder, read_folder
from clipedge.model import Clip
from clipedge.prompts.bank import PromptBank, template_embeds
from clipedge.prompts.examples import Examples, embed_examples
from clipedge.prompts.templates import TEMPLATE_SETS, template_set
from clipedge.text import DEFAULT_TEMPLATES
from clipedge.tuning.tuning import Tuning, check_tuning, tune_bank


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle_argument(parser)
    add_label_options(parser)
    parser.add_argument("--templates", metavar="SET", help=f"a built-in set: {', '.join(TEMPLATE_SETS)}")
    parser.add_argument(
        "--synonyms",
        metavar="FILE",
        help='lines "label: text, text": the texts that stand for a label in place of its name',
    )
    parser.add_argument("--negatives", metavar="C,D|FILE", help='what "none of these" looks like, as --labels')
    parser.add_argument("--bank", help="a bank to tune or fit, in place of --labels: its name, or its file")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--output", metavar="FILE", help="the bank's file")
    place.add_argument("--name", help="keep the bank in the bundle under this name")
    parser.add_argument(
        "--tune",
        metavar="DIR",
        help="choose among the templates and tune the label embeddings on pictures in sub-folders named for the "
        "labels; what does not help on held-out ones is not kept",
    )
    _add_fit_options(parser)
    add_picture_options(parser)
    add_engine_options(parser)


def _add_fit_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fit", metavar="DIR", help="fit temperature and thresholds on pictures in sub-folders named for the labels"
    )
    parser.add_argument(
        "--unknown", metavar="NAME", help="the sub-folder with pictures of none of the labels (default: none)"
    )
    parser.add_argument(
        "--recall", type=float, metavar="R", help="share of right answers that thresholds keep (default: best F1)"
    )
    parser.add_argument("--multi-label", action="store_true", help="fit for several labels to a picture")
    parser.add_argument("--report", metavar="FILE", help="the fit as a page with ROC and reliability plots: FILE.html")


def run(arguments: argparse.Namespace) -> int:
    labels = labels_from(arguments.labels)
    _check(arguments, labels)
    check_page(arguments.report)
    tuned_on = read_folder(arguments.tune) if arguments.tune else None
    fitted_on = read_folder(arguments.fit) if arguments.fit else None
    if tuned_on is not None and fitted_on is not None:
        _check_apart(tuned_on, fitted_on)
    clip = open_clip(arguments, arguments.bundle)
    path = _place(clip, arguments)
    bank = _bank(clip, labels, arguments)
    facts: dict[str, Any] = {"bank": str(path)}
    lines: list[str] = []
    unreadable: list[str] = []
    if tuned_on is not None:
        candidates = bank.templates
        bank, tuning, broken = _tune(clip, bank, tuned_on, arguments)
        facts["tuning"] = {"templates": candidates, **asdict(tuning)}
        lines += tuning_lines(tuning, candidates)
        unreadable += broken
    if fitted_on is not None:
        bank, fit, broken = _fit(clip, bank, fitted_on, arguments)
        facts["fit"] = asdict(fit)
        if arguments.report:
            write_page(fit_page(bank, fit, broken), arguments.report)
        lines += fit_lines(fit)
        unreadable += broken
    if lines:
        facts["unreadable"] = unreadable
        lines += [f"  not readable, left out: {line}" for line in unreadable]
    bank.save(path)
    if arguments.json:
        print_json({**facts, **_facts(bank)})
    else:
        templates = len(set(bank.templates))
        print(f"{path}: {len(bank.labels)} labels, {len(bank.negatives)} negatives, {templates} templates")
        print("".join(f"{line}\n" for line in lines), end="")
    return 0


def _check(arguments: argparse.Namespace, labels: list[str] | None) -> None:
    """What is wrong whatever the files hold."""
    if labels is None and not arguments.bank:
        raise UsageError("--labels is missing: write --labels cat,dog or name a file with one a line")
    texts = (labels, arguments.template, arguments.templates, arguments.synonyms, arguments.negatives)
    if arguments.bank and any(texts):
        raise UsageError("--bank has its labels and texts in it: give it alone, or make another bank with --labels")
    if arguments.bank and not (arguments.tune or arguments.fit):
        raise UsageError("--bank is a bank to tune or fit: name pictures with --tune DIR or --fit DIR")
    for_unknown = arguments.unknown and not arguments.tune
    of_a_fit = for_unknown or arguments.recall is not None or arguments.multi_label or arguments.report
    if of_a_fit and not arguments.fit:
        raise UsageError(
            "--unknown, --recall, --multi-label and --report are for a fit (--unknown for --tune, too): name its "
            "pictures, --fit DIR"
        )


def _check_apart(tuned_on: PictureFolder, fitted_on: PictureFolder) -> None:
    shared = {path.resolve() for path in tuned_on.paths} & {path.resolve() for path in fitted_on.paths}
    if shared:
        raise UsageError(
            f"--tune and --fit share {len(shared)} pictures, such as {min(shared)}: labels tuned on a picture are too "
            "sure of it to fit thresholds on; divide the pictures between two folders"
        )


def _bank(clip: Clip, labels: list[str] | None, arguments: argparse.Namespace) -> PromptBank:
    """The bank before tuning and fitting."""
    if labels is None:
        return clip.classifier(prompt_bank(clip, arguments)).bank  # which refuses another model's bank
    return clip.prompt_bank(
        labels,
        _templates(arguments),
        synonyms=_synonyms(arguments.synonyms),
        negatives=labels_from(arguments.negatives, "--negatives") or (),
    )


def _tune(
    clip: Clip, bank: PromptBank, pictures: PictureFolder, arguments: argparse.Namespace
) -> tuple[PromptBank, Tuning, tuple[str, ...]]:
    check_tuning(bank)
    examples = _embed(clip, bank, pictures, arguments)
    choice = not arguments.bank and len(bank.templates) > 1
    texts = template_embeds(clip.encode_text, bank) if choice else None
    bank, tuning = tune_bank(bank, examples.image_embeds, examples.truths, texts)
    return bank, tuning, examples.unreadable


def _fit(
    clip: Clip, bank: PromptBank, pictures: PictureFolder, arguments: argparse.Namespace
) -> tuple[PromptBank, Fit, tuple[str, ...]]:
    check_fit(bank, arguments.multi_label, arguments.recall)
    examples = _embed(clip, bank, pictures, arguments)
    bank, fit = fit_rule(
        bank,
        examples.image_embeds,
        examples.truths,
        variant=clip.image_variant,
        multi_label=arguments.multi_label,
        recall=arguments.recall,
    )
    return bank, fit, examples.unreadable


def _embed(clip: Clip, bank: PromptBank, pictures: PictureFolder, arguments: argparse.Namespace) -> Examples:
    total = len(pictures.paths)

    def show(done: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done} of {total} pictures", end="\n" if done == total else "", file=sys.stderr)

    unknown = (arguments.unknown or "none").replace("_", " ")  # as names of sub-folders are read
    return embed_examples(clip.encode_image, pictures, bank.labels, unknown, show)


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
        "tuned": None if bank.tuned is None else asdict(bank.tuned),
        "decision": None if bank.rule is None else asdict(bank.rule),
    }
