"""clipedge prompts BUNDLE --labels a,b --output FILE | --name NAME [--fit DIR [--report FILE.html]]"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clipedge.cli import print_json
from clipedge.cli.options import (
    add_engine_options,
    add_label_options,
    add_picture_options,
    check_page,
    labels_from,
    lines_of,
    open_clip,
)
from clipedge.errors import UsageError
from clipedge.examples import embed_examples
from clipedge.fit_page import fit_page
from clipedge.fitting import Fit, check_fit, fit_rule
from clipedge.folders import PictureFolder, read_folder
from clipedge.model import Clip
from clipedge.page import write_page
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
    if labels is None:
        raise UsageError("--labels is missing: write --labels cat,dog or name a file with one a line")
    of_a_fit = arguments.unknown or arguments.recall is not None or arguments.multi_label or arguments.report
    if of_a_fit and not arguments.fit:
        raise UsageError("--unknown, --recall, --multi-label and --report are for a fit: name its pictures, --fit DIR")
    check_page(arguments.report)
    pictures = read_folder(arguments.fit) if arguments.fit else None
    clip = open_clip(arguments, arguments.bundle)
    path = _place(clip, arguments)
    bank = clip.prompt_bank(
        labels,
        _templates(arguments),
        synonyms=_synonyms(arguments.synonyms),
        negatives=labels_from(arguments.negatives, "--negatives") or (),
    )
    facts: dict[str, Any] = {"bank": str(path)}
    lines: list[str] = []
    if pictures is not None:
        bank, fit, unreadable = _fit(clip, bank, pictures, arguments)
        facts |= {"fit": asdict(fit), "unreadable": unreadable}
        if arguments.report:
            write_page(fit_page(bank, fit, unreadable), arguments.report)
        lines = [*_fit_lines(fit), *(f"  not readable, left out: {line}" for line in unreadable)]
    bank.save(path)
    if arguments.json:
        print_json({**facts, **_facts(bank)})
    else:
        print(f"{path}: {len(bank.labels)} labels, {len(bank.negatives)} negatives, {len(bank.templates)} templates")
        print("".join(f"{line}\n" for line in lines), end="")
    return 0


def _fit(
    clip: Clip, bank: PromptBank, pictures: PictureFolder, arguments: argparse.Namespace
) -> tuple[PromptBank, Fit, tuple[str, ...]]:
    check_fit(bank, arguments.multi_label, arguments.recall)
    total = len(pictures.paths)

    def show(done: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done} of {total} pictures", end="\n" if done == total else "", file=sys.stderr)

    unknown = (arguments.unknown or "none").replace("_", " ")  # as names of sub-folders are read
    examples = embed_examples(clip.encode_image, pictures, bank.labels, unknown, show)
    bank, fit = fit_rule(
        bank,
        examples.image_embeds,
        examples.truths,
        variant=clip.image_variant,
        multi_label=arguments.multi_label,
        recall=arguments.recall,
    )
    return bank, fit, examples.unreadable


def _fit_lines(fit: Fit) -> list[str]:
    (loss, new_loss), (error, new_error) = fit.log_loss, fit.calibration_error
    floor = "" if fit.floor is None else f", floor {fit.floor:.1f}"
    kept = "kept" if fit.temperature_kept else "NOT KEPT, it does not lower both"
    lines = [
        f"  fitted on {fit.fitted_on} pictures, judged on {fit.held_out} others:",
        f"  temperature {fit.temperature:.3g}{floor}, {kept}: "
        f"log loss {loss:.3f} -> {new_loss:.3f}, calibration error {error:.3f} -> {new_error:.3f}",
        f"  thresholds {'NOT KEPT: ' + fit.thresholds_refused if fit.thresholds_refused else 'kept'}",
    ]
    if fit.roc is not None:
        plain = "" if fit.plain_roc is None else f", plain maximum probability {fit.plain_roc.area:.3f}"
        lines.append(f"  known from unknown, area under the ROC curve: {fit.roc.area:.3f}{plain}")
    rules = {"without a fit": fit.before, "plain maximum probability": fit.plain, "fitted": fit.after}
    for name, quality in rules.items():
        if quality is None:
            continue
        unknown = "" if quality.unknown_answered is None else f", of unknown answered {quality.unknown_answered:7.2%}"
        lines.append(
            f"    {name:26} right {quality.right:7.2%}, wrong {quality.wrong:7.2%}{unknown}, F1 {quality.f1:.3f}"
        )
    return lines


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
        "decision": None if bank.rule is None else asdict(bank.rule),
    }
