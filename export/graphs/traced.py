"""A traced graph in the form of those that ClipEdge builds itself (``clipedge.export.graphs.nodes``).

A linear layer is then a MatMul named after its module, with a constant (inputs, outputs) of its own and the Add of its
bias, and takes rows, (rows, inputs), whatever the dimensions around it: so calibration and quantization find it.
Convolutions and norms are named after their modules, too, and share no constant: smoothing rewrites them one by one.
The last linear layer, whose outputs are the embedding, is called ``projection``, and the lookup of the token table
``embedding.lookup``. What tracing notes about the source code that it came by is left out.
"""

from __future__ import annotations

import ast
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from clipedge.calibration.storage import save_model
from clipedge.errors import CheckpointError
from clipedge.export.graphs.nodes import IR_VERSION, OPSET
from clipedge.export.graphs.trace import trace
from clipedge.export.towers.traced import TracedTower

__all__ = ["canonical", "write_traced_graph"]

SCOPES = "pkg.torch.onnx.name_scopes"  # where torch notes the modules that a node comes from, the outermost first
WITH_PARAMETERS = ("Conv", "LayerNormalization")
DYNAMIC = -1
Shape = tuple[int, ...]


def write_traced_graph(tower: TracedTower, path: str | os.PathLike[str]) -> None:
    """Write the graph of a tower that another library built.

    ``pixels`` uint8 (batch, H, W, 3) -> ``image_embeds``, or ``input_ids`` int64 (batch, context length) ->
    ``text_embeds``; L2-normalised float32 (batch, D). Raises CheckpointError for an architecture that cannot be traced
    or that takes operators beyond the standard, MissingDependencyError without onnxscript.
    """
    example = torch.cat([tower.example(), tower.example()])
    save_model(canonical(trace(tower, example, tower.input_name, tower.output_name)), Path(path))
    onnx.checker.check_model(str(path), full_check=True)


def canonical(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same function in ClipEdge's form. Raises CheckpointError for operators that are not of the standard."""
    versions = {item.domain: item.version for item in model.opset_import}
    foreign = sorted({f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain})
    if foreign or versions[""] > OPSET:
        raise CheckpointError(
            f"tracing gave operators beyond version {OPSET} of ONNX's standard "
            f"({', '.join(foreign) or versions['']}); ClipEdge does not export this architecture"
        )
    draft = _Draft(model)
    outputs_of_layers = [node.output[0] for node in model.graph.node if draft.is_linear(node)]
    for node in model.graph.node:
        if node.output[0] in draft.absorbed:
            continue
        if draft.is_linear(node):
            draft.add_linear(node, "projection" if node.output[0] == outputs_of_layers[-1] else _module_of(node))
        else:
            draft.add_other(node)
    return draft.finished()


class _Draft:
    """The graph under construction. ``absorbed`` are the outputs of Adds that have become part of a linear layer."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.traced = model.graph
        self._opsets = [item for item in model.opset_import if not item.domain]
        self.sources = {item.name: item for item in model.graph.initializer}
        self.shapes = {item.name: _shape(item) for item in (*model.graph.value_info, *model.graph.input)}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.absorbed: set[str] = set()
        self._taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
        self._now: dict[str, str] = {}
        self._rows: dict[str, str] = {}

    def is_linear(self, node: onnx.NodeProto) -> bool:
        """A product with one constant matrix, of an input whose dimensions are known but for one."""
        if node.op_type not in ("MatMul", "Gemm") or node.input[0] in self.sources:
            return False
        weight, shape = self.sources.get(node.input[1]), self.shapes.get(node.input[0], ())
        plain = {"transB": (0, 1), "transA": (0,), "alpha": (1,), "beta": (1,)}
        return (
            weight is not None
            and len(weight.dims) == 2
            and len(shape) >= 2
            and shape.count(DYNAMIC) <= 1
            and all(name in self.sources for name in node.input[2:])
            and all(helper.get_attribute_value(item) in plain[item.name] for item in node.attribute)
        )

    def add_linear(self, node: onnx.NodeProto, module: str) -> None:
        name, shape = self._unique(module), self.shapes[node.input[0]]
        weight = numpy_helper.to_array(self.sources[node.input[1]])
        if any(item.name == "transB" and item.i for item in node.attribute):
            weight = weight.T
        self.constants[f"{name}.weight"] = np.ascontiguousarray(weight)
        result = self._add("MatMul", name, self._as_rows(node.input[0], shape), f"{name}.weight")
        bias, output = self._bias(node, weight.shape[1])
        if bias is not None:
            self.constants[f"{name}.bias"] = bias
            result = self._add("Add", f"{name}.add", result, f"{name}.bias")
        if len(shape) > 2:
            result = self._add("Reshape", f"{name}.shaped", result, self._integers(*shape[:-1], weight.shape[1]))
        self._now[output] = result

    def add_other(self, node: onnx.NodeProto) -> None:
        """Any other node as it is; the parameters of a norm or convolution become its own."""
        copy = helper.make_node(node.op_type, [self._now.get(name, name) for name in node.input], node.output)
        copy.name = node.name
        copy.attribute.extend(item for item in node.attribute if item.s != b"NOTSET")  # an auto_pad that says nothing
        if node.op_type in WITH_PARAMETERS:
            copy.name = self._unique(_module_of(node))
            for place, part in ((1, "weight"), (2, "bias")):
                if len(node.input) > place and node.input[place] in self.sources:
                    copy.input[place] = f"{copy.name}.{part}"
                    self.constants[copy.input[place]] = numpy_helper.to_array(self.sources[node.input[place]])
        elif node.op_type == "Gather" and list(node.input[1:]) == [self.traced.input[0].name]:
            copy.name = self._unique("embedding.lookup")
        for name in copy.input:
            if name in self.sources:
                self.constants[name] = numpy_helper.to_array(self.sources[name])
        self.nodes.append(copy)

    def finished(self) -> onnx.ModelProto:
        """The model. Its outputs keep their names."""
        for output in self.traced.output:
            if output.name in self._now:
                self.nodes.append(helper.make_node("Identity", [self._now[output.name]], [output.name]))
        inputs, outputs = ([_bare(item) for item in items] for items in (self.traced.input, self.traced.output))
        constants = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        graph = helper.make_graph(self.nodes, outputs[0].name, inputs, outputs)
        graph.initializer.extend(constants)
        return helper.make_model(graph, ir_version=IR_VERSION, opset_imports=self._opsets, producer_name="clipedge")

    def _bias(self, node: onnx.NodeProto, width: int) -> tuple[NDArray[Any] | None, str]:
        """The layer's bias (width,) if it has one, and the tensor that stands behind both."""
        output, readers = node.output[0], self.readers.get(node.output[0], [])
        if len(node.input) > 2:
            return np.broadcast_to(numpy_helper.to_array(self.sources[node.input[2]]).reshape(-1), width), output
        if len(readers) == 1 and readers[0].op_type == "Add":
            for name in readers[0].input:
                dims = list(self.sources[name].dims) if name in self.sources else []
                if dims[-1:] == [width] and math.prod(dims) == width:
                    self.absorbed.add(readers[0].output[0])
                    return numpy_helper.to_array(self.sources[name]).reshape(-1), readers[0].output[0]
        return None, output

    def _as_rows(self, tensor: str, shape: Shape) -> str:
        """The tensor as (rows, inputs); one Reshape serves all layers that read it."""
        value = self._now.get(tensor, tensor)
        if len(shape) == 2:
            return value
        if tensor not in self._rows:
            self._rows[tensor] = self._add("Reshape", f"{tensor}.rows", value, self._integers(DYNAMIC, shape[-1]))
        return self._rows[tensor]

    def _add(self, operator: str, name: str, *inputs: str) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name))
        return name

    def _integers(self, *values: int) -> str:
        name = "integers." + "_".join(map(str, values))
        self.constants[name] = np.array(values, np.int64)
        return name

    def _unique(self, name: str) -> str:
        count, free = 1, name
        while free in self._taken:
            count += 1
            free = f"{name}.{count}"
        self._taken.add(free)
        return free


def _module_of(node: onnx.NodeProto) -> str:
    """The innermost module that the node comes from, by its name in the source model."""
    scopes: list[Any] = next((ast.literal_eval(item.value) for item in node.metadata_props if item.key == SCOPES), [])
    return str(scopes[-2]).removeprefix("source.") if len(scopes) > 1 and scopes[-2] else node.name


def _shape(value: onnx.ValueInfoProto) -> Shape:
    """``DYNAMIC`` where a dimension is not known."""
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.WhichOneof("value") == "dim_value" else DYNAMIC for dim in dims)


def _bare(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    """An input or output whose first dimension is the batch."""
    shape = ["batch", *_shape(value)[1:]]
    return helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, shape)
