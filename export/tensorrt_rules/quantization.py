"""Where TensorRT takes QuantizeLinear and DequantizeLinear, and with which scales.

TensorRT runs a product in integers or in FP8 when both of its inputs come straight from a DequantizeLinear; what stands
between (or one input alone) leaves the product in float, and the quantization error without the speed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from clipedge.export.tensorrt_rules.facts import DYNAMIC, Broken, Facts, Rule, attribute, named, type_name

__all__ = ["RULES", "quantized_type"]

PARSER = "https://github.com/onnx/onnx-tensorrt/blob/10.1-GA/onnxOpImporters.cpp (QuantDequantLinearHelper)"
QUANTIZED_TYPES = "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html"
EXPLICIT = (
    "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html"
)
ONNX = "https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html"
# What its quantizer leaves in float, since TensorRT has no fast FP8 kernel for it.
FP8_CONVOLUTIONS = (
    "https://github.com/NVIDIA/Model-Optimizer/blob/main/modelopt/onnx/quantization/graph_utils.py "
    "(find_nodes_from_convs_to_exclude)"
)

PAIR = ("QuantizeLinear", "DequantizeLinear")
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
QUANTIZED = (TensorProto.INT8, TensorProto.FLOAT8E4M3FN, TensorProto.INT4)
FP8_OPSET = 19
FP8_CHANNELS, FP8_KERNEL = 16, 32  # a convolution has more of these each way, and no more numbers in its kernel


def quantized_type(facts: Facts, tensor: str) -> int | None:
    """The type that a tensor was dequantized from, if it comes straight from a DequantizeLinear."""
    node = facts.producer(tensor, "DequantizeLinear")
    return None if node is None else facts.types.get(node.input[0], TensorProto.UNDEFINED)


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
        values = np.zeros(1) if zero_point is None else numpy_helper.to_array(zero_point).astype(np.float64)
        if values.any():
            yield named(node), f"the zero point is {values.flat[np.abs(values).argmax()]:g}; only zero is supported"


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
            quantized = [quantized_type(facts, name) for name in node.input[:2]]
            if quantized.count(None) == 1:
                missing = node.input[quantized.index(None)]
                yield (
                    named(node),
                    f"{node.op_type} reads {missing} in float and its other input dequantized; both or none",
                )


def _fp8_opset(facts: Facts) -> Broken:
    for node in facts.nodes if facts.opset < FP8_OPSET else ():
        if node.op_type == "DequantizeLinear" and facts.types.get(node.input[0]) == TensorProto.FLOAT8E4M3FN:
            yield named(node), f"FP8 in a graph of opset {facts.opset}; the standard has it from {FP8_OPSET} on"


def _fp8_convolutions(facts: Facts) -> Broken:
    for node in facts.nodes:
        if node.op_type != "Conv" or quantized_type(facts, node.input[1]) != TensorProto.FLOAT8E4M3FN:
            continue
        outputs, inputs, *kernel = facts.shapes.get(node.input[1], (0, 0))
        if min(outputs, inputs) <= FP8_CHANNELS or np.prod(kernel) > FP8_KERNEL:
            yield (
                named(node),
                f"an FP8 convolution of {inputs} to {outputs} channels, kernel {kernel}; more than {FP8_CHANNELS} "
                f"channels each way, and a kernel of {FP8_KERNEL} numbers at most, are worth it",
            )


RULES = (
    Rule("constant-scale", "scales and zero points are constants", PARSER, _constant_scales),
    Rule("scale", "scales are positive, with as many zero points", PARSER, _positive_scales),
    Rule("zero-point", "quantization is symmetric: every zero point is 0", QUANTIZED_TYPES, _zero_points),
    Rule("quantized-type", "quantized numbers are int8 (or fp8, int4), never uint8 or int32", PARSER, _quantized_types),
    Rule("per-channel", "several scales only for weights, along their output channels", EXPLICIT, _per_channel),
    Rule("both-inputs", "a product has both inputs dequantized, or none", EXPLICIT, _half_quantized),
    Rule("fp8-opset", "FP8 is in graphs of opset 19 or later", ONNX, _fp8_opset),
    Rule("fp8-convolution", "FP8 convolutions are wide, with small kernels", FP8_CONVOLUTIONS, _fp8_convolutions),
)
