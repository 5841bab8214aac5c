"""Which layer costs what: a layer's own noise, and the error of the embedding when it alone is in INT8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from clipedge.calibration.calibrate import Calibration
from clipedge.calibration.convolutions import Convolution
from clipedge.calibration.equalize import fold_scales, smoothing_places
from clipedge.calibration.layers import Layer, calibrated_layers
from clipedge.calibration.linears import constants_of
from clipedge.calibration.observers import Range
from clipedge.calibration.pointwise import pointwise_as_linear
from clipedge.calibration.rounding import Scheme, activation_parameters
from clipedge.calibration.storage import cpu_session
from clipedge.selftest import centred_cosines

__all__ = ["LayerProfile", "layer_costs", "layer_profiles"]

# What stands between a layer and its input, and behind a convolution: x -> clip(round(x / step), low, high) * step. A
# layer without a bias gets a shift.
STEP, LOW, HIGH, SHIFT = "step", "low", "high", "shift"


@dataclass(frozen=True)
class LayerProfile:
    """What INT8 does to one layer, and what the layer weighs.

    ``snr_db``: signal-to-noise ratio of the layer's own output in INT8, in dB. ``cost``: one minus the mean centred
    cosine of the embedding with this layer alone in INT8; None where that was not measured. ``in_float``: the export
    left the layer in float. ``multiply_adds`` are of one input, ``weight_bytes`` of the weight in float32.
    """

    tower: str
    layer: str
    snr_db: float
    multiply_adds: int
    weight_bytes: int
    cost: float | None = None
    in_float: bool = False


def layer_profiles(tower: str, model: onnx.ModelProto, calibration: Calibration) -> list[LayerProfile]:
    """The profile of every calibrated layer, in graph order, without its cost, which ``layer_costs`` measures."""
    model = pointwise_as_linear(model)
    shapes = {item.name: tuple(item.dims) for item in model.graph.initializer}
    return [
        LayerProfile(
            tower=tower,
            layer=layer.name,
            snr_db=calibration.layers[layer.name].snr_db,
            multiply_adds=calibration.layers[layer.name].tokens * int(np.prod(shapes[layer.weight])),
            weight_bytes=4 * int(np.prod(shapes[layer.weight])),
        )
        for layer in calibrated_layers(model)
        if layer.name in calibration.layers
    ]


def layer_costs(
    model: onnx.ModelProto, calibration: Calibration, scheme: Scheme, inputs: npt.NDArray[Any]
) -> dict[str, float]:
    """One minus the mean centred cosine of the embeddings of ``inputs`` (N >= 2) with each layer alone in INT8.

    One session serves all layers: rounding is computed in float, by a graph whose steps and weights are inputs.
    """
    model = pointwise_as_linear(model)
    layers = calibrated_layers(model)
    constants = constants_of(model)
    fold_scales(constants, smoothing_places(model, layers, constants), calibration.scales)
    # Weights are inputs of every run, so that the session holds no second copy of them.
    fed = {name: constants.pop(name) for layer in layers for name in (layer.weight, layer.bias) if name}
    for layer in layers:
        fed |= _switched_off(layer, fed)
    session = cpu_session(_switchable(model, layers, constants, fed))
    feed = {model.graph.input[0].name: inputs, **fed}
    expected = session.run(None, feed)[0]
    costs = {}
    for layer in layers:
        found = session.run(None, feed | _switched_on(layer, calibration, fed, scheme))[0]
        costs[layer.name] = 1 - float(centred_cosines(expected, found, expected.mean(axis=0)).mean())
    return costs


def _switchable(
    model: onnx.ModelProto,
    layers: list[Layer],
    constants: Mapping[str, npt.NDArray[Any]],
    fed: Mapping[str, npt.NDArray[Any]],
) -> onnx.ModelProto:
    """The float graph with rounding in front of every layer, and with what is ``fed`` as inputs."""
    by_name = {layer.name: layer for layer in layers}
    graph = helper.make_graph([], model.graph.name, model.graph.input, model.graph.output)
    for node in model.graph.node:
        layer = by_name.get(node.name)
        graph.node.extend([node] if layer is None else _rounded(node, layer))
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.input.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, value.shape) for name, value in fed.items()
    )
    return helper.make_model(graph, ir_version=model.ir_version, opset_imports=model.opset_import)


def _rounded(node: onnx.NodeProto, layer: Layer) -> list[onnx.NodeProto]:
    """A layer's product with what stands before and behind it."""
    product = onnx.NodeProto()
    product.CopyFrom(node)
    product.input[0] = f"{_input(layer)}.restored"
    nodes = [*_rounding(node.input[0], _input(layer), product.input[0]), product]
    shift = f"{layer.name}.{SHIFT}"
    if isinstance(layer, Convolution):
        if layer.bias is None:
            product.input.append(shift)
        # In front of the ReLU: the range begins at zero if there is one, and then clipping to it is the same.
        product.output[0] = f"{layer.name}.unrounded"
        nodes += _rounding(product.output[0], _output(layer), node.output[0])
    elif layer.bias is None:
        product.output[0] = f"{layer.name}.unshifted"
        nodes.append(helper.make_node("Add", [product.output[0], shift], [node.output[0]]))
    return nodes


def _rounding(tensor: str, prefix: str, output: str) -> list[onnx.NodeProto]:
    step, low, high = (f"{prefix}.{name}" for name in (STEP, LOW, HIGH))
    divided, rounded, clipped = (f"{prefix}.{part}" for part in ("divided", "rounded", "clipped"))
    return [
        helper.make_node("Div", [tensor, step], [divided]),
        helper.make_node("Round", [divided], [rounded]),
        helper.make_node("Clip", [rounded, low, high], [clipped]),
        helper.make_node("Mul", [clipped, step], [output]),
    ]


def _input(layer: Layer) -> str:
    return f"{layer.name}.input"


def _output(layer: Layer) -> str:
    return f"{layer.name}.output"


def _switched_off(layer: Layer, constants: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[np.float32]]:
    values = _passing(_input(layer))
    if isinstance(layer, Convolution):
        values |= _passing(_output(layer))
    if layer.bias is None:
        values[f"{layer.name}.{SHIFT}"] = np.zeros(constants[layer.weight].shape[layer.axis], np.float32)
    return values


def _switched_on(
    layer: Layer, calibration: Calibration, constants: Mapping[str, npt.NDArray[Any]], scheme: Scheme
) -> dict[str, npt.NDArray[np.float32]]:
    found = calibration.of(layer.name)
    values = _clipping(_input(layer), found.limits, scheme)
    if isinstance(layer, Convolution) and found.output:
        values |= _clipping(_output(layer), found.output, scheme)
    weight = constants[layer.weight]
    rounded, scale = calibration.integer_weight(layer.name, layer.matrix(weight), scheme)
    values[layer.weight] = layer.unmatrix(rounded * scale, weight)
    values[layer.bias or f"{layer.name}.{SHIFT}"] = found.shift + (
        constants[layer.bias] if layer.bias else np.zeros(weight.shape[layer.axis], np.float32)
    )
    return values


def _passing(prefix: str) -> dict[str, npt.NDArray[np.float32]]:
    """Infinite bounds and a step of 2^-90 let every float32 value pass with all its bits."""
    values = {STEP: 2.0**-90, LOW: -np.inf, HIGH: np.inf}
    return {f"{prefix}.{name}": np.array(value, np.float32) for name, value in values.items()}


def _clipping(prefix: str, limits: Range, scheme: Scheme) -> dict[str, npt.NDArray[np.float32]]:
    step, zero_point = activation_parameters(limits, scheme)
    bounds = np.iinfo(scheme.dtype)
    values = {STEP: step, LOW: bounds.min - int(zero_point), HIGH: bounds.max - int(zero_point)}
    return {f"{prefix}.{name}": np.array(value, np.float32) for name, value in values.items()}
