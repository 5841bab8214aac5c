"""Smoothing: scales go where they cost nothing, and the float graph's function stays what it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from clipedge.calibration.equalize import Smoothing, fold_scales, smoothing_places, smoothing_scale
from clipedge.calibration.layers import calibrated_layers
from clipedge.calibration.linears import constants_of, linear_layers
from clipedge.calibration.observe import observe
from clipedge.calibration.pointwise import pointwise_as_linear
from clipedge.calibration.storage import cpu_session


def places_of(model: onnx.ModelProto) -> list[Smoothing]:
    return smoothing_places(model, linear_layers(model), constants_of(model))


def folded(model: onnx.ModelProto, scales: dict[str, npt.NDArray[np.float32]]) -> onnx.ModelProto:
    constants = constants_of(model)
    fold_scales(constants, places_of(model), scales)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.initializer[:]
    result.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return result


def random_scales(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    return {place.name: np.exp(rng.normal(0, 2, place.channels)).astype(np.float32) for place in places_of(model)}


def test_every_norm_and_attention_of_a_tower_is_a_place(tiny_tower: onnx.ModelProto) -> None:
    """Not the norm of the embedding, which the residual stream reads, nor the last, behind which nothing is in INT8."""
    places = {place.name: place for place in places_of(tiny_tower)}
    assert set(places) == {f"blocks.{i}.{part}" for i in range(3) for part in ("norm1", "norm2", "attn.out")}
    readers = {name: {layer.name for layer in place.layers} for name, place in places.items()}
    assert readers["blocks.1.norm1"] == {"blocks.1.attn.qkv"} and readers["blocks.1.norm2"] == {"blocks.1.fc1"}
    assert readers["blocks.1.attn.out"] == {"blocks.1.attn.out"}
    last = {"blocks.2.attn.query", "blocks.2.attn.value"}
    assert readers["blocks.2.norm1"] == last, "through the gathered row and the mixtures"
    assert places["blocks.2.norm1"].partners == ("blocks.2.attn.key.weight",), "what the tokens are multiplied with"
    assert all(not place.partners for name, place in places.items() if name != "blocks.2.norm1")
    assert "blocks.1.attn.qkv.weight" in places["blocks.1.attn.out"].producers
    assert "blocks.2.attn.value.weight" in places["blocks.2.attn.out"].producers


def test_a_norm_that_something_else_reads_is_no_place(tiny_tower: onnx.ModelProto) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(tiny_tower)
    model.graph.node.append(onnx.helper.make_node("Relu", ["blocks.0.norm2"], ["spy"]))
    assert {place.name for place in places_of(tiny_tower)} - {place.name for place in places_of(model)} == {
        "blocks.0.norm2"
    }


@pytest.mark.parametrize("tensor", ["channels", "asked", "mixtures", "key"])
def test_a_norm_whose_products_something_else_reads_is_no_place(tiny_tower: onnx.ModelProto, tensor: str) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(tiny_tower)
    model.graph.node.append(onnx.helper.make_node("Relu", [f"blocks.2.attn.{tensor}"], ["spy"]))
    assert {place.name for place in places_of(tiny_tower)} - {place.name for place in places_of(model)} == {
        "blocks.2.norm1"
    }


def test_folding_divides_the_activations_and_changes_no_answer(
    tiny_tower: onnx.ModelProto, tiny_inputs: dict[str, npt.NDArray[np.generic]]
) -> None:
    scales = random_scales(tiny_tower)
    changed = folded(tiny_tower, scales)
    (expected,), (found,) = (cpu_session(model).run(None, tiny_inputs) for model in (tiny_tower, changed))
    np.testing.assert_allclose(found, expected, atol=2e-6)
    (inputs,) = tiny_inputs.values()
    layers = {layer.name: layer.activation for place in places_of(tiny_tower) for layer in place.layers}
    before, after = (
        observe(model, list(layers.values()), [inputs], lambda batch: np.ones((len(batch), _tokens(tiny_tower))))
        for model in (tiny_tower, changed)
    )
    for place in places_of(tiny_tower):
        for layer in place.layers:
            expected_high = before[layer.activation].high / scales[place.name]
            np.testing.assert_allclose(after[layer.activation].high, expected_high, rtol=1e-3, atol=1e-5)


def test_convolutions_in_front_of_linear_layers_are_places(tiny_network: Any) -> None:
    """With and without a ReLU between them, and not where a GELU or a pool is."""
    model = pointwise_as_linear(tiny_network.model)
    layers = calibrated_layers(model)
    places = {place.name for place in smoothing_places(model, layers, constants_of(model))}
    if any(layer.name == "stem.conv2" for layer in layers):
        assert places == {"layer1.0.conv2", "layer1.1.conv2"}
    else:
        ffns = {f"stages.{stage}.blocks.{block}.ffn.conv" for stage, block in ((0, 0), (1, 0), (1, 1), (2, 0))}
        assert places == ffns | {"stages.2.blocks.0.attn.out"}
    folded_model = folded(model, random_scales(model))
    pixels = {"pixels": tiny_network.pictures[:4]}
    (expected,), (found,) = (cpu_session(graph).run(None, pixels) for graph in (model, folded_model))
    np.testing.assert_allclose(found, expected, atol=5e-6)


def _tokens(model: onnx.ModelProto) -> int:
    return 10 if model.graph.input[0].name == "pixels" else 9


def test_folding_changes_no_answer_of_the_demonstration_model(demo_tower: Any) -> None:
    changed = folded(demo_tower.model, random_scales(demo_tower.model))
    pixels = {"pixels": demo_tower.pictures[:16]}
    (expected,), (found,) = (cpu_session(model).run(None, pixels) for model in (demo_tower.model, changed))
    np.testing.assert_allclose(found, expected, atol=5e-6)


def test_folding_leaves_the_callers_model_and_other_places_alone(tiny_tower: onnx.ModelProto) -> None:
    before = tiny_tower.SerializeToString()
    scales = random_scales(tiny_tower)
    only = {"blocks.0.norm1": scales["blocks.0.norm1"]}
    changed = constants_of(folded(tiny_tower, only))
    different = {name for name, value in constants_of(tiny_tower).items() if not np.array_equal(value, changed[name])}
    assert different == {"blocks.0.norm1.weight", "blocks.0.norm1.bias", "blocks.0.attn.qkv.weight"} & set(changed)
    assert tiny_tower.SerializeToString() == before


@pytest.mark.parametrize("strength", [0.3, 0.5, 0.8])
def test_the_scale_is_smoothquants_with_a_geometric_mean_of_one(strength: float) -> None:
    rng = np.random.default_rng(0)
    largest = np.exp(rng.normal(0, 2, 12)).astype(np.float32)
    weights = [rng.normal(size=(12, 5)).astype(np.float32) * 3, rng.normal(size=(12, 7)).astype(np.float32)]
    scale = smoothing_scale(largest, weights, strength)
    both = np.abs(np.concatenate(weights, axis=1)).max(axis=1)
    expected = largest**strength / both ** (1 - strength)
    np.testing.assert_allclose(scale / scale[0], expected / expected[0], rtol=1e-5)
    assert np.log(scale).mean() == pytest.approx(0, abs=1e-6)


def test_dead_channels_keep_their_scale() -> None:
    weight = np.ones((4, 3), np.float32)
    weight[1] = 0
    scale = smoothing_scale(np.float32([0, 5, 2, 8]), [weight], 0.5)
    assert scale[:2].tolist() == [1, 1] and scale[3] / scale[2] == pytest.approx(2)
    assert smoothing_scale(np.zeros(4, np.float32), [weight], 0.5).tolist() == [1] * 4
