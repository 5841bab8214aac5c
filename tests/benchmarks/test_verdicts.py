"""What the measurements of accuracy and of an export's cost call met, and what not."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import decisions
import export_cost
import int8_accuracy
from int8_accuracy import DEMO, MINMAX
from pairs import Pair, Row, Side, row_of

ROW = Row(DEMO, "ClipEdge", 98.5, 98.3, 0.2, (0.1, 0.3), 99.0, 0.996, 0.99, 0, 26)
TWIN = "outlier twin x 300"


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (ROW, [True, True]),
        (replace(ROW, drop_points=0.31), [False, True]),
        (replace(ROW, drop_points=-0.31), [False, True]),  # other answers than float32's are no gain
        (replace(ROW, median_centred_cosine=float("nan")), [True, False]),
        (replace(ROW, model=TWIN, drop_points=1.0), [True, True]),
        (replace(ROW, model=TWIN, drop_points=1.1), [False, True]),
        (replace(ROW, model=TWIN, method=MINMAX, drop_points=60.0), [True]),
        (replace(ROW, model=TWIN, method=MINMAX, drop_points=0.5), [False]),
        (replace(ROW, method=MINMAX, drop_points=0.5), []),
    ],
)
def test_accuracy_is_held_against_its_limits(row: Row, met: list[bool]) -> None:
    assert [target.met for target in int8_accuracy.judge([row])] == met


def test_a_row_counts_answers_by_each_sides_own_labels() -> None:
    pictures = np.eye(4, dtype=np.float32)
    labels = np.eye(len(int8_accuracy.CLASS_NAMES), 4, dtype=np.float32)
    swapped = labels.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    pair = Pair(TWIN, "ClipEdge", Side(None, labels), Side(None, swapped), 1, 26)
    row = row_of(pair, pictures, pictures, np.arange(4))
    assert (row.source_accuracy, row.int8_accuracy, row.drop_points, row.agreement) == (100, 50, 50, 50)
    assert row.median_centred_cosine == pytest.approx(1)


def _export(seconds: float, largest: float) -> dict[str, float]:
    return {"seconds": seconds, "largest_process_bytes": largest, "all_processes_bytes": largest + 1e8}


def test_an_exports_cost_is_held_against_its_limits() -> None:
    good = {128: _export(119, 3e9), 64: _export(90, 3e9), 512: _export(300, 3.1e9)}
    assert [target["met"] for target in export_cost.judge(good)] == [True, True, True]
    bad = {128: _export(121, 3.95e9), 64: _export(90, 3e9), 512: _export(300, 3.2e9)}
    assert [target["met"] for target in export_cost.judge(bad)] == [False, False, False]


def test_stages_are_told_apart_by_the_stack() -> None:
    sampler = export_cost.StageSampler()

    def observe_layers() -> None:
        deadline = time.monotonic() + 30
        while "observe activations" not in sampler.peak and time.monotonic() < deadline:
            time.sleep(export_cost.PERIOD)

    def export() -> None:
        observe_layers()

    export()
    sampler.stop()
    assert set(sampler.seconds) <= {"observe activations", "imports, clearing up"}
    assert sampler.peak["observe activations"] > 0


@pytest.mark.parametrize(
    ("plain", "ours", "errors", "met"),
    [
        (300, 500, (0.3, 0.1), [True, True]),
        (300, 310, (0.3, 0.1), [False, True]),
        (500, 300, (0.1, 0.1), [False, False]),
    ],
)
def test_decisions_have_to_beat_the_plain_rule_beyond_noise(
    plain: int, ours: int, errors: tuple[float, float], met: list[bool]
) -> None:
    order = np.random.default_rng(0).permutation(1000)
    rejected, plainly = np.arange(1000) < ours, order < plain
    share = decisions.accuracy(rejected)
    gain = decisions.paired_difference(rejected, plainly)
    part = decisions.Rejection(share, share, decisions.accuracy(plainly), share, gain)
    row = decisions.Row("INT8", "12 shapes", share, (1.0,), (None,), part, part, {}, errors)
    assert [target["met"] for target in decisions.judge([row])] == met
