"""Numbers in half precision, and which tensors of a graph are candidates for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from clipedge.calibration.tensors import inferred
from clipedge.errors import CheckpointError

__all__ = ["LARGEST", "SMALLEST", "float_tensors", "loses_channels"]

LARGEST = 65504.0  # of all halves
SMALLEST = 2.0**-14  # of the normal ones; below it they have fewer and fewer digits, and end at 2^-24
# Of a channel's weights, relative: rounding normal halves leaves an eighth of this.
LOSS = 2.0**-8


def float_tensors(model: onnx.ModelProto) -> frozenset[str]:
    """The names of a graph's float32 tensors: inputs, constants, and what its nodes compute.

    Raises CheckpointError for a graph whose types do not follow from its inputs.
    """
    types = {value.name: value.type.tensor_type.elem_type for value in inferred(model)}
    types |= {constant.name: constant.data_type for constant in model.graph.initializer}
    unknown = [name for node in model.graph.node for name in node.output if name and not types.get(name)]
    if unknown:
        raise CheckpointError(
            f"the type of {unknown[0]} does not follow from the graph's inputs, so it cannot be converted to half "
            "precision; export this model in fp32"
        )
    return frozenset(name for name, kind in types.items() if kind == TensorProto.FLOAT)


def loses_channels(weight: npt.NDArray[np.floating[Any]], largest: float) -> bool:
    """Whether half precision loses an input's or output's weights, of a matrix or of a convolution's kernels.

    They are lost if rounding takes off more than ``LOSS`` of them, unless their products with inputs of magnitude
    ``largest`` are next to nothing anyway.
    """
    for axis in (0, 1):
        channels = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
        with np.errstate(over="ignore"):
            error = np.linalg.norm(channels - channels.astype(np.float16), axis=1)
        matters = np.abs(channels).max(axis=1) * largest >= SMALLEST
        if (matters & (error > LOSS * np.linalg.norm(channels, axis=1))).any():
            return True
    return False
