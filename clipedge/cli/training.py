"""What the verbs that train a model share: their options, what these mean, and how the result is printed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, TypeAlias

from clipedge.cli import print_json
from clipedge.cli.options import labels_from

__all__ = ["add_numbers", "given", "print_trained", "shared_settings", "training_numbers"]

Number: TypeAlias = tuple[str, type, str]
RECIPE = ("steps", "batch_size", "accumulate", "learning_rate", "patience", "validate_every", "save_every", "seed")


def training_numbers(steps: str, learning_rate: str, seed: str) -> tuple[Number, ...]:
    """Options with numbers, and what they mean: of every recipe, with the defaults that each verb has of its own."""
    return (
        ("--steps", int, f"updates of the weights (default: {steps})"),
        ("--batch-size", int, "pictures of an update (default: 128)"),
        ("--accumulate", int, "into so many parts a batch is cut, to save memory (default: 1)"),
        ("--learning-rate", float, f"the highest of the schedule (default: {learning_rate})"),
        ("--patience", int, "stop after so many validations in a row that brought nothing (default: never)"),
        ("--validate-every", int, "steps between two validations (default: 250)"),
        ("--save-every", int, "steps that a killed run loses at most (default: 100)"),
        ("--seed", int, f"of {seed} (default: 0)"),
    )


def add_numbers(parser: argparse.ArgumentParser, *numbers: Number) -> None:
    for name, kind, text in numbers:
        parser.add_argument(name, type=kind, metavar="N", help=text)


def given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The settings of a recipe that were given, of ``names`` and of every recipe's; it has the others itself."""
    return {name: getattr(arguments, name) for name in (*RECIPE, *names) if getattr(arguments, name) is not None}


def shared_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What both jobs take under the same names."""
    return {
        "validation": arguments.validation,
        "labels": labels_from(arguments.labels),
        "templates": arguments.template,
        "precision": arguments.export.split(",") if arguments.export else (),  # checked by the job itself
        "arch": arguments.arch,
        "tokenizer": arguments.tokenizer,
        "revision": arguments.revision,
    }


def print_trained(found: Any, lines: Sequence[str], arguments: argparse.Namespace, what: str) -> int:
    """Print a result as the lines of a table or as JSON; returns the exit code."""
    if arguments.json:
        print_json(found.to_dict())
        return 0
    print("\n".join(lines))
    print(f"\n  {what}: {arguments.output}")
    if found.bundle:
        print(f"  bundle: {found.bundle}")
    return 0
