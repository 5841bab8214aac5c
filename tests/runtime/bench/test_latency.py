"""The latency that proofs report, from a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from clipedge.bench.latency import measure
from clipedge.bench.timing import MIN_RUNS


def test_the_module_prints_each_towers_latency(demo_bundle: Path) -> None:
    command = [sys.executable, "-m", "clipedge.bench", str(demo_bundle), "int8.x86", "onnxruntime"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert set(found) == {"image", "text"}
    for latency in found.values():
        assert 0 < latency["median_ms"] <= latency["p90_ms"]
        assert latency["runs"] >= MIN_RUNS


def test_a_call_is_repeated_often_enough() -> None:
    calls: list[int] = []
    found = measure(lambda: calls.append(0), seconds=0.0)
    assert found.runs == MIN_RUNS < len(calls)
