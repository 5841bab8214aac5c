"""The layers of a float graph that can be quantized: linear layers and convolutions.

Both have a name, an ``activation`` that they read, a ``weight`` and perhaps a ``bias``; ``observed`` is how their input
is to be looked at, and ``matrix`` makes of the weight the (in, out) matrix that the observed rows are multiplied by
(``unmatrix``: the other way).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import onnx

from clipedge.calibration.convolutions import Convolution, convolutions
from clipedge.calibration.linears import PATCH_EMBED, Linear, linear_layers

__all__ = ["Layer", "calibrated_layers", "readers_of"]

Layer: TypeAlias = Linear | Convolution

MOVING = frozenset({"Reshape", "Transpose"})  # where values go to another place, and stay the same


def calibrated_layers(model: onnx.ModelProto) -> list[Layer]:
    """All layers that need calibration, in graph order. The patch embedding needs none: its input is bytes."""
    layers: list[Layer] = [layer for layer in linear_layers(model) if layer.name != PATCH_EMBED]
    order = {node.name: place for place, node in enumerate(model.graph.node)}
    return sorted([*layers, *convolutions(model)], key=lambda layer: order[layer.name])


def readers_of(model: onnx.ModelProto, tensor: str, layers: Sequence[Layer]) -> list[Layer]:
    """The layers that read a tensor's values, be it in another shape."""
    found = [layer for layer in layers if layer.activation == tensor]
    for node in model.graph.node:
        if node.op_type in MOVING and node.input[0] == tensor:
            found += readers_of(model, node.output[0], layers)
    return found
