"""The command line: one file for each verb, loaded when that verb is called."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
import warnings
from importlib import import_module
from typing import Any, NoReturn, Protocol

from clipedge import __version__
from clipedge.errors import ClipEdgeError

__all__ = ["main"]

# verb -> what it does; the verb's module has add_arguments(parser) and run(arguments) -> exit code
VERBS = {
    "export": "a checkpoint becomes a bundle, with its proof",
    "build": "a bundle's engines for this machine's GPU, each proven on the bundle's golden inputs",
    "distill": "a teacher and pictures become a smaller student, a checkpoint to export",
    "finetune": "a model trained on with captioned or labelled pictures, without forgetting what it could do before",
    "classify": "pictures against labels",
    "explain": "where in a picture a label is: a heatmap, and boxes",
    "prompts": "labels, synonyms and negatives become a prompt bank: a classifier's text side in one file",
    "teach": "a class added to a prompt bank by a few pictures, or taken out again",
    "watch": "a camera's or a video's frames: when a label appears, and when it leaves",
    "eval": "accuracy on a folder with one sub-folder for each class",
    "index": "a folder of pictures becomes an index to search, or one is brought up to date",
    "search": "pictures of an index by a text or a picture; or the captions that describe a picture best",
    "inspect": "what a bundle holds, and whether it is right on this machine; or what was recognised in a model",
    "bench": "how fast a bundle is on this machine: latency, throughput, memory, power; or two such results compared",
    "doctor": "what this machine can do, what it lacks, and the command that adds it",
}
JSON_LINES = {"watch"}  # verbs that may never end: one document a line, as things happen
INTERRUPTED, READER_GONE = 130, 141  # what shells report for SIGINT and SIGPIPE


class Verb(Protocol):
    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace) -> int: ...


class _Parser(argparse.ArgumentParser):
    """argparse, with its errors in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"clipedge: {message}; `{self.prog} --help` shows how\n")


def main(argv: list[str] | None = None) -> int:
    """Run one verb. Returns 0 (done), 1 (the job or its gate failed) or 2 (the call was wrong)."""
    arguments = _parse(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = _show_warning
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a label or file name that cannot be printed
    try:
        code = _verb(arguments.verb).run(arguments)
        sys.stdout.flush()
        return code
    except ClipEdgeError as error:
        return fail(str(error), error.exit_code)
    except BrokenPipeError:  # the reader, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        return READER_GONE
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        return fail(f"{error.strerror or error}{place}", 1)
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)


def fail(message: str, code: int) -> int:
    """Say what went wrong in one line on stderr; returns the exit code."""
    print(f"clipedge: {' '.join(message.split())}", file=sys.stderr)
    return code


def print_json(document: Any) -> None:
    """One JSON document on stdout, and nothing else there. NaN and infinity, which JSON lacks, become null."""
    # Escaped beyond ASCII, so that it is JSON whatever the terminal's encoding and whatever bytes a file name has.
    json.dump(_without_nan(document), sys.stdout, indent=2, allow_nan=False)
    print()


def print_json_line(document: Any) -> None:
    """A JSON document on one line of stdout, at once, for verbs that print as things happen."""
    print(json.dumps(_without_nan(document), allow_nan=False), flush=True)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = _Parser(prog="clipedge", description="CLIP on devices: export, prove, run.")
    parser.add_argument("--version", action="version", version=f"clipedge {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)
    named = next((word for word in argv if not word.startswith("-")), None)
    for verb, description in VERBS.items():
        verb_parser = verbs.add_parser(verb, help=description, description=f"{verb}: {description}")
        if verb == named:  # the other verbs' modules are not needed, and some are heavy
            _verb(verb).add_arguments(verb_parser)
            shown = "JSON documents on stdout, one a line" if verb in JSON_LINES else "one JSON document on stdout"
            verb_parser.add_argument("--json", action="store_true", help=shown)
    return parser.parse_args(argv)


def _verb(name: str) -> Verb:
    module: Any = import_module(f"clipedge.cli.{name}")
    return module  # type: ignore[no-any-return]


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"clipedge: warning: {message}", file=sys.stderr)
