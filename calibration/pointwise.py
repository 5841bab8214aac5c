"""1 x 1 convolutions as what they are: linear layers over positions. An exact rewriting of graphs that become INT8.

A quantized convolution needs its output quantized, too, or ONNX Runtime computes it in float. A linear layer does not,
and its float output is nearer to the truth. What stands between two such layers moves to the rows with them, so that a
perceptron at each position (1 x 1, GELU, 1 x 1) stays one run of nodes: ONNX Runtime fuses its GELU, which it does not
do behind a DequantizeLinear.

Measured in ONNX Runtime on x86 without VNNI, one thread, relative to float32: the four stages of a FastViT, finest maps
first, take 1.02, 0.90, 0.74, 0.66 in this form and 1.11, 0.85, 0.70, 0.61 with every convolution and sum in integers;
the first, third and last stage of a ResNet-50 take 0.88, 0.64, 0.60 and 0.61, 0.53, 0.55. So integers throughout gain a
FastViT nothing. They gain a ResNet a quarter, for a residual stream of 8 bits; accuracy was preferred. Float graphs
keep their convolutions: OpenVINO takes one and a half times as long for a FastViT in this form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from clipedge.calibration.drafts import Draft
from clipedge.calibration.linears import constants_of
from clipedge.calibration.tensors import inferred

__all__ = ["pointwise_as_linear"]

TO_ROWS, TO_MAPS = [0, 2, 3, 1], [0, 3, 1, 2]
# What is computed for each number alone, or, of two tensors, for each two numbers at the same place.
ELEMENTWISE = frozenset({"Add", "Div", "Erf", "Mul", "Pow", "Relu", "Sigmoid", "Sub", "Tanh"})

Grid = tuple[int, int, int]  # channels, height, width


@dataclass
class _Layouts:
    """The tensors of a graph under construction as maps (B, C, H, W) and as rows (B * H * W, C).

    ``rows`` names the second form of those that have it; ``pending`` are those that do not have the first, so far.
    """

    draft: Draft
    grids: Mapping[str, Grid]
    rows: dict[str, str] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)

    def as_rows(self, tensor: str) -> str:
        if tensor not in self.rows:
            last = self.draft.add("Transpose", [tensor], f"{tensor}.channels_last", perm=TO_ROWS)
            shape = self._shape(f"{tensor}.rows_shape", -1, self.grids[tensor][0])
            self.rows[tensor] = self.draft.add("Reshape", [last, shape], f"{tensor}.rows")
        return self.rows[tensor]

    def add_rows(self, operator: str, inputs: list[str], tensor: str, name: str) -> None:
        """A node whose output is the rows of ``tensor``."""
        self.rows[tensor] = self.draft.add(operator, inputs, f"{tensor}.rows", name=name)
        self.pending.add(tensor)

    def as_maps(self, tensor: str) -> None:
        """Make sure that a tensor exists by its own name, for whoever reads it by that."""
        if tensor in self.pending:
            channels, height, width = self.grids[tensor]
            shape = self._shape(f"{tensor}.grid_shape", -1, height, width, channels)
            grid = self.draft.add("Reshape", [self.rows[tensor], shape], f"{tensor}.grid")
            self.draft.add("Transpose", [grid], tensor, name=f"{tensor}.maps", perm=TO_MAPS)
            self.pending.remove(tensor)

    def _shape(self, name: str, *sizes: int) -> str:
        self.draft.constants[name] = np.array(sizes, np.int64)
        return name


def pointwise_as_linear(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float graph whose 1 x 1 convolutions (stride 1, one group) are MatMul and Add on rows (positions, channels).

    A layer and its constants keep their names; the weight becomes (in, out). Convolutions of one position only, and
    of maps whose size is not known, stay as they are. A graph without any is returned as it is.
    """
    if not any(node.op_type == "Conv" for node in model.graph.node):
        return model
    layouts = _Layouts(Draft(constants_of(model)), _grids(model))
    draft = layouts.draft
    for node in model.graph.node:
        if _is_pointwise(node, layouts):
            _add_linear(node, layouts)
        elif _is_carried(node, layouts):
            inputs = [layouts.rows.get(name, name) for name in node.input]
            layouts.add_rows(node.op_type, inputs, node.output[0], node.name)
        else:
            for name in node.input:
                layouts.as_maps(name)
            draft.nodes.append(node)
    for value in model.graph.output:
        layouts.as_maps(value.name)
    return draft.finished(model) if layouts.rows else model


def _is_pointwise(node: onnx.NodeProto, layouts: _Layouts) -> bool:
    if node.op_type != "Conv":
        return False
    weight = layouts.draft.constants.get(node.input[1])
    _, height, width = layouts.grids.get(node.output[0], (0, 0, 0))
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    return (
        weight is not None
        and weight.shape[2:] == (1, 1)
        and attributes.get("group", 1) == 1
        and set(attributes.get("strides", [1])) == {1}
        and not any(attributes.get("pads", [0]))
        and height * width > 1
        and node.input[0] in layouts.grids
    )


def _add_linear(node: onnx.NodeProto, layouts: _Layouts) -> None:
    constants, (value, weight), bias = layouts.draft.constants, node.input[:2], node.input[2:]
    constants[weight] = np.ascontiguousarray(constants[weight][:, :, 0, 0].T)
    output, rows = node.output[0], layouts.as_rows(value)
    if bias:
        product = layouts.draft.add("MatMul", [rows, weight], f"{node.name}.product", name=node.name)
        layouts.add_rows("Add", [product, *bias], output, f"{node.name}.add")
    else:
        layouts.add_rows("MatMul", [rows, weight], output, node.name)


def _is_carried(node: onnx.NodeProto, layouts: _Layouts) -> bool:
    """Whether a node can work on rows that are there, beside them on nothing but numbers."""
    if node.op_type not in ELEMENTWISE:
        return False
    numbers = {name for name in node.input if _is_number(layouts.draft.constants.get(name))}
    tensors = [name for name in node.input if name not in numbers]
    grids = {layouts.grids.get(name) for name in [*tensors, node.output[0]]}
    return len(grids) == 1 and all(name in layouts.rows for name in tensors) and not layouts.pending.isdisjoint(tensors)


def _is_number(constant: npt.NDArray[Any] | None) -> bool:
    return constant is not None and constant.size == 1 and constant.ndim <= 1


def _grids(model: onnx.ModelProto) -> dict[str, Grid]:
    """The sizes of all tensors (batch, C, H, W) that are known."""
    grids = {}
    for value in inferred(model):
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if len(sizes) == 4 and all(sizes[1:]):
            grids[value.name] = (sizes[1], sizes[2], sizes[3])
    return grids
