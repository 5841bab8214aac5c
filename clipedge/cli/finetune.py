"""clipedge finetune [MODEL] --data DATA --output DIR [--original DATA] [--lora RANK] [--export int8]"""

from __future__ import annotations

import argparse
from typing import Any

from clipedge.cli import fail
from clipedge.cli.options import add_label_options, add_model_options, workstation_packages
from clipedge.cli.training import add_numbers, given, print_trained, shared_settings, training_numbers
from clipedge.errors import GateError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="what `clipedge export` takes (default: the demonstration checkpoint)"
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="DATA",
        help="pictures with captions (.csv, .tsv, .jsonl, .tar, a folder with KEY.txt beside KEY.jpg, scenes[:COUNT]), "
        "or with classes (a folder with a sub-folder for each)",
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="the tuned model's folder; a killed run goes on there"
    )
    parser.add_argument("--validation", metavar="DATA", help="pictures to score it on (default: a tenth of DATA)")
    parser.add_argument(
        "--original",
        metavar="DATA",
        help="pictures of what the model can do already, and should not forget; or: scenes",
    )
    parser.add_argument("--export", metavar="P[,P]", help="then export the model: int8, fp32, or both")
    add_numbers(
        parser,
        ("--max-forgetting", float, "points that it may lose on the original pictures (default: 1)"),
        ("--alpha", float, "from the model before, 0, to the tuned one, 1 (default: as --original allows, or 0.5)"),
        ("--lora", int, "train updates of this rank (default: all weights)"),
        ("--image-image", float, "weight of the loss between two views of a picture (default: 0)"),
        ("--text-text", float, "weight of the loss between two texts of a picture (default: 0)"),
        *training_numbers("1000", "0.00001, with --lora 0.0001", "updates, order and texts"),
    )
    add_label_options(parser)
    add_model_options(parser)


def run(arguments: argparse.Namespace) -> int:
    with workstation_packages("finetune"):
        from clipedge.export.finetuning.pipeline import finetune
        from clipedge.export.finetuning.result import result_lines
    try:
        found = finetune(
            arguments.model,
            arguments.data,
            arguments.output,
            recipe=_recipe(arguments),
            forgetting=_forgetting(arguments),
            **shared_settings(arguments),
        )
    except GateError as error:
        return fail(f"the model is in {arguments.output}, its export is below the gate: {error}", error.exit_code)
    return print_trained(found, result_lines(found), arguments, "model")


def _recipe(arguments: argparse.Namespace) -> Any:
    from clipedge.export.finetuning import Recipe

    return Recipe(**given(arguments, "lora", "image_image", "text_text"))


def _forgetting(arguments: argparse.Namespace) -> Any:
    from clipedge.export.finetuning.pipeline import Forgetting

    most = {} if arguments.max_forgetting is None else {"most": arguments.max_forgetting}
    return Forgetting(arguments.original, alpha=arguments.alpha, **most)
