"""Two results beside each other: ratios with intervals, what differs, and hostile files."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipedge.bench.compare import Ratio, compare, comparison_lines, read_side
from clipedge.errors import UsageError

DOCUMENT: dict[str, Any] = {
    "format": 1,
    "bundle": "demo",
    "space_id": "ab" * 32,
    "variant": "int8.x86",
    "engine": {"backend": "onnxruntime", "version": "1.23.0", "device": "cpu", "arithmetic": "int8"},
    "threads": None,
    "spinning": True,
    "preprocess": "exact",
    "picture": "synthetic",
    "machine": {"processor": {"name": "Cortex-A78AE", "cores": 6}, "board": "Orin", "system": "Linux", "jetson": None},
    "clocks": [{"cpu": 1500.0, "gpu": None, "governor": None}, {"cpu": 1500.0, "gpu": None, "governor": None}],
    "throttling": [],
    "measurements": [
        {
            "source": "tensor",
            "scenario": "single-stream",
            "percentiles": [{"percent": 50, "ms": 10.0, "interval": [9.0, 11.0]}],
            "throughput": 100.0,
            "joules": None,
        }
    ],
}


def written(path: Path, document: Any) -> str:
    path.write_text(json.dumps(document), encoding="utf-8")
    return str(path)


def other(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(DOCUMENT), **changes}


def test_a_run_beside_itself_differs_in_nothing(tmp_path: Path) -> None:
    side = read_side(written(tmp_path / "a.json", DOCUMENT))
    found = compare(side, side)
    assert found.warnings == ()
    assert [(item.what, item.ratio) for item in found.ratios] == [("p50 (ms)", 1.0), ("samples/s", 1.0)]
    interval = found.ratios[0].interval
    assert interval is not None and interval[0] < 1 < interval[1]
    assert math.log(interval[1]) == pytest.approx(math.hypot(math.log(11 / 10), math.log(10 / 9)))
    assert "within noise" in "\n".join(comparison_lines(found))


def test_a_ratio_is_the_seconds_over_the_firsts(tmp_path: Path) -> None:
    faster = other()
    faster["measurements"][0].update(
        percentiles=[{"percent": 50, "ms": 5.0, "interval": [4.5, 5.5]}], throughput=200.0, joules=0.1
    )
    found = compare(read_side(written(tmp_path / "a.json", DOCUMENT)), read_side(written(tmp_path / "b.json", faster)))
    latency, throughput = found.ratios
    assert (latency.ratio, throughput.ratio) == (0.5, 2.0)
    assert latency.interval is not None and latency.interval[1] < 1
    assert throughput.interval is None


def test_the_interval_holds_the_true_ratio_as_often_as_it_says(tmp_path: Path) -> None:
    """Medians of exponential latencies, the second's twice the first's."""
    from clipedge.bench.scenarios import measurement

    rng = np.random.default_rng(0)
    held, runs = 0, 120
    for _ in range(runs):
        sides = []
        for scale in (1.0, 2.0):
            found = measurement("tensor", "single-stream", rng.exponential(scale, 300))
            item = {**DOCUMENT["measurements"][0], "throughput": found.throughput}
            item["percentiles"] = [vars(part) for part in found.percentiles]
            sides.append(read_side(written(tmp_path / "x.json", other(measurements=[item]))))
        ratio: Ratio = compare(*sides).ratios[0]
        assert ratio.interval is not None
        held += ratio.interval[0] <= 2 <= ratio.interval[1]
    assert held / runs >= 0.9


def test_what_differs_is_said(tmp_path: Path) -> None:
    changed = other(variant="fp32", throttling=["gpu-throttle-alert is on"])
    changed["engine"] = {**changed["engine"], "backend": "openvino"}
    changed["machine"]["jetson"] = {"power_mode": {"name": "15W", "number": 2}}
    changed["clocks"][1]["cpu"] = 1200.0
    found = compare(read_side(written(tmp_path / "a.json", DOCUMENT)), read_side(written(tmp_path / "b.json", changed)))
    said = "\n".join(found.warnings)
    for line in (
        "variant differs: int8.x86 and fp32",
        "engine differs: onnxruntime 1.23.0 and openvino 1.23.0",
        "power mode differs: None and 15W",
        "clock differs: CPU after the run 1500 and 1200 MHz",
        "gpu-throttle-alert is on",
    ):
        assert line in said
    assert "CPU before" not in said


def test_nothing_in_common_is_an_error(tmp_path: Path) -> None:
    changed = other()
    changed["measurements"][0]["source"] = "jpeg"
    sides = [read_side(written(tmp_path / name, doc)) for name, doc in (("a", DOCUMENT), ("b", changed))]
    with pytest.raises(UsageError, match="no measurement in common"):
        compare(*sides)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"clocks": []},
        {"clocks": [{"cpu": "fast", "gpu": None, "governor": None}] * 2},
        {"machine": None},
        {"machine": {**DOCUMENT["machine"], "jetson": "yes"}},
        {"engine": []},
        {"measurements": [{}]},
        {"measurements": [{**DOCUMENT["measurements"][0], "throughput": -1.0}]},
        {"measurements": [{**DOCUMENT["measurements"][0], "throughput": math.nan}]},
        {"measurements": [{**DOCUMENT["measurements"][0], "throughput": 10**400}]},
        {
            "measurements": [
                {**DOCUMENT["measurements"][0], "percentiles": [{"percent": 50, "ms": 1, "interval": [2, 3]}]}
            ]
        },
        {"measurements": 7},
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="measure again"):
        read_side(written(tmp_path / "a.json", other(**change)))


@pytest.mark.parametrize("text", ["", "[]", "7", "{}", "\udcff", "[" * 100_000])
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UsageError, match="is no benchmark; expected what `clipedge bench --json` prints"):
        read_side(str(path))
    with pytest.raises(UsageError, match="cannot be read"):
        read_side(str(tmp_path / "none.json"))
