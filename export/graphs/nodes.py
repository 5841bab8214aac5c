"""Building an ONNX graph node by node, with names that a person can follow.

A node's only output is named like the node (Split alone has several). Linear layers always have the same form: the
layer ``blocks.0.fc1`` is a MatMul of that name whose second input is the constant ``blocks.0.fc1.weight``, stored
(inputs, outputs), and, where it has a bias, an Add ``blocks.0.fc1.add`` of the constant ``blocks.0.fc1.bias``. A
convolution is a Conv of its name with the constants ``.weight`` and ``.bias``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import nn

from clipedge.calibration.storage import save_model
from clipedge.export.checkpoints.configs import Activation

__all__ = ["IR_VERSION", "OPSET", "GraphBuilder"]

# Both are read by ONNX Runtime 1.23 and TensorRT 10.3; opset 19 is the first with Q/DQ to and from float16.
OPSET = 19
IR_VERSION = 10


class GraphBuilder:
    """A growing graph. Methods append nodes and return the name of the value they made."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: dict[str, NDArray[Any]] = {}

    def node(self, op_type: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output, named like the node."""
        self._nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def split(self, name: str, value: str, parts: Sequence[str], sizes: Sequence[int] = ()) -> list[str]:
        """Cut the last axis into parts, equal ones or of these sizes, named after their places in ``parts``."""
        outputs = [f"{name}.{part}" for part in parts]
        if sizes:
            node = helper.make_node("Split", [value, self.integers(*sizes)], outputs, name=name, axis=-1)
        else:
            node = helper.make_node("Split", [value], outputs, name=name, axis=-1, num_outputs=len(parts))
        self._nodes.append(node)
        return outputs

    def constant(self, name: str, value: torch.Tensor) -> str:
        """A float32 constant."""
        self._constants[name] = value.detach().to(torch.float32).numpy()
        return name

    def scalar(self, value: float) -> str:
        """A float32 number, shared by all that use it."""
        name = f"number.{value:.7g}"
        self._constants[name] = np.array(value, dtype=np.float32)
        return name

    def integers(self, *values: int) -> str:
        """An int64 vector, shared by all that use it."""
        name = "integers." + "_".join(map(str, values))
        self._constants[name] = np.array(values, dtype=np.int64)
        return name

    def index(self, value: int) -> str:
        """An int64 number without dimensions, which picks one item of an axis and drops that axis."""
        name = f"index.{value}"
        self._constants[name] = np.array(value, dtype=np.int64)
        return name

    def reshape(self, name: str, value: str, *shape: int) -> str:
        """0 keeps the dimension that stands in that place, which is how the batch passes through."""
        return self.node("Reshape", name, value, self.integers(*shape))

    def linear(self, name: str, layer: nn.Linear, value: str) -> str:
        """A bias of zeros is left out, be it that training or that folding left it at zero."""
        result = self.node("MatMul", name, value, self.constant(f"{name}.weight", layer.weight.T))
        if layer.bias is not None and bool(layer.bias.any()):
            result = self.node("Add", f"{name}.add", result, self.constant(f"{name}.bias", layer.bias))
        return result

    def conv(self, name: str, layer: nn.Conv2d, value: str) -> str:
        """(B, C, H, W) maps to maps; the constants are ``name.weight`` (out, in / groups, kh, kw) and ``name.bias``."""
        inputs = [value, self.constant(f"{name}.weight", layer.weight)]
        if layer.bias is not None:
            inputs.append(self.constant(f"{name}.bias", layer.bias))
        rows, columns = cast(tuple[int, int], layer.padding)
        return self.node(
            "Conv",
            name,
            *inputs,
            kernel_shape=layer.kernel_size,
            strides=layer.stride,
            pads=(rows, columns, rows, columns),
            group=layer.groups,
        )

    def layer_norm(self, name: str, layer: nn.LayerNorm, value: str) -> str:
        """A norm without gain gets one of ones: the operator wants it, and calibration may put a scale there."""
        gain = layer.weight if layer.elementwise_affine else torch.ones(layer.normalized_shape)
        inputs = [value, self.constant(f"{name}.weight", gain)]
        if layer.bias is not None:
            inputs.append(self.constant(f"{name}.bias", layer.bias))
        return self.node("LayerNormalization", name, *inputs, axis=-1, epsilon=layer.eps)

    def activation(self, name: str, kind: Activation, value: str) -> str:
        """quick_gelu x * sigmoid(1.702 x); gelu x * (1 + erf(x / sqrt(2))) / 2; gelu_tanh its approximation
        x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))). ONNX has Gelu as an operator from opset 20 only."""
        if kind == "quick_gelu":
            scaled = self.node("Mul", f"{name}.scaled", value, self.scalar(1.702))
            return self.node("Mul", name, value, self.node("Sigmoid", f"{name}.sigmoid", scaled))
        if kind == "gelu_tanh":
            cube = self.node("Pow", f"{name}.cube", value, self.scalar(3.0))
            small = self.node("Mul", f"{name}.small", cube, self.scalar(0.044715))
            inner = self.node("Add", f"{name}.inner", value, small)
            curve = self.node("Mul", f"{name}.scaled", inner, self.scalar(math.sqrt(2 / math.pi)))
            curve = self.node("Tanh", f"{name}.tanh", curve)
        else:
            scaled = self.node("Div", f"{name}.scaled", value, self.scalar(math.sqrt(2.0)))
            curve = self.node("Erf", f"{name}.erf", scaled)
        # Halved first: in this form ONNX Runtime knows both again, also where ``value`` is itself a product.
        half = self.node("Mul", f"{name}.half", value, self.scalar(0.5))
        return self.node("Mul", name, half, self.node("Add", f"{name}.add", curve, self.scalar(1.0)))

    def write(self, path: Path, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Write the graph with these inputs and outputs (value infos), and check the file against the standard."""
        graph = helper.make_graph(self._nodes, path.stem, inputs, outputs)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=opsets, producer_name="clipedge")
        for name, array in self._constants.items():  # only now: make_graph and make_model would each copy them
            model.graph.initializer.add().CopyFrom(numpy_helper.from_array(array, name))
        save_model(model, path)
        del model  # the checker reads the file once more
        onnx.checker.check_model(str(path), full_check=True)
