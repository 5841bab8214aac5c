"""What a record says to a reader: of a Jetson's power and mode, of what slowed it down, of what is missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clipedge.bench.page import bench_page
from clipedge.bench.record import FORMAT, Record, record_lines
from clipedge.bench.scenarios import measurement
from clipedge.machine.clocks import Clocks
from clipedge.machine.describe import Machine
from clipedge.machine.jetson import Jetson, PowerMode
from clipedge.machine.memory import Memory
from clipedge.machine.power import Power
from clipedge.machine.processor import Processor

ORIN = Machine(
    Processor("Cortex-A78AE", "aarch64", 6, {"dot product": True}),
    Memory(8e3, 6e3, 4e3),
    "NVIDIA Jetson Orin Nano Developer Kit",
    Jetson("NVIDIA Jetson Orin Nano Developer Kit", "36.4.3", "6.2", PowerMode("15W", 0)),
    "Linux 5.15.148-tegra",
    "3.10.12",
)
POWER = Power("INA3221", 100, {"VDD_IN": 8.0, "VDD_CPU_GPU_CV": 3.5}, 8.0, ("VDD_IN",))


@pytest.fixture
def record() -> Record:
    times = np.random.default_rng(0).normal(0.020, 0.001, 100)
    return Record(
        format=FORMAT,
        clipedge="0.1.0",
        created="2026-11-22T20:00:00+00:00",
        bundle="aisle-int8",
        space_id="ab" * 32,
        variant="int8.arm",
        engine={"backend": "onnxruntime", "version": "1.23.0", "device": "cpu", "arithmetic": "int8"},
        threads=None,
        spinning=True,
        preprocess="exact",
        picture="synthetic",
        machine=ORIN,
        load=0.1,
        clocks=(Clocks(1510.0, 1510.4, "schedutil", 624.0, 624.8), Clocks(1190.0, 1510.4, "schedutil", 306.0, 624.8)),
        throttling=("single-stream from tensor: soctherm_oc oc3_event_cnt grew by 7",),
        peak_memory_mb=312.4,
        measurements=(measurement("tensor", "single-stream", times, POWER),),
    )


def test_a_jetsons_mode_clocks_power_and_throttling_are_said(record: Record) -> None:
    text = "\n".join(record_lines(record))
    for part in (
        "NVIDIA Jetson Orin Nano Developer Kit, L4T 36.4.3, 15W",
        "CPU 1510 MHz before, 1190 after of at most 1510; GPU 624 MHz before, 306 after of at most 625",
        "312 MB (the whole process)",
        "slowed down: single-stream from tensor: soctherm_oc oc3_event_cnt grew by 7",
        "8.00 W, 160.",  # 8 W for 20 ms
        "idle power included (VDD_IN 8.00 W, VDD_CPU_GPU_CV 3.50 W)",
    ):
        assert part in text
        assert part in bench_page(record)
    assert "the machine was busy" not in text


def test_rails_of_an_unknown_board_and_a_busy_machine(record: Record) -> None:
    unknown = replace(POWER, total=None, total_of=())
    item = replace(record.measurements[0], power=unknown, joules=None)
    text = "\n".join(record_lines(replace(record, measurements=(item,), load=5.5)))
    assert "which of them add up is not known for this board" in text
    assert "the machine was busy before the run: load 5.5" in text


def test_a_missing_percentile_says_what_it_takes(record: Record) -> None:
    few = measurement("tensor", "multi-stream", np.full(100, 0.020))
    text = "\n".join(record_lines(replace(record, measurements=(few,), throttling=())))
    assert "multi-stream from tensor: p99 takes 662 queries, found 100: --seconds 14" in text
    row = next(line for line in text.splitlines() if line.startswith("  tensor, multi-stream"))
    assert row.split()[2:] == ["100", "20.00", "20.00", "-", "20.00", "400.0"]
