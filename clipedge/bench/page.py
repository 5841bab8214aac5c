"""A benchmark as a page: figures, latencies with their intervals, and how they went over time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clipedge.bench.record import Record, engine_line, machine_facts, notes
from clipedge.bench.scenarios import METRIC_PERCENTS, Measurement
from clipedge.drawing.page import escaped, figure, html_page, table
from clipedge.drawing.plots import COLOURS, Axis, Bar, Series, bar_chart, line_chart

__all__ = ["bench_page"]

TICKS = 5


def bench_page(record: Record) -> str:
    title = f"{record.bundle} {record.variant}, {record.machine.processor.name}"
    sections = [
        f"<h1>{escaped(title)}</h1>",
        f"<p>{escaped(engine_line(record))}</p>",
        table((), machine_facts(record), "facts"),
        "<h2>Latency and throughput</h2>",
        _figures(record.measurements),
        "<ul>\n" + "\n".join(f"<li>{escaped(line)}</li>" for line in notes(record)) + "\n</ul>",
    ]
    for scenario in dict.fromkeys(item.scenario for item in record.measurements):
        sections.append(_scenario(scenario, [item for item in record.measurements if item.scenario == scenario]))
    return html_page(title, sections)


def _figures(measurements: Sequence[Measurement]) -> str:
    rows = [
        (
            f"{item.source}, {item.scenario}",
            item.queries,
            *(_with_interval(item, percent) for percent in (50, 90, 99)),
            f"{item.mean_ms:.2f}",
            f"{item.throughput:.1f}",
            "" if item.joules is None else f"{1000 * item.joules:.1f}",
        )
        for item in measurements
    ]
    columns = ("what", "queries", "p50 (ms)", "p90", "p99", "mean", "samples/s", "mJ a sample")
    caption = "Latencies of queries, with 95 % intervals; a percentile that so few queries do not support is left out."
    return table(columns, rows, caption=caption)


def _with_interval(item: Measurement, percent: int) -> str:
    found = item.percentile(percent)
    return "" if found is None else f"{found.ms:.2f} [{found.interval[0]:.2f}, {found.interval[1]:.2f}]"


def _scenario(scenario: str, measurements: Sequence[Measurement]) -> str:
    percent = METRIC_PERCENTS.get(scenario, 50)
    shown = [(item, item.percentile(percent) or item.percentiles[-1]) for item in measurements]  # the median at least
    bars = [Bar(f"{item.source}, p{found.percent}", found.ms, found.interval) for item, found in shown]
    high = max([bar.interval[1] for bar in bars] + [latency for item in measurements for latency in item.course])
    latency = _axis("milliseconds a query", high)
    lines = [
        Series(
            item.source,
            [((place + 0.5) / len(item.course), value) for place, value in enumerate(item.course)],
            COLOURS[row % len(COLOURS)],
        )
        for row, item in enumerate(measurements)
    ]
    run = Axis("share of the run", 0, 1, tuple((share, f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 1)))
    samples = measurements[0].samples_per_query
    charts = [
        figure(bar_chart(bars, latency), "The line is the 95 % interval."),
        figure(line_chart(lines, run, latency), "Median latency of consecutive stretches of each run."),
    ]
    title = f"{scenario}: {samples} sample{'s' if samples > 1 else ''} a query"
    return f"<h2>{escaped(title)}</h2>\n" + "\n".join(charts)


def _axis(name: str, high: float) -> Axis:
    """From 0 to ``high``, rounded up to a tick: 1, 2 or 5 times a power of ten apart."""
    rough = high / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    count = math.ceil(high / step)
    return Axis(name, 0, count * step, tuple((tick * step, f"{tick * step:g}") for tick in range(count + 1)))
