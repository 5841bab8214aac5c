"""MLPerf's scenarios for devices: single-stream, multi-stream, offline.

As the MLPerf Inference rules define them (github.com/mlcommons/inference_policies, inference_rules.adoc, "Scenarios"):

- single-stream: one sample a query, the next query as soon as the one before is answered; the metric is the 90th
  percentile of the latencies;
- multi-stream: the same with 8 samples a query; the metric is the 99th percentile;
- offline: all samples are there from the start; the metric is the throughput.

What differs: a run is as long as the caller wants, where the rules ask for 600 seconds and, offline, 24,576 samples;
the percentile is reported, with its interval, where LoadGen reports its upper bound; and there is no LoadGen. So
these are not MLPerf results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from clipedge.bench.inputs import Query
from clipedge.bench.percentiles import PERCENTS, Percentile, needed_queries, percentiles
from clipedge.bench.timing import WARM_UP, Times, timed
from clipedge.machine.power import Power, PowerSource, mean_power, recorded_power

__all__ = ["METRIC_PERCENTS", "SCENARIOS", "Measurement", "measurement", "run_scenario"]

# Samples in a query. Offline, the whole load is cut into batches, as an engine would do itself; a query is a batch.
SCENARIOS: Mapping[str, int] = {"single-stream": 1, "multi-stream": 8, "offline": 16}
METRIC_PERCENTS = {"single-stream": 90, "multi-stream": 99}
COURSE = 40  # stretches into which a run is divided


@dataclass(frozen=True)
class Measurement:
    """One scenario from one source.

    ``throughput`` is in samples a second. ``percentiles`` are of the queries' latencies; ``needed`` has the queries
    that each percentile which is missing would have taken. ``course`` has the median latency (ms) of up to 40 equal
    stretches of the run, in order, and ``drift`` by what factor the last quarter's median is above the first's.
    ``joules`` a sample are the module's mean power times the time a sample took, idle power included.
    """

    source: str
    scenario: str
    samples_per_query: int
    queries: int
    seconds: float
    throughput: float
    mean_ms: float
    percentiles: tuple[Percentile, ...]
    needed: Mapping[int, int]
    course: tuple[float, ...]
    drift: float
    power: Power | None
    joules: float | None

    def percentile(self, percent: int) -> Percentile | None:
        return next((item for item in self.percentiles if item.percent == percent), None)


def run_scenario(
    source: str, scenario: str, query: Query, seconds: float, power: PowerSource | None = None
) -> Measurement:
    """Query for about ``seconds`` after a warm-up, and record power meanwhile if there is a source of it."""
    samples = SCENARIOS[scenario]
    for _ in range(WARM_UP):
        query(samples)
    with recorded_power(power) as watts:
        times = timed(lambda: query(samples), seconds, warm_up=0)
    return measurement(source, scenario, times, mean_power(power, watts))


def measurement(source: str, scenario: str, times: Times, power: Power | None = None) -> Measurement:
    """What latencies (N,), in seconds and in order, say."""
    samples = SCENARIOS[scenario]
    found = percentiles(times)
    missing = set(PERCENTS) - {item.percent for item in found}
    total = float(times.sum())
    quarter = max(len(times) // 4, 1)
    return Measurement(
        source=source,
        scenario=scenario,
        samples_per_query=samples,
        queries=len(times),
        seconds=total,
        throughput=samples * len(times) / total,
        mean_ms=1000 * total / len(times),
        percentiles=found,
        needed={percent: needed_queries(percent) for percent in sorted(missing)},
        course=tuple(float(np.median(part)) for part in np.array_split(1000 * times, min(COURSE, len(times)))),
        drift=float(np.median(times[-quarter:]) / np.median(times[:quarter])),
        power=power,
        joules=None if power is None or power.total is None else power.total * total / (samples * len(times)),
    )
