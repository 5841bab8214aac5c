"""Pixels in the range of half precision: the same function in float32, and weights that keep their digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from clipedge.calibration.half.convert import to_half
from clipedge.calibration.half.evaluate import HalfEvaluator
from clipedge.calibration.half.pixels import pixel_path, scaled_pixels
from clipedge.calibration.half.tensors import SMALLEST
from clipedge.selftest import centred_cosines


def weight_of(model: onnx.ModelProto) -> np.ndarray:
    """The first layer's."""
    name = pixel_path(model).layers[0].input[1]
    return next(numpy_helper.to_array(item) for item in model.graph.initializer if item.name == name)


def test_the_function_stays_but_for_the_rounding_of_the_first_weights(family: Any) -> None:
    scaled = scaled_pixels(family.model, family.pixel_mean)
    expected, found = family.embeds, family.run(scaled)
    assert centred_cosines(expected, found, expected.mean(axis=0)).min() > 0.9999
    if family.model.graph.input[0].name == "input_ids":
        assert scaled is family.model


def test_weights_are_larger_by_a_power_of_two_and_few_are_subnormal(demo: Any) -> None:
    before, after = (np.abs(weight_of(model)) for model in (demo.model, scaled_pixels(demo.model, demo.pixel_mean)))
    np.testing.assert_allclose(after, 128 * before, rtol=2**-11, atol=2**-25)
    subnormal = [((weights < SMALLEST) & (weights > 0)).mean() for weights in (before, after)]
    assert subnormal[0] > 0.05 and subnormal[1] < 0.01
    assert (after == after.astype(np.float16)).all()


def test_every_byte_is_an_exact_half(demo: Any) -> None:
    """What the first layer reads of all bytes."""
    model = to_half(scaled_pixels(demo.model, demo.pixel_mean))
    (read,) = [node.input[0] for node in model.graph.node if node.name == "embedding.patch"]
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(read))
    pixels = np.arange(64 * 64 * 3, dtype=np.uint64).astype(np.uint8).reshape(1, 64, 64, 3)
    values = onnx.reference.ReferenceEvaluator(model).run([read], {"pixels": pixels})[0]
    assert values.dtype == np.float16
    np.testing.assert_array_equal(np.unique(values.astype(np.float64)), (np.arange(256) - 128) / 128)


def test_common_brightness_costs_nothing(demo: Any) -> None:
    """On uniform pictures an error in the constant would show most: it is computed from the weights as rounded."""
    levels = np.array([0, 64, 128, 192, 255], np.uint8)
    uniform = np.broadcast_to(levels[:, None, None, None], (5, 64, 64, 3))
    pixels = np.concatenate([demo.inputs[:12], uniform])
    expected = demo.run(demo.model, pixels)
    found = HalfEvaluator(to_half(scaled_pixels(demo.model, demo.pixel_mean)))(pixels)
    assert centred_cosines(expected, found, expected.mean(axis=0)).min() > 0.999
