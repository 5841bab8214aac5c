"""Convolutions in INT8: against integer arithmetic by torch, as ONNX Runtime executes them, and against brute force."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from clipedge.backends.onnxruntime import session_options
from clipedge.calibration.calibrate import Calibration, LayerCalibration, calibrate, observe_layers
from clipedge.calibration.convolutions import MIN_INPUTS, convolutions
from clipedge.calibration.layers import calibrated_layers
from clipedge.calibration.observers import OBSERVERS, Range
from clipedge.calibration.patches import Patches
from clipedge.calibration.pointwise import pointwise_as_linear
from clipedge.calibration.quantize import quantize
from clipedge.calibration.rounding import SCHEMES, activation_parameters, quantize_weight, round_trip
from clipedge.calibration.storage import cpu_session

Floats = npt.NDArray[np.float32]
INPUTS, OUTPUTS, SIZE = 16, 24, 7
INTEGER_OUTPUTS = [target for target, scheme in SCHEMES.items() if not scheme.only_inputs]
GEOMETRIES: dict[str, dict[str, Any]] = {
    "dense": {"pads": [1, 1, 1, 1]},
    "unpadded": {},
    "strided": {"strides": [2, 2], "pads": [1, 1, 1, 1]},
    "pointwise and strided": {"kernel": 1, "strides": [2, 2]},
    "dilated": {"dilations": [2, 2], "pads": [2, 2, 2, 2]},
    "unevenly padded": {"pads": [0, 1, 2, 1]},
}


def model_of(nodes: list[onnx.NodeProto], constants: dict[str, Floats]) -> onnx.ModelProto:
    """x (batch, 16, 7, 7) -> y (batch, channels, height, width)."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", INPUTS, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", "channels", "height", "width"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


def random_constants(name: str, *shape: int, biased: bool = True) -> dict[str, Floats]:
    """A weight whose output channels differ in size, and a bias."""
    rng = np.random.default_rng(0)
    spread = np.exp(rng.normal(size=(shape[0], 1, 1, 1)))
    weight = rng.normal(size=shape) * spread / np.sqrt(np.prod(shape[1:]))
    constants = {f"{name}.weight": weight.astype(np.float32)}
    return constants | ({f"{name}.bias": rng.normal(size=shape[0]).astype(np.float32)} if biased else {})


def single(geometry: str, relu: bool = False, biased: bool = True) -> onnx.ModelProto:
    """A convolution ``conv``, as the towers write theirs, and a ReLU if wanted."""
    attributes = dict(GEOMETRIES[geometry])
    kernel = attributes.pop("kernel", 3)
    constants = random_constants("conv", OUTPUTS, INPUTS, kernel, kernel, biased=biased)
    nodes = [helper.make_node("Conv", ["x", *constants], ["conv" if relu else "y"], name="conv", **attributes)]
    if relu:
        nodes.append(helper.make_node("Relu", ["conv"], ["y"], name="conv.relu"))
    return model_of(nodes, constants)


def maps(count: int, seed: int) -> Floats:
    return np.random.default_rng(seed).normal(0.5, 1, (count, INPUTS, SIZE, SIZE)).astype(np.float32)


def float_conv(x: Floats, weight: npt.NDArray[Any], geometry: str) -> npt.NDArray[np.float64]:
    """In float64, which is exact for integers of this size."""
    attributes = GEOMETRIES[geometry]
    top, left, bottom, right = attributes.get("pads", [0] * 4)
    padded = F.pad(torch.tensor(x, dtype=torch.float64), (left, right, top, bottom))
    options = {"stride": attributes.get("strides", 1), "dilation": attributes.get("dilations", 1)}
    result: npt.NDArray[np.float64] = F.conv2d(padded, torch.tensor(weight, dtype=torch.float64), **options).numpy()
    return result


def integers(x: npt.NDArray[Any], limits: Range, target: str) -> tuple[npt.NDArray[np.float64], float]:
    """Steps from zero, and the step (Jacob et al. 2018, arXiv 1712.05877, section 2)."""
    scheme = SCHEMES[target]
    scale, zero_point = activation_parameters(limits, scheme)
    bounds = np.iinfo(scheme.dtype)
    return np.clip(np.round(x / scale), bounds.min - int(zero_point), bounds.max - int(zero_point)), float(scale)


def integer_conv(
    x: Floats, model: onnx.ModelProto, geometry: str, shift: Floats, limits: tuple[Range, Range], target: str
) -> tuple[npt.NDArray[np.float64], float]:
    """The quantized layer and its output's step. A range that begins at zero has the ReLU in it."""
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    weight = constants["conv.weight"]
    q, step = integers(x, limits[0], target)
    rounded, weight_step = quantize_weight(weight.reshape(OUTPUTS, -1).T, SCHEMES[target].weight_limit)
    steps = step * weight_step.astype(np.float64)
    bias = np.round((shift + constants.get("conv.bias", 0)) / steps)
    sums = float_conv(q, rounded.T.reshape(weight.shape), geometry) + bias[:, None, None]
    output, output_step = integers(sums * steps[:, None, None], limits[1], target)
    return output * output_step, output_step


def calibration_of(limits: Range, output: Range, shift: Floats | None = None, name: str = "conv") -> Calibration:
    shift = np.zeros(1, np.float32) if shift is None else shift
    return Calibration({name: LayerCalibration(limits, "minmax", 0.0, shift, 30.0, 4, output)}, {})


def executed(model: onnx.ModelProto, folder: Path, target: Any = "x86") -> list[str]:
    options = session_options(target=target)
    options.optimized_model_filepath = str(folder / "executed.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "executed.onnx").graph.node]


def test_dense_convolutions_are_found_with_their_geometry_and_relu() -> None:
    for geometry, attributes in GEOMETRIES.items():
        for relu in (False, True):
            (layer,) = convolutions(single(geometry, relu, biased=relu))
            assert (layer.name, layer.activation, layer.output) == ("conv", "x", "y")
            assert (layer.bias, layer.product) == (("conv.bias", "conv") if relu else (None, "y"))
            kernel = (attributes.get("kernel", 3),) * 2
            wanted = {key: tuple(value) for key, value in attributes.items() if key != "kernel"}
            assert layer.observed == Patches("x", kernel, **wanted)


def test_convolutions_of_few_channels_and_of_groups_are_left_in_float() -> None:
    for inputs, group in ((MIN_INPUTS - 1, 1), (MIN_INPUTS, 2), (1, INPUTS)):
        constants = random_constants("conv", INPUTS, inputs, 3, 3)
        model = model_of([helper.make_node("Conv", ["x", *constants], ["y"], name="conv", group=group)], constants)
        assert convolutions(model) == [] == calibrated_layers(model)


def test_padding_that_depends_on_the_maps_is_left_in_float() -> None:
    for padding, found in (("SAME_UPPER", 0), ("NOTSET", 1)):
        model = single("unpadded")
        model.graph.node[0].attribute.append(helper.make_attribute("auto_pad", padding))
        assert len(convolutions(model)) == found


def test_a_relu_is_no_part_of_a_convolution_that_somebody_else_reads() -> None:
    model = single("dense", relu=True)
    model.graph.node.append(helper.make_node("Neg", ["conv"], ["spy"]))
    assert convolutions(model)[0].output == "conv"


@pytest.mark.parametrize("target", INTEGER_OUTPUTS)
@pytest.mark.parametrize("relu", [True, False], ids=["relu", "bare"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_graph_computes_the_integer_convolution_in_every_engine(
    tmp_path: Path, target: str, relu: bool, geometry: str
) -> None:
    """The correction of the mean error is part of the bias, and is one where there was none."""
    float_model, x = single(geometry, relu, biased=relu), maps(4, 1)
    limits = Range(-2.5, 3.5), Range(0 if relu else -2.0, 4.0)
    shift = np.linspace(-1, 1, OUTPUTS, dtype=np.float32)
    model = quantize(float_model, calibration_of(*limits, shift), SCHEMES[target])
    expected, step = integer_conv(x, float_model, geometry, shift, limits, target)
    (reference,) = ReferenceEvaluator(model).run(None, {"x": x})
    found = onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(target=target), providers=["CPUExecutionProvider"]
    ).run(None, {"x": x})[0]
    for result in (reference, found):
        # Sums between two steps may round either way, and engines requantize in float32.
        np.testing.assert_allclose(result, expected, atol=1.01 * step)
        assert (np.abs(result - expected) > 0.01 * step).mean() < 0.01
    operators = [name for name in executed(model, tmp_path, target) if name != "Transpose"]
    assert operators == ["QuantizeLinear", "QLinearConv", "DequantizeLinear"], "with the ReLU inside"


@pytest.mark.parametrize("relu", [True, False], ids=["relu", "bare"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_for_tensorrt_input_and_weights_are_integers_and_the_rest_is_float(relu: bool, geometry: str) -> None:
    float_model, x = single(geometry, relu, biased=relu), maps(4, 1)
    limits, shift = Range(-2.5, 3.5), np.linspace(-1, 1, OUTPUTS, dtype=np.float32)
    model = quantize(float_model, calibration_of(limits, Range(0, 0.1), shift), SCHEMES["tensorrt"])
    constants = {item.name: numpy_helper.to_array(item) for item in float_model.graph.initializer}
    weight = constants["conv.weight"]
    q, step = integers(x, limits, "tensorrt")
    rounded, weight_step = quantize_weight(weight.reshape(OUTPUTS, -1).T)
    sums = float_conv(q, rounded.T.reshape(weight.shape), geometry) * (step * weight_step[:, None, None])
    expected = sums + (shift + constants.get("conv.bias", 0))[:, None, None]
    expected = np.maximum(expected, 0) if relu else expected
    for result in (ReferenceEvaluator(model).run(None, {"x": x})[0], cpu_session(model).run(None, {"x": x})[0]):
        np.testing.assert_allclose(result, expected, atol=1e-4 * np.abs(expected).max())
    bias = next(node.input[2] for node in model.graph.node if node.op_type == "Conv")
    assert next(item for item in model.graph.initializer if item.name == bias).data_type == onnx.TensorProto.FLOAT


def chain() -> onnx.ModelProto:
    """conv, ReLU, conv2, ReLU; what is between them is read by a product, too."""
    constants = random_constants("conv", OUTPUTS, INPUTS, 3, 3) | random_constants("conv2", INPUTS, OUTPUTS, 3, 3)
    names = list(constants)
    nodes = [
        helper.make_node("Conv", ["x", *names[:2]], ["conv"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"], name="conv.relu"),
        helper.make_node("Conv", ["relu", *names[2:]], ["y"], name="conv2", pads=[1, 1, 1, 1]),
    ]
    return model_of(nodes, constants)


@pytest.mark.parametrize("target", INTEGER_OUTPUTS)
def test_a_tensor_between_two_convolutions_is_quantized_once(tmp_path: Path, target: str) -> None:
    model = chain()
    observed = observe_layers(model, [maps(32, 1)], lambda x: np.ones((len(x), 1)))
    found = calibrate(model, observed, SCHEMES[target])
    assert found.layers["conv"].output == found.layers["conv2"].limits
    operators = executed(quantize(model, found, SCHEMES[target]), tmp_path, target)
    assert [name for name in operators if name != "Transpose"] == [
        "QuantizeLinear", "QLinearConv", "QLinearConv", "DequantizeLinear",
    ]  # fmt: skip


@pytest.mark.parametrize("target", SCHEMES)
def test_all_readers_of_a_convolutions_output_share_its_range(target: str) -> None:
    """A convolution and a linear layer, which would each choose another: one hardly reads the channel that is large."""
    constants = random_constants("conv", OUTPUTS, INPUTS, 3, 3) | random_constants("point", INPUTS, OUTPUTS, 1, 1)
    constants |= random_constants("conv2", INPUTS, OUTPUTS, 3, 3)
    constants["conv.weight"][5] *= 30
    constants["point.weight"][:, 5] *= 1e-4
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["conv"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"], name="conv.relu"),
        helper.make_node("Conv", ["relu", "conv2.weight", "conv2.bias"], ["conv2"], name="conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["relu", "point.weight", "point.bias"], ["point"], name="point"),
        helper.make_node("Add", ["conv2", "point"], ["y"]),
    ]
    model = model_of(nodes, constants)
    observed = observe_layers(model, [maps(10, 1)], lambda x: np.ones((len(x), 1)))
    found = calibrate(model, observed, SCHEMES[target]).layers
    without = {"point"} if target in INTEGER_OUTPUTS else set(found)
    assert {name for name, layer in found.items() if layer.output is None} == without
    assert found["conv2"].limits == found["point"].limits
    if target in INTEGER_OUTPUTS:
        assert found["conv"].output == found["conv2"].limits
    assert "shared" in {found["conv2"].observer, found["point"].observer}


@pytest.mark.parametrize(("kept", "integer"), [("conv", ["conv2"]), ("conv2", ["conv"])])
def test_convolutions_kept_in_float_are_untouched(tmp_path: Path, kept: str, integer: list[str]) -> None:
    model = chain()
    observed = observe_layers(model, [maps(32, 1)], lambda x: np.ones((len(x), 1)))
    quantized = quantize(model, calibrate(model, observed, SCHEMES["x86"]), SCHEMES["x86"], keep_float=[kept])
    float_node = next(node for node in quantized.graph.node if node.name == kept)
    assert list(float_node.input[1:]) == [f"{kept}.weight", f"{kept}.bias"]
    operators = Counter(executed(quantized, tmp_path))
    assert operators["QLinearConv"] == len(integer) and operators["Conv"] + operators["FusedConv"] == 1
    x = {"x": maps(8, 2)}
    (exact,), (found,) = (cpu_session(graph).run(None, x) for graph in (model, quantized))
    assert 20 * np.log10(exact.std() / (found - exact).std()) > 25


@pytest.mark.parametrize("target", SCHEMES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_no_observer_has_a_range_with_less_noise(target: str, geometry: str) -> None:
    """Brute force: every observer's range for the input, each tried with the whole convolution. There are so few maps
    that all positions are in the sample."""
    model, x = single(geometry), maps(10, 1)
    x *= np.exp(0.8 * np.random.default_rng(2).normal(size=(1, INPUTS, 1, 1))).astype(np.float32)
    observed = observe_layers(model, [x], lambda batch: np.ones((len(batch), 1)))
    found = calibrate(model, observed, SCHEMES[target]).layers["conv"]
    weight = numpy_helper.to_array(model.graph.initializer[0])
    rounded, step = quantize_weight(weight.reshape(OUTPUTS, -1).T, SCHEMES[target].weight_limit)
    restored = (rounded * step).T.reshape(weight.shape)
    exact = float_conv(x, weight, geometry)

    def noise(limits: Range) -> float:
        error = exact - float_conv(round_trip(x, limits, SCHEMES[target]), restored, geometry)
        return float(error.var(axis=(0, 2, 3)).sum())

    symmetric = SCHEMES[target].is_symmetric(float(x.min()))
    least = min(noise(propose(x, symmetric)) for propose in OBSERVERS.values())
    assert noise(found.limits) < 1.1 * least, "not 1: patches show the padding, and the middle more often"
    snr_db = 10 * np.log10(exact.var(axis=(0, 2, 3)).sum() / noise(found.limits))
    assert found.snr_db == pytest.approx(snr_db, abs=0.01)
    assert found.tokens == exact[0, 0].size


def test_an_output_that_no_layer_reads_gets_the_range_with_the_least_error() -> None:
    model, x = single("dense", relu=True), maps(10, 1)
    observed = observe_layers(model, [x], lambda batch: np.ones((len(batch), 1)))
    assert set(observed) == {Patches("x", (3, 3), pads=(1, 1, 1, 1)), Patches("y")}
    found = calibrate(model, observed, SCHEMES["x86"]).layers["conv"].output
    (exact,) = cpu_session(model).run(None, {"x": x})
    assert found is not None and found.low == 0

    def loss(high: float) -> float:
        return float(((exact - round_trip(exact, Range(0, high), SCHEMES["x86"])) ** 2).mean())

    assert loss(found.high) < 1.05 * min(loss(high) for high in np.linspace(0.1, 1, 200) * exact.max())


def test_onnx_runtime_executes_each_layer_of_a_network_in_integers(tiny_network: Any, tmp_path: Path) -> None:
    """For x86: what ARM's processors make of their graphs cannot be seen here."""
    calibration = tiny_network.calibrations["x86"]
    operators = Counter(executed(quantize(tiny_network.model, calibration, SCHEMES["x86"]), tmp_path))
    dense = len(convolutions(pointwise_as_linear(tiny_network.model)))
    assert operators["QLinearConv"] == dense
    assert operators["QGemm"] + operators["MatMulIntegerToFloat"] == len(calibration.layers) - dense
    gelus = sum(node.op_type == "Erf" for node in tiny_network.model.graph.node)
    assert gelus == 0 or operators["Gelu"] > gelus / 2, "those between linear layers are fused"
