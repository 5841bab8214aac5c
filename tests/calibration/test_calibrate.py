"""Calibration decides by a layer's own output: judged here by running the quantized graph on data it has not seen."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper, numpy_helper

from clipedge.calibration.calibrate import Calibration, calibrate, minmax_calibration, observe_layers
from clipedge.calibration.observers import Range
from clipedge.calibration.quantize import quantize
from clipedge.calibration.rounding import SCHEMES
from clipedge.calibration.storage import cpu_session
from clipedge.selftest import centred_cosines

Floats = npt.NDArray[np.float32]
CHANNELS, OUTPUTS = 64, 256


def normed_model(gain: Floats, offset: Floats, seed: int = 0) -> onnx.ModelProto:
    """x (rows, 64) -> LayerNormalization -> linear layer fc -> y (rows, 256)."""
    rng = np.random.default_rng(seed)
    constants = {
        "norm.weight": gain,
        "norm.bias": offset,
        "fc.weight": (rng.normal(size=(CHANNELS, OUTPUTS)) / 8).astype(np.float32),
        "fc.bias": rng.normal(size=OUTPUTS).astype(np.float32),
    }
    nodes = [
        helper.make_node("LayerNormalization", ["x", "norm.weight", "norm.bias"], ["norm"], name="norm", axis=-1),
        helper.make_node("MatMul", ["norm", "fc.weight"], ["fc"], name="fc"),
        helper.make_node("Add", ["fc", "fc.bias"], ["y"], name="fc.add"),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["rows", CHANNELS])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["rows", OUTPUTS])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


def rows(count: int, seed: int) -> Floats:
    return np.random.default_rng(seed).normal(size=(count, CHANNELS)).astype(np.float32)


def calibrations(model: onnx.ModelProto, target: str) -> tuple[Calibration, Calibration]:
    """(searched, plain min-max)"""
    observed = observe_layers(model, np.array_split(rows(2000, 1), 20), lambda x: np.ones((len(x), 1)))
    return calibrate(model, observed, SCHEMES[target]), minmax_calibration(model, observed)


def errors(model: onnx.ModelProto, calibration: Calibration, target: str) -> Floats:
    """Of the quantized graph's output, on rows that were not calibrated on: (rows, OUTPUTS)."""
    fresh = {"x": rows(1000, 2)}
    quantized = quantize(model, calibration, SCHEMES[target])
    result: Floats = cpu_session(quantized).run(None, fresh)[0] - cpu_session(model).run(None, fresh)[0]
    return result


def test_without_smoothing_all_channels_stay_as_large_as_they_are() -> None:
    model = normed_model(outlier_gain(300.0), np.zeros(CHANNELS, np.float32))
    observed = observe_layers(model, [rows(200, 1)], lambda x: np.ones((len(x), 1)))
    smoothed, plain = (calibrate(model, observed, SCHEMES["x86"], smoothing=choice) for choice in (True, False))
    assert smoothed.scales and not plain.scales
    assert [found.layers["fc"].strength > 0 for found in (smoothed, plain)] == [True, False]
    assert plain.layers["fc"].limits.high > 10 * smoothed.layers["fc"].limits.high


def outlier_gain(factor: float) -> Floats:
    gain = np.ones(CHANNELS, np.float32)
    gain[[3, 17, 40]] = factor
    return gain


@pytest.mark.parametrize("target", SCHEMES)
@pytest.mark.parametrize("factor", [1.0, 10.0, 300.0])
def test_the_output_has_no_more_noise_than_with_plain_minmax(target: str, factor: float) -> None:
    """Outlier channels whose weights are as much smaller, as trained norms have them."""
    model = normed_model(outlier_gain(factor), np.zeros(CHANNELS, np.float32))
    weight = numpy_helper.to_array(model.graph.initializer[2]) / outlier_gain(factor)[:, None]
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(weight.astype(np.float32), "fc.weight"))
    searched, plain = calibrations(model, target)
    noise, plain_noise = (float((errors(model, found, target) ** 2).mean()) for found in (searched, plain))
    assert noise <= 1.1 * plain_noise  # not 1: these are other rows than those that were judged
    if factor > 1:
        assert searched.scales.keys() == {"norm"} and searched.layers["fc"].strength > 0
        assert noise < plain_noise / factor


@pytest.mark.parametrize("target", SCHEMES)
def test_the_noise_that_is_named_is_the_noise_that_is_found(target: str) -> None:
    model = normed_model(outlier_gain(10.0), np.zeros(CHANNELS, np.float32))
    searched, _ = calibrations(model, target)
    expected = cpu_session(model).run(None, {"x": rows(1000, 2)})[0]
    noise = errors(model, searched, target).var(axis=0).sum()
    # On fresh rows a little more is clipped than on those that the range was chosen by.
    found = 10 * np.log10(expected.var(axis=0).sum() / noise)
    assert found - 1 < searched.layers["fc"].snr_db < found + 4


@pytest.mark.parametrize("target", SCHEMES)
def test_a_constant_channel_spends_no_steps_and_its_error_is_corrected(target: str) -> None:
    gain, offset = outlier_gain(1.0), np.zeros(CHANNELS, np.float32)
    gain[9], offset[9] = 0, 300
    model = normed_model(gain, offset)
    searched, plain = calibrations(model, target)
    constant = 300 / searched.scales["norm"][9] if searched.scales else 300
    assert searched.layers["fc"].limits.high < 0.5 * constant, "the channel is clipped"
    found, worse = (errors(model, calibration, target) for calibration in (searched, plain))
    assert np.abs(found.mean(axis=0)).max() < 0.05
    assert (found**2).mean() < (worse**2).mean() / 100


def test_only_mean_errors_that_stand_out_from_their_noise_are_corrected() -> None:
    """Around zero, rounding errs to both sides alike. Away from it the rounded weights err to one side."""
    centred = normed_model(outlier_gain(1.0), np.zeros(CHANNELS, np.float32))
    found, _ = calibrations(centred, "x86")
    assert (found.layers["fc"].shift == 0).mean() > 0.95
    moved = normed_model(outlier_gain(1.0), np.full(CHANNELS, 2, np.float32))
    searched, _ = calibrations(moved, "x86")
    assert (searched.layers["fc"].shift != 0).mean() > 0.5
    uncorrected = dataclasses.replace(searched.layers["fc"], shift=np.zeros(1, np.float32))
    means = [
        np.abs(errors(moved, calibration, "x86").mean(axis=0)).mean()
        for calibration in (searched, Calibration({"fc": uncorrected}, searched.scales))
    ]
    assert means[0] < means[1] / 3


def test_the_same_observations_give_the_same_calibration_and_stay_as_they_are() -> None:
    model = normed_model(outlier_gain(10.0), np.zeros(CHANNELS, np.float32))
    before = model.SerializeToString()
    observed = observe_layers(model, [rows(600, 1)], lambda x: np.ones((len(x), 1)))
    sample = observed["norm"].rows.copy()
    graphs = [quantize(model, calibrate(model, observed, SCHEMES["x86"]), SCHEMES["x86"]) for _ in range(2)]
    assert graphs[0].SerializeToString(deterministic=True) == graphs[1].SerializeToString(deterministic=True)
    assert model.SerializeToString() == before
    np.testing.assert_array_equal(observed["norm"].rows, sample)


@pytest.mark.parametrize("target", SCHEMES)
def test_a_healthy_tower_loses_next_to_nothing(demo_tower: Any, target: str) -> None:
    """Here plain min-max does well, too, and the search has little to win; it must not lose."""
    model, pixels = demo_tower.model, {"pixels": demo_tower.pictures}
    (exact,) = cpu_session(model).run(None, pixels)
    losses = []
    for calibration in (demo_tower.calibrations[target], minmax_calibration(model, demo_tower.observed)):
        (found,) = cpu_session(quantize(model, calibration, SCHEMES[target], demo_tower.pixel_mean)).run(None, pixels)
        losses.append(1 - np.median(centred_cosines(exact, found, exact.mean(axis=0))))
    assert losses[0] < 0.0005
    assert losses[0] < 1.5 * losses[1]


def test_minmax_calibration_takes_what_was_seen_and_nothing_else(demo_tower: Any) -> None:
    plain = minmax_calibration(demo_tower.model, demo_tower.observed)
    seen = demo_tower.observed["blocks.1.norm1"]
    limits = plain.layers["blocks.1.attn.qkv"].limits
    assert (limits.low, limits.high) == (seen.low.min(), seen.high.max())
    assert not plain.scales and not any(layer.shift.any() for layer in plain.layers.values())


@pytest.mark.parametrize("target", SCHEMES)
def test_a_network_loses_little_and_less_than_with_the_worst_of_ranges(tiny_network: Any, target: str) -> None:
    model, pixels = tiny_network.model, {"pixels": tiny_network.pictures}
    calibration = tiny_network.calibrations[target]
    (exact,), (found,) = (
        cpu_session(graph).run(None, pixels) for graph in (model, quantize(model, calibration, SCHEMES[target]))
    )
    median = np.median(centred_cosines(exact, found, exact.mean(axis=0)))
    assert median > 0.98
    narrow = {
        name: dataclasses.replace(layer, limits=Range(layer.limits.low / 4, layer.limits.high / 4))
        for name, layer in calibration.layers.items()
    }
    spoilt = quantize(model, Calibration(narrow, calibration.scales), SCHEMES[target])
    (found,) = cpu_session(spoilt).run(None, pixels)
    assert np.median(centred_cosines(exact, found, exact.mean(axis=0))) < median - 0.05
