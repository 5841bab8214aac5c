"""Which layer costs what: against really quantizing one layer alone, and against counts made by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from clipedge.calibration.calibrate import Calibration
from clipedge.calibration.linears import linear_layers
from clipedge.calibration.observers import Range
from clipedge.calibration.quantize import quantize
from clipedge.calibration.rounding import SCHEMES
from clipedge.calibration.sensitivity import layer_costs, layer_profiles
from clipedge.calibration.storage import cpu_session
from clipedge.errors import UsageError
from clipedge.selftest import centred_cosines


@pytest.fixture(scope="module")
def costs(demo_tower: Any) -> dict[str, float]:
    return layer_costs(demo_tower.model, demo_tower.calibrations["x86"], SCHEMES["x86"], demo_tower.pictures[:16])


def test_costs_are_those_of_quantizing_each_layer_alone(demo_tower: Any, costs: dict[str, float]) -> None:
    names = [layer.name for layer in linear_layers(demo_tower.model)]
    pixels = {"pixels": demo_tower.pictures[:16]}
    (exact,) = cpu_session(demo_tower.model).run(None, pixels)
    assert list(costs) == names[1:], "all but the patch embedding, in graph order"
    for name in costs:
        others = [other for other in names if other != name]
        alone = quantize(
            demo_tower.model, demo_tower.calibrations["x86"], SCHEMES["x86"], demo_tower.pixel_mean, others
        )
        (found,) = cpu_session(alone).run(None, pixels)
        expected = 1 - centred_cosines(exact, found, exact.mean(axis=0)).mean()
        # Values between two steps may round either way, and the bias is rounded, too.
        assert costs[name] == pytest.approx(expected, rel=0.05, abs=2e-6), name


def test_a_layer_with_too_small_a_range_is_the_dearest(demo_tower: Any, costs: dict[str, float]) -> None:
    spoilt = dict(demo_tower.calibrations["x86"].layers)
    spoilt["blocks.1.fc1"] = dataclasses.replace(spoilt["blocks.1.fc1"], limits=Range(-0.1, 0.1))
    calibration = Calibration(spoilt, demo_tower.calibrations["x86"].scales)
    found = layer_costs(demo_tower.model, calibration, SCHEMES["x86"], demo_tower.pictures[:16])
    assert max(found, key=lambda name: found[name]) == "blocks.1.fc1"
    others = {name: cost for name, cost in found.items() if name != "blocks.1.fc1"}
    assert others == {name: pytest.approx(costs[name], rel=1e-3, abs=1e-7) for name in others}, "no layer leaks"


def test_a_layer_that_was_not_calibrated_is_named(demo_tower: Any) -> None:
    known = dict(demo_tower.calibrations["x86"].layers)
    del known["blocks.2.fc2"]
    with pytest.raises(UsageError, match=r"nothing for layer blocks\.2\.fc2; calibrate"):
        layer_costs(demo_tower.model, Calibration(known, {}), SCHEMES["x86"], demo_tower.pictures[:2])


def test_profiles_count_what_a_layer_computes(demo_tower: Any) -> None:
    """65 tokens of 128 numbers, perceptrons of 512; the last block computes but one query, output and perceptron, and 4
    heads for it."""
    profiles = layer_profiles("image", demo_tower.model, demo_tower.calibrations["x86"])
    block = {"attn.qkv": 65 * 128 * 384, "attn.out": 65 * 128 * 128, "fc1": 65 * 128 * 512, "fc2": 65 * 512 * 128}
    last = {
        "attn.query": 128 * 128, "attn.key": 4 * 128 * 128, "attn.value": 4 * 128 * 128, "attn.out": 128 * 128,
        "fc1": 128 * 512, "fc2": 512 * 128,
    }  # fmt: skip
    expected = {f"blocks.{i}.{part}": count for i in range(3) for part, count in block.items()}
    expected |= {f"blocks.3.{part}": count for part, count in last.items()}
    assert {profile.layer: profile.multiply_adds for profile in profiles} == expected
    sizes = {profile.layer: profile.weight_bytes for profile in profiles}
    assert (sizes["blocks.3.attn.key"], sizes["blocks.1.fc1"]) == (4 * 128 * 128, 4 * 128 * 512)
    assert all(np.isfinite(profile.snr_db) and profile.snr_db > 15 for profile in profiles)


def test_costs_of_convolutions_are_those_of_quantizing_each_alone(tiny_network: Any) -> None:
    model, calibration = tiny_network.model, tiny_network.calibrations["x86"]
    pixels = {"pixels": tiny_network.pictures[:8]}
    found = layer_costs(model, calibration, SCHEMES["x86"], pixels["pixels"])
    assert list(found) == list(calibration.layers)
    (exact,) = cpu_session(model).run(None, pixels)
    for name, cost in found.items():
        alone = quantize(model, calibration, SCHEMES["x86"], keep_float=[other for other in found if other != name])
        (embeds,) = cpu_session(alone).run(None, pixels)
        expected = 1 - centred_cosines(exact, embeds, exact.mean(axis=0)).mean()
        assert cost == pytest.approx(expected, rel=0.1, abs=1e-5), name


def test_profiles_count_what_a_convolution_computes_at_all_its_positions(tiny_network: Any) -> None:
    """64 pixels: the stem's maps are 32 or 16 wide, those of the first stage 16, of the next 8."""
    profiles = layer_profiles("image", tiny_network.model, tiny_network.calibrations["x86"])
    counts = {profile.layer: profile.multiply_adds for profile in profiles}
    if "stem.conv2" in counts:
        assert counts["stem.conv2"] == 32 * 32 * 16 * 16 * 9
        assert counts["layer1.1.conv2"] == 16 * 16 * 32 * 32 * 9
        assert counts["layer2.0.conv2"] == 16 * 16 * 64 * 64 * 9, "in front of the pool"
        assert counts["layer2.0.conv3"] == 8 * 8 * 64 * 256
    else:
        assert counts["stages.0.blocks.0.ffn.fc1"] == 16 * 16 * 16 * 48
        assert counts["stages.1.blocks.1.ffn.fc2"] == 8 * 8 * 96 * 32
        assert counts["stages.2.blocks.0.attn.qkv"] == 4 * 4 * 64 * 192
