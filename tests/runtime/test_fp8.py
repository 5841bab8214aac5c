"""A graph in FP8 is computed on the CPU as the standard says: numbers rounded to E4M3, products in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from clipedge.backends import EngineOptions
from clipedge.backends.onnxruntime import OnnxRuntimeEngine
from clipedge.backends.openvino import OpenVinoEngine
from clipedge.errors import BackendError
from clipedge.manifest import FileEntry, TensorSpec, Variant

SPECS = (TensorSpec("pixels", "uint8", ("batch", 4, 4, 3)),), (TensorSpec("image_embeds", "float32", ("batch", 16)),)
VARIANT = Variant("image", "fp8", "tensorrt", (FileEntry("image.fp8.tensorrt.onnx", "ab" * 32),), 19, *SPECS)


def fp8_graph() -> onnx.ModelProto:
    """uint8 (batch, 4, 4, 3) -> two layers in FP8, with a bias and values moved between them -> (batch, 16)."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    constants = [helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], [0.0])]

    def node(operator: str, output: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def layer(name: str, tensor: str, inputs: int, scale: float) -> str:
        weight = rng.normal(0, 30, (inputs, 16)).astype(np.float32)
        constants.append(helper.make_tensor(f"{name}.weight", TensorProto.FLOAT8E4M3FN, weight.shape, weight.ravel()))
        constants.append(numpy_helper.from_array(np.full(16, 0.01, np.float32), f"{name}.weight.scale"))
        constants.append(numpy_helper.from_array(np.float32(scale), f"{name}.scale"))
        constants.append(numpy_helper.from_array(rng.normal(0, 1, 16).astype(np.float32), f"{name}.bias"))
        quantized = node("QuantizeLinear", f"{name}.q", tensor, f"{name}.scale", "zero")
        restored = node("DequantizeLinear", f"{name}.dq", quantized, f"{name}.scale", "zero")
        matrix = node("DequantizeLinear", f"{name}.w", f"{name}.weight", f"{name}.weight.scale", axis=1)
        return node("Add", f"{name}.add", node("MatMul", f"{name}.product", restored, matrix), f"{name}.bias")

    constants.append(numpy_helper.from_array(np.int64([-1, 48]), "rows"))
    moved = node("Transpose", "moved", node("Cast", "cast", "pixels", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    hidden = node("Relu", "relu", layer("first", node("Reshape", "flat", moved, "rows"), 48, 255 / 448))
    last = layer("second", hidden, 16, 1.0)
    nodes.append(helper.make_node("Identity", [last], ["image_embeds"]))
    ends = [
        helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 4, 4, 3]),
        helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["batch", 16]),
    ]
    graph = helper.make_graph(nodes, "fp8", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_onnx_runtime_rounds_as_the_reference_does(tmp_path: Path, batch: int) -> None:
    model, path = fp8_graph(), tmp_path / "image.fp8.tensorrt.onnx"
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    engine = OnnxRuntimeEngine(path, VARIANT, EngineOptions())
    assert (engine.device, engine.arithmetic) == ("cpu", "float8 weights, float32 arithmetic")
    pixels = np.random.default_rng(batch).integers(0, 256, (batch, 4, 4, 3), np.uint8)
    (expected,) = ReferenceEvaluator(model).run(None, {"pixels": pixels})
    np.testing.assert_allclose(engine(pixels), expected, rtol=1e-5, atol=1e-3)
    assert np.abs(expected).max() > 100, "far above the tolerance"


def test_openvino_is_not_asked(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"does not compute FP8 as the standard says .*: take onnxruntime"):
        OpenVinoEngine(tmp_path / "image.fp8.tensorrt.onnx", VARIANT, EngineOptions())
