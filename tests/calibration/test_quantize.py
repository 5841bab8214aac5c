"""Q/DQ graphs against integer arithmetic written down independently, and as ONNX Runtime executes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from clipedge.backends.onnxruntime import session_options
from clipedge.calibration.observers import Range
from clipedge.calibration.quantize import SCHEMES, activation_parameters, linear_layers, quantize, quantize_weight
from clipedge.calibration.ranges import cpu_session, observe
from clipedge.errors import UsageError


def linear_model(weight: np.ndarray, bias: np.ndarray, name: str = "fc") -> onnx.ModelProto:
    """x (batch, 4, in) -> MatMul -> Add -> y, as the towers write their linear layers."""
    inputs = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 4, weight.shape[0]])]
    outputs = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 4, weight.shape[1]])]
    nodes = [
        onnx.helper.make_node("MatMul", ["x", f"{name}.weight"], [name], name=name),
        onnx.helper.make_node("Add", [name, f"{name}.bias"], ["y"], name=f"{name}.add"),
    ]
    constants = [onnx.numpy_helper.from_array(v, f"{name}.{k}") for k, v in (("weight", weight), ("bias", bias))]
    graph = onnx.helper.make_graph(nodes, "linear", inputs, outputs, constants)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=10)


def random_linear() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(64, 48)).astype(np.float32) * np.exp(rng.normal(size=48)).astype(np.float32)
    return rng.normal(0.5, 1, (8, 4, 64)).astype(np.float32), weight, rng.normal(size=48).astype(np.float32)


def integer_linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, limits: Range, target: str) -> np.ndarray:
    """The quantized layer in int64, from the definition (Jacob et al. 2018, arXiv 1712.05877, section 2)."""
    scheme = SCHEMES[target]
    scale, zero_point = activation_parameters(limits, scheme)
    bounds = np.iinfo(scheme.dtype)
    q = np.clip(np.round(x / scale) + int(zero_point), bounds.min, bounds.max).astype(np.int64) - int(zero_point)
    rounded, weight_scale = quantize_weight(weight)
    return (q @ rounded.astype(np.int64)) * np.float64(scale) * weight_scale.astype(np.float64) + bias


@pytest.mark.parametrize("target", SCHEMES)
def test_graph_computes_the_integer_layer_in_every_engine(target: str) -> None:
    x, weight, bias = random_linear()
    limits = Range(-2.5, 3.5)
    model = quantize(linear_model(weight, bias), {"x": limits}, SCHEMES[target])
    expected = integer_linear(x, weight, bias, limits, target)
    (reference,) = ReferenceEvaluator(model).run(None, {"x": x})
    (found,) = cpu_session(model).run(None, {"x": x})
    # Values exactly between two steps may round either way; one step of one input is what that can move.
    tolerance = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(reference, expected, atol=tolerance)
    np.testing.assert_allclose(found, expected, atol=tolerance)


def test_onnx_runtime_fuses_the_layer_into_one_integer_product(tmp_path: Path) -> None:
    _, weight, bias = random_linear()
    model = quantize(linear_model(weight, bias), {"x": Range(-2, 3)}, SCHEMES["x86"])
    options = session_options()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    executed = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert "MatMulIntegerToFloat" in executed
    assert "MatMul" not in executed and "DequantizeLinear" not in executed


def test_full_range_products_do_not_saturate() -> None:
    """Pairs of 255 * 127 overflow 16 bits, which is what x86 without VNNI adds them in unless it is told not to."""
    weight = np.full((64, 8), 1.0, np.float32)
    model = quantize(linear_model(weight, np.zeros(8, np.float32)), {"x": Range(0, 1)}, SCHEMES["x86"])
    (found,) = cpu_session(model).run(None, {"x": np.ones((1, 4, 64), np.float32)})
    np.testing.assert_allclose(found, 64.0, rtol=1e-3)


def test_weight_rounding_error_is_at_most_half_a_step_per_channel() -> None:
    _, weight, _ = random_linear()
    weight[:, 3] = 0
    rounded, scale = quantize_weight(weight)
    assert rounded.min() >= -127
    assert (np.abs(rounded * scale - weight) <= scale / 2 * 1.0001).all()


@pytest.mark.parametrize("target", SCHEMES)
@pytest.mark.parametrize("limits", [Range(-1, 3), Range(0, 0), Range(-5, 0)])
def test_zero_is_exact(target: str, limits: Range) -> None:
    scale, zero_point = activation_parameters(limits, SCHEMES[target])
    bounds = np.iinfo(SCHEMES[target].dtype)
    assert scale > 0 and bounds.min <= int(zero_point) <= bounds.max


def test_layers_kept_in_float_are_untouched() -> None:
    x, weight, bias = random_linear()
    model = linear_model(weight, bias)
    kept = quantize(model, {}, SCHEMES["x86"], keep_float=["fc"])
    assert [node.op_type for node in kept.graph.node] == ["MatMul", "Add"]
    np.testing.assert_array_equal(cpu_session(kept).run(None, {"x": x})[0], cpu_session(model).run(None, {"x": x})[0])


def test_missing_range_names_the_layer() -> None:
    _, weight, bias = random_linear()
    with pytest.raises(UsageError, match="fc"):
        quantize(linear_model(weight, bias), {}, SCHEMES["x86"])


def test_the_projection_stays_float() -> None:
    _, weight, bias = random_linear()
    assert linear_layers(linear_model(weight, bias, "projection")) == []


def test_observe_sees_inner_tensors_of_every_batch() -> None:
    x, weight, bias = random_linear()
    histogram = observe(linear_model(weight, bias), ["fc"], [x[:3], x[3:]])["fc"]
    product = x @ weight
    assert histogram.low == pytest.approx(product.min(), rel=1e-5)
    assert histogram.high == pytest.approx(product.max(), rel=1e-5)
    assert histogram.counts.sum() == product.size


def test_observe_without_inputs_says_what_to_give() -> None:
    _, weight, bias = random_linear()
    with pytest.raises(UsageError, match="pictures"):
        observe(linear_model(weight, bias), ["fc"], [])
