"""The linear layers of a float graph, and the tensors around them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

__all__ = ["PATCH_EMBED", "Constants", "Linear", "constants_of", "linear_layers"]

FLOAT_LAYERS = frozenset({"projection"})  # its outputs are the embedding: 0.4 % of the multiply-adds, all the effect
PATCH_EMBED = "embedding.patch"

Floats = npt.NDArray[np.float32]
Constants = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Linear:
    """A MatMul with a constant (in, out) weight, by the names in the graph, and the Add of its bias (out,) if any.

    ``output`` is the tensor behind both.
    """

    name: str
    activation: str
    weight: str
    bias: str | None
    output: str

    axis: ClassVar[int] = 1  # of the weight: its output channels

    @property
    def observed(self) -> str:
        """What is observed of the input: its rows as they are."""
        return self.activation

    def matrix(self, weight: Floats) -> Floats:
        """The weight is a matrix (in, out) already."""
        return weight

    def unmatrix(self, matrix: npt.NDArray[Any], like: Floats) -> npt.NDArray[Any]:
        """A matrix as a weight with the shape of ``like``, which it has."""
        return matrix


def linear_layers(model: onnx.ModelProto) -> list[Linear]:
    """The linear layers that are worth quantizing, in graph order."""
    vectors = {item.name for item in model.graph.initializer if len(item.dims) == 1}
    matrices = {item.name for item in model.graph.initializer if len(item.dims) == 2}
    readers = _readers(model.graph.node)
    layers = []
    for node in model.graph.node:
        if node.op_type != "MatMul" or node.input[1] not in matrices or node.name in FLOAT_LAYERS:
            continue
        bias, output = None, node.output[0]
        following = readers.get(output, [])
        if len(following) == 1 and following[0].op_type == "Add":
            bias = next((name for name in following[0].input if name in vectors), None)
            output = following[0].output[0] if bias else output
        layers.append(Linear(node.name, node.input[0], node.input[1], bias, output))
    return layers


def constants_of(model: onnx.ModelProto) -> dict[str, npt.NDArray[Any]]:
    """The graph's constants by name."""
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def _readers(nodes: Iterable[onnx.NodeProto]) -> dict[str, list[onnx.NodeProto]]:
    """The nodes that read each tensor."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers
