"""What half precision cannot hold is found and named."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from clipedge.calibration.half.convert import to_half
from clipedge.calibration.half.evaluate import HalfEvaluator
from clipedge.calibration.half.magnitudes import magnitudes
from clipedge.calibration.half.plan import operations_in_float32
from clipedge.calibration.half.tensors import loses_channels

Floats = npt.NDArray[np.float32]


def two_layers(first: Floats, second: Floats, added: Floats) -> onnx.ModelProto:
    """x (n, 4) -> (x first + added) second, (n, 4)."""
    nodes = [
        helper.make_node("MatMul", ["x", "first.weight"], ["first"], name="first"),
        helper.make_node("Add", ["first", "added"], ["sum"], name="sum"),
        helper.make_node("MatMul", ["sum", "second.weight"], ["second"], name="second"),
        helper.make_node("Tanh", ["second"], ["tanh"], name="tanh"),
        helper.make_node("Identity", ["tanh"], ["y"], name="y"),
    ]
    constants = {"first.weight": first, "second.weight": second, "added": added}
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    initializers = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", sides[:1], sides[1:], initializers)
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 19)])


EYE, ZEROS = np.eye(4, dtype=np.float32), np.zeros(4, np.float32)
X = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (two_layers(EYE, EYE, ZEROS), {}),
        (
            two_layers(6000 * EYE, EYE / 6000, ZEROS),
            {"first": "first comes to 42,000", "sum": "sum comes to 42,000", "second": "sum comes to 42,000"},
        ),
        (two_layers(3000 * EYE, EYE / 3000, ZEROS), {}),  # half of the largest half is not reached
        (
            two_layers(EYE, EYE / 1e5, 1e5 * (1 - ZEROS)),
            {"sum": "sum comes to 100,007", "second": "sum comes to 100,007"},
        ),
        (two_layers(1e6 * EYE, ZEROS[:, None] * ZEROS, np.float32(0) * ZEROS), "weights too large"),
        (two_layers(EYE, EYE * [1, 1, 1, 1e-6], ZEROS), {}),  # products next to nothing
        (
            two_layers(EYE * [1, 1, 1, 3e3], EYE * [1, 1, 1, 3e-7], ZEROS),
            {"second": "second.weight has channels below the range of half precision"},
        ),
        (two_layers(EYE, EYE, np.array(1e-6)), {"sum": "added is 1e-06"}),
    ],
    ids=["tame", "large", "in range", "large sum", "weights", "small", "small weights", "small number"],
)
def test_each_has_its_reason(model: onnx.ModelProto, expected: dict[str, str] | str) -> None:
    found = operations_in_float32("text", model, magnitudes(model, [X]))
    assert {item.tower for item in found} <= {"text"}
    if isinstance(expected, str):
        assert [item.operation for item in found][:1] == ["first"]
        return
    assert {item.operation: item.reason for item in found} == expected
    outputs = HalfEvaluator(to_half(model, expected))(X)
    reference = np.tanh((X @ weights(model, "first") + weights(model, "added")) @ weights(model, "second"))
    np.testing.assert_allclose(outputs, reference, atol=2e-3)


def weights(model: onnx.ModelProto, name: str) -> npt.NDArray[np.float64]:
    stored = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    return stored.get(f"{name}.weight", stored.get(name)).astype(np.float64)  # type: ignore[union-attr]


def test_ordinary_weights_lose_no_channel_and_a_subnormal_channel_of_a_kernel_is_lost() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 0.02, (64, 48)).astype(np.float32)
    assert not loses_channels(weight, 100.0)
    kernels = rng.normal(0, 0.02, (8, 4, 3, 3)).astype(np.float32)
    assert not loses_channels(kernels, 100.0)
    for place in (np.s_[5], np.s_[:, 2]):
        small = kernels.copy()
        small[place] *= 1e-5
        assert loses_channels(small, 1000.0) and not loses_channels(small, 1.0)
