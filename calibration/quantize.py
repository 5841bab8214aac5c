"""A float ONNX graph and its calibration -> the same graph with Q/DQ pairs around its linear layers and convolutions.

What is quantized, and what is left in float, follows from where the time goes and where the accuracy goes: the linear
layers hold 95 % of a transformer's multiply-adds; layer norms, softmax, activations, residual sums and the last
projection stay in float. The output of a linear layer is not quantized again: without that, ONNX Runtime runs the layer
and its bias as one integer product with a float result. For TensorRT, too, its guide says to quantize the inputs of
weighted operations, and not their outputs; there biases and token tables are float (``clipedge.calibration.rounding``).

Of a convolutional network the 1 x 1 convolutions are linear layers, too (``clipedge.calibration.pointwise``). The other
ones have their output quantized, behind its ReLU, since engines have no integer convolution with a float result; all
readers take what was quantized, once. Depthwise convolutions stay in float (``clipedge.calibration.convolutions``).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from clipedge.calibration.attention import attentions
from clipedge.calibration.calibrate import Calibration
from clipedge.calibration.convolutions import Convolution
from clipedge.calibration.drafts import Draft
from clipedge.calibration.equalize import fold_scales, smoothing_places
from clipedge.calibration.layers import Layer, calibrated_layers
from clipedge.calibration.linears import PATCH_EMBED, Linear, constants_of, linear_layers
from clipedge.calibration.observers import Range
from clipedge.calibration.patch_embed import PIXEL_OFFSET, added_constant, patch_shift
from clipedge.calibration.pointwise import pointwise_as_linear
from clipedge.calibration.rounding import Scheme, activation_parameters, quantize_weight

__all__ = ["TOKEN_EMBED", "quantize"]

TOKEN_EMBED = "embedding.lookup"
# Activation and its range -> its dequantized copy: one pair serves all layers that read the tensor with that range.
Dequantized = dict[tuple[str, Range], str]
MAX_BIAS = 2**30  # in int32, with as much room left for the products
TINY = 1e-20  # a bias of so many steps of an activation is nothing, and smaller steps are no float32


def quantize(
    model: onnx.ModelProto,
    calibration: Calibration,
    scheme: Scheme,
    pixel_mean: Sequence[float] = (),
    keep_float: Collection[str] = (),
) -> onnx.ModelProto:
    """A copy of ``model`` with its linear layers and convolutions in INT8, weights per output channel, symmetric.

    A linear layer takes (rows, in) and becomes a Gemm; only the patch embedding, whose pixels are bytes already and
    need no calibration, takes (batch, patches, in). ``pixel_mean`` is the mean of each channel in [0, 255] that the
    model subtracts (image towers). Layers named in ``keep_float`` are left in float. Raises UsageError if the
    calibration lacks a layer. Attention's products are in INT8 where the calibration has ranges for them.
    """
    model = pointwise_as_linear(model)
    calibrated = calibrated_layers(model)
    graph = Draft(constants_of(model))
    fold_scales(graph.constants, smoothing_places(model, calibrated, graph.constants), calibration.scales)
    embedding: list[Layer] = [layer for layer in linear_layers(model) if layer.name == PATCH_EMBED]
    layers = {layer.name: layer for layer in embedding + calibrated if layer.name not in keep_float}
    products = _attention_products(model, calibration, layers)
    written: set[str] = set()  # outputs of nodes that are part of a layer before them: of a bias, of a ReLU
    dequantized: Dequantized = {}
    for node in model.graph.node:
        layer = layers.get(node.name)
        if layer is None:
            if node.output[0] not in written:
                graph.nodes.append(_with_integer_inputs(graph, node, products.get(node.name, ()), scheme))
            continue
        written.add(layer.output)
        if isinstance(layer, Convolution):
            _quantize_convolution(graph, node, layer, calibration, scheme, dequantized)
        elif layer.name == PATCH_EMBED:
            _quantize_patch_embed(graph, model, layer, calibration, scheme, pixel_mean)
        else:
            _quantize_linear(graph, layer, calibration, scheme, dequantized)
    if not scheme.only_inputs:
        _quantize_token_table(graph)
    result = graph.finished(model)
    onnx.checker.check_model(result)
    return result


def _quantize_linear(
    graph: Draft, layer: Linear, calibration: Calibration, scheme: Scheme, dequantized: Dequantized
) -> None:
    """MatMul and Add -> Gemm of dequantized input, weight and bias, or MatMul of the former two and Add of the bias."""
    inputs = _quantized_inputs(graph, layer, calibration, scheme, dequantized)
    if not scheme.only_inputs:
        graph.add("Gemm", inputs, layer.output, name=layer.name)
    elif len(inputs) == 2:
        graph.add("MatMul", inputs, layer.output, name=layer.name)
    else:
        product = graph.add("MatMul", inputs[:2], f"{layer.name}.product", name=layer.name)
        graph.add("Add", [product, inputs[2]], layer.output, name=f"{layer.name}.add")


def _quantize_convolution(
    graph: Draft,
    node: onnx.NodeProto,
    layer: Convolution,
    calibration: Calibration,
    scheme: Scheme,
    dequantized: Dequantized,
) -> None:
    """Conv and ReLU -> Conv of dequantized input, weight and bias, ReLU, and a pair whose output has the old name,
    unless the output stays in float."""
    convolution = onnx.NodeProto()
    convolution.CopyFrom(node)
    del convolution.input[:]
    convolution.input.extend(_quantized_inputs(graph, layer, calibration, scheme, dequantized))
    graph.nodes.append(convolution)
    if scheme.only_inputs:
        if layer.output != layer.product:
            graph.add("Relu", [layer.product], layer.output)
        return
    output = calibration.of(layer.name).output
    assert output is not None
    convolution.output[0] = product = f"{layer.product}.float"
    if layer.output != layer.product:
        product = graph.add("Relu", [product], f"{layer.output}.float", name=layer.output)
    scale, zero_point = activation_parameters(output, scheme)
    dequantized[layer.output, output] = graph.quantize_pair(
        product, f"{layer.name}.output", scale, zero_point, output=layer.output
    )


def _quantized_inputs(
    graph: Draft, layer: Layer, calibration: Calibration, scheme: Scheme, dequantized: Dequantized
) -> list[str]:
    """The dequantized input, dequantized weight and, unless it is zero, bias of a layer."""
    found = calibration.of(layer.name)
    scale, zero_point = activation_parameters(found.limits, scheme)
    key = layer.activation, found.limits
    if key not in dequantized:
        dequantized[key] = graph.quantize_pair(layer.activation, f"{layer.name}.input", scale, zero_point)
    bias = found.shift + (graph.constants[layer.bias] if layer.bias else 0)
    weight = graph.constants[layer.weight]
    matrix = layer.matrix(weight)
    rounded, weight_scale = calibration.integer_weight(layer.name, matrix, scheme)
    if not scheme.only_inputs:
        rounded, weight_scale = _with_room_for(bias, scale, rounded, weight_scale)
    weights = graph.dequantized(layer.weight, layer.unmatrix(rounded, weight), weight_scale, layer.axis)
    inputs = [dequantized[key], weights]
    if bias.any():
        name = layer.bias or f"{layer.name}.bias"
        if scheme.only_inputs:
            graph.constants[name] = bias.astype(np.float32)
            inputs.append(name)
        else:
            inputs.append(_integer_bias(graph, name, bias, scale * weight_scale))
    return inputs


def _with_room_for(
    bias: npt.NDArray[np.float32],
    scale: np.float32,
    rounded: npt.NDArray[np.int8],
    weight_scale: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Weights and their scales for a bias that the engines add to the integer products, in their steps.

    Beside a bias that is too large for that the weights hardly matter: they get larger steps. Where there are no
    weights the bias alone decides.
    """
    smallest = np.abs(bias) / (MAX_BIAS * scale)
    alone = ~rounded.any(axis=0) & (smallest > TINY)
    if alone.any() or (smallest > weight_scale).any():
        restored = rounded * weight_scale
        weight_scale = np.where(alone, smallest, np.maximum(weight_scale, smallest)).astype(np.float32)
        rounded = np.round(restored / weight_scale).astype(np.int8)
    return rounded, weight_scale


def _integer_bias(graph: Draft, name: str, bias: npt.NDArray[np.float32], steps: npt.NDArray[np.float32]) -> str:
    integers = np.round(bias / steps.astype(np.float64)).astype(np.int32)
    return graph.dequantized(name, integers, steps.astype(np.float32), axis=0)


def _quantize_patch_embed(
    graph: Draft,
    model: onnx.ModelProto,
    layer: Linear,
    calibration: Calibration,
    scheme: Scheme,
    pixel_mean: Sequence[float],
) -> None:
    """Pixels minus 128 as int8, which is exact. Every engine fuses this signed pair; a lone u8 DequantizeLinear not."""
    weight = graph.constants[layer.weight]
    rounded, scale = calibration.integer_weight(layer.name, weight, scheme)
    name, rows = added_constant(model, layer.name)
    constant = np.array(graph.constants[name])
    restored = np.asarray(rounded * scale.astype(np.float64), np.float64)
    constant[..., rows:, :] += patch_shift(weight, restored, pixel_mean)
    graph.constants[name] = constant

    graph.constants["pixels.offset"] = np.array(PIXEL_OFFSET, np.float32)
    moved = graph.add("Sub", [layer.activation, "pixels.offset"], "pixels.signed")
    pixels = graph.quantize_pair(moved, moved, np.float32(1), np.array(0, np.int8))
    output = next(node.output[0] for node in model.graph.node if node.name == layer.name)
    graph.add("MatMul", [pixels, graph.dequantized(layer.weight, rounded, scale, axis=1)], output, name=layer.name)


def _attention_products(
    model: onnx.ModelProto, calibration: Calibration, layers: Collection[str]
) -> dict[str, tuple[Range, ...]]:
    """The ranges of both inputs of attention's products, by node. Where the layer behind is in float, so is attention:
    what it gives would not be quantized, and engines fuse nothing."""
    products: dict[str, tuple[Range, ...]] = {}
    for found in attentions(model) if calibration.attention else ():
        if found.out in calibration.attention and found.out in layers:
            query, key, weights, value = calibration.attention[found.out]
            products |= {found.scores: (query, key), found.mixed: (weights, value)}
    return products


def _with_integer_inputs(graph: Draft, node: onnx.NodeProto, ranges: Sequence[Range], scheme: Scheme) -> onnx.NodeProto:
    """A node with a pair in front of each input that has a range."""
    if not ranges:
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for place, limits in enumerate(ranges):
        scale, zero_point = activation_parameters(limits, scheme)
        copy.input[place] = graph.quantize_pair(node.input[place], f"{node.name}.input{place}", scale, zero_point)
    return copy


def _quantize_token_table(graph: Draft) -> None:
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
