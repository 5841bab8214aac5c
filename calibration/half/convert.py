"""A float32 graph -> the same graph in half precision, every tensor's type said.

Inputs and outputs keep their types, so nothing changes for who runs the graph. Products, convolutions, activations,
residual sums and attention with its softmax are in half precision. In float32 stay: norms, means and other sums over
many numbers; the unit length of the embeddings; what is computed of the pixels before the first layer; operators that
are not in ``HALF``; and what the caller names. Where a tensor passes from one type to the other stands a Cast, since
TensorRT takes a strongly typed graph at its word, and engines refuse an operator whose inputs have different types.

Softmax needs no float32: engines compute it there inside, and attention that reads and gives one type is what
TensorRT fuses (https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/transformers-fused-attention.html).

QuantizeLinear, DequantizeLinear and the layers that read the latter stay as they are, in float32.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto

from clipedge.calibration.drafts import Draft
from clipedge.calibration.half.pixels import pixel_path
from clipedge.calibration.half.tensors import float_tensors
from clipedge.calibration.linears import constants_of

__all__ = ["always_in_float32", "to_half"]

MOVING = frozenset(
    {
        "Concat", "Expand", "Flatten", "Gather", "GatherND", "Identity", "Pad", "Reshape", "Slice", "Split", "Squeeze",
        "Transpose", "Unsqueeze", "Where",
    }
)  # fmt: skip
COMPUTING = frozenset(
    {
        "Add", "AveragePool", "Cast", "Clip", "Conv", "Div", "Erf", "Gemm", "HardSigmoid", "HardSwish", "LeakyRelu",
        "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "Pow", "Relu", "Sigmoid", "Softmax", "Sub", "Tanh",
    }
)  # fmt: skip
HALF = MOVING | COMPUTING
# From a vector's length to the vector divided by it: F.normalize guards against a length of zero.
LENGTH, GUARDS = "ReduceL2", frozenset({"Add", "Clip", "Expand", "Max", "Reshape", "Sqrt"})
NAMES = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}


def to_half(model: onnx.ModelProto, in_float32: Collection[str] = ()) -> onnx.ModelProto:
    """A copy of ``model`` in half precision; operations whose first output is in ``in_float32`` stay in float32.

    Raises CheckpointError for a graph whose types do not follow from its inputs.
    """
    floats = float_tensors(model)
    wide = always_in_float32(model, floats) | set(in_float32)
    kept = {name for node in model.graph.node if node.output[0] in wide for name in node.input}
    graph = _TypedGraph(Draft(constants_of(model)), floats, kept)
    for node in model.graph.node:
        graph.add(node, TensorProto.FLOAT if node.output[0] in wide else TensorProto.FLOAT16)
    return graph.draft.finished(model)


def always_in_float32(model: onnx.ModelProto, floats: frozenset[str]) -> set[str]:
    """The first outputs of what stays in float32 whatever the numbers; ``floats`` are the graph's float32 tensors."""
    outputs = {value.name for value in model.graph.output}
    wide = {node.output[0] for node in pixel_path(model).nodes}
    lengths: set[str] = set()  # of vectors, until they have divided them
    restored: set[str] = set()  # from integers
    for node in model.graph.node:
        name = node.output[0]
        if node.op_type == LENGTH or (node.op_type in GUARDS and not lengths.isdisjoint(node.input)):
            lengths.add(name)
        if node.op_type == "DequantizeLinear":
            restored.add(name)
        numbers = floats.isdisjoint(node.output)  # of another type, such as positions, indices, comparisons
        divided = node.op_type == "Div" and not lengths.isdisjoint(node.input)
        if (
            node.op_type not in HALF
            or numbers
            or divided
            or name in lengths
            or not restored.isdisjoint(node.input)
            or not outputs.isdisjoint(node.output)
        ):
            wide.add(name)
    return wide


@dataclass(frozen=True)
class _TypedGraph:
    """The graph under construction: ``types`` of the float tensors so far. Constants in ``kept`` stay in float32, and
    get a second form for who reads them in half precision."""

    draft: Draft
    floats: frozenset[str]
    kept: set[str]
    types: dict[str, int] = field(default_factory=dict)

    def add(self, node: onnx.NodeProto, kind: int) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if node.op_type != "Shape":  # of whatever type
            copy.input[:] = [self._read(name, kind) for name in node.input]
        for attribute in copy.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = kind
        self.types.update((name, kind) for name in node.output if name in self.floats)
        self.draft.nodes.append(copy)

    def _read(self, name: str, kind: int) -> str:
        """A tensor or constant in the type that is wanted, by its own name or that of its other form."""
        if name not in self.floats:
            return name
        other = f"{name}.{NAMES[kind]}"
        if name in self.draft.constants:
            if kind == TensorProto.FLOAT:
                return name
            half = other if name in self.kept else name
            with np.errstate(over="ignore"):  # the caller named what would overflow, or wants to see it
                self.draft.constants[half] = self.draft.constants[name].astype(np.float16)
            return half
        if self.types.get(name, TensorProto.FLOAT) == kind:
            return name
        if other not in self.types:
            self.types[other] = kind
            self.draft.add("Cast", [name], other, to=kind)
        return other
