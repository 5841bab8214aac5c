"""Does `clipedge bench` measure right? Beside a timing loop that shares no line with it, in the same process.

    python benchmarks/bench_agreement.py [--bundle DIR] [--rounds 10] [--seconds 1]

Both time the same calls of the same engine, in turns that change their order (ABBA): what else the machine does
meets both alike. The independent loop reads another clock (time.monotonic_ns) around each call. Compared are medians
and throughputs of each round: the figure is the median of the rounds' ratios, beside their range. Without --bundle the
demonstration model is exported first. Writes results/bench_agreement.md and .json beside this file, prints the
former, and exits with 1 if any figure is more than 5 % from 1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from machine import describe_machine
from publish import demonstration_bundle, publish, target_lines

import clipedge
from clipedge.bench.inputs import Query, query_from, synthetic_picture
from clipedge.bench.scenarios import SCENARIOS, run_scenario

LIMIT = 0.05
CASES = (("tensor", "single-stream"), ("tensor", "multi-stream"), ("tensor", "offline"), ("jpeg", "single-stream"))
ENGINES = (("fp32", "onnxruntime"), ("int8.x86", "onnxruntime"), ("int8.x86", "openvino"))


@dataclass(frozen=True)
class Round:
    """A round's median (ms a query) and throughput (samples a second) by either."""

    bench_ms: float
    loop_ms: float
    bench_throughput: float
    loop_throughput: float


@dataclass(frozen=True)
class Row:
    variant: str
    engine: str
    source: str
    scenario: str
    rounds: tuple[Round, ...]

    @property
    def latency_ratios(self) -> list[float]:
        return [item.bench_ms / item.loop_ms for item in self.rounds]

    @property
    def throughput_ratios(self) -> list[float]:
        return [item.bench_throughput / item.loop_throughput for item in self.rounds]

    @property
    def deviation(self) -> float:
        """How far the worse of the two figures is from 1."""
        return max(abs(statistics.median(ratios) - 1) for ratios in (self.latency_ratios, self.throughput_ratios))


def independent_loop(call: Callable[[], object], seconds: float) -> list[int]:
    """Nanoseconds of each call, until so many seconds have passed."""
    durations: list[int] = []
    begin = time.monotonic_ns()
    while time.monotonic_ns() - begin < seconds * 1e9:
        before = time.monotonic_ns()
        call()
        durations.append(time.monotonic_ns() - before)
    return durations


def by_bench(query: Query, source: str, scenario: str, seconds: float) -> tuple[float, float]:
    found = run_scenario(source, scenario, query, seconds)
    median = found.percentile(50)
    if median is None:
        sys.exit(f"{source}, {scenario}: only {found.queries} queries in {seconds:g} seconds; give more --seconds")
    return median.ms, found.throughput


def by_loop(query: Query, scenario: str, seconds: float) -> tuple[float, float]:
    samples = SCENARIOS[scenario]
    durations = independent_loop(lambda: query(samples), seconds)
    return statistics.median(durations) / 1e6, samples * len(durations) / (sum(durations) / 1e9)


def measured(query: Query, source: str, scenario: str, rounds: int, seconds: float) -> Iterator[Round]:
    for number in range(rounds):
        if number % 2:
            loop = by_loop(query, scenario, seconds)
            bench = by_bench(query, source, scenario, seconds)
        else:
            bench = by_bench(query, source, scenario, seconds)
            loop = by_loop(query, scenario, seconds)
        yield Round(bench[0], loop[0], bench[1], loop[1])


def measure(bundle: Path, rounds: int, seconds: float) -> list[Row]:
    picture = synthetic_picture()
    rows = []
    for variant, engine in ENGINES:
        clip = clipedge.load(bundle, variant=variant, backend=engine)
        for source, scenario in CASES:
            print(f"{variant} in {engine}: {scenario} from {source}", file=sys.stderr, flush=True)
            query = query_from(clip, source, picture)
            rows.append(
                Row(variant, engine, source, scenario, tuple(measured(query, source, scenario, rounds, seconds)))
            )
    return rows


def markdown(rows: Sequence[Row], machine: dict[str, object], seconds: float) -> str:
    worst = max(row.deviation for row in rows)
    target = {
        "text": f"every figure within {LIMIT:.0%} of the independent loop's",
        "found": f"at most {worst:.1%} from it",
        "met": worst <= LIMIT,
    }
    lines = [
        "# clipedge bench beside an independent timing loop",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}; {len(rows[0].rounds)} rounds of {seconds:g} s "
        "each, in turns, in one process. Ratios are clipedge bench over the loop: the rounds' median (their range).",
        "",
        "| variant, engine | from, scenario | median, bench (ms) | loop (ms) | ratio of medians | of throughputs |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        bench, loop = (
            statistics.median(getattr(item, name) for item in row.rounds) for name in ("bench_ms", "loop_ms")
        )
        cells = [
            f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
            for ratios in (row.latency_ratios, row.throughput_ratios)
        ]
        lines.append(
            f"| {row.variant}, {row.engine} | {row.source}, {row.scenario} | {bench:.3f} | {loop:.3f} | {cells[0]} | "
            f"{cells[1]} |"
        )
    return "\n".join([*lines, "", *target_lines([target])]) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="the demonstration model in int8 and fp32 (default: exported now)")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement in a round")
    args = parser.parse_args()
    with demonstration_bundle(args.bundle) as bundle:
        rows = measure(bundle, args.rounds, args.seconds)
    machine = describe_machine()
    document = {"machine": machine, "seconds": args.seconds, "rows": [asdict(row) for row in rows]}
    publish("bench_agreement", document, markdown(rows, machine, args.seconds))
    sys.exit(int(max(row.deviation for row in rows) > LIMIT))


if __name__ == "__main__":
    main()
