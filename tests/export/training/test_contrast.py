"""CLIP's loss against plain float64 sums, and the limits of its temperature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clipedge.export.training.contrast import clamp_log_scale, infonce

N, D, SCALE = 6, 5, 7.0
Floats = NDArray[np.float64]


def unit(seed: int) -> Floats:
    values = np.random.default_rng(seed).normal(size=(N, D))
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


FIRST, SECOND = unit(0), unit(1)


@pytest.mark.parametrize("equal", [(), ((1, 4), (4, 1))], ids=["all", "equal-captions"])
def test_the_loss_equals_a_float64_reference(equal: tuple[tuple[int, int], ...]) -> None:
    same = torch.zeros((N, N), dtype=torch.bool)
    for place in equal:
        same[place] = True
    losses = []
    for anchors, others in ((FIRST, SECOND), (SECOND, FIRST)):
        for row in range(N):
            powers = {
                place: math.exp(SCALE * math.fsum(anchors[row] * others[place]))
                for place in range(N)
                if (row, place) not in equal
            }
            losses.append(-math.log(powers[row] / math.fsum(powers.values())))
    found = infonce(torch.from_numpy(FIRST), torch.from_numpy(SECOND), SCALE, same)
    assert float(found) == pytest.approx(math.fsum(losses) / len(losses), abs=1e-12)


@pytest.mark.parametrize(("before", "after"), [(9.0, math.log(100)), (-1.0, 0.0), (2.0, 2.0)])
def test_the_temperature_is_clamped_and_can_come_back(before: float, after: float) -> None:
    log_scale = torch.nn.Parameter(torch.tensor(before, dtype=torch.float64))
    clamp_log_scale(log_scale)
    assert log_scale.item() == after
    infonce(torch.from_numpy(FIRST), torch.from_numpy(SECOND), log_scale.exp()).backward()
    assert log_scale.grad is not None and float(log_scale.grad) != 0  # no gradient is cut off at the limit
