"""Mixed precision: few tries, as few layers in float as pass, and never more than half of the work."""

from __future__ import annotations

import math

import pytest

from clipedge.calibration.sensitivity import LayerProfile
from clipedge.export.mixed import MAX_FLOAT_SHARE, dearest_layers, fewest


@pytest.mark.parametrize("most", [0, 1, 2, 3, 5, 8, 20])
def test_fewest_finds_every_threshold_in_few_tries(most: int) -> None:
    for threshold in [*range(most + 1), None]:
        tried: list[int] = []

        def passes(count: int, threshold: int | None = threshold, tried: list[int] = tried) -> bool:
            tried.append(count)
            return threshold is not None and count >= threshold

        assert fewest(passes, most) == threshold
        assert len(tried) == len({*tried}), "nothing is tried twice"
        assert all(0 <= count <= most for count in tried)
        assert len(tried) <= 2 + 2 * math.log2(most + 1)
        if threshold in (0, 1):
            assert len(tried) <= threshold + 1, "the usual cases cost nothing"


def profile(name: str, cost: float | None, multiply_adds: int) -> LayerProfile:
    return LayerProfile("image", name, 30.0, multiply_adds, 4 * multiply_adds, cost)


def test_the_dearest_layers_come_first_up_to_half_of_the_work() -> None:
    profiles = [
        profile("cheap", 0.001, 40),
        profile("dear", 0.3, 30),
        profile("mid", 0.02, 20),
        profile("low", 0.01, 10),
    ]
    assert [item.layer for item in dearest_layers(profiles)] == ["dear", "mid"]
    assert sum(item.multiply_adds for item in dearest_layers(profiles)) <= MAX_FLOAT_SHARE * 100


def test_a_layer_that_spoils_everything_is_the_dearest() -> None:
    profiles = [
        profile("dear", 0.9, 10),
        profile("broken", math.nan, 10),
        profile("mid", 0.1, 10),
        profile("low", 0, 10),
    ]
    for order in (profiles, profiles[::-1]):
        assert [item.layer for item in dearest_layers(order)] == ["broken", "dear"]


def test_no_layer_may_be_left_in_float_if_the_dearest_is_more_than_half() -> None:
    assert dearest_layers([profile("all", 0.9, 60), profile("rest", 0.1, 40)]) == []
    assert dearest_layers([]) == []
