"""Rounding against ONNX's own definition of QuantizeLinear, and the bounds that a target's kernels need."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from clipedge.calibration.observers import Range
from clipedge.calibration.rounding import (
    SCHEMES,
    activation_parameters,
    quantize_weight,
    restored_weight,
    round_trip,
)


def random_weight() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(64, 48)).astype(np.float32) * np.exp(rng.normal(size=48)).astype(np.float32)


@pytest.mark.parametrize("limit", [64, 127])
def test_weight_rounding_error_is_at_most_half_a_step_per_channel(limit: int) -> None:
    weight = random_weight()
    weight[:, 3] = 0
    rounded, scale = quantize_weight(weight, limit)
    assert rounded.dtype == np.int8 and scale.dtype == np.float32
    assert np.abs(rounded.astype(int)).max(axis=0).tolist() == [0 if i == 3 else limit for i in range(48)]
    assert (np.abs(rounded * scale - weight) <= scale / 2 * 1.0001).all()


def test_one_scale_for_a_whole_weight_is_that_of_its_largest_number() -> None:
    weight = random_weight()
    rounded, scale = quantize_weight(weight, 64, per_channel=False)
    np.testing.assert_allclose(scale, np.full(48, np.abs(weight).max() / 64), rtol=1e-6)
    assert np.abs(rounded.astype(int)).max() == 64
    assert np.abs(rounded * scale - weight).max() <= scale[0] / 2 * 1.0001
    scheme = replace(SCHEMES["x86"], per_channel=False)
    np.testing.assert_array_equal(restored_weight(weight, scheme), rounded * scale)


def test_no_pair_of_products_for_x86_overflows_16_bits() -> None:
    """What vpmaddubsw adds in 16 bits, saturating, are two products of an unsigned and a signed byte."""
    limit, largest = SCHEMES["x86"].weight_limit, np.iinfo(SCHEMES["x86"].dtype).max
    assert 2 * largest * limit <= np.iinfo(np.int16).max < 2 * largest * 127


@pytest.mark.parametrize("target", SCHEMES)
@pytest.mark.parametrize("limits", [Range(-2.5, 3.5), Range(0, 6), Range(-5, 0), Range(0, 0), Range(-1e-3, 300)])
def test_round_trip_is_what_the_standard_says(target: str, limits: Range) -> None:
    scheme = SCHEMES[target]
    values = np.random.default_rng(1).normal(0, 3, (50, 8)).astype(np.float32)
    scale, zero_point = activation_parameters(limits, scheme)
    assert scale.dtype == np.float32 and scale > 0 and zero_point.dtype == scheme.dtype
    inputs = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [50, 8])]
    outputs = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [50, 8])]
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        onnx.helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    constants = [
        onnx.numpy_helper.from_array(np.asarray(value), name)
        for name, value in (("scale", scale), ("zero", zero_point))
    ]
    graph = onnx.helper.make_graph(nodes, "pair", inputs, outputs, constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=10)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": values})
    np.testing.assert_allclose(round_trip(values, limits, scheme), expected, atol=1e-6)


@pytest.mark.parametrize("target", SCHEMES)
def test_zero_is_exact_and_the_range_is_used_whole(target: str) -> None:
    scheme, limits = SCHEMES[target], Range(-1.25, 3.0)
    assert round_trip(np.zeros(1, np.float32), limits, scheme) == 0
    ends = round_trip(np.float32([limits.low, limits.high, 100]), limits, scheme)
    step = activation_parameters(limits, scheme)[0]
    np.testing.assert_allclose(ends, [-1.25, 3, 3], atol=0.51 * float(step))


def test_restored_weight_has_as_many_levels_as_the_target() -> None:
    weight = np.linspace(-1, 1, 2001, dtype=np.float32)[:, None]
    for scheme in SCHEMES.values():
        assert len(np.unique(restored_weight(weight, scheme))) == 2 * scheme.weight_limit + 1
