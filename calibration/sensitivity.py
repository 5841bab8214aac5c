"""Which layer costs what: a layer's own noise, and the error of the embedding when it alone is in INT8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from clipedge.calibration.calibrate import Calibration, LayerCalibration
from clipedge.calibration.equalize import fold_scales, smoothing_places
from clipedge.calibration.linears import PATCH_EMBED, Linear, constants_of, linear_layers
from clipedge.calibration.rounding import Scheme, activation_parameters, restored_weight
from clipedge.calibration.storage import cpu_session
from clipedge.selftest import centred_cosines

__all__ = ["LayerProfile", "layer_costs", "layer_profiles"]

# What stands between a layer and its input: x -> clip(round(x / step), low, high) * step. A layer without a bias has a
# shift behind it.
STEP, LOW, HIGH, SHIFT = "step", "low", "high", "shift"


@dataclass(frozen=True)
class LayerProfile:
    """What INT8 does to one linear layer, and what the layer weighs.

    ``snr_db``: signal-to-noise ratio of the layer's own output in INT8, in dB. ``cost``: one minus the mean centred
    cosine of the embedding with this layer alone in INT8; None where that was not measured. ``in_float``: the export
    left the layer in float. ``multiply_adds`` are of one input, ``weight_bytes`` of the weight in float32.
    """

    tower: str
    layer: str
    snr_db: float
    cost: float | None
    in_float: bool
    multiply_adds: int
    weight_bytes: int


def layer_profiles(
    tower: str,
    model: onnx.ModelProto,
    calibration: Calibration,
    costs: Mapping[str, float],
    in_float: tuple[str, ...],
) -> list[LayerProfile]:
    """The profile of every calibrated layer, in graph order; ``costs`` as ``layer_costs`` gives them, or empty."""
    shapes = {item.name: tuple(item.dims) for item in model.graph.initializer}
    return [
        LayerProfile(
            tower=tower,
            layer=layer.name,
            snr_db=calibration.layers[layer.name].snr_db,
            cost=costs.get(layer.name),
            in_float=layer.name in in_float,
            multiply_adds=calibration.layers[layer.name].tokens * int(np.prod(shapes[layer.weight])),
            weight_bytes=4 * int(np.prod(shapes[layer.weight])),
        )
        for layer in linear_layers(model)
        if layer.name in calibration.layers
    ]


def layer_costs(
    model: onnx.ModelProto, calibration: Calibration, scheme: Scheme, inputs: npt.NDArray[Any]
) -> dict[str, float]:
    """One minus the mean centred cosine of the embeddings of ``inputs`` (N >= 2) with each layer alone in INT8.

    One session serves all layers: rounding is computed in float, by a graph whose steps and weights are inputs.
    """
    layers = [layer for layer in linear_layers(model) if layer.name != PATCH_EMBED]
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
        found = session.run(None, feed | _switched_on(layer, calibration.of(layer.name), fed, scheme))[0]
        costs[layer.name] = 1 - float(centred_cosines(expected, found, expected.mean(axis=0)).mean())
    return costs


def _switchable(
    model: onnx.ModelProto,
    layers: list[Linear],
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


def _rounded(node: onnx.NodeProto, layer: Linear) -> list[onnx.NodeProto]:
    """A layer's product with what stands before and behind it."""
    step, low, high, shift = (f"{layer.name}.{name}" for name in (STEP, LOW, HIGH, SHIFT))
    names = [f"{layer.name}.{part}" for part in ("divided", "rounded", "clipped", "restored")]
    product = onnx.NodeProto()
    product.CopyFrom(node)
    product.input[0] = names[3]
    nodes = [
        helper.make_node("Div", [node.input[0], step], [names[0]]),
        helper.make_node("Round", [names[0]], [names[1]]),
        helper.make_node("Clip", [names[1], low, high], [names[2]]),
        helper.make_node("Mul", [names[2], step], [names[3]]),
        product,
    ]
    if layer.bias is None:
        product.output[0] = f"{layer.name}.unshifted"
        nodes.append(helper.make_node("Add", [product.output[0], shift], [node.output[0]]))
    return nodes


def _switched_off(layer: Linear, constants: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[np.float32]]:
    """Infinite bounds and a step of 2^-90 let every float32 value pass with all its bits."""
    values = {
        f"{layer.name}.{STEP}": np.array(2.0**-90, np.float32),
        f"{layer.name}.{LOW}": np.array(-np.inf, np.float32),
        f"{layer.name}.{HIGH}": np.array(np.inf, np.float32),
    }
    if layer.bias is None:
        values[f"{layer.name}.{SHIFT}"] = np.zeros(constants[layer.weight].shape[1], np.float32)
    return values


def _switched_on(
    layer: Linear, found: LayerCalibration, constants: Mapping[str, npt.NDArray[Any]], scheme: Scheme
) -> dict[str, npt.NDArray[np.float32]]:
    step, zero_point = activation_parameters(found.limits, scheme)
    bounds = np.iinfo(scheme.dtype)
    values = {
        f"{layer.name}.{STEP}": np.array(step),
        f"{layer.name}.{LOW}": np.array(bounds.min - int(zero_point), np.float32),
        f"{layer.name}.{HIGH}": np.array(bounds.max - int(zero_point), np.float32),
        layer.weight: restored_weight(constants[layer.weight], scheme),
    }
    values[layer.bias or f"{layer.name}.{SHIFT}"] = found.shift + (constants[layer.bias] if layer.bias else 0)
    return values
