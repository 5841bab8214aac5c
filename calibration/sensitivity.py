"""Which layer costs what: the embedding's error when one layer alone is quantized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from clipedge.calibration.observers import Range
from clipedge.calibration.quantize import Scheme, linear_layers, quantize
from clipedge.calibration.ranges import cpu_session
from clipedge.selftest import centred_cosines

__all__ = ["LayerCost", "LayerProfile", "layer_costs"]


@dataclass(frozen=True)
class LayerCost:
    """``cost`` is one minus the mean centred cosine with the float graph's embeddings, this layer alone in INT8."""

    layer: str
    cost: float


def layer_costs(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    scheme: Scheme,
    inputs: npt.NDArray[Any],
    pixel_mean: Sequence[float] = (),
) -> list[LayerCost]:
    """The cost of every quantizable layer on one batch of ``inputs`` (N >= 2), dearest first."""
    expected = _run(model, inputs)
    names = [layer.name for layer in linear_layers(model)]
    costs = []
    for name in names:
        others = [other for other in names if other != name]
        found = _run(quantize(model, ranges, scheme, pixel_mean, keep_float=others), inputs)
        cost = 1 - float(centred_cosines(expected, found, expected.mean(axis=0)).mean())
        costs.append(LayerCost(name, cost))
    return sorted(costs, key=lambda item: -item.cost)


def _run(model: onnx.ModelProto, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    session = cpu_session(model)
    result: npt.NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: inputs})[0]
    return result


@dataclass(frozen=True)
class LayerProfile:
    """What INT8 does to one linear layer, and what the layer weighs.

    ``snr_db``: signal-to-noise ratio of the layer's own output in INT8, in dB. ``cost``: one minus the mean centred
    cosine of the embedding with this layer alone in INT8; None where that was not measured. ``in_float``: the export
    left the layer in float. ``multiply_adds`` are of one input, ``weight_bytes`` of the weight in float32.
    """

    tower: str
    layer: str
    snr_db: float
    cost: float | None
    in_float: bool
    multiply_adds: int
    weight_bytes: int
