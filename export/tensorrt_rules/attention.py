"""What TensorRT asks of attention in INT8 to run it in one kernel.

Attention in float is always welcome: whether it is fused is then a matter of speed. With some of its products in INT8
and others not, or beyond these sizes, the integers cost accuracy and no kernel is there for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from clipedge.export.tensorrt_rules.facts import DYNAMIC, Broken, Facts, Rule, named
from clipedge.export.tensorrt_rules.quantization import is_dequantized

__all__ = ["RULES"]

# The developer guide's section, as NVIDIA's issue tracker quotes it.
SOURCE = (
    "https://docs.nvidia.com/deeplearning/tensorrt/developer-guide/index.html#mha-fusion, quoted in "
    "https://github.com/NVIDIA/TensorRT/issues/4167"
)
MAX_LENGTH = 512
HEAD_SIZES = (16, 32, 64)
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


def _in_int8(facts: Facts, attention: _Attention) -> list[bool]:
    """Whether queries, keys, softmax and values are dequantized."""
    products = (*attention.scores.input[:2], *attention.mixed.input[:2])
    return [is_dequantized(facts, name) for name in products]


def _placement(facts: Facts) -> Broken:
    for attention in _attentions(facts):
        quantized = _in_int8(facts, attention)
        if not any(quantized):
            continue
        missing = [
            what for what, found in zip(("queries", "keys", "softmax", "values"), quantized, strict=True) if not found
        ]
        if not _quantized_behind(facts, attention.mixed.output[0]):
            missing.append("result")
        if missing:
            yield named(attention.softmax), f"attention in INT8 lacks Q/DQ at: {', '.join(missing)}"


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
        if any(_in_int8(facts, attention)) and (not lengths or not all(0 < size <= MAX_LENGTH for size in lengths)):
            yield named(attention.softmax), f"attention in INT8 over {_sizes(lengths)} tokens; at most {MAX_LENGTH}"


def _head_size(facts: Facts) -> Broken:
    for attention in _attentions(facts):
        sizes = facts.shapes.get(attention.mixed.output[0], ())[-1:]
        if any(_in_int8(facts, attention)) and (not sizes or sizes[0] not in HEAD_SIZES):
            allowed = ", ".join(map(str, HEAD_SIZES))
            yield named(attention.softmax), f"attention in INT8 with heads of {_sizes(sizes)}; there are {allowed}"


def _sizes(sizes: tuple[int, ...]) -> str:
    return " x ".join("?" if size == DYNAMIC else str(size) for size in sizes) or "an unknown number of"


RULES = (
    Rule("attention-pairs", "INT8 attention has Q/DQ before both products, and behind them", SOURCE, _placement),
    Rule("attention-length", "INT8 attention is over 512 tokens at most", SOURCE, _length),
    Rule("attention-heads", "INT8 attention has heads of 16, 32 or 64 numbers", SOURCE, _head_size),
)
