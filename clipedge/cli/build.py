"""clipedge build BUNDLE"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from typing import Any

from clipedge.bundle import open_bundle
from clipedge.cli import print_json
from clipedge.cli.options import add_bundle_argument
from clipedge.engines.build import COMPILED_BACKENDS, Built, build_engines

CLEAR = "\r\033[K"  # to the line's start, and what stands there is erased


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle_argument(parser)
    parser.add_argument(
        "--backend",
        default=COMPILED_BACKENDS[0],
        help=f"what the engines are for: {', '.join(COMPILED_BACKENDS)} (default: %(default)s)",
    )
    parser.add_argument("--variant", help="such as fp16.tensorrt (default: the one that the backend takes)")


def run(arguments: argparse.Namespace) -> int:
    try:
        built = build_engines(open_bundle(arguments.bundle), arguments.backend, arguments.variant, _show)
    finally:
        _clear()
    if arguments.json:
        print_json(
            {"bundle": arguments.bundle, "backend": arguments.backend, "engines": [_facts(one) for one in built]}
        )
    else:
        print("\n".join(line for one in built for line in _lines(one)))
    return 0


def _show(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"{CLEAR}{what}: {done} of {total}", end="", file=sys.stderr, flush=True)


def _clear() -> None:
    if sys.stderr.isatty():
        print(CLEAR, end="", file=sys.stderr, flush=True)


def _facts(built: Built) -> dict[str, Any]:
    facts = {"tower": built.tower, "variant": built.variant, "folder": os.fspath(built.folder)}
    return {**facts, **asdict(built.record), "seconds": round(built.seconds, 1)}


def _lines(built: Built) -> list[str]:
    record = built.record
    return [
        f"{built.tower} {built.variant}: built by {record.builder} for {record.made_for.get('gpu', 'this machine')} "
        f"in {built.seconds:.0f} s",
        f"  lowest centred cosine of {record.goldens} goldens {record.lowest_centred_cosine:.5f}",
        f"  {built.folder}",
    ]
