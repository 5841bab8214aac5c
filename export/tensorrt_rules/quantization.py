"""Where TensorRT takes QuantizeLinear and DequantizeLinear, and with which scales.

TensorRT runs a product in integers when both of its inputs come straight from a DequantizeLinear; what stands between
(or one input alone) leaves the product in float, and the quantization error without the speed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from clipedge.export.tensorrt_rules.facts import DYNAMIC, Broken, Facts, Rule, attribute, named, type_name

__all__ = ["RULES", "is_dequantized"]

PARSER = "https://github.com/onnx/onnx-tensorrt/blob/10.1-GA/onnxOpImporters.cpp (QuantDequantLinearHelper)"
QUANTIZED_TYPES = "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html"
EXPLICIT = (
    "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html"
)

PAIR = ("QuantizeLinear", "DequantizeLinear")
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
QUANTIZED = (TensorProto.INT8, TensorProto.FLOAT8E4M3FN, TensorProto.INT4)


def is_dequantized(facts: Facts, tensor: str) -> bool:
    """Whether a tensor comes straight from a DequantizeLinear."""
    return facts.producer(tensor, "DequantizeLinear") is not None


def _pairs(facts: Facts) -> Iterator[tuple[onnx.NodeProto, npt.NDArray[np.float64], onnx.TensorProto | None]]:
    """Every QuantizeLinear and DequantizeLinear whose scale is a constant, with scale and zero point."""
    for node in facts.nodes:
        if node.op_type in PAIR and node.input[1] in facts.constants:
            scale = numpy_helper.to_array(facts.constants[node.input[1]]).astype(np.float64)
            yield node, scale, facts.constants.get(node.input[2]) if len(node.input) > 2 else None


def _constant_scales(facts: Facts) -> Broken:
    for node in facts.nodes:
        if node.op_type in PAIR:
            for name in node.input[1:]:
                if name and name not in facts.constants:
                    yield named(node), f"{name} is computed by the graph; scales and zero points have to be constants"


def _positive_scales(facts: Facts) -> Broken:
    for node, scale, zero_point in _pairs(facts):
        if not (np.isfinite(scale).all() and scale.min(initial=1) > 0):
            yield named(node), f"{node.input[1]} has the scale {scale.min():g}; all have to be positive and finite"
        if zero_point is not None and int(np.prod(zero_point.dims)) != scale.size:
            yield named(node), f"{scale.size} scales and {int(np.prod(zero_point.dims))} zero points; as many of both"


def _zero_points(facts: Facts) -> Broken:
    for node, _, zero_point in _pairs(facts):
        if zero_point is None or zero_point.data_type == TensorProto.FLOAT8E4M3FN:
            continue
        values = numpy_helper.to_array(zero_point).astype(np.int64)
        if values.any():
            yield named(node), f"the zero point is {values.flat[np.abs(values).argmax()]}; only zero is supported"


def _quantized_types(facts: Facts) -> Broken:
    """By the standard a QuantizeLinear that does not say its type gives uint8; TensorRT takes it for int8."""
    for node in facts.nodes:
        if node.op_type not in PAIR:
            continue
        kind = facts.types.get(node.output[0] if node.op_type == "QuantizeLinear" else node.input[0])
        if kind not in QUANTIZED:
            what = "an unknown type" if kind is None else type_name(kind)
            yield named(node), f"{node.op_type} with {what}; there are {', '.join(map(type_name, QUANTIZED))}"


def _per_channel(facts: Facts) -> Broken:
    """What is multiplied by one scale has to be one output channel, or the scale cannot leave the integer sum."""
    for node, scale, _ in _pairs(facts):
        if scale.size == 1:
            continue
        if not _is_weight(facts, node):
            yield named(node), f"{scale.size} scales for {node.input[0]}, an activation; only weights have several"
            continue
        shape = facts.shapes.get(node.input[0], ())
        axis = attribute(node, "axis", 1) % max(len(shape), 1)
        if scale.ndim != 1 or not shape or shape[axis] not in (scale.size, DYNAMIC):
            yield named(node), f"{scale.size} scales along axis {axis} of {node.input[0]}, whose shape is {shape}"
        for reader in facts.readers.get(node.output[0], ()):
            expected = _output_axis(reader, node.output[0], len(shape))
            if expected not in (None, axis):
                yield named(node), f"scales along axis {axis}; the output channels of {named(reader)} are {expected}"


def _is_weight(facts: Facts, node: onnx.NodeProto) -> bool:
    """Whether what a Q or DQ takes is a constant, or a constant that was quantized in the graph."""
    before = facts.producer(node.input[0], "QuantizeLinear")
    return node.input[0] in facts.constants or (before is not None and before.input[0] in facts.constants)


def _output_axis(node: onnx.NodeProto, weight: str, rank: int) -> int | None:
    """The axis of a product's weight that its output channels lie along; None if it is no weight of a product."""
    if list(node.input[1:2]) != [weight]:
        return None
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": rank - 1}.get(node.op_type)


def _half_quantized(facts: Facts) -> Broken:
    for node in facts.nodes:
        if node.op_type in PRODUCTS:
            quantized = [is_dequantized(facts, name) for name in node.input[:2]]
            if any(quantized) and not all(quantized):
                missing = node.input[quantized.index(False)]
                yield (
                    named(node),
                    f"{node.op_type} reads {missing} in float and its other input dequantized; both or none",
                )


RULES = (
    Rule("constant-scale", "scales and zero points are constants", PARSER, _constant_scales),
    Rule("scale", "scales are positive, with as many zero points", PARSER, _positive_scales),
    Rule("zero-point", "quantization is symmetric: every zero point is 0", QUANTIZED_TYPES, _zero_points),
    Rule("quantized-type", "quantized numbers are int8 (or fp8, int4), never uint8 or int32", PARSER, _quantized_types),
    Rule("per-channel", "several scales only for weights, along their output channels", EXPLICIT, _per_channel),
    Rule("both-inputs", "a product has both inputs dequantized, or none", EXPLICIT, _half_quantized),
)
