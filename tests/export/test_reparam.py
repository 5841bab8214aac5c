"""Folded layers against the modules that they fold, as torch computes them in float64."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clipedge.export.checkpoints.mobileclip.reparam import (
    Layer,
    added,
    as_linear,
    behind_norm,
    canonical,
    convolution,
    every_second,
    identity,
    inputs_halved,
    normalised,
    outputs_halved,
    scaled,
    subtracted,
    transposed,
)

EXACT = 1e-12


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    """Tensors as a file has them, by the modules that they are of."""
    torch.manual_seed(0)
    modules = nn.ModuleDict(
        {
            "large": nn.Conv2d(6, 6, 7, padding=3, groups=6, bias=False),
            "small": nn.Conv2d(6, 6, 3, padding=1, groups=6),
            "point": nn.Conv2d(6, 6, 1, groups=6, bias=False),
            "dense": nn.Conv2d(6, 8, 1),
            "linear": nn.Linear(6, 10),
            "norm": nn.BatchNorm2d(6),
            "norm2": nn.BatchNorm2d(6),
            "layer_norm": nn.LayerNorm(6),
        }
    ).double()
    state = {name: torch.randn_like(value) for name, value in modules.state_dict().items() if value.is_floating_point()}
    state |= {name: value.exp() for name, value in state.items() if name.endswith("running_var")}
    return state | {"scale": torch.randn(6, 1, 1).double()}


@pytest.fixture
def maps() -> torch.Tensor:
    return torch.randn(2, 6, 9, 9, generator=torch.Generator().manual_seed(1)).double()


def batch_norm(tensors: Mapping[str, torch.Tensor], name: str, maps: torch.Tensor) -> torch.Tensor:
    parts = (tensors[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(maps, *parts, eps=1e-5)


def conv(tensors: Mapping[str, torch.Tensor], name: str, maps: torch.Tensor) -> torch.Tensor:
    weight = tensors[f"{name}.weight"]
    return F.conv2d(maps, weight, tensors.get(f"{name}.bias"), padding=weight.shape[-1] // 2, groups=6)


def apply(layer: Layer, tensors: Mapping[str, torch.Tensor], maps: torch.Tensor) -> torch.Tensor:
    """What the folded layer makes of maps. It asks for no tensor beyond those it names."""
    weight, bias = layer.fold({name: tensors[name] for name in layer.shapes})
    assert all(tuple(tensors[name].shape) == shape for name, shape in layer.shapes.items())
    return F.conv2d(maps, weight, bias, padding=weight.shape[-1] // 2, groups=6 // weight.shape[1])


def test_branches_with_their_norms_and_a_scale(tensors: dict[str, torch.Tensor], maps: torch.Tensor) -> None:
    """Kernels of three sizes, a skip connection, and a difference that is scaled and added to the input: RepMixer."""
    large = normalised(convolution("large", (6, 1, 7, 7), bias=False), "norm", 6)
    small = convolution("small", (6, 1, 3, 3))
    point = convolution("point", (6, 1, 1, 1), bias=False)
    skip = normalised(identity(6, (3, 3)), "norm2", 6)
    layer = added(identity(6, (3, 3)), scaled(subtracted(added(large, small, point), skip), "scale", (6, 1, 1)))
    branches = batch_norm(tensors, "norm", conv(tensors, "large", maps)) + conv(tensors, "small", maps)
    branches = branches + conv(tensors, "point", maps) - batch_norm(tensors, "norm2", maps)
    expected = maps + tensors["scale"] * branches
    torch.testing.assert_close(apply(layer, tensors, maps), expected, rtol=0, atol=EXACT * 100)


@pytest.mark.parametrize("group", [1, 3, 6])
def test_an_identity_changes_nothing(maps: torch.Tensor, group: int) -> None:
    torch.testing.assert_close(apply(identity(6, (5, 5), group), {}, maps), maps, rtol=0, atol=0)


@pytest.mark.parametrize("batch", [True, False])
def test_a_norm_in_front_of_a_linear_layer(tensors: dict[str, torch.Tensor], batch: bool) -> None:
    """Of a LayerNorm gain and bias only; the rest depends on the token."""
    rows = torch.randn(5, 6).double()
    name = "norm" if batch else "layer_norm"
    weight, bias = behind_norm(convolution("linear", (10, 6)), name, 6, batch).fold(tensors)
    normed = batch_norm(tensors, name, rows) if batch else rows * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]
    expected = F.linear(normed, tensors["linear.weight"], tensors["linear.bias"])
    torch.testing.assert_close(F.linear(rows, weight, bias), expected, rtol=0, atol=EXACT * 10)


def test_sorted_channels_give_the_same(tensors: dict[str, torch.Tensor], maps: torch.Tensor) -> None:
    dense = convolution("dense", (8, 6, 1, 1))
    expected = apply(dense, tensors, maps)
    halves = torch.cat([apply(every_second(dense, start), tensors, maps) for start in (0, 1)], dim=1)
    torch.testing.assert_close(halves, apply(outputs_halved(dense), tensors, maps), rtol=0, atol=0)
    torch.testing.assert_close(halves[:, [0, 4, 1, 5, 2, 6, 3, 7]], expected, rtol=0, atol=EXACT)
    evens_first = torch.cat([maps[:, 0::2], maps[:, 1::2]], dim=1)
    found = apply(inputs_halved(dense), tensors, evens_first)
    torch.testing.assert_close(found, expected, rtol=0, atol=EXACT)


def test_other_forms_of_a_linear_layer(tensors: dict[str, torch.Tensor]) -> None:
    weight, bias = as_linear(convolution("dense", (8, 6, 1, 1))).fold(tensors)
    assert (weight.shape, bias.shape) == ((8, 6), (8,))
    weight, bias = transposed("linear.weight", (10, 6)).fold(tensors)
    torch.testing.assert_close(weight, tensors["linear.weight"].T)
    assert bias.shape == (6,)
    assert not bias.any()


def test_weights_are_rounded_once(tensors: dict[str, torch.Tensor]) -> None:
    layer = normalised(convolution("large", (6, 1, 7, 7), bias=False), "norm", 6)
    weights = canonical({"conv": layer}, tensors)
    assert weights.keys() == {"conv.weight", "conv.bias"}
    torch.testing.assert_close(weights["conv.weight"], layer.fold(tensors)[0].to(torch.float32), rtol=0, atol=0)
