"""Q/DQ graphs against integer arithmetic written down independently, and as ONNX Runtime executes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from clipedge.backends.onnxruntime import session_options
from clipedge.calibration.calibrate import Calibration, LayerCalibration, calibrate, observe_layers
from clipedge.calibration.observers import Range
from clipedge.calibration.quantize import quantize
from clipedge.calibration.rounding import SCHEMES, activation_parameters, quantize_weight
from clipedge.calibration.storage import cpu_session
from clipedge.errors import UsageError
from clipedge.export.tensorrt_rules import broken_rules
from clipedge.selftest import centred_cosines

Floats = npt.NDArray[np.float32]


def model_of(nodes: list[onnx.NodeProto], constants: dict[str, Floats], inputs: int, outputs: int) -> onnx.ModelProto:
    """x (rows, inputs) -> y (rows, outputs)."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["rows", inputs])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["rows", outputs])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


def linear_model(weight: Floats, bias: Floats | None) -> onnx.ModelProto:
    """A layer called fc, as the towers write theirs."""
    constants = {"fc.weight": weight} | ({} if bias is None else {"fc.bias": bias})
    nodes = [helper.make_node("MatMul", ["x", "fc.weight"], ["y" if bias is None else "fc"], name="fc")]
    if bias is not None:
        nodes.append(helper.make_node("Add", ["fc", "fc.bias"], ["y"], name="fc.add"))
    return model_of(nodes, constants, *weight.shape)


def calibration_of(limits: Range, shift: Floats | None = None, *, layer: str = "fc") -> Calibration:
    none = np.zeros(1, np.float32)
    return Calibration({layer: LayerCalibration(limits, "minmax", 0.0, none if shift is None else shift, 30.0, 4)}, {})


def random_linear() -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(64, 48)).astype(np.float32) * np.exp(rng.normal(size=48)).astype(np.float32)
    return rng.normal(0.5, 1, (32, 64)).astype(np.float32), weight, rng.normal(size=48).astype(np.float32)


def integer_linear(x: Floats, weight: Floats, bias: Floats, limits: Range, target: str) -> npt.NDArray[np.float64]:
    """The quantized layer in int64, from the definition (Jacob et al. 2018, arXiv 1712.05877, section 2)."""
    scheme = SCHEMES[target]
    scale, zero_point = activation_parameters(limits, scheme)
    bounds = np.iinfo(scheme.dtype)
    q = np.clip(np.round(x / scale) + int(zero_point), bounds.min, bounds.max).astype(np.int64) - int(zero_point)
    rounded, weight_scale = quantize_weight(weight, scheme.weight_limit)
    steps = np.float64(scale) * weight_scale.astype(np.float64)
    return (q @ rounded.astype(np.int64) + np.round(bias / steps).astype(np.int64)) * steps


def run(model: onnx.ModelProto, x: Floats) -> Floats:
    found: Floats = cpu_session(model).run(None, {"x": x})[0]
    return found


@pytest.mark.parametrize("target", SCHEMES)
@pytest.mark.parametrize("biased", [True, False])
def test_graph_computes_the_integer_layer_in_every_engine(target: str, biased: bool) -> None:
    """The correction of the mean error is part of the bias, and is one where there was none."""
    x, weight, bias = random_linear()
    limits, shift = Range(-2.5, 3.5), np.linspace(-1, 1, 48, dtype=np.float32)
    float_model = linear_model(weight, bias if biased else None)
    model = quantize(float_model, calibration_of(limits, shift), SCHEMES[target])
    expected = integer_linear(x, weight, shift + bias * biased, limits, target)
    (reference,) = ReferenceEvaluator(model).run(None, {"x": x})
    # Values exactly between two steps may round either way; one step of one input is what that can move.
    tolerance = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(reference, expected, atol=tolerance)
    np.testing.assert_allclose(run(model, x), expected, atol=tolerance)


@pytest.mark.parametrize("target", ["x86", "arm"])
@pytest.mark.parametrize("biased", [True, False])
def test_onnx_runtime_fuses_the_layer_into_one_integer_product(tmp_path: Path, target: Any, biased: bool) -> None:
    _, weight, bias = random_linear()
    model = quantize(linear_model(weight, bias if biased else None), calibration_of(Range(-2, 3)), SCHEMES[target])
    options = session_options(target=target)
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    executed = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert len(executed) == 2 and executed[0] == "QuantizeLinear" and executed[1] in ("QGemm", "MatMulIntegerToFloat")


def extremes(target: str) -> tuple[onnx.ModelProto, Floats, npt.NDArray[np.int64]]:
    """A layer whose steps are powers of two, inputs at the ends of their range, and what comes out exactly."""
    scheme = SCHEMES[target]
    bounds = np.iinfo(scheme.dtype)
    lowest = 0 if target == "x86" else -127
    rng = np.random.default_rng(0)
    integers = rng.choice([-scheme.weight_limit, scheme.weight_limit], (512, 64))
    integers[:, 0], integers[:, 1] = scheme.weight_limit, -scheme.weight_limit
    x = np.concatenate([np.full((2, 512), bounds.max), rng.choice([lowest, bounds.max], (30, 512))])
    model = quantize(linear_model(integers.astype(np.float32), None), calibration_of(Range(lowest, bounds.max)), scheme)
    return model, x.astype(np.float32), x @ integers


def test_x86_is_exact_at_the_extremes_with_the_engines_fastest_kernels() -> None:
    """All inputs 255, all weights 64 or -64, ONNX Runtime as it comes: nothing saturates, on any CPU."""
    model, x, expected = extremes("x86")
    stored = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    assert np.abs(stored["fc.weight"].astype(int)).max() == 64
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], expected)


def test_arm_is_exact_at_the_extremes_with_the_settings_for_this_cpu() -> None:
    """Weights of 127 could saturate on x86 without VNNI; the runtime's settings pick kernels that do not."""
    model, x, expected = extremes("arm")
    options = session_options(target="arm")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], expected)


@pytest.mark.parametrize("target", SCHEMES)
def test_a_bias_too_large_for_its_steps_stays_right(target: str) -> None:
    """300 in steps of 1e-12 does not fit into 32 bits: such a channel's weights get larger steps. A channel without
    weights has no steps of its own; it gets such as suit the bias."""
    x, weight, bias = random_linear()
    weight[:, 5] *= 1e-9
    weight[:, 6:8] = 0
    bias[5:8] = 300, -300, 1e-3
    model = quantize(linear_model(weight, bias), calibration_of(Range(-2.5, 3.5)), SCHEMES[target])
    found = run(model, x)
    np.testing.assert_allclose(found[:, 5:8], np.broadcast_to(bias[5:8], (32, 3)), rtol=1e-6)
    np.testing.assert_allclose(ReferenceEvaluator(model).run(None, {"x": x})[0], found, atol=1e-3)
    expected = integer_linear(x, weight, bias, Range(-2.5, 3.5), target)
    np.testing.assert_allclose(found[:, :5], expected[:, :5], atol=1e-4 * np.abs(expected).max())


def test_layers_that_read_one_tensor_share_a_pair_only_with_the_same_range() -> None:
    x, weight, _ = random_linear()
    nodes = [
        helper.make_node("MatMul", ["x", "a.weight"], ["a"], name="a"),
        helper.make_node("MatMul", ["x", "b.weight"], ["b"], name="b"),
        helper.make_node("Sub", ["a", "b"], ["y"]),
    ]
    float_model = model_of(nodes, {"a.weight": weight, "b.weight": 2 * weight}, 64, 48)
    none = np.zeros(48, np.float32)
    for second, pairs in ((Range(-2.5, 3.5), 1), (Range(-1, 1), 2)):
        ranges = {"a": Range(-2.5, 3.5), "b": second}
        layers = {name: calibration_of(limits, layer=name).layers[name] for name, limits in ranges.items()}
        model = quantize(float_model, Calibration(layers, {}), SCHEMES["x86"])
        assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) == pairs
        expected = integer_linear(x, weight, none, ranges["a"], "x86") - integer_linear(
            x, 2 * weight, none, second, "x86"
        )
        np.testing.assert_allclose(run(model, x), expected, atol=1e-4 * np.abs(expected).max())


def test_layers_kept_in_float_are_untouched() -> None:
    x, weight, bias = random_linear()
    model = linear_model(weight, bias)
    kept = quantize(model, Calibration({}, {}), SCHEMES["x86"], keep_float=["fc"])
    assert [node.op_type for node in kept.graph.node] == ["MatMul", "Add"]
    np.testing.assert_array_equal(run(kept, x), run(model, x))


def test_a_layer_without_calibration_is_named() -> None:
    _, weight, bias = random_linear()
    with pytest.raises(UsageError, match="nothing for layer fc; calibrate"):
        quantize(linear_model(weight, bias), Calibration({}, {}), SCHEMES["x86"])


def test_scales_are_folded_also_around_layers_in_float(demo_tower: Any) -> None:
    """With every layer in float, what is left of a calibration are its scales, and those change no answer."""
    calibration = demo_tower.calibrations["x86"]
    assert calibration.scales
    kept = quantize(demo_tower.model, calibration, SCHEMES["x86"], demo_tower.pixel_mean, list(calibration.layers))
    alone = quantize(
        demo_tower.model, Calibration({}, {}), SCHEMES["x86"], demo_tower.pixel_mean, list(calibration.layers)
    )
    pixels = {"pixels": demo_tower.pictures[:8]}
    (found,), (expected,) = (cpu_session(model).run(None, pixels) for model in (kept, alone))
    np.testing.assert_allclose(found, expected, atol=5e-6)
    stored = [{item.name: numpy_helper.to_array(item) for item in model.graph.initializer} for model in (kept, alone)]
    norm = next(place for place in calibration.scales if "norm" in place)
    np.testing.assert_allclose(
        stored[0][f"{norm}.weight"] * calibration.scales[norm], stored[1][f"{norm}.weight"], rtol=1e-5
    )


@pytest.mark.parametrize("target", SCHEMES)
def test_a_towers_int8_weights_keep_to_their_targets_limit(demo_tower: Any, target: str) -> None:
    model = quantize(demo_tower.model, demo_tower.calibrations[target], SCHEMES[target], demo_tower.pixel_mean)
    layers = demo_tower.calibrations[target].layers
    weights = [
        numpy_helper.to_array(item)
        for item in model.graph.initializer
        if item.data_type == onnx.TensorProto.INT8 and len(item.dims) == 2
    ]
    assert len(weights) == len(layers) + 1, "and the patch embedding"
    assert {int(np.abs(weight.astype(int)).max()) for weight in weights} == {SCHEMES[target].weight_limit}


def test_for_tensorrt_every_zero_point_is_zero_and_nothing_but_inputs_and_weights_is_an_integer(
    tiny_tower: onnx.ModelProto, tiny_inputs: dict[str, npt.NDArray[np.generic]]
) -> None:
    (inputs,) = tiny_inputs.values()
    observed = observe_layers(tiny_tower, [inputs], lambda batch: np.ones((len(batch), 1)))
    scheme = SCHEMES["tensorrt"]
    model = quantize(tiny_tower, calibrate(tiny_tower, observed, scheme), scheme, (127.0,) * 3)
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    readers = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert readers and not any(constants[node.input[2]].any() for node in readers)
    integers = {name for name, value in constants.items() if value.dtype.kind == "i" and value.dtype.itemsize < 8}
    assert {name.removesuffix(".zero_point").rpartition(".")[2] for name in integers} <= {"weight", "input", "signed"}
    products = [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1].endswith("dequantized")]
    assert {node.name for node in products} >= {
        "blocks.0.attn.qkv",
        "blocks.0.attn.out",
        "blocks.0.fc1",
        "blocks.0.fc2",
    }
    (exact,), (found,) = (cpu_session(graph).run(None, tiny_inputs) for graph in (tiny_tower, model))
    assert np.median(centred_cosines(exact, found, exact.mean(axis=0))) > 0.99
    assert broken_rules(model) == []


@pytest.mark.parametrize("target", SCHEMES)
def test_a_networks_graph_keeps_tensorrts_rules_if_it_is_made_for_it(tiny_network: Any, target: str) -> None:
    model = quantize(tiny_network.model, tiny_network.calibrations[target], SCHEMES[target], (127.0,) * 3)
    found = {finding.rule for finding in broken_rules(model)}
    expected = {"tensorrt": set(), "x86": {"quantized-type", "zero-point"}, "arm": {"quantized-type"}}
    assert found >= expected[target] and (target != "tensorrt" or not found)
