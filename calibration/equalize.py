"""Smoothing: make the channels of an activation alike by dividing them by a scale that the next weights take up.

x W = (x / s) (s W). One range for all channels then fits each of them (Xiao et al. 2022, "SmoothQuant", arXiv
2211.10438; Nagel et al. 2019, arXiv 1906.04721). The division costs nothing, because it is folded into what produces
the activation: the gain and bias of a LayerNorm, the columns of the values' projection, since attention mixes tokens,
never channels, or the kernels of a convolution, with or without a ReLU behind. The function of the float graph does not
change.
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
QKV_NAMES = ("qkv", "key_value", "value")


@dataclass(frozen=True)
class Smoothing:
    """A place where channels can be scaled: ``producers`` are divided, the weights of ``layers`` are multiplied.

    ``kind``: behind a LayerNorm, between the value and the output projection of attention, or behind a convolution. A
    producer is a constant whose last ``channels`` numbers along its last axis belong to the activation's channels; of a
    convolution's weight they lie along the first.
    """

    name: str
    kind: Literal["norm", "attention", "convolution"]
    channels: int
    producers: tuple[str, ...]
    layers: tuple[Linear, ...]


def smoothing_places(model: onnx.ModelProto, layers: Sequence[Layer], constants: Constants) -> list[Smoothing]:
    """Every place of a graph where smoothing for linear layers costs nothing, in graph order."""
    linears = [layer for layer in layers if isinstance(layer, Linear)]
    places = []
    for node in model.graph.node:
        readers: tuple[Linear, ...] = ()
        kind: Literal["norm", "convolution"] = "norm"
        if node.op_type == "LayerNormalization":
            readers = _linear_readers(model, node.output[0], linears)
        elif node.op_type == "Conv" and node.input[1] in constants:
            kind, readers = "convolution", _linear_readers_of_maps(model, node.output[0], linears)
        if readers:
            producers = tuple(node.input[1:])  # gain or weight, and bias
            places.append(Smoothing(node.name, kind, len(constants[node.input[1]]), producers, readers))
    by_name = {layer.name: layer for layer in linears}
    for layer in linears:
        block, _, part = layer.name.rpartition(".")
        values = next((by_name[f"{block}.{name}"] for name in QKV_NAMES if f"{block}.{name}" in by_name), None)
        if part == "out" and values is not None:
            producers = tuple(name for name in (values.weight, values.bias) if name)
            places.append(Smoothing(layer.name, "attention", len(constants[layer.weight]), producers, (layer,)))
    return places


def _linear_readers(model: onnx.ModelProto, tensor: str, layers: Sequence[Linear]) -> tuple[Linear, ...]:
    """The layers that read a tensor, or nothing if anything else reads it too."""
    found: list[Linear] = []
    by_name = {layer.name: layer for layer in layers}
    for node in model.graph.node:
        if tensor not in node.input:
            continue
        if node.name in by_name:
            found.append(by_name[node.name])
        elif node.op_type in PASSING:
            behind = _linear_readers(model, node.output[0], layers)
            if not behind:
                return ()
            found += behind
        else:
            return ()
    return tuple(found)


def _linear_readers_of_maps(model: onnx.ModelProto, tensor: str, layers: Sequence[Linear]) -> tuple[Linear, ...]:
    """The layers that read maps as rows, or nothing if anything else reads them, too."""
    readers = [node for node in model.graph.node if tensor in node.input]
    if len(readers) != 1:
        return ()
    (node,) = readers
    if node.op_type == "Relu":
        return _linear_readers_of_maps(model, node.output[0], layers)
    if node.op_type == "Transpose" and list(helper.get_node_attr_value(node, "perm")) == TO_ROWS:
        return _linear_readers(model, node.output[0], layers)
    return ()


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
    """Write the scales (by place) into the constants: producers are divided, weights multiplied."""
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
