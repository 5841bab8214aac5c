"""What of a graph has to stay in float32, because half precision cannot hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from clipedge.calibration.half.convert import always_in_float32
from clipedge.calibration.half.pixels import LAYERS
from clipedge.calibration.half.tensors import LARGEST, SMALLEST, float_tensors, loses_channels
from clipedge.calibration.linears import constants_of

__all__ = ["LIMIT", "KeptOperation", "operations_in_float32"]

# The camera will see what calibration did not: a tensor may become twice as large as there.
LIMIT = LARGEST / 2


@dataclass(frozen=True)
class KeptOperation:
    """An operation that stays in float32, named by its first output, and why: ``reason`` completes "since"."""

    tower: str
    operation: str
    reason: str


def operations_in_float32(
    tower: str, model: onnx.ModelProto, magnitudes: Mapping[str, float]
) -> tuple[KeptOperation, ...]:
    """The operations that read or give what half precision cannot hold, in graph order.

    These are tensors that come to more than half of the largest half on calibration inputs (``magnitudes``), constants
    beyond it, and weights below its range. What stays in float32 whatever the numbers is not among them
    (``clipedge.calibration.half.convert``).
    """
    constants = {name: value for name, value in constants_of(model).items() if value.dtype == np.float32}
    known, found = always_in_float32(model, float_tensors(model)), []
    for node in model.graph.node:
        if node.output[0] in known:
            continue
        reason = _tensor_reason(node, magnitudes) or _constant_reason(node, constants, magnitudes)
        if reason:
            found.append(KeptOperation(tower, node.output[0], reason))
    return tuple(found)


def _tensor_reason(node: onnx.NodeProto, magnitudes: Mapping[str, float]) -> str:
    value, name = max(((magnitudes.get(name, 0.0), name) for name in (*node.output, *node.input)), default=(0.0, ""))
    return f"{name} comes to {value:,.0f}" if value > LIMIT else ""


def _constant_reason(
    node: onnx.NodeProto, constants: Mapping[str, npt.NDArray[Any]], magnitudes: Mapping[str, float]
) -> str:
    for place, name in enumerate(node.input):
        constant = constants.get(name)
        if constant is None or not constant.size:
            continue
        largest = float(np.abs(constant).max())
        if largest > LARGEST:
            return f"{name} holds {largest:,.0f}"
        if constant.size == 1 and 0 < largest < SMALLEST:
            return f"{name} is {largest:.1g}"
        if place == 1 and node.op_type in LAYERS and loses_channels(constant, magnitudes.get(node.input[0], 1.0)):
            return f"{name} has channels below the range of half precision"
    return ""
