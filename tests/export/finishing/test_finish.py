"""Finishing: what is trained is what is exported, and it is nearer to the source."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from clipedge.calibration.calibrate import Calibration
from clipedge.calibration.quantize import quantize
from clipedge.calibration.sensitivity import layer_costs, layer_profiles
from clipedge.calibration.storage import cpu_session
from clipedge.errors import UsageError
from clipedge.export.finishing import check_finish, finish
from clipedge.export.finishing.layers import integer_tower
from clipedge.export.proof import source_encoder
from clipedge.selftest import centred_cosines

Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def finished(tower: Any) -> dict[str, Calibration]:
    """After a few steps, for every target."""
    torch.set_num_threads(1)
    return {
        name: finish(tower.source, tower.graph, tower.calibrations[name], scheme, 16 if name == "plain" else 2)
        for name, scheme in tower.schemes.items()
    }


def exported(tower: Any, name: str, calibration: Calibration) -> Floats:
    """The embeddings of the INT8 graph on ONNX Runtime."""
    graph = quantize(tower.graph, calibration, tower.schemes[name], tower.source.pixel_mean)
    embeds: Floats = cpu_session(graph).run(None, {"pixels": tower.pictures})[0]
    return embeds


def in_torch(tower: Any, name: str, calibration: Calibration) -> Floats:
    """The embeddings of the graph that is trained."""
    made = integer_tower(tower.graph, calibration, tower.schemes[name], tower.source.pixel_mean)
    with torch.no_grad():
        return made.graph(torch.from_numpy(tower.pictures)).numpy()


def distance(tower: Any, embeds: Floats) -> float:
    expected = source_encoder(tower.source.module)(tower.pictures)
    return float(1 - centred_cosines(expected, embeds, expected.mean(axis=0)).mean())


@pytest.mark.parametrize("name", ["x86", "arm", "tensorrt", "plain"])
@pytest.mark.parametrize("trained", [False, True], ids=["calibrated", "finished"])
def test_what_is_trained_is_what_is_exported(
    tower: Any, finished: dict[str, Calibration], name: str, trained: bool
) -> None:
    """The same integers in torch and in ONNX Runtime: they differ by what float sums round, and where a value lies on
    the edge between two integers."""
    calibration = (finished if trained else tower.calibrations)[name]
    ours, theirs = in_torch(tower, name, calibration), exported(tower, name, calibration)
    apart = float((1 - (ours * theirs).sum(axis=1)).mean())
    # That is little beside what INT8 itself does, wherever it does much.
    assert apart < max(0.05 * distance(tower, theirs), 1e-4)


def test_it_brings_the_embeddings_nearer_to_the_source(tower: Any, finished: dict[str, Calibration]) -> None:
    before, after = (
        distance(tower, exported(tower, "plain", found["plain"])) for found in (tower.calibrations, finished)
    )
    assert before > 0.1  # it has outliers, and one step for a whole weight
    assert after < 0.7 * before


def test_the_graph_holds_the_trained_integers(tower: Any, finished: dict[str, Calibration]) -> None:
    calibration = finished["plain"]
    assert calibration.finished == 16
    graph = quantize(tower.graph, calibration, tower.schemes["plain"], tower.source.pixel_mean)
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in graph.graph.initializer}
    assert set(calibration.weights) == {*calibration.layers, "embedding.patch"}
    changed = 0
    for name, (rounded, scale) in calibration.weights.items():
        np.testing.assert_array_equal(constants[f"{name}.weight"], rounded)
        used = rounded.any(axis=0)  # where there are no weights, the bias alone decides about the scale
        np.testing.assert_array_equal(constants[f"{name}.weight.scale"][used], scale[used])
        assert len(np.unique(scale)) == 1 and np.abs(rounded).max() <= 64
        changed += tower.calibrations["plain"].layers.get(name) is not None
    assert changed == len(calibration.layers)
    for name, layer in calibration.layers.items():
        assert layer.observer == "finished" and layer.limits != tower.calibrations["plain"].layers[name].limits


def test_it_is_deterministic(tower: Any, finished: dict[str, Calibration]) -> None:
    again = finish(tower.source, tower.graph, tower.calibrations["arm"], tower.schemes["arm"], 2)
    for name, (rounded, scale) in finished["arm"].weights.items():
        np.testing.assert_array_equal(again.weights[name][0], rounded)
        np.testing.assert_array_equal(again.weights[name][1], scale)


def test_layers_left_in_float_and_their_costs_know_the_trained_weights(
    tower: Any, finished: dict[str, Calibration]
) -> None:
    calibration, scheme = finished["plain"], tower.schemes["plain"]
    costs = layer_costs(tower.graph, calibration, scheme, tower.pictures[:4])
    profiles = layer_profiles("image", tower.graph, calibration)
    assert list(costs) == [profile.layer for profile in profiles] == list(calibration.layers)
    assert all(np.isfinite(cost) for cost in costs.values())
    kept = "blocks.1.fc1"
    graph = quantize(tower.graph, calibration, scheme, tower.source.pixel_mean, keep_float=[kept])
    weight = next(item for item in graph.graph.initializer if item.name == f"{kept}.weight")
    source = next(item for item in tower.graph.graph.initializer if item.name == f"{kept}.weight")
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(weight), onnx.numpy_helper.to_array(source))


def test_a_weight_of_another_model_or_target_is_refused(tower: Any, finished: dict[str, Calibration]) -> None:
    calibration = finished["arm"]  # up to 127, which x86's kernels without VNNI cannot add up
    with pytest.raises(UsageError, match=r"^the calibration has a weight \(.*\) up to \d+ for layer .* up to 64; "):
        quantize(tower.graph, calibration, tower.schemes["x86"], tower.source.pixel_mean)
    cut = replace(calibration, weights={"blocks.0.fc1": (np.ones((3, 4), np.int8), np.ones(4, np.float32))})
    with pytest.raises(UsageError, match=r"a weight \(3, 4\) up to 1 for layer blocks\.0\.fc1, expected \(128, 513\)"):
        quantize(tower.graph, cut, tower.schemes["arm"], tower.source.pixel_mean)


@pytest.mark.parametrize("count", [0, 9])
def test_too_few_inputs(tower: Any, count: int) -> None:
    source = replace(tower.source, calibration=[tower.pictures[:count]] if count else [])
    with pytest.raises(UsageError, match=rf"^--finish trains on the image tower's .* 32 or more, found {count}; give"):
        finish(source, tower.graph, tower.calibrations["x86"], tower.schemes["x86"], 3)


@pytest.mark.parametrize(
    ("steps", "precision", "quantizer", "attention", "message"),
    [
        (-1, "int8", "clipedge", False, "^--finish -1: expected a number of training steps, such as 300$"),
        (
            300,
            "fp32",
            "clipedge",
            False,
            "^--finish trains INT8 layers, found precision fp32; leave it out, or add int8$",
        ),
        (300, "int8", "modelopt", False, "found --quantizer modelopt; leave one out$"),
        (300, "int8", "clipedge", True, "found --int8-attention; leave one out$"),
    ],
)
def test_what_cannot_be_finished(steps: int, precision: Any, quantizer: str, attention: bool, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_finish(steps, [(precision, "tensorrt")], quantizer, attention)
