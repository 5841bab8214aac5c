"""What `make bench` says of a run: ratios, targets that are kept, missed or not measured, and how right answers are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# The benchmark's files are scripts: they run in two environments, in one of which clipedge is not installed.
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from answers import answer_quality
from layout import CONTENDERS
from table import markdown, target_table
from targets import judge

FIGURES = ("tensor_1_ms", "tensor_8_ms", "jpeg_1_ms", "jpeg_8_ms", "cold_start_ms", "peak_1_mb", "peak_8_mb")


@pytest.fixture
def shapes() -> dict[str, dict[str, dict[str, Any]]]:
    """Every contender takes 100 of everything, dynamic INT8 takes 50, ClipEdge 40."""

    def figures(name: str) -> dict[str, Any]:
        value = 40.0 if name.startswith("clipedge") else 50.0 if name == "ort-dynamic" else 100.0
        return dict.fromkeys(FIGURES, value) | {"centred_cosine": 0.998, "same_label": 1.0, "note": f"about {name}"}

    return {shape: {item.name: figures(item.name) for item in CONTENDERS} for shape in ("ViT-B/32", "ViT-B/16")}


def test_each_target_is_held_against_the_fastest_peer(shapes: dict[str, dict[str, dict[str, Any]]]) -> None:
    verdicts = {(item["text"], item["shape"], item["figure"]): item for item in judge(shapes)}
    ort = verdicts["ONNX Runtime, to its fastest INT8 peer", "ViT-B/32", "tensor_1_ms"]
    assert (ort["fastest_peer"], ort["ratio"], ort["met"]) == ("ort-dynamic", 0.8, True)
    eager = verdicts["ONNX Runtime, to eager PyTorch", "ViT-B/32", "tensor_1_ms"]
    assert (eager["fastest_peer"], eager["ratio"], eager["met"]) == ("transformers", 0.4, False)


def test_a_target_without_its_contenders_counts_as_not_measured(
    shapes: dict[str, dict[str, dict[str, Any]]],
) -> None:
    del shapes["ViT-B/32"]["ort-static"]  # the fastest of the others may be the slower one
    verdict = judge(shapes)[0]
    assert (verdict["ratio"], verdict["fastest_peer"], verdict["met"]) == (None, None, None)


def test_shapes_that_did_not_run_have_no_targets(shapes: dict[str, dict[str, dict[str, Any]]]) -> None:
    del shapes["ViT-B/16"]
    assert {item["shape"] for item in judge(shapes)} == {"ViT-B/32"}


def test_the_page_names_what_is_met_and_what_is_not(shapes: dict[str, dict[str, dict[str, Any]]]) -> None:
    del shapes["ViT-B/32"]["clipedge-openvino-int8"]
    lines = target_table(judge(shapes))
    assert lines[0].startswith("7 of 12 met")
    assert any("to eager PyTorch" in line and "0.400 | 0.30 | **not met**" in line for line in lines)
    assert any("to NNCF" in line and line.endswith("– | 0.90 | **not measured** |") for line in lines)  # noqa: RUF001
    assert any("to its fastest INT8 peer" in line and line.endswith("0.800 | 0.80 | met |") for line in lines)


def test_the_page_shows_every_contender_and_why_one_is_missing(
    shapes: dict[str, dict[str, dict[str, Any]]],
) -> None:
    missing = "clipedge-openvino-int8"
    for found in shapes.values():
        del found[missing]
    page = markdown(
        {
            "machine": {
                "cpu": "A Processor",
                "cores": 2,
                "memory_gb": 8,
                "vnni": False,
                "instruction_sets": ["avx2"],
                "system": "Linux 6",
                "python": "3.11",
                "date": "2026-01-01",
            },
            "rounds": 3,
            "shapes": shapes,
            "targets": judge(shapes),
            "not_measured": {missing: "UsageError: unknown backend"},
        }
    )
    assert f"(`{missing}`): UsageError: unknown backend" in page
    assert "A Processor, 2 cores, 8 GB, VNNI: no (avx2)" in page
    for item in CONTENDERS:
        assert (f"- `{item.name}`: about" in page) == (item.name != missing)


def test_answers_are_compared_without_their_common_direction() -> None:
    generator = np.random.default_rng(0)
    labels = generator.normal(size=(3, 16))
    common = 10 * generator.normal(size=16)  # makes all raw cosines nearly 1
    reference = common + generator.normal(size=(20, 16))
    assert answer_quality(reference, 7 * reference, labels)["centred_cosine"] == pytest.approx(1, abs=1e-5)
    unrelated = answer_quality(reference, common + generator.normal(size=(20, 16)), labels)
    assert abs(unrelated["centred_cosine"]) < 0.5


def test_same_label_is_the_share_of_equal_answers() -> None:
    labels = np.eye(2)
    reference = np.array([[1.0, 0.1], [0.1, 1.0], [1.0, 0.2], [0.2, 1.0]])
    changed = reference.copy()
    changed[0] = changed[0, ::-1]
    assert answer_quality(reference, changed, labels)["same_label"] == 0.75
