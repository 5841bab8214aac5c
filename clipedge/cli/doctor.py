"""clipedge doctor"""

from __future__ import annotations

import argparse
import dataclasses

from clipedge.cli import print_json
from clipedge.doctor.checkup import checkup_lines, examine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "The exit code is 0 if some engine works, else 1."


def run(arguments: argparse.Namespace) -> int:
    found = examine()
    if arguments.json:
        print_json(dataclasses.asdict(found))
    else:
        print("\n".join(checkup_lines(found)))
    return 0 if found.works else 1
