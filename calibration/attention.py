"""Attention in integers: the products softmax(Q K^T) and (...) V, with ranges for what goes into them.

TensorRT computes attention in INT8 in one kernel, where queries, keys, the softmax's weights and values are quantized
(``clipedge.export.tensorrt_rules.attention``). Each gets the symmetric range with the least squared error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from clipedge.calibration.observe import Observable, Observation
from clipedge.calibration.observers import Range, mse_range
from clipedge.calibration.patches import Patches
from clipedge.calibration.tensors import inferred

__all__ = ["Attention", "attention_ranges", "attentions", "products_with_tokens"]

MOVING = ("Transpose", "Reshape")
RANK = 4  # (B, H, queries, T)
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Attention:
    """One softmax between two products, by the names in the graph.

    ``scores`` and ``mixed`` are the products' nodes. ``query``, ``key`` and ``value`` are the tensors (rows, width)
    that are cut into heads, ``weights`` is the softmax's output, (batch, heads, queries, ``tokens``). ``out`` is the
    layer that reads the result.
    """

    scores: str
    mixed: str
    query: str
    key: str
    value: str
    weights: str
    tokens: int
    out: str

    @property
    def observed(self) -> tuple[Observable, ...]:
        """What is to be observed for the ranges: queries, keys, weights and values. A few weights are far larger than
        the rest, so all of a query are looked at."""
        return self.query, self.key, Patches(self.weights, kernel=(1, self.tokens)), self.value


def attentions(model: onnx.ModelProto) -> list[Attention]:
    """Every attention of a graph whose queries and keys are both computed, over a known number of tokens.

    Not that to the tokens themselves (``products_with_tokens``).
    """
    producers = _producers(model)
    found = []
    for scores, softmax, mixed, shape in _softmaxes(model):
        if len(shape) != RANK or not shape[-1]:
            continue
        query, key, value = (
            _before_heads(producers, name) for name in (scores.input[0], scores.input[1], mixed.input[1])
        )
        found.append(
            Attention(
                scores=scores.name,
                mixed=mixed.name,
                query=query,
                key=key,
                value=value,
                weights=softmax.output[0],
                tokens=shape[-1],
                out=_reader(model, mixed.output[0]),
            )
        )
    return found


def products_with_tokens(model: onnx.ModelProto) -> list[str]:
    """The products of attention that asks the tokens themselves (``simplify.absorb_keys_and_values``), by node. Its
    heads are as wide as the tower: no kernel takes them in 8 bits."""
    asked = [(scores, mixed) for scores, _, mixed, shape in _softmaxes(model) if len(shape) == RANK - 1]
    return [product.name for pair in asked for product in pair]


def _softmaxes(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto, onnx.NodeProto, list[int]]]:
    """Each softmax between two products: the first product, the softmax, the second, and the softmax's shape."""
    producers = _producers(model)
    sizes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in inferred(model)}
    for softmax in model.graph.node:
        if softmax.op_type != "Softmax":
            continue
        scores = producers.get(softmax.input[0])
        if scores is not None and scores.op_type == "Add":  # the mask
            scores = producers.get(scores.input[0])
        mixed = next((node for node in model.graph.node if softmax.output[0] in node.input[:1]), None)
        if scores is not None and mixed is not None and scores.op_type == mixed.op_type == "MatMul":
            yield scores, softmax, mixed, sizes.get(softmax.output[0], [])


def _producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {output: node for node in model.graph.node for output in node.output}


def attention_ranges(
    attention: Attention, observed: Mapping[Observable, Observation], scales: Mapping[str, Floats]
) -> tuple[Range, ...]:
    """The ranges of queries, keys, weights and values, in this order, after smoothing, which divides the values."""
    rows = [observed[what].rows for what in attention.observed]
    rows[-1] = rows[-1] / scales.get(attention.out, np.float32(1))
    return tuple(mse_range(values, symmetric=True) for values in rows)


def _before_heads(producers: Mapping[str, onnx.NodeProto], tensor: str) -> str:
    """The tensor that was cut into heads."""
    while tensor in producers and producers[tensor].op_type in MOVING:
        tensor = producers[tensor].input[0]
    return tensor


def _reader(model: onnx.ModelProto, tensor: str) -> str:
    """The node that reads a tensor's values, be it in another shape."""
    node = next(node for node in model.graph.node if tensor in node.input)
    return _reader(model, node.output[0]) if node.op_type in MOVING else str(node.name)
