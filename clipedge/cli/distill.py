"""clipedge distill --teacher MODEL --student SPEC --data DIR --output DIR [--export int8]"""

from __future__ import annotations

import argparse
from typing import Any

from clipedge.cli import fail
from clipedge.cli.options import add_label_options, add_model_options, workstation_packages
from clipedge.cli.training import add_numbers, given, print_trained, shared_settings, training_numbers
from clipedge.errors import GateError, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--teacher", metavar="MODEL", help="what `clipedge export` takes (default: the demonstration checkpoint)"
    )
    parser.add_argument(
        "--student",
        required=True,
        metavar="SPEC",
        help="vit-ti, vit-s, vit-b (/PATCH), rn50, rn101, vit:layers=4,width=64,patch=8, "
        "resnet:blocks=1-1-1-1,width=12, inherit:layers=3,width=64,heads=2, or timm:NAME (an image tower of timm)",
    )
    parser.add_argument(
        "--text-student",
        metavar="SPEC",
        help="a text tower of its own: text-s, text-b, text:layers=4,width=256,heads=4, or "
        "inherit:layers=6,width=384,heads=6 (default: the teacher's is kept)",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="DATA",
        help="pictures: a folder, a list with captions (.csv, .tsv, .jsonl), a webdataset (.tar); or: scenes[:COUNT]",
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="the student's folder; a killed run goes on there"
    )
    parser.add_argument(
        "--validation", metavar="DATA", help="pictures to score the student on, with classes (default: a tenth of DATA)"
    )
    parser.add_argument("--export", metavar="P[,P]", help="then export the student: int8, fp32, or both")
    parser.add_argument("--cache", metavar="DIR", help="keep there what the teacher said, for further students")
    parser.add_argument(
        "--losses",
        metavar="L",
        help="images, pairs (defaults for data without and with captions), or NAME=WEIGHT,... of cosine, mse, "
        "relational, affinity, interactive, infonce",
    )
    add_numbers(
        parser,
        *training_numbers("2000", "0.002", "weights, order and captions"),
        ("--views", int, "views of a picture that the teacher sees (default: 2)"),
    )
    parser.add_argument(
        "--mixed-precision", metavar="P", help="no, fp16 or bf16: in what the student is computed (default: no)"
    )
    parser.add_argument(
        "--augment",
        metavar="A",
        help="make the student's views harder: corruption[=SHARE], adversarial[=LEVELS], or both with a comma between",
    )
    parser.add_argument("--tensorboard", action="store_true", help="write the curves to DIR/training/tensorboard")
    add_label_options(parser)
    add_model_options(parser)


def run(arguments: argparse.Namespace) -> int:
    with workstation_packages("distill"):
        from clipedge.export.distillation.pipeline import distill
        from clipedge.export.distillation.result import result_lines
        from clipedge.export.training.processes import is_first, leave_processes
    try:
        found = distill(
            arguments.teacher,
            arguments.student,
            arguments.data,
            arguments.output,
            text_student=arguments.text_student,
            recipe=_recipe(arguments),
            cache=arguments.cache,
            tensorboard=arguments.tensorboard,
            **shared_settings(arguments),
        )
    except GateError as error:
        return fail(f"the student is in {arguments.output}, its export is below the gate: {error}", error.exit_code)
    first = is_first()
    leave_processes()
    return print_trained(found, result_lines(found), arguments, "student") if first else 0


def _recipe(arguments: argparse.Namespace) -> Any:
    from clipedge.export.distillation import Recipe

    settings = given(arguments, "views", "mixed_precision")
    return Recipe(**settings, **_augmentations(arguments.augment), weights=_weights(arguments.losses))


def _augmentations(augment: str | None) -> dict[str, Any]:
    from clipedge.export.distillation.hardening import USUAL

    values: dict[str, float] = {}
    for part in () if augment is None else augment.split(","):
        name, equals, value = part.strip().partition("=")
        try:
            usual = USUAL[name]
            values[name] = float(value) if equals else usual
        except (KeyError, ValueError):
            known = " or ".join(f"{name}={usual:g}" for name, usual in USUAL.items())
            raise UsageError(f"--augment {augment}: expected {known}, found {part!r}") from None
    return values


def _weights(losses: str | None) -> Any:
    from clipedge.export.distillation import IMAGES, PAIRS, Weights

    if losses is None:
        return None
    if losses in ("images", "pairs"):
        return IMAGES if losses == "images" else PAIRS
    values: dict[str, float] = {}
    for part in losses.split(","):
        name, _, value = part.partition("=")
        try:
            values[name.strip()] = float(value)
        except ValueError:
            raise UsageError(f"--losses {losses}: expected images, pairs, or NAME=WEIGHT, found {part!r}") from None
    try:
        return Weights(**values)
    except TypeError:
        names = ", ".join(Weights.__dataclass_fields__)
        raise UsageError(f"--losses {losses}: expected losses of {names}, found {', '.join(values)}") from None
