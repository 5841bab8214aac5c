"""clipedge finetune [MODEL] --data DATA --output DIR [--original DATA] [--lora RANK] [--export int8]"""

from __future__ import annotations

import argparse
import os
from typing import Any

from clipedge.cli import fail, print_json
from clipedge.cli.options import add_label_options, add_model_options, labels_from
from clipedge.errors import GateError, MissingDependencyError


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
    numbers: tuple[tuple[str, type, str], ...] = (
        ("--max-forgetting", float, "points that it may lose on the original pictures (default: 1)"),
        ("--alpha", float, "from the model before, 0, to the tuned one, 1 (default: as --original allows, or 0.5)"),
        ("--lora", int, "train updates of this rank (default: all weights)"),
        ("--image-image", float, "weight of the loss between two views of a picture (default: 0)"),
        ("--text-text", float, "weight of the loss between two texts of a picture (default: 0)"),
        ("--steps", int, "updates of the weights (default: 1000)"),
        ("--batch-size", int, "pictures of an update (default: 128)"),
        ("--accumulate", int, "into so many parts a batch is cut, to save memory (default: 1)"),
        ("--learning-rate", float, "the highest of the schedule (default: 0.00001, with --lora 0.0001)"),
        ("--patience", int, "stop after so many validations in a row that brought nothing (default: never)"),
        ("--validate-every", int, "steps between two validations (default: 250)"),
        ("--save-every", int, "steps that a killed run loses at most (default: 100)"),
        ("--seed", int, "of updates, order and texts (default: 0)"),
    )  # fmt: skip
    for name, kind, text in numbers:
        parser.add_argument(name, type=kind, metavar="N", help=text)
    add_label_options(parser)
    add_model_options(parser)


def run(arguments: argparse.Namespace) -> int:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in `clipedge export`
    try:
        from clipedge.export.finetuning.pipeline import finetune
        from clipedge.export.finetuning.result import result_lines
    except ImportError as error:
        raise MissingDependencyError(
            f'finetune needs the workstation packages ({error.name} is missing): pip install "clipedge[export]"'
        ) from None
    precisions: Any = arguments.export.split(",") if arguments.export else ()  # checked by the export itself
    try:
        found = finetune(
            arguments.model,
            arguments.data,
            arguments.output,
            recipe=_recipe(arguments),
            validation=arguments.validation,
            forgetting=_forgetting(arguments),
            labels=labels_from(arguments.labels),
            templates=arguments.template,
            precision=precisions,
            arch=arguments.arch,
            tokenizer=arguments.tokenizer,
            revision=arguments.revision,
        )
    except GateError as error:
        return fail(f"the model is in {arguments.output}, its export is below the gate: {error}", error.exit_code)
    if arguments.json:
        print_json(found.to_dict())
    else:
        print("\n".join(result_lines(found)))
        print(f"\n  model: {arguments.output}")
        if found.bundle:
            print(f"  bundle: {found.bundle}")
    return 0


def _recipe(arguments: argparse.Namespace) -> Any:
    """The settings that were given, the others as the recipe has them."""
    from clipedge.export.finetuning import Recipe

    names = ("steps", "batch_size", "accumulate", "learning_rate", "patience", "validate_every", "save_every", "seed")
    own = ("lora", "image_image", "text_text")
    return Recipe(**{name: getattr(arguments, name) for name in (*names, *own) if getattr(arguments, name) is not None})


def _forgetting(arguments: argparse.Namespace) -> Any:
    from clipedge.export.finetuning.pipeline import Forgetting

    most = {} if arguments.max_forgetting is None else {"most": arguments.max_forgetting}
    return Forgetting(arguments.original, alpha=arguments.alpha, **most)
