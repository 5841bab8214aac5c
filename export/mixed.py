"""Mixed precision: leave as few layers in float as the proof needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from clipedge.calibration.sensitivity import LayerProfile

__all__ = ["MAX_FLOAT_SHARE", "dearest_layers", "fewest"]

# With more of the multiply-adds in float than this, INT8 is not worth its name: the export fails instead.
MAX_FLOAT_SHARE = 0.5


def dearest_layers(profiles: Sequence[LayerProfile]) -> list[LayerProfile]:
    """The layers that may be left in float, dearest first: those that cost the embedding most in INT8, as many as
    hold ``MAX_FLOAT_SHARE`` of all multiply-adds."""
    total = sum(profile.multiply_adds for profile in profiles)
    dearest: list[LayerProfile] = []
    for profile in sorted(profiles, key=_cost, reverse=True):
        if sum(item.multiply_adds for item in [*dearest, profile]) > MAX_FLOAT_SHARE * total:
            break
        dearest.append(profile)
    return dearest


def _cost(profile: LayerProfile) -> float:
    """A layer that makes the embeddings NaN costs more than any other."""
    cost = profile.cost or 0.0
    return math.inf if math.isnan(cost) else cost


def fewest(passes: Callable[[int], bool], most: int) -> int | None:
    """The least count from 0 to ``most`` that passes, None if none does; what passes is taken to pass with more, too.

    Doubling and then halving, so that few counts are tried: each is a proof of its own.
    """
    if passes(0):
        return 0
    failing, count = 0, min(1, most)
    while count > failing and not passes(count):
        failing, count = count, min(2 * count, most)
    if count == failing:
        return None
    while count - failing > 1:
        middle = (failing + count) // 2
        if passes(middle):
            count = middle
        else:
            failing = middle
    return count
