"""Smoothing: make the channels of an activation alike by dividing them by a scale that the next weights take up.

x W = (x / s) (s W). One range for all channels then fits each of them (Xiao et al. 2022, "SmoothQuant", arXiv
2211.10438; Nagel et al. 2019, arXiv 1906.04721). The division costs nothing, because it is folded into what produces
the activation: the gain and bias of a LayerNorm, or the columns of the values' projection, since attention mixes
tokens, never channels. The function of the float graph does not change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx

from clipedge.calibration.linears import Constants, Linear

__all__ = ["Smoothing", "fold_scales", "smoothing_places", "smoothing_scale"]

Floats = npt.NDArray[np.float32]

# A norm's output goes through these to a linear layer without a change to any value or to the order of channels.
PASSING = frozenset({"Reshape", "Gather", "GatherND", "Slice"})
QKV_NAMES = ("qkv", "key_value", "value")


@dataclass(frozen=True)
class Smoothing:
    """A place where channels can be scaled: ``producers`` are divided, the weights of ``layers`` are multiplied.

    ``kind``: behind a LayerNorm, or between the value and the output projection of attention. A producer is a constant
    whose last ``channels`` numbers along its last axis belong to the activation's channels.
    """

    name: str
    kind: Literal["norm", "attention"]
    channels: int
    producers: tuple[str, ...]
    layers: tuple[Linear, ...]


def smoothing_places(model: onnx.ModelProto, layers: Sequence[Linear], constants: Constants) -> list[Smoothing]:
    """Every place of a transformer's graph where smoothing costs nothing, in graph order."""
    places = []
    for node in model.graph.node:
        if node.op_type == "LayerNormalization":
            readers = _linear_readers(model, node.output[0], layers)
            if readers:
                gain_and_bias = tuple(node.input[1:])
                places.append(Smoothing(node.name, "norm", len(constants[node.input[1]]), gain_and_bias, readers))
    by_name = {layer.name: layer for layer in layers}
    for layer in layers:
        block, _, part = layer.name.rpartition(".")
        values = next((by_name[f"{block}.{name}"] for name in QKV_NAMES if f"{block}.{name}" in by_name), None)
        if part == "out" and values is not None:
            producers = tuple(name for name in (values.weight, values.bias) if name)
            places.append(Smoothing(layer.name, "attention", len(constants[layer.weight]), producers, (layer,)))
    return places


def _linear_readers(model: onnx.ModelProto, tensor: str, layers: Sequence[Linear]) -> tuple[Linear, ...]:
    """The layers that read a tensor, or nothing if anything else reads it too."""
    found: list[Linear] = []
    by_name = {layer.name: layer for layer in layers}
    for node in model.graph.node:
        if tensor not in node.input:
            continue
        if node.name in by_name:
            found.append(by_name[node.name])
        elif node.op_type in PASSING:
            behind = _linear_readers(model, node.output[0], layers)
            if not behind:
                return ()
            found += behind
        else:
            return ()
    return tuple(found)


def smoothing_scale(largest: Floats, weights: Sequence[Floats], strength: float) -> Floats:
    """SmoothQuant's scale of each channel: max|x|^strength / max|w|^(1 - strength), (channels,).

    ``largest`` (channels,) is the largest magnitude of each channel, ``weights`` are the (channels, out) matrices
    behind it. The scales' geometric mean is one. Dead channels keep the scale one.
    """
    rows = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    alive = (largest > 0) & (rows > 0)
    if not alive.any():
        return np.ones_like(largest)
    logarithm = strength * np.log(largest[alive].astype(np.float64)) - (1 - strength) * np.log(rows[alive])
    scale = np.ones(len(largest))
    scale[alive] = np.exp(logarithm - logarithm.mean())
    return scale.astype(np.float32)


def fold_scales(
    constants: dict[str, npt.NDArray[Any]], places: Sequence[Smoothing], scales: Mapping[str, Floats]
) -> None:
    """Write the scales (by place) into the constants: producers are divided, weights multiplied."""
    for place in places:
        if place.name not in scales:
            continue
        scale = scales[place.name]
        for name in place.producers:
            changed = constants[name].copy()
            changed[..., -place.channels :] /= scale
            constants[name] = changed
        for layer in place.layers:
            constants[layer.weight] = constants[layer.weight] * scale[:, None]
