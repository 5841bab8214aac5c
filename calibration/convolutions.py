"""The convolutions of a float graph that are worth quantizing, and the tensors around them.

1 x 1 convolutions are none of them: they have become linear layers before (``clipedge.calibration.pointwise``). Left in
float are convolutions of less than ``MIN_INPUTS`` channels: those of pixels, and the depthwise ones, which take one.
Depthwise convolutions hold few multiply-adds and are bound by memory: in INT8 a FastViT's stages took 0.90 to 1.07
times as long (ONNX Runtime, x86 without VNNI).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from clipedge.calibration.patches import Patches

__all__ = ["Convolution", "convolutions"]

MIN_INPUTS = 16

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Convolution:
    """A Conv of one group with a constant (out, in, kh, kw) weight, by the names in the graph, and its bias if any.

    ``product`` is what it computes. ``output`` is what is quantized of that: the same, or the ReLU of it where nobody
    else reads it.
    """

    name: str
    activation: str
    weight: str
    bias: str | None
    product: str
    output: str
    observed: Patches

    axis: ClassVar[int] = 0  # of the weight: its output channels

    @property
    def outcome(self) -> Patches:
        """What is observed of the output: the channels of its positions."""
        return Patches(self.output)

    def matrix(self, weight: Floats) -> Floats:
        """The weight (out, in, kh, kw) as (in * kh * kw, out), which the patches are multiplied by."""
        matrix: Floats = weight.reshape(len(weight), -1).T
        return matrix

    def unmatrix(self, matrix: npt.NDArray[Any], like: Floats) -> npt.NDArray[Any]:
        """A matrix as a weight with the shape of ``like``."""
        return np.ascontiguousarray(matrix.T).reshape(like.shape)


def convolutions(model: onnx.ModelProto) -> list[Convolution]:
    """The convolutions that are worth quantizing, in graph order."""
    shapes = {item.name: tuple(item.dims) for item in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type != "Conv" or node.input[1] not in shapes:
            continue
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        shape = shapes[node.input[1]]
        if len(shape) != 4 or shape[1] < MIN_INPUTS or attributes.get("group", 1) != 1:
            continue
        if attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
            continue
        readers = [reader for reader in model.graph.node if node.output[0] in reader.input]
        behind_relu = len(readers) == 1 and readers[0].op_type == "Relu"
        found.append(
            Convolution(
                name=node.name,
                activation=node.input[0],
                weight=node.input[1],
                bias=node.input[2] if len(node.input) > 2 else None,
                product=node.output[0],
                output=readers[0].output[0] if behind_relu else node.output[0],
                observed=_patches(node.input[0], shape, attributes),
            )
        )
    return found


def _patches(tensor: str, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> Patches:
    down, across = attributes.get("strides", (1, 1))
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    rows, columns = attributes.get("dilations", (1, 1))
    return Patches(tensor, (shape[2], shape[3]), (down, across), (top, left, bottom, right), (rows, columns))
