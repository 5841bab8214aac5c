"""What TensorRT asks of attention in INT8 or FP8 to run it in one kernel.

Attention in float is always welcome: whether it is fused is then a matter of speed. With some of its products in 8 bits
and others not, or beyond these sizes, the 8 bits cost accuracy and no kernel is there for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from clipedge.export.tensorrt_rules.facts import DYNAMIC, Broken, Facts, Rule, named
from clipedge.export.tensorrt_rules.quantization import quantized_type

__all__ = ["RULES"]

# The developer guide's section, as NVIDIA's issue tracker quotes it.
SOURCE = (
    "https://docs.nvidia.com/deeplearning/tensorrt/developer-guide/index.html#mha-fusion, quoted in "
    "https://github.com/NVIDIA/TensorRT/issues/4167"
)
# For which heads NVIDIA's quantizer takes attention to FP8. Which of them are fused depends on the GPU: on Ada those of
# up to 64 numbers (https://docs.nvidia.com/deeplearning/tensorrt/latest/getting-started/release-notes-10/10.6.0.html).
FP8_SOURCE = (
    "https://github.com/NVIDIA/Model-Optimizer/blob/main/modelopt/onnx/quantization/graph_utils.py "
    "(find_nodes_from_mha_to_exclude)"
)
MAX_LENGTH = 512
HEAD_SIZES = (16, 32, 64)
FP8_HEAD_SIZES = range(9, 257)
BEFORE_SOFTMAX = ("Add", "Mul", "Div", "Where")  # a mask or a scale
MOVING = ("Transpose", "Reshape")


@dataclass(frozen=True, eq=False)
class _Attention:
    """softmax(Q K^T) V: the two products, and the softmax between them."""

    scores: onnx.NodeProto
    softmax: onnx.NodeProto
    mixed: onnx.NodeProto


def _attentions(facts: Facts) -> Iterator[_Attention]:
    for softmax in facts.nodes:
        if softmax.op_type != "Softmax":
            continue
        scores, mixed = _product_before(facts, softmax), _product_behind(facts, softmax)
        if scores is not None and mixed is not None:
            yield _Attention(scores, softmax, mixed)


def _product_before(facts: Facts, softmax: onnx.NodeProto) -> onnx.NodeProto | None:
    node: onnx.NodeProto | None = softmax
    while node is not None and node.op_type != "MatMul":
        found = (facts.producer(name, "MatMul", *BEFORE_SOFTMAX) for name in node.input)
        node = next((producer for producer in found if producer is not None), None)
    return node


def _product_behind(facts: Facts, softmax: onnx.NodeProto) -> onnx.NodeProto | None:
    tensor = softmax.output[0]
    while True:
        readers = facts.readers.get(tensor, ())
        found = next((node for node in readers if node.op_type == "MatMul"), None)
        passing = next((node for node in readers if node.op_type in ("QuantizeLinear", "DequantizeLinear")), None)
        if found is not None or passing is None:
            return found
        tensor = passing.output[0]


def _types(facts: Facts, attention: _Attention) -> list[int | None]:
    """What queries, keys, softmax and values are dequantized from, None for what is in float."""
    products = (*attention.scores.input[:2], *attention.mixed.input[:2])
    return [quantized_type(facts, name) for name in products]


def _placement(facts: Facts) -> Broken:
    for attention in _attentions(facts):
        types = _types(facts, attention)
        if types.count(None) == len(types):
            continue
        parts = zip(("queries", "keys", "softmax", "values"), types, strict=True)
        missing = [what for what, found in parts if found is None]
        if not _quantized_behind(facts, attention.mixed.output[0]):
            missing.append("result")
        if missing:
            yield named(attention.softmax), f"attention in 8 bits lacks Q/DQ at: {', '.join(missing)}"


def _quantized_behind(facts: Facts, tensor: str) -> bool:
    """Whether all that read a tensor quantize it, be it in another shape."""
    readers = facts.readers.get(tensor, ())
    return bool(readers) and all(
        node.op_type == "QuantizeLinear" or (node.op_type in MOVING and _quantized_behind(facts, node.output[0]))
        for node in readers
    )


def _length(facts: Facts) -> Broken:
    for attention in _attentions(facts):
        lengths = facts.shapes.get(attention.softmax.output[0], ())[-2:]
        in_range = bool(lengths) and all(0 < size <= MAX_LENGTH for size in lengths)
        if TensorProto.INT8 in _types(facts, attention) and not in_range:
            yield named(attention.softmax), f"attention in INT8 over {_sizes(lengths)} tokens; at most {MAX_LENGTH}"


def _head_size(facts: Facts) -> Broken:
    for attention in _attentions(facts):
        sizes = facts.shapes.get(attention.mixed.output[0], ())[-1:]
        if TensorProto.INT8 in _types(facts, attention) and (not sizes or sizes[0] not in HEAD_SIZES):
            allowed = ", ".join(map(str, HEAD_SIZES))
            yield named(attention.softmax), f"attention in INT8 with heads of {_sizes(sizes)}; there are {allowed}"


def _fp8_head_size(facts: Facts) -> Broken:
    for attention in _attentions(facts):
        sizes = facts.shapes.get(attention.mixed.output[0], ())[-1:]
        in_fp8 = TensorProto.FLOAT8E4M3FN in _types(facts, attention)
        if in_fp8 and (not sizes or sizes[0] not in FP8_HEAD_SIZES):
            least, most = FP8_HEAD_SIZES[0], FP8_HEAD_SIZES[-1]
            yield (
                named(attention.softmax),
                f"attention in FP8 with heads of {_sizes(sizes)}; there are {least} to {most}",
            )


def _sizes(sizes: tuple[int, ...]) -> str:
    return " x ".join("?" if size == DYNAMIC else str(size) for size in sizes) or "an unknown number of"


RULES = (
    Rule("attention-pairs", "attention in 8 bits has Q/DQ before both products, and behind them", SOURCE, _placement),
    Rule("attention-length", "INT8 attention is over 512 tokens at most", SOURCE, _length),
    Rule("attention-heads", "INT8 attention has heads of 16, 32 or 64 numbers", SOURCE, _head_size),
    Rule("fp8-attention-heads", "FP8 attention has heads of 9 to 256 numbers", FP8_SOURCE, _fp8_head_size),
)
