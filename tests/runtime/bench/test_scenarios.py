"""What a scenario asks for and what it makes of the times, on clocks and queries that the test controls."""

from __future__ import annotations

import time

import numpy as np
import pytest

from clipedge.bench.scenarios import SCENARIOS, measurement, run_scenario
from clipedge.bench.timing import MIN_RUNS, WARM_UP, timed
from clipedge.machine.power import Power


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_query_has_the_scenarios_samples(scenario: str) -> None:
    asked: list[int] = []
    found = run_scenario("tensor", scenario, asked.append, seconds=0.01)
    assert set(asked) == {SCENARIOS[scenario]} == {found.samples_per_query}
    assert len(asked) == WARM_UP + found.queries


def test_times_are_those_of_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that the calls themselves move on: what is measured is known to the last digit."""
    now = [0.0]
    steps = iter([9.0] * WARM_UP + [1.0, 2.0, 4.0] * 100)

    def call() -> None:
        now[0] += next(steps)

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    times = timed(call, seconds=30.0)
    assert times.tolist() == [1.0, 2.0, 4.0] * 4 + [1.0, 2.0]  # the first that ends at 30 or later is the last
    now[0] = 0.0
    assert len(timed(call, seconds=0.001)) == MIN_RUNS


def test_throughput_drift_and_course() -> None:
    times = np.array([0.010] * 40 + [0.012] * 40)
    found = measurement("jpeg", "multi-stream", times)
    assert found.seconds == pytest.approx(0.88)
    assert found.throughput == pytest.approx(8 * 80 / 0.88)
    assert found.mean_ms == pytest.approx(11)
    assert found.drift == pytest.approx(1.2)
    assert found.course == pytest.approx([10.0] * 20 + [12.0] * 20)
    assert [item.percent for item in found.percentiles] == [50, 90]
    assert found.needed == {99: 662}


def test_energy_is_power_times_the_time_of_a_sample() -> None:
    power = Power("INA3221", 10, {"VDD_IN": 8.0}, 8.0, ("VDD_IN",))
    found = measurement("tensor", "offline", np.full(10, 0.4), power)
    assert found.joules == pytest.approx(8.0 * 0.4 / 16)
    unknown = Power("INA3221", 10, {"VIN": 8.0}, None, ())
    assert measurement("tensor", "offline", np.full(10, 0.4), unknown).joules is None
