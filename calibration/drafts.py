"""A graph that is being rewritten: its nodes so far, and its constants."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from clipedge.calibration.storage import without_constants

__all__ = ["Draft"]


@dataclass(frozen=True)
class Draft:
    """Constants by name, and nodes in topological order."""

    constants: dict[str, npt.NDArray[Any]]
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def add(self, operator: str, inputs: list[str], output: str, name: str = "", **attributes: Any) -> str:
        """Append a node with one output, and return the output's name, which the node has, too, unless it has one."""
        self.nodes.append(helper.make_node(operator, inputs, [output], name=name or output, **attributes))
        return output

    def quantize_pair(
        self, tensor: str, name: str, scale: np.float32, zero_point: npt.NDArray[Any], output: str = ""
    ) -> str:
        """QuantizeLinear and DequantizeLinear behind a tensor, called ``name``; the name of what comes out, which may
        be given."""
        parameters = [f"{name}.scale", f"{name}.zero_point"]
        self.constants.update(zip(parameters, (np.asarray(scale), zero_point), strict=True))
        quantized = self.add("QuantizeLinear", [tensor, *parameters], f"{name}.quantized")
        restored = f"{name}.dequantized"
        return self.add("DequantizeLinear", [quantized, *parameters], output or restored, name=restored)

    def dequantized(self, name: str, integers: npt.NDArray[Any], scale: npt.NDArray[np.float32], axis: int) -> str:
        """Replace a float constant by integers with a scale for each item of an axis, and a DequantizeLinear."""
        inputs = [name, f"{name}.scale", f"{name}.zero_point"]
        self.constants.update(zip(inputs, (integers, scale, np.zeros_like(scale, integers.dtype)), strict=True))
        return self.add("DequantizeLinear", inputs, f"{name}.dequantized", axis=axis)

    def finished(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """``model`` with the draft's nodes instead of its own, and of the constants those that they use."""
        used = {name for node in self.nodes for name in node.input}
        result = without_constants(model)
        del result.graph.node[:]
        result.graph.node.extend(self.nodes)
        result.graph.initializer.extend(
            numpy_helper.from_array(value, name) for name, value in self.constants.items() if name in used
        )
        return result
