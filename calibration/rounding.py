"""Rounding to integers as a target's kernels need it: activations per tensor, weights per output channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from clipedge.calibration.observers import Range

__all__ = ["SCHEMES", "Scheme", "activation_parameters", "quantize_weight", "restored_weight", "round_trip"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scheme:
    """How a target's kernels take their numbers.

    Activations are ``dtype``. Their ``zero_point`` may be "any", or one of two: "zero or lowest", the latter for a
    tensor that is never negative, with which engines need no ReLU; or always "zero". Weights are int8, symmetric, and
    no larger than ``weight_limit``, with a scale for each output channel, or without ``per_channel`` one for the whole
    weight, as some accelerators have it. ``only_inputs``: nothing but the layers' inputs and weights is in integers;
    biases, the outputs of convolutions and token tables are in float.
    """

    dtype: type[np.uint8] | type[np.int8]
    zero_point: Literal["any", "zero or lowest", "zero"]
    weight_limit: int
    only_inputs: bool = False
    per_channel: bool = True

    def is_symmetric(self, lowest: float) -> bool:
        """Whether a tensor whose lowest value that is has its zero point at zero."""
        return self.zero_point == "zero" or (self.zero_point == "zero or lowest" and lowest < 0)


# x86 multiplies unsigned by signed bytes. Before VNNI its instruction (vpmaddubsw) adds two such products in 16 bits
# and saturates: 2 * 255 * 127 does not fit, 2 * 255 * 64 does. Weights of 7 bits make every x86 CPU, and every
# engine on it, give the same answers with its fastest kernels. ARM's dot-product instructions take signed by signed
# and add in 32 bits. So do NVIDIA's tensor cores; TensorRT knows int8 only with the zero point 0, and only between a
# QuantizeLinear and a DequantizeLinear or in weights: there is no int32 bias, and no table to gather int8 from
# (clipedge.export.tensorrt_rules). What a convolution's reader quantizes it fuses with the convolution itself.
SCHEMES: Mapping[str, Scheme] = {
    "x86": Scheme(np.uint8, "any", weight_limit=64),
    "arm": Scheme(np.int8, "zero or lowest", weight_limit=127),
    "tensorrt": Scheme(np.int8, "zero", weight_limit=127, only_inputs=True),
}


def quantize_weight(weight: Floats, limit: int = 127, per_channel: bool = True) -> tuple[npt.NDArray[np.int8], Floats]:
    """Round (in, out) weights to int8 in [-limit, limit], one scale per output channel: (int8 (in, out), (out,)).

    Without ``per_channel`` all scales are the same.
    """
    largest = np.abs(weight).max(axis=0)
    if not per_channel:
        largest = np.full_like(largest, largest.max())
    scale = np.where(largest > 0, largest / limit, 1).astype(np.float32)
    return np.clip(np.round(weight / scale), -limit, limit).astype(np.int8), scale


def restored_weight(weight: Floats, scheme: Scheme) -> Floats:
    """The (in, out) weights as the target computes with them."""
    rounded, scale = quantize_weight(weight, scheme.weight_limit, scheme.per_channel)
    return rounded * scale


def activation_parameters(limits: Range, scheme: Scheme) -> tuple[np.float32, npt.NDArray[Any]]:
    """Scale and zero point of a range: q = round(x / scale) + zero_point."""
    if scheme.is_symmetric(limits.low):
        bound = max(-limits.low, limits.high)
        return np.float32(bound / 127 or 1), np.array(0, scheme.dtype)
    scale = (limits.high - limits.low) / 255 or 1
    lowest = int(np.iinfo(scheme.dtype).min)
    return np.float32(scale), np.array(lowest + np.clip(round(-limits.low / scale), 0, 255), scheme.dtype)


def round_trip(values: Floats, limits: Range, scheme: Scheme) -> Floats:
    """The values after QuantizeLinear and DequantizeLinear."""
    scale, zero_point = activation_parameters(limits, scheme)
    bounds = np.iinfo(scheme.dtype)
    moved = np.asarray(np.round(values / scale), np.float32)
    np.clip(moved, bounds.min - int(zero_point), bounds.max - int(zero_point), out=moved)
    moved *= scale
    return moved
