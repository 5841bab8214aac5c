"""A float ONNX graph as a function in torch, so that gradients flow through it.

It has the operators of transformers as ``clipedge.export.graphs`` writes them, with the meaning of the ONNX standard
(https://onnx.ai/onnx/operators/). It is meant for training at a graph's own tensors; engines compute graphs faster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper

from clipedge.errors import UsageError

__all__ = ["OPERATORS", "Operator", "TorchGraph", "torch_graph"]

Attributes: TypeAlias = Mapping[str, Any]
# What a node computes: its inputs -> its output, or a sequence of them.
Operator: TypeAlias = Callable[..., Any]

TYPES = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
}


@dataclass(frozen=True, eq=False)
class _Node:
    name: str
    operator: Operator
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class TorchGraph:
    """A graph's first output as a function of its input. ``constants`` by name; ``instead`` has operators that take the
    place of a node's own, by the node's name."""

    nodes: tuple[_Node, ...]
    constants: Mapping[str, torch.Tensor]
    input: str
    output: str
    instead: Mapping[str, Operator]

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """(N, ...) inputs to (N, ...)."""
        values: dict[str, torch.Tensor] = {**self.constants, self.input: batch}
        for node in self.nodes:
            operator = self.instead.get(node.name, node.operator)
            found = operator(*(values[name] for name in node.inputs))
            values.update(zip(node.outputs, found if len(node.outputs) > 1 else (found,), strict=True))
        return values[self.output]


def torch_graph(
    model: onnx.ModelProto, constants: Mapping[str, np.ndarray[Any, Any]], instead: Mapping[str, Operator]
) -> TorchGraph:
    """The nodes of a float graph, all of ``OPERATORS``, and its ``constants``, which may have been changed."""
    nodes = []
    for node in model.graph.node:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        nodes.append(_Node(node.name, OPERATORS[node.op_type](attributes), tuple(node.input), tuple(node.output)))
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in constants.items()}
    return TorchGraph(tuple(nodes), tensors, model.graph.input[0].name, model.graph.output[0].name, instead)


def _plain(function: Operator) -> Callable[[Attributes], Operator]:
    """An operator without attributes."""
    return lambda attributes: function


def _cast(attributes: Attributes) -> Operator:
    return lambda value: value.to(TYPES[attributes["to"]])


def _transpose(attributes: Attributes) -> Operator:
    return lambda value: value.permute(*attributes["perm"])


def _softmax(attributes: Attributes) -> Operator:
    return lambda value: value.softmax(dim=attributes.get("axis", -1))


def _reshape(value: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    return value.reshape([value.shape[place] if size == 0 else size for place, size in enumerate(shape.tolist())])


def _layer_norm(attributes: Attributes) -> Operator:
    def norm(value: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return F.layer_norm(value, gain.shape, gain, bias, attributes.get("epsilon", 1e-5))

    return norm


def _split(attributes: Attributes) -> Operator:
    def split(value: torch.Tensor, sizes: torch.Tensor | None = None) -> Sequence[torch.Tensor]:
        axis = attributes.get("axis", 0)
        if sizes is None:
            return value.chunk(attributes["num_outputs"], dim=axis)
        return torch.split(value, sizes.tolist(), dim=axis)

    return split


def _gather(attributes: Attributes) -> Operator:
    def gather(data: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        axis = attributes.get("axis", 0) % data.ndim
        size = data.shape[axis]
        chosen = data.index_select(axis, indices.flatten() % size)
        return chosen.reshape(*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])

    return gather


def _gather_nd(attributes: Attributes) -> Operator:
    """Of each sample the item at its own index: what pooling at the end of a text is."""

    def gather(data: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        if attributes.get("batch_dims", 0) != 1 or indices.shape[1:] != (1,):
            raise UsageError(
                "finishing knows a GatherND of one index a sample, this tower has another; leave --finish out"
            )
        return data[torch.arange(len(data)), indices[:, 0]]

    return gather


def _pad(value: torch.Tensor, pads: torch.Tensor) -> torch.Tensor:
    begins, ends = pads.tolist()[: value.ndim], pads.tolist()[value.ndim :]
    both = [size for pair in zip(reversed(begins), reversed(ends), strict=True) for size in pair]
    return F.pad(value, both)


def _slice(
    value: torch.Tensor,
    starts: torch.Tensor,
    ends: torch.Tensor,
    axes: torch.Tensor | None = None,
    steps: torch.Tensor | None = None,
) -> torch.Tensor:
    places = range(len(starts)) if axes is None else axes.tolist()
    strides = [1] * len(starts) if steps is None else steps.tolist()
    cut: list[slice] = [slice(None)] * value.ndim
    for place, start, end, stride in zip(places, starts.tolist(), ends.tolist(), strides, strict=True):
        cut[place] = slice(start, end, stride)
    return value[tuple(cut)]


def _norm(attributes: Attributes) -> Operator:
    keep = bool(attributes.get("keepdims", 1))
    return lambda value, axes: torch.linalg.vector_norm(value, dim=axes.tolist(), keepdim=keep)


def _sum(attributes: Attributes) -> Operator:
    keep = bool(attributes.get("keepdims", 1))
    return lambda value, axes: value.sum(dim=axes.tolist(), keepdim=keep)


def _argmax(attributes: Attributes) -> Operator:
    axis, keep = attributes.get("axis", 0), bool(attributes.get("keepdims", 1))
    return lambda value: value.argmax(dim=axis, keepdim=keep)


OPERATORS: Mapping[str, Callable[[Attributes], Operator]] = {
    "Add": _plain(torch.add),
    "ArgMax": _argmax,
    "Cast": _cast,
    "Div": _plain(torch.div),
    "Equal": _plain(torch.eq),
    "Erf": _plain(torch.erf),
    "Gather": _gather,
    "GatherND": _gather_nd,
    "LayerNormalization": _layer_norm,
    "MatMul": _plain(torch.matmul),
    "Mul": _plain(torch.mul),
    "Pad": _plain(_pad),
    "Pow": _plain(torch.pow),
    "ReduceL2": _norm,
    "ReduceSum": _sum,
    "Relu": _plain(torch.relu),
    "Reshape": _plain(_reshape),
    "Sigmoid": _plain(torch.sigmoid),
    "Slice": _plain(_slice),
    "Softmax": _softmax,
    "Split": _split,
    "Sub": _plain(torch.sub),
    "Tanh": _plain(torch.tanh),
    "Transpose": _transpose,
}
