"""What the engines really execute for an INT8 and a float32 bundle on the processor at hand, and in which numbers."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from clipedge.backends import BACKENDS, EngineOptions, open_engine
from clipedge.backends.cpu import has_half_products, products_saturate
from clipedge.backends.onnxruntime import OnnxRuntimeEngine, session_options
from clipedge.backends.openvino import OpenVinoEngine
from clipedge.bundle import open_bundle
from clipedge.calibration.half.convert import to_half
from clipedge.errors import BackendError
from clipedge.manifest import FileEntry, TensorSpec, Variant

BYTES = {openvino.Type.u8, openvino.Type.i8}
FLOATS = (openvino.Type.f32, openvino.Type.f32)


def image_tower(folder: Path) -> tuple[Path, Variant]:
    bundle = open_bundle(folder)
    variant = next(variant for variant in bundle.manifest.variants if variant.tower == "image")
    return bundle.checked_variant(variant), variant


def linear_layers(path: Path) -> int:
    """Products with a constant weight, int8 or float."""
    model = onnx.load(path)
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {
        node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }
    return sum(node.op_type in ("MatMul", "Gemm") and node.input[1] in constants for node in model.graph.node)


@pytest.mark.parametrize("tower", ["image", "text"])
def test_onnx_runtime_runs_int8_layers_as_one_integer_product_each(
    demo_bundle: Path, tmp_path: Path, tower: str
) -> None:
    (path,) = demo_bundle.glob(f"{tower}.*.onnx")
    options = session_options()
    options.optimized_model_filepath = str(tmp_path / "executed.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    executed = Counter(node.op_type for node in onnx.load(tmp_path / "executed.onnx").graph.node)
    attention = sum(node.op_type == "Softmax" for node in onnx.load(path).graph.node)
    assert executed["MatMulIntegerToFloat"] + executed["QGemm"] == linear_layers(path) - 1, executed
    assert executed["MatMul"] + executed["FusedMatMul"] + executed["Gemm"] == 2 * attention + 1, "and the projection"


def fully_connected(engine: OpenVinoEngine) -> list[tuple[openvino.Type, openvino.Type]]:
    """(numbers that go in, numbers of the weights) of the linear layers that OpenVINO executes."""
    return [
        (node.input(0).get_element_type(), node.input(1).get_element_type())
        for node in engine._compiled.get_runtime_model().get_ops()
        if node.get_rt_info()["layerType"].value == "FullyConnected"
    ]


@pytest.mark.parametrize("saturates", [products_saturate(), True, False], ids=["here", "no VNNI", "VNNI"])
def test_openvino_runs_int8_on_integer_kernels_where_they_are_right(
    demo_bundle: Path, monkeypatch: pytest.MonkeyPatch, saturates: bool
) -> None:
    monkeypatch.setattr("clipedge.backends.openvino.products_saturate", lambda: saturates)
    path, variant = image_tower(demo_bundle)
    engine = OpenVinoEngine(path, variant, EngineOptions())
    layers = fully_connected(engine)
    assert len(layers) == linear_layers(path)
    if saturates:
        assert engine.arithmetic == "int8 weights, float32 arithmetic (no VNNI)"
        assert set(layers) == {FLOATS}
    else:
        assert engine.arithmetic == "int8"
        assert sum(set(layer) <= BYTES for layer in layers) == len(layers) - 1
        assert layers.count(FLOATS) == 1, "the projection"


def test_openvino_computes_float32_in_float32(demo_bundle_fp32: Path) -> None:
    path, variant = image_tower(demo_bundle_fp32)
    engine = OpenVinoEngine(path, variant, EngineOptions())
    assert engine.arithmetic == "float32"
    assert fully_connected(engine) == linear_layers(path) * [FLOATS], "no bfloat16, no quantizing on the fly"


def test_float16_is_computed_in_float32_and_said_to_be(demo_bundle_fp32: Path, tmp_path: Path) -> None:
    path, variant = image_tower(demo_bundle_fp32)
    onnx.save(to_half(onnx.load(path)), tmp_path / "half.onnx")
    half = dataclasses.replace(variant, precision="fp16")
    engine = OpenVinoEngine(tmp_path / "half.onnx", half, EngineOptions())
    assert fully_connected(engine) == linear_layers(path) * [FLOATS]
    assert engine.arithmetic == "float16 weights, float32 arithmetic"
    options = session_options()
    options.optimized_model_filepath = str(tmp_path / "executed.onnx")
    onnxruntime.InferenceSession(str(tmp_path / "half.onnx"), options, providers=["CPUExecutionProvider"])
    executed = onnx.load(tmp_path / "executed.onnx")
    types = {item.name: item.data_type for item in executed.graph.initializer}
    products = [node for node in executed.graph.node if node.op_type in ("MatMul", "FusedMatMul", "Gemm")]
    weights = {types[name] for node in products for name in node.input if name in types}
    if not has_half_products():
        assert len(products) >= linear_layers(path) and weights == {onnx.TensorProto.FLOAT}
        found = OnnxRuntimeEngine(tmp_path / "half.onnx", half, EngineOptions()).arithmetic
        assert found == "float16 weights, float32 arithmetic"


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "flags : avx512_fp16", False),
        ("aarch64", "Features : fp asimd asimdhp", True),
        ("aarch64", "Features : fp asimd", False),
        ("arm64", None, True),
    ],
)
def test_which_processors_multiply_halves(
    monkeypatch: pytest.MonkeyPatch, machine: str, flags: str | None, expected: bool
) -> None:
    def read_text(path: Path, encoding: str) -> str:
        if flags is None:
            raise FileNotFoundError(path)
        return flags

    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(Path, "read_text", read_text)
    assert has_half_products() == expected


def saturating_graph(path: Path) -> Variant:
    """(N, 8, 64) -> one linear layer of full-range products, whose pairs (255 * 127 * 2) do not fit into 16 bits."""
    scale, shape = np.float32(1 / 255), ["batch", 8, 64]
    constants = {
        "a.scale": scale, "a.zero_point": np.uint8(0), "w": np.full((64, 64), 127, np.int8),
        "w.scale": np.full(64, 1 / 127, np.float32), "w.zero_point": np.zeros(64, np.int8),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "a.scale", "a.zero_point"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "a.scale", "a.zero_point"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "w.scale", "w.zero_point"], ["dw"], axis=1),
        helper.make_node("MatMul", ["d", "dw"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "saturating",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 19)]), path)
    specs = [(TensorSpec(name, "float32", ("batch", 8, 64)),) for name in "xy"]
    return Variant("image", "int8", "any", (FileEntry(path.name, "0" * 64),), 19, *specs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_full_range_products_do_not_saturate(tmp_path: Path, backend: str) -> None:
    variant = saturating_graph(tmp_path / "graph.onnx")
    x = np.random.default_rng(0).uniform(0.9, 1, (3, 8, 64)).astype(np.float32)
    (expected,) = ReferenceEvaluator(str(tmp_path / "graph.onnx")).run(None, {"x": x})
    found = open_engine(tmp_path / "graph.onnx", variant, backend)(x)
    np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_a_graph_that_cannot_be_expanded_to_float_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here something else reads the rounded bytes, so the rounding cannot be skipped."""
    monkeypatch.setattr("clipedge.backends.openvino.products_saturate", lambda: True)
    variant = saturating_graph(tmp_path / "graph.onnx")
    model = onnx.load(tmp_path / "graph.onnx")
    model.graph.node.append(helper.make_node("Cast", ["q"], ["bytes"], to=onnx.TensorProto.FLOAT))
    model.graph.output.append(helper.make_tensor_value_info("bytes", onnx.TensorProto.FLOAT, ["batch", 8, 64]))
    onnx.save(model, tmp_path / "graph.onnx")
    with pytest.raises(BackendError, match=r"refuses graph\.onnx: .* is no Quantize/Dequantize pair"):
        open_engine(tmp_path / "graph.onnx", variant, "openvino")
