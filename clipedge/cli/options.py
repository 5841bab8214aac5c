"""Options that several verbs share, and what they mean."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import PIL.Image

from clipedge.backends import BACKENDS, GPU_BACKENDS
from clipedge.errors import MissingDependencyError, UsageError
from clipedge.model import Clip, load
from clipedge.prompts.bank import PromptBank
from clipedge.whole import whole_file

__all__ = [
    "add_bundle_argument",
    "add_engine_options",
    "add_label_options",
    "add_model_options",
    "add_picture_options",
    "check_page",
    "labels_from",
    "lines_of",
    "open_clip",
    "prompt_bank",
    "save_sheet",
    "workstation_packages",
]


def add_bundle_argument(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    parser.add_argument("bundle", nargs=nargs, help="a bundle: the folder that `clipedge export` wrote")


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    names = (*BACKENDS, *GPU_BACKENDS)
    parser.add_argument("--backend", help=f"engine to run on: {', '.join(names)} (default: the best of the CPU's)")
    parser.add_argument("--variant", help="such as int8.x86 (default: the one for this processor)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: one per core)")
    parser.add_argument(
        "--no-spinning", action="store_true", help="let the engine's threads sleep between pictures (saves power)"
    )


def add_picture_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fast", action="store_true", help="decode and resize large pictures faster, not bit for bit as in training"
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a model on a hub")
    parser.add_argument("--arch", metavar="NAME", help="architecture of a bare file of weights, such as ViT-B-32")
    parser.add_argument("--tokenizer", metavar="PATH", help="tokenizer of a model that came without one")


def add_label_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--labels", metavar="A,B|FILE", help="labels, with commas between, or a file with one a line")
    parser.add_argument(
        "--template",
        action="append",
        metavar="T",
        help='such as "a photo of a {}."; repeated: the average of all (default: that one)',
    )


def open_clip(arguments: argparse.Namespace, bundle: str) -> Clip:
    """The bundle under the verb's engine options, and its picture options if it takes pictures."""
    return load(
        bundle,
        backend=arguments.backend,
        variant=arguments.variant,
        threads=arguments.threads,
        spinning=not arguments.no_spinning,
        preprocess="fast" if getattr(arguments, "fast", False) else "exact",
    )


def labels_from(option: str | None, name: str = "--labels") -> list[str] | None:
    """The texts of ``--labels``: the lines of a file of that name if there is one, else the text between commas."""
    if option is None:
        return None
    path = Path(option)
    if _is_file(path):
        labels = lines_of(path, "labels are one a line")
    elif path.suffix == ".txt":
        raise UsageError(f"{name} {option}: there is no such file; check the path, or write the labels: cat,dog")
    else:
        labels = [item.strip() for item in option.split(",") if item.strip()]
    if not labels:
        raise UsageError(f"{name} {option!r} names no label; write {name} cat,dog or a file with one a line")
    return labels


def lines_of(path: Path, expected: str) -> list[str]:
    """The lines of a UTF-8 file that are not empty, without the space around them."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text; {expected}") from None
    return [line.strip() for line in lines if line.strip()]


def prompt_bank(clip: Clip, arguments: argparse.Namespace) -> PromptBank:
    """The bank of ``--bank`` or ``--labels``; with neither, the bundle's only one."""
    if arguments.bank and arguments.labels:
        raise UsageError("--bank and --labels are two ways to say the same: give one")
    labels = labels_from(arguments.labels)
    if labels is not None:
        return clip.prompt_bank(labels, arguments.template) if arguments.template else clip.prompt_bank(labels)
    if arguments.template:
        raise UsageError("--template needs --labels: a bank has its templates in it")
    if arguments.bank:
        return PromptBank.load(arguments.bank) if _is_file(Path(arguments.bank)) else clip.saved_bank(arguments.bank)
    names = clip.bundle.bank_names()
    if len(names) != 1:
        raise UsageError(f"give --labels a,b or --bank NAME; the bundle has these banks: {', '.join(names) or 'none'}")
    return clip.saved_bank(names[0])


def check_page(file: str | None) -> None:
    """Raise UsageError for a ``--report`` that cannot be a page's file, before any work is done for it."""
    if file is None:
        return
    if Path(file).suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report {file}: the name has to end in .html")
    if Path(file).is_dir():
        raise UsageError(f"--report {file} is a folder; name the page's file in it")


def save_sheet(sheet: PIL.Image.Image, file: str, option: str = "--sheet") -> None:
    """Write what ``option`` asked for; an earlier file is replaced in one step."""
    path = Path(file)
    try:
        with whole_file(path) as staging:
            sheet.save(staging)
    except ValueError:
        raise UsageError(f"{option} {file}: the name has to end in .png or .jpg") from None


@contextmanager
def workstation_packages(verb: str) -> Iterator[None]:
    """Around a verb's imports of them. Raises MissingDependencyError, which names the extra, where one is missing."""
    # torch and the engine take turns in this process. Threads that spin while they wait for work, as torch's would,
    # steal the cores from the other's: the export took a fifth longer with them, on a busy machine twice as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(
            f'{verb} needs the workstation packages ({error.name} is missing): pip install "clipedge[export]"'
        ) from None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a list of labels may be too long for a file's name
        return False
