"""Attention in INT8: where its pairs stand, and which ranges they have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from clipedge.calibration.attention import attentions, products_with_tokens
from clipedge.calibration.cache import CalibrationCache, load_cache, save_cache
from clipedge.calibration.calibrate import Calibration, calibrate, observe_layers
from clipedge.calibration.quantize import quantize
from clipedge.calibration.rounding import SCHEMES
from clipedge.calibration.storage import cpu_session
from clipedge.export.tensorrt_rules import broken_rules
from clipedge.selftest import centred_cosines

SCHEME = SCHEMES["tensorrt"]
BLOCKS = 3  # of the demonstration model's image tower; in the fourth a token asks the others themselves

Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def calibration(demo_tower: Any) -> Calibration:
    def weigh(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        return np.ones((len(pixels), 65))

    observed = observe_layers(demo_tower.model, [demo_tower.pictures], weigh, attention=True)
    return calibrate(demo_tower.model, observed, SCHEME, attention=True)


@pytest.fixture(scope="module")
def quantized(demo_tower: Any, calibration: Calibration) -> onnx.ModelProto:
    return quantize(demo_tower.model, calibration, SCHEME, demo_tower.pixel_mean)


def test_every_attention_is_found_with_what_goes_into_it(demo_tower: Any) -> None:
    found = attentions(demo_tower.model)
    assert [item.out for item in found] == [f"blocks.{index}.attn.out" for index in range(BLOCKS)]
    first = found[0]
    parts = ("query", "key", "value")
    assert (first.query, first.key, first.value) == tuple(f"blocks.0.attn.split.{part}" for part in parts)
    assert (first.scores, first.weights, first.mixed) == tuple(
        f"blocks.0.attn.{name}" for name in ("scores", "softmax", "mixed")
    )


def test_a_mask_between_product_and_softmax_is_passed(tiny_tower: onnx.ModelProto) -> None:
    assert [item.scores for item in attentions(tiny_tower)] == [f"blocks.{index}.attn.scores" for index in range(2)]


def test_products_with_the_tokens_themselves_stay_in_float(
    tiny_tower: onnx.ModelProto, quantized: onnx.ModelProto
) -> None:
    assert products_with_tokens(tiny_tower) == ["blocks.2.attn.scores", "blocks.2.attn.mixed"]
    nodes = {node.name: node for node in quantized.graph.node}
    inputs = [name for product in products_with_tokens(quantized) for name in nodes[product].input]
    parts = ("asked", "channels", "softmax", "tokens")
    assert inputs == [f"blocks.{BLOCKS}.attn.{part}" for part in parts]


def test_both_products_read_integers_and_tensorrts_rules_are_kept(quantized: onnx.ModelProto) -> None:
    nodes = {node.name: node for node in quantized.graph.node}
    for index in range(BLOCKS):
        for product in ("scores", "mixed"):
            assert all(name.endswith(".dequantized") for name in nodes[f"blocks.{index}.attn.{product}"].input)
    assert broken_rules(quantized) == []


def test_ranges_fit_what_the_tensors_take_on(
    demo_tower: Any, calibration: Calibration, quantized: onnx.ModelProto
) -> None:
    """Symmetric ones of the least squared error: of the tensor as the quantized graph has it, none does better by a
    tenth."""
    constants = {item.name: numpy_helper.to_array(item) for item in quantized.graph.initializer}
    names = ["blocks.1.attn.softmax", "blocks.1.attn.value_per_head", "blocks.1.attn.query_per_head"]
    places = ["mixed.input0", "mixed.input1", "scores.input0"]
    values = cpu_session(quantized, names).run(names, {"pixels": demo_tower.pictures})
    for place, tensor in zip(places, values, strict=True):
        scale = float(constants[f"blocks.1.attn.{place}.scale"])

        def error(step: float, tensor: Floats = tensor) -> float:
            return float(((np.clip(np.round(tensor / step), -128, 127) * step - tensor) ** 2).mean())

        least = min(error(share * np.abs(tensor).max() / 127) for share in np.linspace(0.1, 1, 40))
        assert error(scale) < 1.1 * least


def test_a_healthy_tower_bears_it(demo_tower: Any, quantized: onnx.ModelProto) -> None:
    pixels = {"pixels": demo_tower.pictures}
    (exact,), (found,) = (cpu_session(model).run(None, pixels) for model in (demo_tower.model, quantized))
    assert np.median(centred_cosines(exact, found, exact.mean(axis=0))) > 0.99


def test_behind_attention_in_int8_no_layer_is_in_float(demo_tower: Any, calibration: Calibration) -> None:
    """Where the output layer is left in float, attention is, too: half of it would break the rules."""
    kept = quantize(demo_tower.model, calibration, SCHEME, demo_tower.pixel_mean, ["blocks.1.attn.out"])
    nodes = {node.name: node for node in kept.graph.node}
    assert list(nodes["blocks.1.attn.mixed"].input) == ["blocks.1.attn.softmax", "blocks.1.attn.value_per_head"]
    assert nodes["blocks.2.attn.mixed"].input[0].endswith(".dequantized")
    assert broken_rules(kept) == []


def test_the_ranges_come_back_from_a_cache(calibration: Calibration, tmp_path: Path) -> None:
    save_cache(tmp_path / "cache", CalibrationCache("space", "pictures", {("tensorrt", "image"): calibration}))
    (found,) = load_cache(tmp_path / "cache").calibrations.values()
    assert found.attention == calibration.attention and len(found.attention) == BLOCKS
