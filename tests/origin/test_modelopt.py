"""NVIDIA's Model Optimizer as the quantizer, in the environment where it is installed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

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


@pytest.mark.slow
def test_fp8_passes_the_proof_and_is_what_the_standard_computes(
    export_at_origin: Callable[..., None], tmp_path: Path
) -> None:
    photos, output = tmp_path / "photos", tmp_path / "bundle"
    scenes.write_folder(photos, "calibration", 48, width=64, height=64, by_label=True)
    options = ["--precision", "fp8", "--target", "tensorrt", "--quantizer", "modelopt", "--no-text"]
    export_at_origin(DEMO_CHECKPOINT, output, *options, "--calibration-data", str(photos))
    report = json.loads((output / "report.json").read_text())
    assert report["passed"] and report["precision"] == "fp8" and report["quantizer"] == "modelopt"
    assert report["beside"] is None and report["provenance"]["calibration_sha256"]
    model = onnx.load(output / "image.fp8.tensorrt.onnx")
    assert broken_rules(model) == [] and model.ir_version == 10 and model.opset_import[0].version == 19
    weights = [item for item in model.graph.initializer if item.data_type == TensorProto.FLOAT8E4M3FN and item.dims]
    matrices = sum(len(item.dims) == 2 for item in weights)
    assert matrices == 14, "four layers in each of three blocks; of the last those with a row for each head, two"
    clip = clipedge.load(output, variant="fp8.tensorrt", backend="onnxruntime")
    assert clip.image_engine.arithmetic == "float8 weights, float32 arithmetic"
    pixels = scenes.labelled_pictures("test", 2)[0]
    (expected,) = ReferenceEvaluator(model).run(None, {"pixels": pixels})
    # Sums in another order round to another of E4M3's few numbers here and there.
    found = clip.image_engine(pixels)
    assert ((found * expected).sum(axis=1) > 0.9995).all()
    np.testing.assert_allclose(found, expected, atol=4e-3)
