"""The rules of FP8: the graph of the others with E4M3 numbers in place of int8, and convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from clipedge.export.tensorrt_rules import broken_rules

HEADS = 2
MakeAttention = Callable[..., onnx.ModelProto]


def in_fp8(model: onnx.ModelProto) -> onnx.ModelProto:
    for item in model.graph.initializer:
        if item.data_type == TensorProto.INT8:
            numbers = numpy_helper.to_array(item).astype(np.float32)
            item.CopyFrom(helper.make_tensor(item.name, TensorProto.FLOAT8E4M3FN, numbers.shape, numbers.ravel()))
    return model


def set_zero(model: onnx.ModelProto, name: str, kind: int, value: float) -> None:
    item = next(item for item in model.graph.initializer if item.name == name)
    item.CopyFrom(helper.make_tensor(name, kind, [], [value]))


def findings(model: onnx.ModelProto) -> set[tuple[str, str]]:
    return {(finding.rule, finding.node) for finding in broken_rules(model)}


def test_a_graph_in_fp8_keeps_the_rules_whatever_its_length_and_heads_and_runs(attention: MakeAttention) -> None:
    model = in_fp8(attention(tokens=513, head=24))
    onnx.checker.check_model(model, full_check=True)
    assert broken_rules(model) == []
    x = np.random.default_rng(0).integers(0, 256, (1, 513, HEADS * 24), np.uint8)
    (y,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_allclose(np.linalg.norm(y, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("head", [8, 264])
def test_heads_that_no_kernel_is_there_for_are_found(attention: MakeAttention, head: int) -> None:
    assert findings(in_fp8(attention(head=head))) == {("fp8-attention-heads", "softmax")}


def test_an_opset_without_fp8_is_found(attention: MakeAttention) -> None:
    model = in_fp8(attention())
    model.opset_import[0].version = 18
    assert ("fp8-opset", "norm.dq") in findings(model)


def test_a_zero_point_is_zero_in_fp8_too(attention: MakeAttention) -> None:
    model = in_fp8(attention())
    set_zero(model, "norm.zero", TensorProto.FLOAT8E4M3FN, 2.0)
    assert findings(model) == {("zero-point", "norm.q"), ("zero-point", "norm.dq")}


def test_the_other_fp8_is_no_type_of_tensorrt(attention: MakeAttention) -> None:
    model = in_fp8(attention())
    set_zero(model, "norm.zero", TensorProto.FLOAT8E5M2, 0.0)
    assert {rule for rule, _ in findings(model)} == {"quantized-type"}


def convolution(draft: Any, outputs: int, inputs: int, kernel: int) -> onnx.ModelProto:
    """uint8 (batch, inputs, 8, 8) -> a convolution in FP8."""
    value = draft.pair(draft.node("Cast", "cast", "x", to=TensorProto.FLOAT))
    shape = (outputs, inputs, kernel, kernel)
    weight = draft.constant("weight", np.random.default_rng(0).integers(-9, 9, shape).astype(np.int8))
    scale = draft.constant("weight.scale", np.full(outputs, 0.1, np.float32))
    zero = draft.constant("weight.zero", np.zeros(outputs, np.int8))
    draft.node("Conv", "y", value, draft.node("DequantizeLinear", "weight.dq", weight, scale, zero, axis=0))
    model = in_fp8(draft.model(1, 1))
    ends = [helper.make_tensor_value_info("x", TensorProto.UINT8, ["batch", inputs, 8, 8])]
    ends.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", outputs, 9 - kernel, 9 - kernel]))
    model.graph.input[0].CopyFrom(ends[0])
    model.graph.output[0].CopyFrom(ends[1])
    return model


@pytest.mark.parametrize(
    ("sizes", "broken"),
    [((32, 32, 5), False), ((32, 3, 5), True), ((16, 32, 5), True), ((32, 32, 6), True)],
    ids=["wide", "of colours", "narrow", "large kernel"],
)
def test_convolutions_that_fp8_does_not_serve_are_found(draft: Any, sizes: tuple[int, int, int], broken: bool) -> None:
    model = convolution(draft, *sizes)
    onnx.checker.check_model(model, full_check=True)
    assert findings(model) == ({("fp8-convolution", "y")} if broken else set())
