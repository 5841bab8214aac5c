"""NVIDIA's Model Optimizer as the quantizer, in the environment where it is installed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

import clipedge
from clipedge.calibration import scenes
from clipedge.export.checkpoints import DEMO_CHECKPOINT
from clipedge.export.tensorrt_rules import broken_rules


@pytest.mark.slow
def test_its_graphs_are_proven_beside_ours_and_run_where_it_is_not_installed(
    export_at_origin: Callable[..., None], tmp_path: Path
) -> None:
    photos, output = tmp_path / "photos", tmp_path / "bundle"
    scenes.write_folder(photos, "calibration", 48, width=64, height=64, by_label=True)
    options = ["--target", "tensorrt", "--quantizer", "modelopt", "--no-text", "--calibration-data", str(photos)]
    export_at_origin(DEMO_CHECKPOINT, output, *options)
    report = json.loads((output / "report.json").read_text())
    assert report["quantizer"] == "modelopt" and report["beside"]["quantizer"] == "clipedge" and report["passed"]
    assert "nvidia-modelopt" in report["provenance"]["tools"]
    ours, theirs = report["beside"]["parity"]["image"], report["towers"]["image"]["parity"]
    assert ours["median_centred_cosine"] > 0.995 and theirs["median_centred_cosine"] > 0.985
    assert ours["median_centred_cosine"] != theirs["median_centred_cosine"]
    model = onnx.load(output / "image.int8.tensorrt.onnx")
    assert broken_rules(model) == [] and model.ir_version == 10
    assert sum(node.op_type == "DequantizeLinear" for node in model.graph.node) > 20
    clip = clipedge.load(output, variant="int8.tensorrt", backend="onnxruntime")
    assert clip.encode_image(scenes.labelled_pictures("test", 3)[0]).shape == (3, 128)
