"""The smallest graph that says whether an engine works: y = x W, as an ONNX file written byte by byte.

The device has no ``onnx`` to write it with, and a file in the package would be one more to keep. Protocol Buffers'
wire format is a sequence of fields, each a tag (number * 8 + wire type) and a value; the numbers are onnx.proto's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clipedge.manifest import TensorSpec, Variant

__all__ = ["WEIGHTS", "probe_graph", "probe_variant"]

SIZE = 4
WEIGHTS: NDArray[np.float32] = np.linspace(-1, 1, SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)
OPSET, IR_VERSION = 13, 8
FLOAT = 1  # TensorProto.FLOAT


def probe_variant() -> Variant:
    """The graph as engines are told of one: float32 x (batch, 4) -> y (batch, 4)."""
    shape = ("batch", SIZE)
    x, y = TensorSpec("x", "float32", shape), TensorSpec("y", "float32", shape)
    return Variant("image", "fp32", "any", (), OPSET, (x,), (y,))


def probe_graph() -> bytes:
    """The ONNX file: one MatMul with ``WEIGHTS``."""
    node = _text(1, "x") + _text(1, "w") + _text(2, "y") + _text(3, "product") + _text(4, "MatMul")
    weights = _number(1, SIZE) * 2 + _number(2, FLOAT) + _text(8, "w") + _bytes(9, WEIGHTS.astype("<f4").tobytes())
    graph = _bytes(1, node) + _text(2, "probe") + _bytes(5, weights) + _bytes(11, _value("x")) + _bytes(12, _value("y"))
    opset = _text(1, "") + _number(2, OPSET)
    return _number(1, IR_VERSION) + _bytes(7, graph) + _bytes(8, opset)


def _value(name: str) -> bytes:
    """A ValueInfoProto: float32 (batch, 4)."""
    shape = _bytes(1, _text(2, "batch")) + _bytes(1, _number(1, SIZE))
    return _text(1, name) + _bytes(2, _bytes(1, _number(1, FLOAT) + _bytes(2, shape)))


def _number(field: int, value: int) -> bytes:
    return _varint(8 * field) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(8 * field + 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that another follows."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
