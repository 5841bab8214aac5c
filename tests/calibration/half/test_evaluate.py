"""The evaluator computes in half precision, which engines on the CPU do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from clipedge.calibration.half.convert import to_half
from clipedge.calibration.half.evaluate import HalfEvaluator
from clipedge.calibration.half.pixels import scaled_pixels
from clipedge.calibration.storage import cpu_session


def perceptron(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> onnx.ModelProto:
    """x -> second * relu(first * x), in half precision between float32 edges."""
    constants = [numpy_helper.from_array(value, name) for name, value in (("first", first), ("second", second))]
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "second"], ["large"]),
        helper.make_node("Identity", ["large"], ["y"]),
    ]
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64]) for name in "xy"]
    graph = helper.make_graph(nodes, "graph", sides[:1], sides[1:], constants)
    return to_half(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 19)]))


def test_it_is_onnxs_own_evaluator_only_faster(family: Any) -> None:
    """NumPy sums products of halves in float32, too, in another order: now and then a result rounds the other way."""
    model = to_half(scaled_pixels(family.model, family.pixel_mean))
    inputs = family.inputs[:2]
    with np.errstate(all="ignore"):
        (expected,) = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: inputs})
    np.testing.assert_allclose(HalfEvaluator(model)(inputs), expected, atol=4e-3)


def test_products_are_those_of_torch_in_half_precision() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(64, 64)).astype(np.float32) / 8 for _ in range(2))
    x = rng.normal(size=(16, 64)).astype(np.float32)
    halves = [torch.from_numpy(value).half() for value in (x, first, second)]
    expected = ((halves[0] @ halves[1]).relu() @ halves[2]).float().numpy()
    found = HalfEvaluator(perceptron(first, second))(x)
    np.testing.assert_allclose(found, expected, atol=2**-9)
    assert (found == found.astype(np.float16)).all()


def test_what_overflows_shows_here_and_hides_in_the_engine() -> None:
    """65504 is the largest half: 64 products of 64 x 32 are 131072, which divided by as much is 1."""
    model = perceptron(np.full((64, 64), 32, np.float32), np.full((64, 64), 1 / 64, np.float32))
    x = np.full((1, 64), 64, np.float32)
    assert np.isposinf(HalfEvaluator(model)(x)).all()
    assert np.isfinite(cpu_session(model).run(None, {"x": x})[0]).all()


def test_batches_of_any_size_give_the_same_up_to_rounding(demo: Any) -> None:
    evaluator = HalfEvaluator(to_half(scaled_pixels(demo.model, demo.pixel_mean)))
    alone = np.concatenate([evaluator(demo.inputs[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(evaluator(demo.inputs[:4]), alone, atol=2e-3)
    assert alone.dtype == np.float32
