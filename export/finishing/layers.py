"""The layers of a graph that are in integers, in torch: they round what INT8 rounds, and can be trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from clipedge.calibration.calibrate import Calibration, IntegerWeight
from clipedge.calibration.equalize import fold_scales, smoothing_places
from clipedge.calibration.layers import calibrated_layers
from clipedge.calibration.linears import PATCH_EMBED, Linear, constants_of, linear_layers
from clipedge.calibration.observers import Range
from clipedge.calibration.quantize import TOKEN_EMBED
from clipedge.calibration.rounding import Scheme, quantize_weight
from clipedge.errors import UsageError
from clipedge.export.finishing.graph import OPERATORS, Operator, TorchGraph, torch_graph
from clipedge.export.finishing.rounding import Rounding, rounding_of_range, rounding_of_weight

__all__ = ["IntegerLinear", "IntegerPatchEmbed", "IntegerTower", "check_tower", "integer_tower"]

Constants = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class IntegerLinear:
    """(..., in) -> (..., out): input and weight (in, out) rounded, ``shift`` (out,) added."""

    inputs: Rounding
    weight: torch.nn.Parameter
    weights: Rounding
    shift: torch.nn.Parameter

    def __call__(self, value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """In the place of a MatMul, whose float ``weight`` it does not need."""
        return self.inputs(value) @ self.weights(self.weight) + self.shift

    def integer_weight(self) -> IntegerWeight:
        return _integer_weight(self.weight, self.weights)


@dataclass(frozen=True, eq=False)
class IntegerPatchEmbed:
    """(B, patches, in) pixels in [0, 255] -> (B, patches, out): the weight (in, out) rounded, the pixels exact.

    Behind it stands the float weight's -(mean W), and with V, the rounded weight, it has to be -(mean V).
    """

    weight: torch.nn.Parameter
    weights: Rounding
    mean: torch.Tensor

    def __call__(self, pixels: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """In the place of a MatMul by the float ``weight``."""
        rounded = self.weights(self.weight)
        return pixels @ rounded + self.mean @ (weight - rounded)

    def integer_weight(self) -> IntegerWeight:
        return _integer_weight(self.weight, self.weights)


def _integer_weight(weight: torch.Tensor, weights: Rounding) -> IntegerWeight:
    scale = np.broadcast_to(weights.steps(), weight.shape[1:])
    return weights.integers(weight), np.ascontiguousarray(scale, np.float32)


@dataclass(frozen=True, eq=False)
class IntegerTower:
    """A graph that rounds as its INT8 form does, and its layers in integers by name; of ``patch_embed`` one or none."""

    graph: TorchGraph
    linears: Mapping[str, IntegerLinear]
    patch_embed: Mapping[str, IntegerPatchEmbed]

    @property
    def layers(self) -> Mapping[str, IntegerLinear | IntegerPatchEmbed]:
        """All of them."""
        return {**self.linears, **self.patch_embed}


def check_tower(model: onnx.ModelProto) -> None:
    """Raises UsageError for a float graph that is no transformer's: with other operators than ``OPERATORS``."""
    unknown = sorted({node.op_type for node in model.graph.node} - OPERATORS.keys())
    if unknown:
        raise UsageError(
            f"--finish knows the operators of transformers, a tower of this model has {', '.join(unknown)}, too; leave "
            "it out"
        )


def integer_tower(
    model: onnx.ModelProto, calibration: Calibration, scheme: Scheme, pixel_mean: Sequence[float]
) -> IntegerTower:
    """A tower's float graph with the roundings of ``quantize`` where that puts its Q/DQ pairs.

    ``pixel_mean`` as there. Raises UsageError if the calibration lacks a layer. The graph has passed ``check_tower``.
    """
    calibrated, constants = calibrated_layers(model), constants_of(model)
    fold_scales(constants, smoothing_places(model, calibrated, constants), calibration.scales)
    inputs: dict[tuple[str, Range], Rounding] = {}  # one pair serves all layers that read a tensor with that range
    linears = {}
    for layer in calibrated:
        assert isinstance(layer, Linear)
        found = calibration.of(layer.name)
        rounding = inputs.setdefault((layer.activation, found.limits), rounding_of_range(found.limits, scheme))
        shift = np.broadcast_to(found.shift, constants[layer.weight].shape[1:])
        linears[layer.name] = IntegerLinear(
            rounding, *_learned_weight(layer, constants, calibration, scheme), _parameter(shift)
        )
    patch_embed = {
        layer.name: _patch_embed(layer, constants, calibration, scheme, pixel_mean)
        for layer in linear_layers(model)
        if layer.name == PATCH_EMBED
    }
    if not scheme.only_inputs:
        _round_token_table(model, constants)
    operators: dict[str, Operator] = {**linears, **patch_embed}
    return IntegerTower(torch_graph(model, constants, operators), linears, patch_embed)


def _patch_embed(
    layer: Linear, constants: Constants, calibration: Calibration, scheme: Scheme, pixel_mean: Sequence[float]
) -> IntegerPatchEmbed:
    mean = np.tile(np.asarray(pixel_mean, np.float32), len(constants[layer.weight]) // len(pixel_mean))
    return IntegerPatchEmbed(*_learned_weight(layer, constants, calibration, scheme), torch.from_numpy(mean))


def _learned_weight(
    layer: Linear, constants: Constants, calibration: Calibration, scheme: Scheme
) -> tuple[torch.nn.Parameter, Rounding]:
    """A weight, of the float graph or as it was trained, and how it is rounded to begin with."""
    weight = constants[layer.weight]
    rounded, scale = calibration.integer_weight(layer.name, weight, scheme)
    if layer.name in calibration.weights:
        weight = rounded * scale
    return _parameter(weight), rounding_of_weight(scale, scheme)


def _parameter(values: npt.NDArray[Any]) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.from_numpy(np.array(values, np.float32)))


def _round_token_table(model: onnx.ModelProto, constants: Constants) -> None:
    """A text tower's table is in integers, too, and is not trained."""
    for node in model.graph.node:
        if node.name == TOKEN_EMBED:
            rounded, scale = quantize_weight(constants[node.input[0]])
            constants[node.input[0]] = rounded * scale
