"""A graph as the rules look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

from clipedge.calibration.tensors import inferred

__all__ = ["DYNAMIC", "Broken", "Facts", "Finding", "Rule", "attribute", "facts_of", "named", "type_name"]

DYNAMIC = -1  # a size that is not known before the engine runs

Broken = Iterator[tuple[str, str]]  # the name of a node (or tensor) that breaks a rule, and what is wrong with it


@dataclass(frozen=True)
class Finding:
    """A place where a graph breaks a rule: the rule's name, the node's (or tensor's), and what is wrong."""

    rule: str
    node: str
    message: str


@dataclass(frozen=True)
class Rule:
    """``text`` is what has to hold, ``source`` the document that says so, ``broken`` finds where it does not."""

    name: str
    text: str
    source: str
    broken: Callable[[Facts], Broken]


@dataclass(frozen=True, eq=False)
class Facts:
    """A graph's nodes, and its tensors by name.

    ``constants`` are initializers and what Constant nodes hold. ``types`` are ONNX's element types, ``shapes`` have
    ``DYNAMIC`` where a size is not known; a tensor that shape inference did not reach is in neither.
    """

    opset: int
    ir_version: int
    nodes: Sequence[onnx.NodeProto]
    constants: Mapping[str, onnx.TensorProto]
    producers: Mapping[str, onnx.NodeProto]
    readers: Mapping[str, Sequence[onnx.NodeProto]]
    types: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def producer(self, tensor: str, *operators: str) -> onnx.NodeProto | None:
        """The node that a tensor comes from, if it is one of these operators."""
        node = self.producers.get(tensor)
        return node if node is not None and node.op_type in operators else None


def facts_of(model: onnx.ModelProto) -> Facts:
    """Look at a graph once for all rules."""
    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    producers: dict[str, onnx.NodeProto] = {}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        if node.op_type == "Constant":
            tensor = next((item.t for item in node.attribute if item.name == "value"), None)
            if tensor is not None:
                constants[node.output[0]] = tensor
        producers |= dict.fromkeys(node.output, node)
        for name in node.input:
            readers.setdefault(name, []).append(node)
    known = [value for value in inferred(model) if value.type.tensor_type.elem_type]
    types = {value.name: value.type.tensor_type.elem_type for value in known}
    shapes = {value.name: _shape(value) for value in known if value.type.tensor_type.HasField("shape")}
    return Facts(
        opset=next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0),
        ir_version=model.ir_version,
        nodes=list(graph.node),
        constants=constants,
        producers=producers,
        readers=readers,
        types=types | {name: item.data_type for name, item in constants.items()},
        shapes=shapes | {name: tuple(item.dims) for name, item in constants.items()},
        inputs=tuple(item.name for item in graph.input if item.name not in constants),
        outputs=tuple(item.name for item in graph.output),
    )


def named(node: onnx.NodeProto) -> str:
    """How a node is called in a finding: nodes need not have a name."""
    return node.name or f"{node.op_type} -> {node.output[0]}"


def type_name(element_type: int) -> str:
    """FLOAT, INT8, ..."""
    return str(onnx.TensorProto.DataType.Name(element_type))


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.WhichOneof("value") == "dim_value" else DYNAMIC for dim in dims)


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute of a node."""
    return next((int(helper.get_attribute_value(item)) for item in node.attribute if item.name == name), default)
