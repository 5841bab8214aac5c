"""Pixels in the range of half precision.

A graph of ours takes bytes, and its first layer's weights are divided by 255 times the standard deviation for that: in
half precision many of them would be subnormal and lose digits. Here pixels are brought to about [-1, 1] and the weights
multiplied by as much, both by a power of two, so that nothing is rounded by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from clipedge.calibration.drafts import Draft
from clipedge.calibration.half.tensors import loses_channels
from clipedge.calibration.linears import constants_of
from clipedge.calibration.patch_embed import PIXEL_OFFSET, added_constant, patch_shift

__all__ = ["PixelPath", "pixel_path", "scaled_pixels"]

LAYERS = frozenset({"MatMul", "Gemm", "Conv"})
PIXEL_SCALE = 128  # (p - 128) / 128 is an exact half for every byte p


@dataclass(frozen=True)
class PixelPath:
    """The nodes between an image tower's bytes and its first ``layers``; of a text tower there are none."""

    nodes: tuple[onnx.NodeProto, ...]
    layers: tuple[onnx.NodeProto, ...]


def pixel_path(model: onnx.ModelProto) -> PixelPath:
    """Follow the uint8 input."""
    reached = {item.name for item in model.graph.input if item.type.tensor_type.elem_type == TensorProto.UINT8}
    nodes, layers = [], []
    for node in model.graph.node:
        if node.op_type == "Shape" or reached.isdisjoint(node.input):
            continue
        if node.op_type in LAYERS:
            layers.append(node)
        else:
            nodes.append(node)
            reached.update(node.output)
    return PixelPath(tuple(nodes), tuple(layers))


def scaled_pixels(model: onnx.ModelProto, pixel_mean: Sequence[float]) -> onnx.ModelProto:
    """The same float32 graph with pixels divided by 128, and moved by 128 before where no padding is in the way.

    ``pixel_mean`` is the mean of each channel in [0, 255] that the model subtracts. Where the first layer's bias holds
    that mean, it is computed from the weights as half precision rounds them, which they are here. Graphs that divide
    their pixels already, and those of texts, are returned as they are.
    """
    path = pixel_path(model)
    operators = {node.op_type for node in path.nodes}
    if len(path.layers) != 1 or operators & {"Mul", "Div"}:
        return model
    (layer,) = path.layers
    graph = Draft(constants_of(model))
    weight = graph.constants[layer.input[1]]
    pixels = [node.output[0] for node in path.nodes if node.op_type in ("Cast", "Sub")][-1]
    moved = layer.op_type == "MatMul" and "Sub" not in operators and _has_bias(model, layer, weight.shape[1])
    scaled = ""
    for node in model.graph.node:
        graph.nodes.append(_reading(node, pixels, scaled) if scaled else node)
        if pixels in node.output:
            scaled = _scale(graph, pixels, moved)
    larger = weight * np.float32(PIXEL_SCALE)
    if moved:
        if not loses_channels(larger, 1.0):
            larger = larger.astype(np.float16).astype(np.float32)
        name, rows = added_constant(model, layer.name)
        constant = np.array(graph.constants[name])
        places = constant[..., rows:, :] if constant.ndim > 1 else constant
        places += patch_shift(weight, larger.astype(np.float64) / PIXEL_SCALE, pixel_mean)
        graph.constants[name] = constant
    graph.constants[layer.input[1]] = larger
    return graph.finished(model)


def _has_bias(model: onnx.ModelProto, layer: onnx.NodeProto, width: int) -> bool:
    """Whether the constant behind a layer is its bias; a bias of zeros is left out, and an activation's number not."""
    name, _ = added_constant(model, layer.name)
    return next(list(item.dims)[-1:] == [width] for item in model.graph.initializer if item.name == name)


def _scale(graph: Draft, pixels: str, moved: bool) -> str:
    """Nodes behind the pixels; the name of what they make of them."""
    if moved:
        graph.constants["pixels.offset"] = np.array(PIXEL_OFFSET, np.float32)
        pixels = graph.add("Sub", [pixels, "pixels.offset"], "pixels.moved")
    graph.constants["pixels.scale"] = np.array(1 / PIXEL_SCALE, np.float32)
    return graph.add("Mul", [pixels, "pixels.scale"], "pixels.scaled")


def _reading(node: onnx.NodeProto, tensor: str, other: str) -> onnx.NodeProto:
    """The node with ``other`` as its input in the place of ``tensor``."""
    if tensor not in node.input:
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [other if name == tensor else name for name in node.input]
    return copy
