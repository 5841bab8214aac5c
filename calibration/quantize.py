"""A float ONNX graph and the ranges of its activations -> the same graph with Q/DQ pairs around its linear layers.

What is quantized, and what is left in float, follows from where the time goes and where the accuracy goes: the linear
layers hold 95 % of a transformer's multiply-adds; layer norms, softmax, activations, residual sums and the last
projection stay in float. The output of a linear layer is not quantized again: without that, ONNX Runtime runs the layer
as one MatMulIntegerToFloat.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from clipedge.calibration.observers import Range
from clipedge.errors import UsageError

__all__ = ["SCHEMES", "Linear", "Scheme", "linear_layers", "quantize"]

FLOAT_LAYERS = frozenset({"projection"})  # its outputs are the embedding: 0.4 % of the multiply-adds, all the effect
PATCH_EMBED = "embedding.patch"
TOKEN_EMBED = "embedding.lookup"
PIXEL_OFFSET = 128  # a uint8 pixel minus this is an int8 without any rounding


@dataclass(frozen=True)
class Scheme:
    """How a target's kernels take activations: per tensor, ``dtype``, zero point free or fixed at zero."""

    dtype: type[np.uint8] | type[np.int8]
    symmetric: bool


# x86 multiplies unsigned by signed bytes; ARM's dot-product instructions take signed by signed.
SCHEMES: Mapping[str, Scheme] = {"x86": Scheme(np.uint8, symmetric=False), "arm": Scheme(np.int8, symmetric=True)}


@dataclass(frozen=True)
class Linear:
    """A MatMul with a constant (in, out) weight, by the names in the graph."""

    name: str
    activation: str
    weight: str


@dataclass(frozen=True)
class _Graph:
    """A graph under construction: nodes in topological order, and constants by name."""

    nodes: list[onnx.NodeProto]
    constants: dict[str, npt.NDArray[Any]]

    def add(self, operator: str, inputs: list[str], output: str, name: str = "", **attributes: int) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=name or output, **attributes))
        return output

    def quantize_pair(self, tensor: str, scale: np.float32, zero_point: npt.NDArray[Any]) -> str:
        """QuantizeLinear and DequantizeLinear behind a tensor; the name of what comes out."""
        parameters = [f"{tensor}.scale", f"{tensor}.zero_point"]
        self.constants.update(zip(parameters, (np.asarray(scale), zero_point), strict=True))
        quantized = self.add("QuantizeLinear", [tensor, *parameters], f"{tensor}.quantized")
        return self.add("DequantizeLinear", [quantized, *parameters], f"{tensor}.dequantized")

    def int8_constant(self, name: str, rounded: npt.NDArray[np.int8], scale: npt.NDArray[np.float32]) -> str:
        """Replace a float (in, out) constant by int8 and a DequantizeLinear; the name of what comes out."""
        self.constants.update(
            {name: rounded, f"{name}.scale": scale, f"{name}.zero_point": np.zeros_like(scale, np.int8)}
        )
        inputs = [name, f"{name}.scale", f"{name}.zero_point"]
        return self.add("DequantizeLinear", inputs, f"{name}.dequantized", axis=1)


def linear_layers(model: onnx.ModelProto) -> list[Linear]:
    """The linear layers that are worth quantizing, in graph order."""
    constants = {initializer.name for initializer in model.graph.initializer}
    return [
        Linear(node.name, node.input[0], node.input[1])
        for node in model.graph.node
        if node.op_type == "MatMul" and node.input[1] in constants and node.name not in FLOAT_LAYERS
    ]


def quantize(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    scheme: Scheme,
    pixel_mean: Sequence[float] = (),
    keep_float: Collection[str] = (),
) -> onnx.ModelProto:
    """A copy of ``model`` with its linear layers in INT8, weights per output channel, symmetric.

    ``ranges`` gives the range of every layer's activation tensor; the patch embedding needs none, its pixels are
    bytes already. ``pixel_mean`` is the mean of each channel in [0, 255] that the model subtracts (image towers).
    Layers named in ``keep_float`` are left alone. Raises UsageError if a layer's range is missing.
    """
    graph = _Graph([], {item.name: numpy_helper.to_array(item) for item in model.graph.initializer})
    layers = {layer.name: layer for layer in linear_layers(model) if layer.name not in keep_float}
    dequantized: dict[str, str] = {}  # activation -> its dequantized copy: one pair serves all layers that read it
    for node in model.graph.node:
        layer = layers.get(node.name)
        if layer is None:
            graph.nodes.append(node)
        elif layer.name == PATCH_EMBED:
            _quantize_patch_embed(graph, model, layer, pixel_mean)
        else:
            if layer.activation not in ranges:
                raise UsageError(f"calibration has no range for {layer.activation} (layer {layer.name})")
            if layer.activation not in dequantized:
                scale, zero_point = activation_parameters(ranges[layer.activation], scheme)
                dequantized[layer.activation] = graph.quantize_pair(layer.activation, scale, zero_point)
            weight = graph.int8_constant(layer.weight, *quantize_weight(graph.constants[layer.weight]))
            graph.add("MatMul", [dequantized[layer.activation], weight], node.output[0], name=node.name)
    _quantize_token_table(graph)
    return _rebuilt(model, graph)


def quantize_weight(weight: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Round (in, out) weights to int8 with one scale per output channel: (int8 (in, out), scale (out,))."""
    largest = np.abs(weight).max(axis=0)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.clip(np.round(weight / scale), -127, 127).astype(np.int8), scale


def activation_parameters(limits: Range, scheme: Scheme) -> tuple[np.float32, npt.NDArray[Any]]:
    """Scale and zero point of a range: q = round(x / scale) + zero_point."""
    if scheme.symmetric:
        bound = max(-limits.low, limits.high)
        return np.float32(bound / 127 or 1), np.array(0, scheme.dtype)
    scale = (limits.high - limits.low) / 255 or 1
    return np.float32(scale), np.array(np.clip(round(-limits.low / scale), 0, 255), scheme.dtype)


def _quantize_patch_embed(graph: _Graph, model: onnx.ModelProto, layer: Linear, pixel_mean: Sequence[float]) -> None:
    """Pixels minus 128 as int8, which is exact. Every engine fuses this signed pair; a lone u8 DequantizeLinear not."""
    weight = graph.constants[layer.weight]
    rounded, scale = quantize_weight(weight)
    name, rows = _added_constant(model, layer.name)
    constant = np.array(graph.constants[name])
    constant[..., rows:, :] += _patch_shift(weight, rounded, scale, pixel_mean)
    graph.constants[name] = constant

    graph.constants["pixels.offset"] = np.array(PIXEL_OFFSET, np.float32)
    moved = graph.add("Sub", [layer.activation, "pixels.offset"], "pixels.signed")
    pixels = graph.quantize_pair(moved, np.float32(1), np.array(0, np.int8))
    output = next(node.output[0] for node in model.graph.node if node.name == layer.name)
    graph.add("MatMul", [pixels, graph.int8_constant(layer.weight, rounded, scale)], output, name=layer.name)


def _patch_shift(
    weight: npt.NDArray[np.float32],
    rounded: npt.NDArray[np.int8],
    scale: npt.NDArray[np.float32],
    pixel_mean: Sequence[float],
) -> npt.NDArray[np.float32]:
    """What to add to the patch embedding's bias, (out,), when its weights are rounded and its pixels moved by 128.

    The float bias holds -sum(W mean). With the rounded weights V it has to be -sum(V mean), or the rounding errors of
    all pixels' common brightness add up; and V (x - 128) lacks 128 sum(V).
    """
    restored = rounded * scale.astype(np.float64)
    mean = np.tile(np.asarray(pixel_mean, np.float64), len(weight) // len(pixel_mean))
    return np.asarray(mean @ (weight - restored) + PIXEL_OFFSET * restored.sum(axis=0), np.float32)


def _added_constant(model: onnx.ModelProto, layer: str) -> tuple[str, int]:
    """The constant (1, tokens, width) that is added to the patch tokens, and how many of its rows come before them.

    With a class token the patch tokens are padded by one row in front, and the constant's first row is that token's.
    """
    constants = {item.name: item for item in model.graph.initializer}
    tensor = next(node.output[0] for node in model.graph.node if node.name == layer)
    rows = 0
    while True:
        node = next(node for node in model.graph.node if tensor in node.input)
        if node.op_type == "Add":
            return next(name for name in node.input if name in constants), rows
        if node.op_type == "Pad":
            rows = int(numpy_helper.to_array(constants[node.input[1]])[1])
        tensor = node.output[0]


def _quantize_token_table(graph: _Graph) -> None:
    """Store a text tower's token table in int8 with one scale per column: a quarter of the bytes."""
    for place, node in enumerate(graph.nodes):
        if node.name == TOKEN_EMBED:
            table, output = node.input[0], node.output[0]
            rounded, scale = quantize_weight(graph.constants[table])
            graph.constants[table] = rounded
            graph.constants[f"{table}.scale"] = scale
            gather = helper.make_node("Gather", node.input, [f"{output}.int8"], name=node.name)
            restore = helper.make_node(
                "DequantizeLinear", [f"{output}.int8", f"{table}.scale"], [output], name=f"{output}.dequantize", axis=2
            )
            graph.nodes[place : place + 1] = [gather, restore]
            return


def _rebuilt(model: onnx.ModelProto, graph: _Graph) -> onnx.ModelProto:
    """``model`` with other nodes, and of the constants those that they use."""
    used = {name for node in graph.nodes for name in node.input}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
    result.graph.node.extend(graph.nodes)
    result.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in graph.constants.items() if name in used
    )
    onnx.checker.check_model(result)
    return result
