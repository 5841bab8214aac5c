"""Does `clipedge bench` measure right? Beside a timing loop that shares no line with it, in the same process.

    python benchmarks/bench_agreement.py [--bundle DIR] [--seconds 20]

Both loops time the same calls of the same engine, in turns of a dozen that change their order (ABBA), so that what else
the machine does meets both alike. The independent one reads another clock (time.monotonic_ns) around each call, and the
standard library makes its median. The same clock also sees clipedge bench's own calls, from inside them: on a machine
that is busy with other things two loops differ, and what both saw of one call does not. (One thread each, for the same
reason: two that wait for each other make a busy machine's times jump.) Without --bundle the
demonstration model is exported first. Writes results/bench_agreement.md and .json beside this file, prints the former,
and exits with 1 if a median or a throughput is more than 5 % from the other's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine
from publish import demonstration_bundle, publish, target_lines

import clipedge
from clipedge.bench.inputs import Query, query_from, synthetic_picture
from clipedge.bench.scenarios import SCENARIOS, Measurement, measurement
from clipedge.bench.timing import MIN_RUNS, Times, timed

LIMIT = 0.05
MIN_TURNS = 10
CASES = (("tensor", "single-stream"), ("tensor", "multi-stream"), ("tensor", "offline"), ("jpeg", "single-stream"))
ENGINES = (("fp32", "onnxruntime"), ("int8.x86", "onnxruntime"), ("int8.x86", "openvino"))


@dataclass(frozen=True)
class Side:
    """What one of the two loops found: milliseconds a query, samples a second."""

    queries: int
    median_ms: float
    throughput: float


@dataclass(frozen=True)
class Row:
    """``watched`` is what the other clock saw of clipedge bench's own calls, from inside them; ``in_turns`` the middle
    of the turns' ratios, since the machine's speed changes between turns more than within one."""

    variant: str
    engine: str
    source: str
    scenario: str
    bench: Side
    watched: Side
    loop: Side
    in_turns: tuple[float, float]

    @property
    def same_calls(self) -> tuple[float, float]:
        return _ratios(self.bench, self.watched)


def _ratios(first: Side, second: Side) -> tuple[float, float]:
    """Of medians, and of throughputs."""
    return first.median_ms / second.median_ms, first.throughput / second.throughput


def independent_loop(call: Callable[[], object], calls: int) -> list[int]:
    """Nanoseconds of each of so many calls."""
    durations = []
    for _ in range(calls):
        before = time.monotonic_ns()
        call()
        durations.append(time.monotonic_ns() - before)
    return durations


def in_turns(query: Query, source: str, scenario: str, seconds: float) -> tuple[Side, Side, Side, tuple[float, float]]:
    """Both loops, in turns of a dozen calls, for so many seconds; the calls of the first seen from inside; and the
    medians of the turns' ratios, of medians and of throughputs."""
    samples = SCENARIOS[scenario]

    def call() -> object:
        return query(samples)

    def watched() -> None:
        inside.extend(independent_loop(call, 1))

    timed(call, 0.0)  # to be warm
    ours: list[Times] = []
    inside: list[int] = []
    theirs: list[list[int]] = []
    end = time.monotonic() + seconds
    while len(ours) < MIN_TURNS or time.monotonic() < end:
        loop_first = len(ours) % 2
        if loop_first:
            theirs.append(independent_loop(call, MIN_RUNS))
        ours.append(timed(watched, 0.0, warm_up=0))
        if not loop_first:
            theirs.append(independent_loop(call, MIN_RUNS))
    bench = [_of_bench(measurement(source, scenario, times)) for times in ours]
    loop = [_of_loop(durations, samples) for durations in theirs]
    medians, throughputs = zip(*map(_ratios, bench, loop), strict=True)
    return (
        _of_bench(measurement(source, scenario, np.concatenate(ours))),
        _of_loop(inside, samples),
        _of_loop([duration for turn in theirs for duration in turn], samples),
        (statistics.median(medians), statistics.median(throughputs)),
    )


def _of_bench(found: Measurement) -> Side:
    median = found.percentile(50)
    assert median is not None  # a run always has one
    return Side(found.queries, median.ms, found.throughput)


def _of_loop(durations: Sequence[int], samples: int) -> Side:
    rate = samples * len(durations) / (sum(durations) / 1e9)
    return Side(len(durations), statistics.median(durations) / 1e6, rate)


def measure(bundle: Path, seconds: float) -> list[Row]:
    picture = synthetic_picture()
    rows = []
    for variant, engine in ENGINES:
        clip = clipedge.load(bundle, variant=variant, backend=engine, threads=1, spinning=False)
        for source, scenario in CASES:
            print(f"{variant} in {engine}: {scenario} from {source}", file=sys.stderr, flush=True)
            sides = in_turns(query_from(clip, source, picture), source, scenario, seconds)
            rows.append(Row(variant, engine, source, scenario, *sides))
    return rows


def deviation(rows: Sequence[Row], name: str) -> float:
    """How far the worst of one of the rows' ratios is from 1."""
    return max(abs(ratio - 1) for row in rows for ratio in getattr(row, name))


def markdown(rows: Sequence[Row], machine: dict[str, Any], seconds: float) -> str:
    found = {"the same calls, by both clocks": "same_calls", "both loops, in turns": "in_turns"}
    targets = [
        {"text": f"{text}: within {LIMIT:.0%}", "found": f"at most {worst:.1%} apart", "met": worst <= LIMIT}
        for text, name in found.items()
        for worst in [deviation(rows, name)]
    ]
    lines = [
        "# clipedge bench beside an independent timing loop",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}, load {machine['load']:.1f} before; "
        f"{seconds:g} s each, in turns of a dozen calls, in one process, on one thread.",
        "",
        "Ratios are clipedge bench over the other, of medians and of throughputs; in turns, the middle of neighbouring",
        "turns' ratios. A machine that is busy with other things lets turns differ, and hardly the same calls.",
        "",
        "| variant, engine | from, scenario | queries, each | bench, median (ms) | loop (ms) | same calls | in turns |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        ratios = " | ".join(f"{median:.3f}, {rate:.3f}" for median, rate in (row.same_calls, row.in_turns))
        lines.append(
            f"| {row.variant}, {row.engine} | {row.source}, {row.scenario} | {row.bench.queries} | "
            f"{row.bench.median_ms:.3f} | {row.loop.median_ms:.3f} | {ratios} |"
        )
    return "\n".join([*lines, "", *target_lines(targets)]) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="the demonstration model in int8 and fp32 (default: exported now)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each row (default: 20)")
    args = parser.parse_args()
    machine = {**describe_machine(), "load": os.getloadavg()[0]}
    with demonstration_bundle(args.bundle) as bundle:
        rows = measure(bundle, args.seconds)
    document = {
        "machine": machine,
        "seconds": args.seconds,
        "rows": [{**asdict(row), "ratios": {"same calls": row.same_calls, "in turns": row.in_turns}} for row in rows],
    }
    publish("bench_agreement", document, markdown(rows, machine, args.seconds))
    sys.exit(int(max(deviation(rows, "same_calls"), deviation(rows, "in_turns")) > LIMIT))


if __name__ == "__main__":
    main()
