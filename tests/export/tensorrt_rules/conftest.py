"""A graph that keeps all of TensorRT's rules, for tests to break."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

HEADS, OUTPUTS = 2, 20


class Draft:
    """A graph in the making; everything is called by the tensor that it gives."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def node(self, operator: str, output: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Any) -> str:
        self.constants[name] = np.asarray(value)
        return name

    def pair(self, tensor: str) -> str:
        scale = self.constant(f"{tensor}.scale", np.float32(0.1))
        zero = self.constant(f"{tensor}.zero", np.int8(0))
        quantized = self.node("QuantizeLinear", f"{tensor}.q", tensor, scale, zero)
        return self.node("DequantizeLinear", f"{tensor}.dq", quantized, scale, zero)

    def linear(self, name: str, tensor: str, inputs: int, outputs: int) -> str:
        rng = np.random.default_rng(len(self.nodes))
        weight = self.constant(f"{name}.weight", rng.integers(-127, 128, (inputs, outputs)).astype(np.int8))
        scale = self.constant(f"{name}.weight.scale", np.full(outputs, 0.01, np.float32))
        zero = self.constant(f"{name}.weight.zero", np.zeros(outputs, np.int8))
        weight = self.node("DequantizeLinear", f"{name}.weight.dq", weight, scale, zero, axis=1)
        return self.node("MatMul", name, self.pair(tensor), weight)

    def model(self, tokens: int, width: int) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "attention",
            [helper.make_tensor_value_info("x", TensorProto.UINT8, ["batch", tokens, width])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", OUTPUTS])],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


def make_attention(tokens: int = 8, head: int = 16) -> onnx.ModelProto:
    """uint8 (batch, tokens, width) -> norm, attention in INT8, projection, L2 norm -> (batch * tokens, OUTPUTS)."""
    draft, width = Draft(), HEADS * head
    value = draft.node("Cast", "cast", "x", to=TensorProto.FLOAT)
    flat = draft.constant("flat.shape", np.int64([-1, width]))
    value = draft.node("Reshape", "flat", value, flat)
    value = draft.node("LayerNormalization", "norm", value, draft.constant("gain", np.ones(width, np.float32)))
    value = draft.linear("qkv", value, width, 3 * width)
    value = draft.node("Add", "qkv.add", value, draft.constant("qkv.bias", np.ones(3 * width, np.float32)))
    draft.nodes.append(helper.make_node("Split", [value], ["q", "k", "v"], name="split", axis=-1, num_outputs=3))
    heads = draft.constant("heads.shape", np.int64([-1, tokens, HEADS, head]))
    parts = {}
    for part, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        cut = draft.node("Reshape", f"{part}.heads", part, heads)
        parts[part] = draft.pair(draft.node("Transpose", f"{part}.turned", cut, perm=order))
    scores = draft.node("MatMul", "scores", parts["q"], parts["k"])
    weights = draft.pair(draft.node("Softmax", "softmax", scores, axis=-1))
    mixed = draft.node("MatMul", "mixed", weights, parts["v"])
    value = draft.node("Reshape", "joined", draft.node("Transpose", "turned", mixed, perm=[0, 2, 1, 3]), flat)
    value = draft.linear("projection", value, width, OUTPUTS)
    norm = draft.node("ReduceL2", "length", value, draft.constant("axes", np.int64([-1])), keepdims=1)
    draft.node("Div", "y", value, norm)
    return draft.model(tokens, width)


@pytest.fixture
def draft() -> Draft:
    return Draft()


@pytest.fixture
def attention() -> Callable[..., onnx.ModelProto]:
    """(tokens, head): see ``make_attention``."""
    return make_attention
