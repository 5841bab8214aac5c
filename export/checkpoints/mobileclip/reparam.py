"""Structural re-parameterisation: what training keeps apart is one convolution for inference.

RepVGG (Ding et al. 2021, arXiv 2101.03697) and MobileOne (Vasu et al. 2022, arXiv 2206.04040) train convolutions,
BatchNorms and skip connections side by side. At inference all of them are linear maps of the same positions, so sums,
scales and chains of them are again one convolution with a bias. Here each such map is a ``Layer``: the tensors that a
file has for it, and how weight and bias are made of them, in float64. Layers combine like the maps they stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from clipedge.export.checkpoints.tensors import Shape

__all__ = [
    "Affine",
    "Layer",
    "Tensors",
    "added",
    "as_linear",
    "behind_norm",
    "canonical",
    "convolution",
    "every_second",
    "identity",
    "inputs_halved",
    "normalised",
    "outputs_halved",
    "scaled",
    "subtracted",
    "transposed",
]

BATCH_NORM_EPS = 1e-5
STATISTICS = ("weight", "bias", "running_mean", "running_var")

Tensors = Mapping[str, torch.Tensor]
Affine = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer as a file has it: ``shapes`` of its tensors by their names there, and ``fold``,
    which makes weight and bias (outputs,) of them, in float64."""

    shapes: Mapping[str, Shape]
    fold: Callable[[Tensors], Affine]


def canonical(layers: Mapping[str, Layer], tensors: Tensors) -> dict[str, torch.Tensor]:
    """``name.weight`` and ``name.bias`` of every layer, folded and rounded once to float32."""
    weights: dict[str, torch.Tensor] = {}
    for name, layer in layers.items():
        weight, bias = layer.fold(tensors)
        weights |= {f"{name}.weight": weight.to(torch.float32), f"{name}.bias": bias.to(torch.float32)}
    return weights


def convolution(name: str, shape: Shape, bias: bool = True) -> Layer:
    """``name.weight`` of ``shape``, outputs first, and ``name.bias`` if there is one; also a linear layer."""
    shapes = {f"{name}.weight": shape} | ({f"{name}.bias": shape[:1]} if bias else {})

    def fold(tensors: Tensors) -> Affine:
        weight = tensors[f"{name}.weight"].double()
        return weight, tensors[f"{name}.bias"].double() if bias else weight.new_zeros(shape[0])

    return Layer(shapes, fold)


def transposed(name: str, shape: Shape) -> Layer:
    """A linear layer without bias, stored as the matrix ``name`` of ``shape``, inputs first."""

    def fold(tensors: Tensors) -> Affine:
        weight = tensors[name].double().T
        return weight, weight.new_zeros(shape[1])

    return Layer({name: shape}, fold)


def as_linear(layer: Layer) -> Layer:
    """A convolution of single positions as the linear layer (outputs, inputs) that it is."""

    def fold(tensors: Tensors) -> Affine:
        weight, bias = layer.fold(tensors)
        return weight.flatten(1), bias

    return Layer(layer.shapes, fold)


def identity(channels: int, size: Sequence[int], group: int = 1) -> Layer:
    """The convolution that changes nothing, with kernels of ``size`` and ``group`` channels to a group."""
    kernel = torch.zeros(channels, group, *size, dtype=torch.float64)
    places = torch.arange(channels)
    kernel[places, places % group, size[0] // 2, size[1] // 2] = 1
    return Layer({}, lambda tensors: (kernel, kernel.new_zeros(channels)))


def normalised(layer: Layer, norm: str, channels: int) -> Layer:
    """``layer`` and the BatchNorm behind it."""

    def fold(tensors: Tensors) -> Affine:
        weight, bias = layer.fold(tensors)
        factor, shift = _batch_norm(tensors, norm)
        return _by_output(factor, weight) * weight, factor * bias + shift

    return Layer({**layer.shapes, **_norm_shapes(norm, STATISTICS, channels)}, fold)


def behind_norm(linear: Layer, norm: str, channels: int, batch: bool) -> Layer:
    """A linear layer and the norm in front of it: a BatchNorm (``batch``) whole, of a LayerNorm its gain and bias."""

    def fold(tensors: Tensors) -> Affine:
        weight, bias = linear.fold(tensors)
        if batch:
            factor, shift = _batch_norm(tensors, norm)
        else:
            factor, shift = tensors[f"{norm}.weight"].double(), tensors[f"{norm}.bias"].double()
        return weight * factor, bias + weight @ shift

    return Layer({**linear.shapes, **_norm_shapes(norm, STATISTICS if batch else STATISTICS[:2], channels)}, fold)


def added(*layers: Layer) -> Layer:
    """The sum of what layers make of the same maps. A smaller kernel lies in the middle of the largest."""

    def fold(tensors: Tensors) -> Affine:
        weights, biases = zip(*(layer.fold(tensors) for layer in layers), strict=True)
        rows, columns = (max(weight.shape[axis] for weight in weights) for axis in (2, 3))
        widened = [_widened(weight, rows, columns) for weight in weights]
        return torch.stack(widened).sum(dim=0), torch.stack(biases).sum(dim=0)

    return Layer({name: shape for layer in layers for name, shape in layer.shapes.items()}, fold)


def subtracted(layer: Layer, other: Layer) -> Layer:
    """What ``layer`` makes of some maps less what ``other`` makes of them."""

    def negative(tensors: Tensors) -> Affine:
        weight, bias = other.fold(tensors)
        return -weight, -bias

    return added(layer, Layer(other.shapes, negative))


def scaled(layer: Layer, scale: str, shape: Shape) -> Layer:
    """``layer`` with its outputs multiplied by the tensor ``scale`` of ``shape``, one number for each output."""

    def fold(tensors: Tensors) -> Affine:
        weight, bias = layer.fold(tensors)
        factor = tensors[scale].double().flatten()
        return _by_output(factor, weight) * weight, factor * bias

    return Layer({**layer.shapes, scale: shape}, fold)


def every_second(layer: Layer, start: int) -> Layer:
    """Every second output of ``layer``, from ``start``, 0 or 1."""

    def fold(tensors: Tensors) -> Affine:
        weight, bias = layer.fold(tensors)
        return weight[start::2], bias[start::2]

    return Layer(layer.shapes, fold)


def inputs_halved(layer: Layer) -> Layer:
    """``layer`` behind maps that are sorted by ``every_second``: all even channels, then all odd ones."""

    def fold(tensors: Tensors) -> Affine:
        weight, bias = layer.fold(tensors)
        return torch.cat([weight[:, 0::2], weight[:, 1::2]], dim=1), bias

    return Layer(layer.shapes, fold)


def outputs_halved(layer: Layer) -> Layer:
    """``layer`` with all its even outputs before all odd ones."""

    def fold(tensors: Tensors) -> Affine:
        weight, bias = layer.fold(tensors)
        return torch.cat([weight[0::2], weight[1::2]]), torch.cat([bias[0::2], bias[1::2]])

    return Layer(layer.shapes, fold)


def _norm_shapes(norm: str, parts: Sequence[str], channels: int) -> dict[str, Shape]:
    return {f"{norm}.{part}": (channels,) for part in parts}


def _batch_norm(tensors: Tensors, norm: str) -> Affine:
    """g (x - m) / sqrt(v + eps) + b = f x + s for f = g / sqrt(v + eps) and s = b - f m."""
    gain, bias, mean, variance = (tensors[f"{norm}.{part}"].double() for part in STATISTICS)
    factor = gain / torch.sqrt(variance + BATCH_NORM_EPS)
    return factor, bias - factor * mean


def _by_output(factor: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return factor.reshape(-1, *[1] * (weight.ndim - 1))


def _widened(weight: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    above, left = (rows - weight.shape[2]) // 2, (columns - weight.shape[3]) // 2
    return F.pad(weight, (left, left, above, above))
