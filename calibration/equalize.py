"""Smoothing: make the channels of an activation alike by dividing them by a scale that the next weights take up.

x W = (x / s) (s W). One range for all channels then fits each of them (Xiao et al. 2022, "SmoothQuant", arXiv
2211.10438; Nagel et al. 2019, arXiv 1906.04721). The division costs nothing, because it is folded into what produces
the activation: the gain and bias of a LayerNorm, the columns of the values' projection, since attention mixes tokens,
never channels, or the kernels of a convolution, with or without a ReLU behind. Attention may also mix a norm's tokens
themselves, and take their products with the outputs of a layer, which are then multiplied
(``simplify.absorb_keys_and_values``). The function of the float graph does not change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from clipedge.calibration.layers import Layer
from clipedge.calibration.linears import Constants, Linear
from clipedge.calibration.pointwise import TO_ROWS

__all__ = ["Smoothing", "fold_scales", "smoothing_places", "smoothing_scale"]

Floats = npt.NDArray[np.float32]

# A norm's output goes through these to a linear layer without a change to any value or to the order of channels.
PASSING = frozenset({"Reshape", "Gather", "GatherND", "Slice"})
CHANNELS_FIRST = [0, 2, 1]
QKV_NAMES = ("qkv", "key_value", "value")


@dataclass(frozen=True)
class Smoothing:
    """A place where channels can be scaled: ``producers`` are divided, the weights of ``layers`` are multiplied.

    ``kind``: behind a LayerNorm, between the value and the output projection of attention, or behind a convolution. A
    producer is a constant whose last ``channels`` numbers along its last axis belong to the activation's channels; of a
    convolution's weight they lie along the first. ``partners`` are multiplied, too: weights (in, channels) and biases
    of layers with whose outputs the activation has a product.
    """

    name: str
    kind: Literal["norm", "attention", "convolution"]
    channels: int
    producers: tuple[str, ...]
    layers: tuple[Linear, ...]
    partners: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Readers:
    """All that read a tensor: ``layers``, and products of it with the outputs of the layers ``met``."""

    layers: tuple[Linear, ...] = ()
    met: tuple[Linear, ...] = ()


def smoothing_places(model: onnx.ModelProto, layers: Sequence[Layer], constants: Constants) -> list[Smoothing]:
    """Every place of a graph where smoothing for linear layers costs nothing, in graph order."""
    linears = [layer for layer in layers if isinstance(layer, Linear)]
    places = []
    for node in model.graph.node:
        readers: _Readers | None = None
        kind: Literal["norm", "convolution"] = "norm"
        if node.op_type == "LayerNormalization":
            readers = _linear_readers(model, node.output[0], linears)
        elif node.op_type == "Conv" and node.input[1] in constants:
            kind, readers = "convolution", _linear_readers_of_maps(model, node.output[0], linears)
        if readers is not None and readers.layers:
            producers = tuple(node.input[1:])  # gain or weight, and bias
            partners = tuple(name for layer in readers.met for name in _parameters(layer))
            channels = len(constants[node.input[1]])
            places.append(Smoothing(node.name, kind, channels, producers, readers.layers, partners))
    by_name = {layer.name: layer for layer in linears}
    for layer in linears:
        block, _, part = layer.name.rpartition(".")
        values = next((by_name[f"{block}.{name}"] for name in QKV_NAMES if f"{block}.{name}" in by_name), None)
        if part == "out" and values is not None:
            channels = len(constants[layer.weight])
            places.append(Smoothing(layer.name, "attention", channels, _parameters(values), (layer,)))
    return places


def _parameters(layer: Linear) -> tuple[str, ...]:
    return tuple(name for name in (layer.weight, layer.bias) if name)


def _linear_readers(model: onnx.ModelProto, tensor: str, layers: Sequence[Linear]) -> _Readers | None:
    """The layers that read a tensor, or nothing if anything else reads it too."""
    found: list[Linear] = []
    met: list[Linear] = []
    by_name = {layer.name: layer for layer in layers}
    for node in model.graph.node:
        if tensor not in node.input:
            continue
        if node.name in by_name:
            found.append(by_name[node.name])
        elif node.op_type in PASSING or _mixes_rows_of(node, tensor):
            behind = _linear_readers(model, node.output[0], layers)
            if behind is None:
                return None
            found += behind.layers
            met += behind.met
        else:
            layer = _met(model, node, layers)
            if layer is None:
                return None
            met.append(layer)
    return _Readers(tuple(found), tuple(met)) if found or met else None


def _mixes_rows_of(node: onnx.NodeProto, tensor: str) -> bool:
    """A product from the left leaves the channels what they are."""
    return bool(node.op_type == "MatMul" and node.input[1] == tensor and node.input[0] != tensor)


def _met(model: onnx.ModelProto, node: onnx.NodeProto, layers: Sequence[Linear]) -> Linear | None:
    """The layer whose outputs, and nothing else, a tensor (B, tokens, channels) is multiplied with behind ``node``."""
    if node.op_type != "Transpose" or list(helper.get_node_attr_value(node, "perm")) != CHANNELS_FIRST:
        return None
    product = _only_reader(model, node.output[0])
    if product is None or product.op_type != "MatMul" or product.input[1] != node.output[0]:
        return None
    return next((layer for layer in layers if _ends_in(model, layer.output, product)), None)


def _ends_in(model: onnx.ModelProto, tensor: str, product: onnx.NodeProto) -> bool:
    """Whether a tensor's values, be it in another shape, are the left side of a product and serve nothing else."""
    reader = _only_reader(model, tensor)
    if reader is not None and reader.op_type == "Reshape":
        return _ends_in(model, reader.output[0], product)
    return bool(reader == product and product.input[0] == tensor)


def _only_reader(model: onnx.ModelProto, tensor: str) -> onnx.NodeProto | None:
    readers = [node for node in model.graph.node if tensor in node.input]
    return readers[0] if len(readers) == 1 else None


def _linear_readers_of_maps(model: onnx.ModelProto, tensor: str, layers: Sequence[Linear]) -> _Readers | None:
    """The layers that read maps as rows, or nothing if anything else reads them, too."""
    node = _only_reader(model, tensor)
    if node is None:
        return None
    if node.op_type == "Relu":
        return _linear_readers_of_maps(model, node.output[0], layers)
    if node.op_type == "Transpose" and list(helper.get_node_attr_value(node, "perm")) == TO_ROWS:
        return _linear_readers(model, node.output[0], layers)
    return None


def smoothing_scale(largest: Floats, weights: Sequence[Floats], strength: float) -> Floats:
    """SmoothQuant's scale of each channel: max|x|^strength / max|w|^(1 - strength), (channels,).

    ``largest`` (channels,) is the largest magnitude of each channel, ``weights`` are the (channels, out) matrices
    behind it. The scales' geometric mean is one. Dead channels keep the scale one.
    """
    rows = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    alive = (largest > 0) & (rows > 0)
    if not alive.any():
        return np.ones_like(largest)
    logarithm = strength * np.log(largest[alive].astype(np.float64)) - (1 - strength) * np.log(rows[alive])
    scale = np.ones(len(largest))
    scale[alive] = np.exp(logarithm - logarithm.mean())
    return scale.astype(np.float32)


def fold_scales(
    constants: dict[str, npt.NDArray[Any]], places: Sequence[Smoothing], scales: Mapping[str, Floats]
) -> None:
    """Write the scales (by place) into the constants: producers are divided, weights and partners multiplied."""
    for place in places:
        if place.name not in scales:
            continue
        scale = scales[place.name]
        for name in place.producers:
            changed = constants[name].copy()
            if place.kind == "convolution":
                changed /= scale.reshape(-1, *[1] * (changed.ndim - 1))
            else:
                changed[..., -place.channels :] /= scale
            constants[name] = changed
        for layer in place.layers:
            constants[layer.weight] = constants[layer.weight] * scale[:, None]
        for name in place.partners:
            constants[name] = constants[name] * scale
