"""What a patch embedding needs when its weights are rounded and its pixels moved: another constant behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

__all__ = ["PIXEL_OFFSET", "added_constant", "patch_shift"]

PIXEL_OFFSET = 128  # a uint8 pixel minus this is an int8 without any rounding


def patch_shift(
    weight: npt.NDArray[np.float32], restored: npt.NDArray[np.floating[Any]], pixel_mean: Sequence[float]
) -> npt.NDArray[np.float32]:
    """What to add to the patch embedding's bias, (out,), when its weights (in, out) are rounded to ``restored`` and its
    pixels moved by ``PIXEL_OFFSET``.

    The float bias holds -sum(W mean). With the rounded weights V it has to be -sum(V mean), or the rounding errors of
    all pixels' common brightness add up; and V (x - 128) lacks 128 sum(V).
    """
    mean = np.tile(np.asarray(pixel_mean, np.float64), len(weight) // len(pixel_mean))
    return np.asarray(mean @ (weight - restored) + PIXEL_OFFSET * restored.sum(axis=0), np.float32)


def added_constant(model: onnx.ModelProto, layer: str) -> tuple[str, int]:
    """The constant (1, tokens, width), or (width,), that is added to the outputs of a layer, and how many of its rows
    come before them.

    With a class token the patch tokens are padded by one row in front, and the constant's first row is that token's.
    """
    constants = {item.name: item for item in model.graph.initializer}
    tensor = next(node.output[0] for node in model.graph.node if node.name == layer)
    rows = 0
    while True:
        node = next(node for node in model.graph.node if tensor in node.input)
        if node.op_type == "Add":
            return next(name for name in node.input if name in constants), rows
        if node.op_type == "Pad":
            rows = int(numpy_helper.to_array(constants[node.input[1]])[1])
        tensor = node.output[0]
