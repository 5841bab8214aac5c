"""1 x 1 convolutions become linear layers: the same function, and no more rearranging than it takes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from clipedge.calibration.linears import linear_layers
from clipedge.calibration.pointwise import pointwise_as_linear
from clipedge.calibration.storage import cpu_session

CHANNELS, SIZE = 16, 6


def graph_of(nodes: list[onnx.NodeProto], weights: dict[str, tuple[int, ...]], output: list[Any]) -> onnx.ModelProto:
    """x (batch, 16, 6, 6) -> y of the shape ``output``; random constants, and the number two."""
    rng = np.random.default_rng(0)
    constants = {name: rng.normal(size=shape).astype(np.float32) / 4 for name, shape in weights.items()}
    constants["two"] = np.array(2, np.float32)
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", CHANNELS, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, output)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


def conv(name: str, value: str, biased: bool = True, **attributes: Any) -> onnx.NodeProto:
    inputs = [value, f"{name}.weight", *([f"{name}.bias"] if biased else [])]
    return helper.make_node("Conv", inputs, [name if name != "last" else "y"], name=name, **attributes)


def run(model: onnx.ModelProto) -> Any:
    x = np.random.default_rng(1).normal(size=(3, CHANNELS, SIZE, SIZE)).astype(np.float32)
    return cpu_session(model).run(None, {"x": x})[0]


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_a_perceptron_at_each_position_is_one_run_of_nodes_on_rows() -> None:
    nodes = [
        conv("fc1", "x"),
        helper.make_node("Div", ["fc1", "two"], ["half"]),
        helper.make_node("Erf", ["half"], ["erf"]),
        helper.make_node("Mul", ["fc1", "erf"], ["curve"]),
        conv("fc2", "curve", biased=False),
        helper.make_node("Relu", ["x"], ["maps"]),
        helper.make_node("Add", ["maps", "fc2"], ["y"]),
    ]
    weights = {"fc1.weight": (40, CHANNELS, 1, 1), "fc1.bias": (40,), "fc2.weight": (CHANNELS, 40, 1, 1)}
    model = graph_of(nodes, weights, ["batch", CHANNELS, SIZE, SIZE])
    rewritten = pointwise_as_linear(model)
    expected = ["Transpose", "Reshape", "MatMul", "Add", "Div", "Erf", "Mul", "MatMul"]
    expected += ["Relu", "Reshape", "Transpose", "Add"]
    assert operators(rewritten) == expected
    assert [(layer.name, layer.weight, layer.bias) for layer in linear_layers(rewritten)] == [
        ("fc1", "fc1.weight", "fc1.bias"),
        ("fc2", "fc2.weight", None),
    ]
    np.testing.assert_allclose(run(rewritten), run(model), atol=1e-5)
    assert operators(model)[0] == "Conv", "the caller's model stays as it is"
    assert operators(pointwise_as_linear(rewritten)) == expected


def test_a_residual_stream_of_rows_stays_one() -> None:
    nodes = [
        conv("a", "x"),
        conv("b", "x"),
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["stream"]),
        conv("c", "stream"),
        helper.make_node("Add", ["stream", "c"], ["y"]),
    ]
    weights = {f"{name}.weight": (CHANNELS, CHANNELS, 1, 1) for name in "abc"}
    weights |= {f"{name}.bias": (CHANNELS,) for name in "abc"}
    model = graph_of(nodes, weights, ["batch", CHANNELS, SIZE, SIZE])
    rewritten = pointwise_as_linear(model)
    assert Counter(operators(rewritten))["Transpose"] == 2
    np.testing.assert_allclose(run(rewritten), run(model), atol=1e-5)


def test_who_reads_maps_gets_them() -> None:
    """A convolution with a kernel, and a product with one number for each channel, which rows have elsewhere."""
    nodes = [
        conv("a", "x"),
        helper.make_node("Mul", ["a", "gain"], ["scaled"]),
        conv("dense", "scaled", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["dense", "a"], ["y"]),
    ]
    weights = {"a.weight": (CHANNELS, CHANNELS, 1, 1), "a.bias": (CHANNELS,), "gain": (1, CHANNELS, 1, 1)}
    weights |= {"dense.weight": (CHANNELS, CHANNELS, 3, 3), "dense.bias": (CHANNELS,)}
    model = graph_of(nodes, weights, ["batch", CHANNELS, SIZE, SIZE])
    rewritten = pointwise_as_linear(model)
    assert operators(rewritten) == [
        "Transpose", "Reshape", "MatMul", "Add", "Reshape", "Transpose", "Mul", "Conv", "Add",
    ]  # fmt: skip
    np.testing.assert_allclose(run(rewritten), run(model), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "size", "attributes"),
    [
        ((CHANNELS, CHANNELS, 3, 3), SIZE - 2, {}),
        ((CHANNELS, CHANNELS, 1, 1), SIZE // 2, {"strides": [2, 2]}),
        ((CHANNELS, CHANNELS, 1, 1), SIZE + 2, {"pads": [1, 1, 1, 1]}),
        ((CHANNELS, 1, 1, 1), SIZE, {"group": CHANNELS}),
    ],
)
def test_other_convolutions_stay(shape: tuple[int, ...], size: int, attributes: dict[str, Any]) -> None:
    weights = {"last.weight": shape, "last.bias": (CHANNELS,)}
    model = graph_of([conv("last", "x", **attributes)], weights, ["batch", CHANNELS, size, size])
    assert pointwise_as_linear(model) is model


def test_a_convolution_of_one_position_stays() -> None:
    """Squeeze-and-excitation, for one: there is next to nothing to compute."""
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["means"]), conv("last", "means")]
    weights = {"last.weight": (8, CHANNELS, 1, 1), "last.bias": (8,)}
    model = graph_of(nodes, weights, ["batch", 8, 1, 1])
    assert pointwise_as_linear(model) is model


def test_a_transformer_is_returned_as_it_is(tiny_tower: onnx.ModelProto) -> None:
    assert pointwise_as_linear(tiny_tower) is tiny_tower


def test_maps_of_unknown_size_stay() -> None:
    weights = {"last.weight": (CHANNELS, CHANNELS, 1, 1), "last.bias": (CHANNELS,)}
    model = graph_of([conv("last", "x")], weights, ["batch", CHANNELS, "height", "width"])
    for dim, name in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], ("height", "width"), strict=True):
        dim.dim_param = name
    assert pointwise_as_linear(model) is model


def test_a_network_computes_the_same(tiny_network: Any) -> None:
    pixels = {"pixels": tiny_network.pictures[:5]}
    rewritten = pointwise_as_linear(tiny_network.model)
    onnx.checker.check_model(rewritten, full_check=True)
    (expected,), (found,) = (cpu_session(model).run(None, pixels) for model in (tiny_network.model, rewritten))
    np.testing.assert_allclose(found, expected, atol=2e-6)
