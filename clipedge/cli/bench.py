"""clipedge bench BUNDLE [--from tensor,frame,jpeg] [--scenario ...]; clipedge bench --compare A.json B.json"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence

from clipedge.bench.compare import compare, comparison_lines, read_side
from clipedge.bench.inputs import SOURCES, given_picture, synthetic_picture
from clipedge.bench.page import bench_page
from clipedge.bench.record import record_lines, run_benchmark
from clipedge.bench.scenarios import SCENARIOS
from clipedge.cli import print_json
from clipedge.cli.options import add_bundle_argument, add_engine_options, add_picture_options, check_page, open_clip
from clipedge.drawing.page import write_page
from clipedge.errors import UsageError

SECONDS = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle_argument(parser, nargs="?")
    parser.add_argument(
        "--scenario",
        default=",".join(SCENARIOS),
        metavar="S[,S]",
        help=f"{', '.join(SCENARIOS)} (default: all), as in MLPerf",
    )
    parser.add_argument(
        "--from",
        dest="sources",
        default=",".join(SOURCES),
        metavar="F[,F]",
        help="tensor (the engine alone), frame (a camera's, NV12), jpeg (default: all)",
    )
    parser.add_argument("--image", metavar="FILE", help="a JPEG to feed (default: a made picture, 1280 x 720)")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"of each scenario from each source (default: {SECONDS:g})"
    )
    parser.add_argument("--report", metavar="FILE", help="the result as a page with charts: FILE.html")
    parser.add_argument(
        "--compare", nargs=2, metavar=("A.json", "B.json"), help="two results that --json printed, beside each other"
    )
    add_picture_options(parser)
    add_engine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    if (arguments.bundle is None) == (arguments.compare is None):
        raise UsageError("expected a bundle to measure, or --compare A.json B.json; give one of the two")
    if arguments.compare:
        return _compare(arguments.compare, arguments.json)
    if not 0 < arguments.seconds < math.inf:
        raise UsageError(f"--seconds is {arguments.seconds:g}; it has to be more than 0")
    check_page(arguments.report)
    scenarios = _chosen("--scenario", arguments.scenario, tuple(SCENARIOS))
    sources = _chosen("--from", arguments.sources, SOURCES)
    picture = given_picture(arguments.image) if arguments.image else synthetic_picture()
    clip = open_clip(arguments, arguments.bundle)
    record = run_benchmark(clip, picture, sources, scenarios, arguments.seconds, _show)
    if arguments.report:
        write_page(bench_page(record), arguments.report)
    if arguments.json:
        print_json(dataclasses.asdict(record))
    else:
        print("\n".join(record_lines(record)))
    return 0


def _compare(files: Sequence[str], as_json: bool) -> int:
    first, second = map(read_side, files)
    found = compare(first, second)
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        print("\n".join(comparison_lines(found)))
    return 0


def _chosen(option: str, text: str, choices: Sequence[str]) -> list[str]:
    """The names between the commas, each once. Raises UsageError for one that there is not."""
    names = list(dict.fromkeys(item.strip() for item in text.split(",")))
    for name in names:
        if name not in choices:
            raise UsageError(f"{option} {name!r}: expected {', '.join(choices)}, with commas between")
    return names


def _show(line: str) -> None:
    if sys.stderr.isatty():
        print(f"measuring {line}", file=sys.stderr)
