"""Rounding with gradients: its values are INT8's, its gradients those of the paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from clipedge.calibration.observers import Range
from clipedge.calibration.rounding import SCHEMES, activation_parameters, quantize_weight, round_trip
from clipedge.export.finishing.rounding import Rounding, rounding_of_range, rounding_of_weight

RANGES = (Range(-1.5, 2.5), Range(0.0, 3.0), Range(-2.0, 0.0), Range(0.0, 0.0))


@pytest.mark.parametrize("target", SCHEMES)
@pytest.mark.parametrize("limits", RANGES, ids=str)
def test_activations_are_rounded_as_the_target_does(limits: Range, target: str) -> None:
    values = np.linspace(-4, 4, 1001, dtype=np.float32)
    found = rounding_of_range(limits, SCHEMES[target])(torch.from_numpy(values)).detach().numpy()
    expected = round_trip(values, limits, SCHEMES[target])
    step, _ = activation_parameters(limits, SCHEMES[target])
    # exp(log(step)) may be the next float: a value on the edge between two integers then falls to the other side.
    differs = np.abs(found - expected) > 1e-5
    assert differs.mean() < 0.01
    assert np.abs(found - expected).max() < 1.01 * step


@pytest.mark.parametrize("target", SCHEMES)
@pytest.mark.parametrize("limits", RANGES[:3], ids=str)
def test_limits_give_the_same_step_and_zero_point(limits: Range, target: str) -> None:
    _, zero_point = activation_parameters(limits, SCHEMES[target])
    for learned in (0.37, 1.0, 2.11):
        rounding = rounding_of_range(limits, SCHEMES[target])
        with torch.no_grad():
            rounding.log_step.add_(np.log(learned))
        step, found = activation_parameters(rounding.limits(), SCHEMES[target])
        assert step == rounding.steps() and found == zero_point and found.dtype == zero_point.dtype


def test_the_gradients_are_those_of_learned_step_size_quantization() -> None:
    """Esser et al. 2020, equations 3 and 5, in float64."""
    values = np.linspace(-3, 3, 61) + 0.013
    step, low, high = 0.3, -5, 7
    rounding = Rounding(torch.tensor(np.log(step), requires_grad=True), low, high)
    inputs = torch.tensor(values, requires_grad=True)
    upstream = np.random.default_rng(0).normal(size=len(values))
    (rounding(inputs) * torch.from_numpy(upstream)).sum().backward()
    scaled = values / step
    inside = (scaled > low) & (scaled < high)
    to_step = np.where(inside, np.round(scaled) - scaled, np.clip(scaled, low, high))
    assert inputs.grad is not None and rounding.log_step.grad is not None
    np.testing.assert_allclose(inputs.grad.numpy(), upstream * inside)
    # The chain rule for the logarithm: d step / d log step = step.
    np.testing.assert_allclose(float(rounding.log_step.grad), (upstream * to_step).sum() * step)


@pytest.mark.parametrize("name", ["x86", "arm", "plain"])
def test_weights_begin_as_they_are_rounded_without_training(name: str, tower: Any) -> None:
    scheme = tower.schemes[name]
    weight = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32) * [1, 0.1, 3, 1, 10]
    weight = weight.astype(np.float32)
    expected, scale = quantize_weight(weight, scheme.weight_limit, scheme.per_channel)
    rounding = rounding_of_weight(scale, scheme)
    assert rounding.log_step.shape == ((5,) if scheme.per_channel else (1,))
    differs = rounding.integers(torch.from_numpy(weight)) != expected
    assert differs.mean() < 0.02
    np.testing.assert_allclose(np.broadcast_to(rounding.steps(), scale.shape), scale, rtol=1e-6)
